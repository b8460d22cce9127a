"""What corruptions make of the images of a data set, as one picture."""

from pathlib import Path

from deltaball.base.errors import InputError
from deltaball.data import datasets
from deltaball.figures import contact_sheet, style
from deltaball.local.corruptions.corrupted import as_bytes, corrupted
from deltaball.study.corruptions import CORRUPTIONS, SEVERITIES

IMAGES = 8
FORMATS = (".png", ".svg", ".pdf")


def draw(name: str, folder: Path, output: Path | None) -> Path:
    """Draw the first test images of data set `name` under every corruption. Returns where the picture is.

    Raises InputError when the data cannot be had, or its images cannot be corrupted, or the file is no picture.
    """
    output = output or Path(f"{name}-corruptions.png")
    if output.suffix not in FORMATS:
        raise InputError(f"--output {output}: a picture is a {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    images = as_bytes(datasets.load(name, folder).x_test[:IMAGES])
    rows = {}
    for entry in CORRUPTIONS.values():
        severities = [] if entry.severity is None else SEVERITIES
        rows[entry.title] = contact_sheet.Row(
            corrupted(entry.name, images, range(len(images))),
            [corrupted(entry.name, images[:1], [0], severity)[0] for severity in severities],
            entry.severity,
        )
    style.use()
    contact_sheet.draw(rows, output)
    return output
