"""What `deltaball measure-file` is told. Light: options are listed before torch is there."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from deltaball.base.errors import InputError
from deltaball.study.judges import judges_by_key, settings_takers
from deltaball.study.neighbourhoods import NORMS
from deltaball.study.notions import FAMILIES

if TYPE_CHECKING:
    from deltaball.exchange.conventions import Convention
    from deltaball.run.measured_file import Request

# Options that are keys of a study's measure of every notion, beside the settings of judges.
KEYS = ("notion", "norm", "delta", "attack", "certificate")
# Those of some notions, each with the first notion that takes it.
OWN_KEYS = {key: name for name, (notion, *_) in reversed(FAMILIES.items()) for key in notion.keys if key not in KEYS}


def add(parser: ArgumentParser) -> None:
    """Add the options to a parser."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .keras, .onnx or .safetensors file")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="whose test points it is measured on")
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="FOLDER", help="of NAME.npz; default: data")
    parser.add_argument(
        "--delta", nargs="+", type=_number, required=True, help="radii of the ball, such as 0.1 or 8/255"
    )
    parser.add_argument("--norm", nargs="+", default=["linf"], choices=tuple(NORMS), help="default: linf")
    parser.add_argument("--notion", default="class_change", choices=tuple(FAMILIES), help="default: class_change")
    for name, notion in sorted(OWN_KEYS.items()):
        _, about = FAMILIES[notion][0].keys[name]
        parser.add_argument(f"--{name}", nargs="+", type=_worded, help=f"of {notion}: {about.description}")
    parser.add_argument("--attack", nargs="+", choices=judges_by_key("attack"), help="find violations")
    parser.add_argument(
        "--certificate", nargs="+", choices=judges_by_key("certificate"), help="prove that there are none"
    )
    for name, takers in settings_takers().items():
        kind = type(takers[0].settings[name])
        parser.add_argument(f"--{name}", type=kind, help=f"of {' or '.join(judge.name for judge in takers)}")
    parser.add_argument("--epsilon", type=float, default=0.05, help="error of the guarantee; default: 0.05")
    parser.add_argument("--confidence", type=float, default=0.95, help="default: 0.95")
    parser.add_argument("--points", type=int, metavar="N", help="how many test points, in place of ε")
    parser.add_argument("--seed", type=int, default=0, help="draws the test points; default: 0")
    parser.add_argument("--input-range", metavar="LOW..HIGH", help="pixels that the network takes, such as 0..255")
    parser.add_argument("--mean", nargs="+", type=float, help="subtracted from pixels of that range, for each channel")
    parser.add_argument("--std", nargs="+", type=float, help="by which they are then divided")
    parser.add_argument("--layout", choices=("channels_last", "channels_first"), help="where the file leaves it open")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what is found there too")


def _worded(text: str) -> float | str:
    """A number, or a word where it is none."""
    try:
        return float(text)
    except ValueError:
        return text


def _number(text: str) -> float | str:
    """A number; a quotient such as 8/255 stays as it is written, as study files have it."""
    return text if "/" in text else float(text)


def request(given: Namespace) -> "Request":
    """What the options ask for."""
    from deltaball.run.measured_file import Request

    asked = {name: getattr(given, name) for name in (*KEYS, *OWN_KEYS, *settings_takers())}
    return Request(
        path=given.model,
        dataset=given.dataset,
        data=given.data,
        entry={name: value for name, value in asked.items() if value is not None},
        epsilon=given.epsilon,
        confidence=given.confidence,
        seed=given.seed,
        points=given.points,
        convention=_convention(given),
        device=given.device,
    )


def _convention(given: Namespace) -> "Convention | None":
    """How images enter the network; None: as the file, or the YAML beside it, says."""
    if not any((given.input_range, given.mean, given.std, given.layout)):
        return None
    from deltaball.exchange.conventions import Convention, pixel_range

    try:
        pixels = pixel_range(given.input_range) if given.input_range else None
    except InputError as problem:
        raise InputError(f"--input-range: {problem}") from None
    return Convention(given.layout, pixels, tuple(given.mean or (0.0,)), tuple(given.std or (1.0,)))
