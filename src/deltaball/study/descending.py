"""Methods of gradient descent: plain training, pruning, fine-tuning. Light: no array library."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from deltaball.base.errors import InputError
from deltaball.data.catalogue import SIGNS, DatasetFacts
from deltaball.networks.layers import Layers
from deltaball.study.axes import (
    WITHIN_PACK,
    Count,
    Counts,
    Delays,
    Optimizers,
    Precisions,
    Proportions,
    Rates,
    Repeats,
    Schedules,
    Seeds,
    axis,
    radius,
)
from deltaball.study.judges import JUDGES, judges_by_key
from deltaball.study.method import FLOAT, Axes, Method, Training
from deltaball.study.notions import NOTIONS
from deltaball.study.schedules import CONSTANT, schedule

BATCH = 128

Decay = Annotated[float, Field(ge=0, le=1)]


class Descending(Method):
    """What methods of gradient descent have in common."""

    def check_points(self, facts: DatasetFacts) -> None:
        largest = max(self.batch_size)
        # That of a grid which names none is all of a smaller data set.
        if largest > max(facts.train, BATCH):
            raise InputError(
                f"batch_size = {largest}: {facts.name} has {facts.train} training images; that many are one batch"
            )


class Sgd(Descending):
    """Axes of training by gradient descent; networks that differ in `epochs` alone are one trajectory."""

    room: ClassVar[str] = "deltaball.training.sgd"

    method: Literal["sgd"]
    optimizer: Optimizers = Field(["sgd"], description="plain SGD, or Adam with Keras' defaults")
    learning_rate: Annotated[Rates, WITHIN_PACK]
    epochs: Counts = Field(description="passes over the training split")
    batch_size: Counts = Field([BATCH])
    precision: Precisions = Field(
        ["float32"], description="of products and activations in training; weights, updates and measures are float32"
    )
    seed: Annotated[Seeds, WITHIN_PACK] = Field([0], description="draws the initial weights and the order of the data")
    schedule: Annotated[Schedules, WITHIN_PACK] = Field(
        [CONSTANT], description="of the learning rate: step(82, 123; 0.1) after these epochs, or cosine(164) to 0"
    )
    momentum: Proportions = Field([0.0], description="of plain SGD: the share of a step that is taken again")
    weight_decay: axis(Decay) = Field([0.0], description="share of each kernel that joins its gradient (an L2 penalty)")
    train_points: axis(Count | None) = Field([None], description="training images seen, drawn by seed; null is all")
    validation: Delays = Field(
        [0],
        description="training images held out, by seed; of the epochs up to `epochs` the best on them is the network",
    )

    @classmethod
    def plain(cls) -> Axes:
        """The axes that may be left out, each with the value it then has."""
        fields = {name: one for name, one in cls.model_fields.items() if name != "method" and not one.is_required()}
        return {name: one.default[0] for name, one in fields.items()}

    @classmethod
    def moments(cls, axes: Axes) -> int:
        return 1 if axes.get("momentum") else super().moments(axes)

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        return axes.get("train_points") or points - axes.get("validation", 0)

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of a trajectory's checkpoints: where an epoch is chosen, its weights and those to go on from."""
        chosen = FLOAT * parameters * len(checkpoints) if axes.get("validation") else 0
        return super().stored_bytes(axes, parameters, checkpoints) + chosen

    def check_points(self, facts: DatasetFacts) -> None:
        super().check_points(facts)
        most, held = max((one or 1 for one in self.train_points), default=1), max(self.validation)
        if most + held > facts.train:
            key = f"train_points = {most}" if most > 1 else f"validation = {held}"
            raise InputError(f"{key}: {facts.name} has {facts.train} training images, and of these {held} are held out")
        if held and facts.name in SIGNS:
            whole = facts.name.removesuffix("_validation")
            raise InputError(
                f"validation = {held}: training images of {facts.name} come in tracks of one sign each, whose frames "
                f"would be on both sides; choose with {whole}_validation, whose test images are of tracks held out"
            )
        if max(self.momentum) and "adam" in self.optimizer:
            raise InputError(
                f"momentum = {max(self.momentum)}: adam has its own; give those with momentum a grid apart"
            )
        for one in map(schedule, self.schedule):
            if one.ends and one.ends < max(self.epochs):
                raise InputError(
                    f"schedule = {one.text}: the learning rate is 0 from then on, and epochs = {max(self.epochs)}"
                )


class Imp(Descending):
    """Axes of iterative magnitude pruning (paper 004, B.6 and B.7), each round trained by SGD."""

    architectures: ClassVar = ("fcn",)
    # Generators beside networks are not pruned, and those of auto-encoders are left to plain training.
    objectives: ClassVar = (
        "cross_entropy",
        "augmented",
        "adversarial",
        "constrained",
        "trades",
        "mart",
        "cross_lipschitz",
        "ibp",
        "crown_ibp",
    )
    room: ClassVar[str] = "deltaball.training.pruning"
    is_pruning: ClassVar[bool] = True
    has_trunk: ClassVar[bool] = True

    method: Literal["imp"]
    proportion: Proportions = Field(description="share of the prunable weights removed in the end")
    ranking: Annotated[axis(Literal["global", "layer"]), WITHIN_PACK] = Field(
        ["global"], description="smallest magnitudes of all hidden kernels together, or of each"
    )
    iterations: Repeats = Field(description="rounds of pruning, each removing an equal share of what remains")
    optimizer: Optimizers = Field(["sgd"])
    learning_rate: Annotated[Rates, WITHIN_PACK]
    epochs: Counts = Field(description="passes over the training split in each round")
    batch_size: Counts = Field([BATCH])
    precision: Precisions = Field(["float32"])
    seed: Annotated[Seeds, WITHIN_PACK] = Field([0])

    @classmethod
    def within_pack(cls) -> frozenset[str]:
        return super().within_pack() | {"epochs", "kept"}  # which `turn` tells as far as a pack has them in common

    @classmethod
    def chain(cls, axes: Axes) -> list[Training]:
        """The dense training, then the rounds.

        The dense one is plain SGD, shared by every schedule and with every SGD grid. A round depends on the epochs and
        on the shares kept so far, so equal rounds of different schedules are one trajectory: p = .5 in one round is the
        first round of p = .75 in two.
        """
        pruning = {"proportion", "iterations", "ranking", "epochs"}
        dense = {name: value for name, value in axes.items() if name not in pruning}
        epochs = axes["epochs"]
        trunk = {**Sgd.plain(), **dense}
        trainings, kept = [Training("sgd", trunk, epochs)], ()
        for turn in range(1, axes["iterations"] + 1 if axes["proportion"] else 1):
            kept = (*kept, round((1 - axes["proportion"]) ** (turn / axes["iterations"]), 12))
            fixed = {**dense, "ranking": axes["ranking"], "epochs": epochs, "kept": kept}
            trainings.append(Training("imp", fixed, epochs, (trainings[-1],), trainings[0]))
        return trainings

    @classmethod
    def turn(cls, axes: Axes) -> tuple[int, ...]:
        return axes["epochs"], len(axes["kept"])

    @classmethod
    def trainings_alone(cls, axes: Axes) -> int:
        return 1 + (axes["iterations"] if axes["proportion"] else 0)

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of a round's checkpoints: as of SGD, and of the mask, one bit a weight."""
        return super().stored_bytes(axes, parameters, checkpoints) + parameters // 8 * len(checkpoints)


class Finetune(Sgd):
    """Axes of fine-tuning on adversarial examples (paper 002, Section 5) of a network that SGD trained.

    The other axes are the trunk's. Where the paper leaves a choice open, it is an axis.
    """

    # Those that count epochs would begin again with each round.
    objectives: ClassVar = (
        "cross_entropy",
        "augmented",
        "adversarial",
        "constrained",
        "trades",
        "mart",
        "cross_lipschitz",
    )
    room: ClassVar[str] = "deltaball.training.finetuning"
    has_trunk: ClassVar[bool] = True
    one_by_one: ClassVar[bool] = True  # their training sets differ in size

    method: Literal["finetune"]
    rounds: axis(Annotated[int, Field(ge=0, le=1000)]) = Field(
        description="T: in each, examples are found against the network so far, which then goes on with them; 0: none"
    )
    adversary: axis(Literal[judges_by_key("attack")]) = Field(description="what finds the examples")
    cap: axis(radius(Annotated[float, Field(gt=0, le=1)])) = Field(
        [20 / 255], description="how far an example may be from its image, in L∞ and pixel units; 1: any distance"
    )
    lead: axis(Annotated[float, Field(ge=0, allow_inf_nan=False)]) = Field(
        [3.0], description="α: by how many logits the class of an example leads all others when it is found"
    )
    examples: axis(Count | None) = Field(
        [None], description="training images of which examples are sought, drawn by seed; null is all"
    )
    examples_kept: axis(Literal["all", "latest"]) = Field(
        ["all"], description="whose examples join the training images: every round's so far, or the latest round's"
    )
    rate_factor: axis(Annotated[float, Field(gt=0, le=1)]) = Field(
        [0.1], description="of learning_rate in the rounds; `schedule` is the trunk's"
    )
    tuning_epochs: Counts = Field([5], description="passes over training images and examples in each round")

    @classmethod
    def within_pack(cls) -> frozenset[str]:
        # Of its trunk's pack, but for what `turn` says.
        return Sgd.within_pack() | cls._own() | {"round", "epochs"}

    @classmethod
    def _own(cls) -> frozenset[str]:
        return frozenset(cls.model_fields) - frozenset(Sgd.model_fields)

    @classmethod
    def chain(cls, axes: Axes) -> list[Training]:
        """The trunk's training, a trajectory of SGD, then the rounds: the first of two is the whole of one."""
        trunk = {name: value for name, value in axes.items() if name not in cls._own() | {"epochs"}}
        trainings = [Training("sgd", trunk, axes["epochs"])]
        for turn in range(1, axes["rounds"] + 1):
            fixed = {**{name: value for name, value in axes.items() if name != "rounds"}, "round": turn}
            # Of the earlier ones too, where their examples are kept.
            parents = trainings if axes["examples_kept"] == "all" else trainings[-1:]
            trainings.append(Training("finetune", fixed, axes["tuning_epochs"], tuple(parents)))
        return trainings

    @classmethod
    def turn(cls, axes: Axes) -> tuple[int, ...]:
        return (axes["round"],)

    @classmethod
    def trainings_alone(cls, axes: Axes) -> int:
        return 1 + axes["rounds"]

    @classmethod
    def rate(cls, axes: Axes, epoch: int) -> float:
        return axes["learning_rate"] * axes["rate_factor"]

    @classmethod
    def sought(cls, axes: Axes, points: int) -> int:
        """Images of which a round seeks examples."""
        seen = Sgd.images_each(axes, points)
        return min(axes["examples"] or seen, seen)

    @classmethod
    def images_each(cls, axes: Axes, points: int) -> int:
        """Training images and, if every image has one, examples."""
        rounds = axes["round"] if axes["examples_kept"] == "all" else 1
        return Sgd.images_each(axes, points) + rounds * cls.sought(axes, points)

    @classmethod
    def searching(cls, axes: Axes, points: int, layers: Layers) -> tuple[float, float]:
        judge, count = JUDGES[axes["adversary"]], cls.sought(axes, points)
        return count * judge.passes(judge.settings, layers, NOTIONS["class_change"]), count * judge.seconds

    @classmethod
    def stored_bytes(cls, axes: Axes, parameters: int, checkpoints: tuple[int, ...]) -> int:
        """Bytes of a round's checkpoints: it chooses none of its epochs."""
        return (1 + cls.moments(axes)) * FLOAT * parameters * len(checkpoints)

    def check_points(self, facts: DatasetFacts) -> None:
        super().check_points(facts)
        most = max((count for count in self.examples if count), default=0)
        fewest = min(one or facts.train - max(self.validation) for one in self.train_points)
        if most > fewest:
            raise InputError(
                f"examples = {most}: of {facts.name} networks see {fewest} training images; null takes all"
            )
