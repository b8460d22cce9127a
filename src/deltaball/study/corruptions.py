"""Corruptions of images: those of MNIST-C (Mu & Gilmer 2019, arXiv:1906.02337), and identity. Light, like the study.

A corruption is a function of ``deltaball.local.corruptions`` and one entry of CORRUPTIONS. Where its function comes to
give other images, its version is raised: what was measured before is then no longer taken for what is asked.
"""

from dataclasses import dataclass

from deltaball.base.errors import InputError, alternatives, shown

SEVERITIES = (1, 2, 3, 4, 5)

VERSION = 1  # of what corruptions have in common: the random numbers of an image, and how pixels are rounded


@dataclass(frozen=True)
class Corruption:
    """One corruption: `severity` is that of MNIST-C, None where there are no severities."""

    name: str  # in study files
    title: str  # in captions
    implementation: str  # the function, by its dotted path
    severity: int | None = None
    version: int = 1  # of its rule


_ROOM = "deltaball.local.corruptions"

# In the order of MNIST-C's tables.
CORRUPTIONS = {
    one.name: one
    for one in (
        Corruption("identity", "identity", f"{_ROOM}.drawings.identity"),
        Corruption("shot_noise", "shot noise", f"{_ROOM}.noise.shot_noise", 5),
        Corruption("impulse_noise", "impulse noise", f"{_ROOM}.noise.impulse_noise", 4),
        Corruption("glass_blur", "glass blur", f"{_ROOM}.blurs.glass_blur", 1),
        Corruption("motion_blur", "motion blur", f"{_ROOM}.blurs.motion_blur", 1),
        Corruption("shear", "shear", f"{_ROOM}.warps.shear", 2),
        Corruption("scale", "scale", f"{_ROOM}.warps.scale", 3),
        Corruption("rotate", "rotate", f"{_ROOM}.warps.rotate", 2),
        Corruption("brightness", "brightness", f"{_ROOM}.weather.brightness", 5),
        Corruption("translate", "translate", f"{_ROOM}.warps.translate", 3),
        Corruption("stripe", "stripe", f"{_ROOM}.drawings.stripe"),
        Corruption("fog", "fog", f"{_ROOM}.weather.fog", 5),
        Corruption("spatter", "spatter", f"{_ROOM}.weather.spatter", 4),
        Corruption("dotted_line", "dotted line", f"{_ROOM}.drawings.dotted_line"),
        Corruption("zigzag", "zigzag", f"{_ROOM}.drawings.zigzag"),
        Corruption("canny_edges", "Canny edges", f"{_ROOM}.drawings.canny_edges"),
    )
}

# What a notion says of corrupted images, where it says either. Agreement with the prediction for the clean image is
# robustness, whatever the labels.
QUANTITIES = {"class_change": "agreement", "classification": "accuracy"}

# MNIST-C's; the first is none.
FIFTEEN = tuple(CORRUPTIONS)[1:]

JOINT = "mnist_c"  # what the fifteen in turn are called, and pooled
# What a network is adapted to that has a transfer of its own for each of several, or one for some but not all.
EACH, SEVERAL = "each", "several"


def corruption(name: str, severity: int | None = None) -> tuple[Corruption, int | None]:
    """The corruption of that name with the severity it is asked at, by default that of MNIST-C.

    Raises InputError for a name that is none, and for a severity that it does not have.
    """
    if name not in CORRUPTIONS:
        raise InputError(f"no corruption {shown(name)}: {alternatives(name, CORRUPTIONS)}")
    entry = CORRUPTIONS[name]
    if severity is None:
        return entry, entry.severity
    if entry.severity is None:
        raise InputError(f"severity = {shown(severity)}: {name} has no severities; leave it out")
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise InputError(f"severity = {shown(severity)}: {name} has the severities 1 to {SEVERITIES[-1]}")
    return entry, int(severity)
