"""Transfer by paired auto-encoders (paper 003, Section 4 and Appendix B). Light.

Two auto-encoders share an encoder E; the decoder D1 is for clean images, D2 for corrupted ones. They learn from images
of both kinds, of which no two are a pair, and from no labels. T = D1∘E then takes a corrupted image to a clean one, and
a classifier f that was trained before becomes f∘T.

A pair of auto-encoders is trained once per data set, and by all that is said of it here, and shared by the networks
that name it. It classifies nothing and has no row; f∘T is a network like any other.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from deltaball.base.errors import InputError
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import RELU, Activation, Conv, Dense, Flatten, Layers
from deltaball.networks.transposed import ConvTranspose, Reshape
from deltaball.study.axes import Count, Name, Positive, Seed, Strict, axis
from deltaball.study.corruptions import CORRUPTIONS, EACH, FIFTEEN, JOINT, SEVERAL, VERSION

NONE = "none"  # networks without a transfer


def _not_none(name: str) -> str:
    if name == NONE:
        raise ValueError(f"'{NONE}' stands for no transfer; choose another name")
    return name


class Transfer(Strict):
    """Paired auto-encoders of one data set: one pair for all corruptions, or one for each."""

    name: Annotated[Name, AfterValidator(_not_none)]
    dataset: Name
    corruptions: axis(Literal[tuple(CORRUPTIONS)]) = Field(
        [*FIFTEEN], description="whose images the pair learns from, at MNIST-C's severities; all fifteen if left out"
    )
    separate: bool = Field(
        False, description="a pair for each corruption, used where images have this one; false: one pair for all"
    )
    corrupted_images: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        1024, description="N_c: training images of each corruption; 0 is an auto-encoder of clean images"
    )
    clean_images: Count | None = Field(
        None, description="N_o: clean training images; null is all whose corrupted twins are not used"
    )
    latent: Count = Field(128, description="numbers of a code")
    filters: Count = Field(
        32, description="of the encoder's first convolution; the next ones have 2 and 4 times as many"
    )
    units: Count = Field(2048, description="of the decoders' first dense layer")
    learning_rate: Positive = 0.001
    epochs: Count = Field(100, description="passes over the clean images")
    batch_size: Count = Field(32, description="clean images of a step, and as many corrupted ones")
    seed: Seed | None = Field(
        None,
        description="draws which images are corrupted, the initial weights and the order; null is that of each "
        "classifier, so that both are trained anew with every seed",
    )

    @property
    def separates(self) -> bool:
        """Whether there are several pairs. Without corrupted images they would all be one."""
        return self.separate and self.corrupted_images > 0 and len(self.corruptions) > 1

    def pairs(self, seed: int = 0) -> list["Pair"]:
        """The pairs for classifiers of a seed: of each corruption, or the one of all."""
        own = seed if self.seed is None else self.seed
        each = [[one] for one in self.corruptions] if self.separates else [self.corruptions]
        return [Pair(self, tuple(names) if self.corrupted_images else (), own) for names in each]

    @property
    def columns(self) -> dict[str, Any]:
        """What tables say of networks behind it, in the columns of other adaptations (`adapting.Adapted`)."""
        pooled = self.corruptions[0] if len(self.corruptions) == 1 else SEVERAL
        if self.separates:
            pooled = EACH
        elif not self.corrupted_images or {*self.corruptions} >= {*FIFTEEN}:
            pooled = JOINT
        return {"adaptation": "transfer", "corruption": pooled, "corrupted_images": self.corrupted_images}

    def check(self, facts: DatasetFacts) -> None:
        """Raise InputError, beginning with the key, for images that a data set does not have."""
        corrupted, clean = self.corrupted_images, self.clean_images
        most = facts.train - clean if clean else facts.train // 2
        if clean and clean > facts.train:
            raise InputError(f"clean_images = {clean}: {facts.name} has {facts.train} training images")
        if corrupted > most:
            left = f"{clean} of them are to be clean" if clean else "half of them stay clean where clean_images is null"
            raise InputError(
                f"corrupted_images = {corrupted}: {facts.name} has {facts.train} training images, and {left}; at most "
                f"{most}"
            )


@dataclass(frozen=True)
class Split:
    """How many originals of training images are for what."""

    clean: int  # N_o
    corrupted: int  # originals of corrupted images, each of one corruption or of several


@dataclass(frozen=True)
class Pair:
    """One pair of auto-encoders: what is said of it, and the corruptions that it learns from."""

    entry: Transfer
    corruptions: tuple[str, ...]  # none where there are no corrupted images
    seed: int

    @property
    def axes(self) -> dict[str, Any]:
        """All that its weights depend on, besides the images."""
        named = self.entry.model_dump(exclude={"name", "dataset", "corruptions", "separate", "seed"})
        rules = {name: VERSION - 1 + CORRUPTIONS[name].version for name in self.corruptions}
        return {**named, "corruptions": rules, "seed": self.seed}

    @property
    def name(self) -> str:
        """What pictures call it."""
        own = [self.corruptions[0]] if self.entry.separates else []
        return "-".join([self.entry.name, *own, *([f"seed{self.seed}"] if self.entry.seed is None else [])])

    def split(self, points: int) -> Split:
        """N_o, and how many originals are kept apart for corrupted images, of so many training images.

        The paper has N_o = 60,000 - 15 N_c, which is negative at its largest N_c, 30,000. Here each corruption takes
        N_c originals that no other one takes, as long as so half of the images stay clean. Where they do not suffice,
        that other half is all there is, and corruptions share originals. Clean images are all others, or
        `clean_images` of them. So the paper's N_o is that of one pair of fifteen corruptions up to N_c = 2,000; of
        a pair for each corruption it is `clean_images: 44640` at N_c = 1,024.
        """
        clean, wanted = self.entry.clean_images, len(self.corruptions) * self.entry.corrupted_images
        kept = min(wanted, points - clean if clean else points // 2)
        return Split(clean=clean or points - kept, corrupted=kept)

    def encoder(self, shape: tuple[int, int, int]) -> Layers:
        """E, from images to codes [latent]: three convolutions of stride 2, then a dense layer without activation.

        Padding is 'same', which the paper does not say; its 4·4·128 = 2048 numbers that enter the dense layer imply it.
        """
        filters = self.entry.filters
        convolutions = [layer for times in (1, 2, 4) for layer in (Conv(times * filters, 3, 2), RELU)]
        return Layers(shape, (*convolutions, Flatten(), Dense(self.entry.latent)))

    def decoder(self, shape: tuple[int, int, int]) -> Layers:
        """D1 and D2 alike, from codes [latent] to images: two dense layers, three transposed convolutions."""
        height, width, channels = shape
        filters, half = self.entry.filters, (-(-height // 2), -(-width // 2))
        small = (-(-half[0] // 2), -(-half[1] // 2), 2 * filters)
        dense = (Dense(self.entry.units), RELU, Dense(math.prod(small)), RELU, Reshape(small))
        enlarging = (ConvTranspose(2 * filters, 3, 2, half), RELU, ConvTranspose(filters, 3, 2, (height, width)), RELU)
        return Layers((self.entry.latent,), (*dense, *enlarging, ConvTranspose(channels, 3), Activation("sigmoid")))

    def layers(self, shape: tuple[int, int, int]) -> Layers:
        """T = D1∘E, from images to images."""
        return Layers(shape, (*self.encoder(shape), *self.decoder(shape)))

    def content(self, facts: DatasetFacts) -> str:
        """A hash of all that its weights depend on, the images too."""
        content = {"trained": "paired auto-encoders", "data": facts.fingerprint, "axes": self.axes}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
