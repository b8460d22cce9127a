"""The steps of a pack: what one does to K networks.

A step reads and writes tensors that never move: it gathers its minibatch, finds the gradients and updates weights and
moments in place, and it counts itself, on the device. So it is the same work whenever it is taken, and on a GPU some
of it, repeated, is captured in a CUDA graph and replayed (`graphs`). A CPU takes it as it is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch

from deltaball.networks.arithmetic import sigmoid
from deltaball.networks.generators import Generator
from deltaball.networks.layers import Layers, Role
from deltaball.networks.models import Layered
from deltaball.networks.packs import logits
from deltaball.training.draws import Draws
from deltaball.training.graphs import CAPTURING, Captured, Record, Replayed, streams
from deltaball.training.objectives.cross_entropy import CrossEntropy
from deltaball.training.objectives.objective import Batch, Objective
from deltaball.training.optimizers import adam_step, corrections, momentum_step, sgd_step
from deltaball.training.passes import Seen, TrainingPass, follow


@dataclass(frozen=True)
class Recipe:
    """What a step of a pack is; the same for all its networks.

    `precision` is that of activations and of products; weights, moments, updates and the loss are float32 always
    (mixed precision: Micikevicius et al. 2018, Section 3.1).
    """

    layers: Layers
    batch_size: int
    optimizer: str = "sgd"
    precision: str = "float32"
    objective: Objective = field(default_factory=CrossEntropy)
    momentum: float = 0.0  # of plain SGD
    weight_decay: float = 0.0  # share of each kernel that joins its gradient, for every optimizer

    def having(self, *roles: Role) -> list[int]:
        """Positions of the weights with these roles."""
        return [position for position, weight in enumerate(self.layers.weights) if weight.role in roles]

    @cached_property
    def trained(self) -> list[int]:
        """Positions of the weights that are trained: all but buffers."""
        return self.having("kernel", "bias", "scale")

    @cached_property
    def averages(self) -> list[int]:
        """Positions of the moving averages of batch normalisations."""
        return self.having("buffer")

    @cached_property
    def generator(self) -> "Recipe | None":
        """What a step of the generators beside the networks is, if there are any."""
        layers = self.objective.generator_layers(self.layers)
        # In float32: images are finer than bfloat16.
        return layers and Recipe(layers, self.batch_size, self.optimizer, momentum=self.momentum)


@dataclass(frozen=True)
class Execution:
    """How a device computes a step. Executions differ in speed, and in how float32 rounds."""

    convolution: str = "looped"  # one of arithmetic.CONVOLUTIONS
    lanes: int = 1  # parts of the pack that a GPU works on at once, each on a stream of its own


@dataclass(frozen=True)
class Members:
    """What a step knows of each of K networks; every tensor is [K, ...]."""

    weights: Sequence[torch.Tensor]
    # Of the weights that are trained: all of Adam's first, then all second; one each of SGD with momentum, else none.
    moments: Sequence[torch.Tensor] = ()
    masks: Sequence[torch.Tensor] = ()  # where False, a weight is pruned: its gradient is zero; none: nothing is pruned
    axes: Mapping[str, torch.Tensor] = field(default_factory=dict)  # of the objective, on which they differ
    keys: torch.Tensor | None = None  # of what the objective draws
    generators: "Members | None" = None  # beside the networks

    def __len__(self) -> int:
        return len(self.weights[0])

    def __getitem__(self, part: slice | torch.Tensor) -> "Members":
        """Some of the networks; of a slice, views."""
        weights, moments, masks = (
            tuple(tensor[part] for tensor in many) for many in (self.weights, self.moments, self.masks)
        )
        axes = {name: tensor[part] for name, tensor in self.axes.items()}
        generators = self.generators and self.generators[part]
        return Members(weights, moments, masks, axes, None if self.keys is None else self.keys[part], generators)


class TrainedPack(Layered):
    """K networks as a step sees them: in training, in its precision, and differentiable by their weights.

    `draws` are those of dropout. `seen` has what the batch normalisations saw in the last pass.
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Sequence[torch.Tensor],
        convolution: str = "looped",
        draws: Draws | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.recipe, self.layers, self.weights, self.convolution = recipe, recipe.layers, tuple(weights), convolution
        self.draws, self.generator, self.seen = draws, generator, list[Seen]()

    def __len__(self) -> int:
        return len(self.weights[0])

    def part(self, networks: slice) -> "TrainedPack":
        draws, generator = (one and one.part(networks) for one in (self.draws, self.generator))
        weights = [weight[networks] for weight in self.weights]
        return TrainedPack(self.recipe, weights, self.convolution, draws, generator)

    def fixed(self) -> "TrainedPack":
        weights = [weight.detach() for weight in self.weights]
        return TrainedPack(self.recipe, weights, self.convolution, self.draws, self.generator)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """What the last layer gives, float32: logits [K, n, classes]."""
        way = TrainingPass(self.convolution, self.draws)
        found = way.through(self.layers, self.weights, x.to(getattr(torch, self.recipe.precision))).float()
        self.seen = way.seen
        return found


class Steps:
    """The steps of K networks on `images` [n, h, w, c] in [0, 1] and `labels` [n], all on one device.

    Weights and moments of the networks are updated in place. An epoch has so many `points`, None: all.
    """

    def __init__(
        self,
        recipe: Recipe,
        members: Members,
        images: torch.Tensor,
        labels: torch.Tensor,
        execution: Execution = Execution(),
        record: Record | None = None,
        points: int | None = None,
    ) -> None:
        self.recipe, self.execution = recipe, execution
        # All bits of a weight that stays and none of one that is pruned.
        self.members = replace(members, masks=[-mask.to(torch.int32) for mask in members.masks])
        self.images, self.labels = images, labels
        device, networks = images.device, len(members)
        self.order = torch.zeros(networks, points or len(images), dtype=torch.int64, device=device)
        self.generators_order = torch.zeros_like(self.order) if members.generators else None
        self.rates = torch.zeros(networks, -(-self.order.shape[1] // recipe.batch_size), device=device)
        self.places = torch.arange(recipe.batch_size, device=device)
        self.before, self.taken = (torch.zeros(1, dtype=torch.int64, device=device) for _ in range(2))
        self.loss = torch.zeros(networks, device=device)
        size = -(-networks // execution.lanes)
        self.parts = [slice(start, start + size) for start in range(0, networks, size)]
        record = record or (Captured() if device.type == "cuda" else None)
        self.replayed = Replayed(record) if record else None

    def epoch(
        self, order: np.ndarray, rates: torch.Tensor, before: int, generators_order: np.ndarray | None = None
    ) -> torch.Tensor:
        """Take an epoch's steps; returns the mean loss [K] of its minibatches.

        `order` [K, n] has each network's points as it sees them, `generators_order` [K, n] those of the generators
        beside them, `rates` [K], on the CPU, are learning rates, and `before` is the number of steps taken in earlier
        epochs. The last minibatch has what is left. A GPU may still work when this returns; orders stay as they are
        until then.
        """
        steps = self.rates.shape[1]
        self.order.copy_(torch.from_numpy(order), non_blocking=True)
        if generators_order is not None:
            self.generators_order.copy_(torch.from_numpy(generators_order), non_blocking=True)
        self.rates.copy_(rates[:, None] * corrections(self.recipe.optimizer, before, steps))
        self.before.fill_(before)
        self.taken.zero_()
        self.loss.zero_()
        whole, left = divmod(self.order.shape[1], self.recipe.batch_size)
        self._take(self.recipe.batch_size, whole)
        if left:
            self._take(left, 1)
        return self.loss / steps

    def _take(self, size: int, count: int) -> None:
        if self.replayed:
            self.replayed(self._step, size, count)
            return
        for _ in range(count):
            self._step(size)

    def _step(self, size: int) -> None:
        places = self.taken * self.recipe.batch_size + self.places[:size]
        orders = [self.order] if self.generators_order is None else [self.order, self.generators_order]
        points = [order.index_select(1, places) for order in orders]
        rates = self.rates.index_select(1, self.taken)
        if self.execution.lanes == 1:
            self._descend(slice(None), points, rates)
        else:
            self._descend_side_by_side(points, rates)
        self.taken += 1

    def _descend_side_by_side(self, points: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
        here = torch.cuda.current_stream()
        with CAPTURING:
            lanes = streams().lanes[: len(self.parts)]
            for part, lane in zip(self.parts, lanes, strict=True):
                lane.wait_stream(here)
                with torch.cuda.stream(lane):
                    self._descend(part, points, rates)
            for lane in lanes:
                here.wait_stream(lane)

    def _descend(self, part: slice, points: Sequence[torch.Tensor], rates: torch.Tensor) -> None:
        """One step of some networks, and then of their generators; each of `points` [K, n] are indices of one's."""
        members, (own, *of_generators) = self.members[part], points
        draws = None if members.keys is None else Draws(members.keys, self.before, self.taken)
        pack = self._trained_pack(self.recipe, members, draws)
        loss = self.recipe.objective(pack, self._batch(members, own[part], draws))
        self.loss[part] += loss.detach()
        self._update(members, pack, loss, rates[part])
        for others in of_generators:
            self._descend_generators(members, self._images(others[part]), rates[part])

    def _descend_generators(self, members: Members, images: torch.Tensor, rates: torch.Tensor) -> None:
        generators = self._trained_pack(self.recipe.generator, members.generators)
        # The networks as they are outside training.
        weights = [weight.detach() for weight in members.weights]
        classify = partial(logits, self.recipe.layers, weights, convolution=self.execution.convolution)
        loss = self.recipe.objective.of_generator(images, sigmoid(generators(images)), classify)
        self._update(members.generators, generators, loss, rates)

    def _trained_pack(self, recipe: Recipe, members: Members, draws: Draws | None = None) -> TrainedPack:
        """Networks whose trained weights take gradients."""
        every = [weight.detach() for weight in members.weights]
        for position in recipe.trained:
            every[position].requires_grad_()
        generator = None
        if members.generators:
            beside = tuple(weight.detach() for weight in members.generators.weights)
            generator = Generator(recipe.generator.layers, beside, self.execution.convolution)
        return TrainedPack(recipe, every, self.execution.convolution, draws, generator)

    def _update(self, members: Members, pack: TrainedPack, loss: torch.Tensor, rates: torch.Tensor) -> None:
        """Change the weights of networks, and what their optimizer keeps, by the gradients of their loss [K]."""
        recipe, every = pack.recipe, pack.weights
        weights = [every[position] for position in recipe.trained]
        gradients = torch.autograd.grad(loss.sum(), weights)
        with torch.no_grad():
            follow([every[position] for position in recipe.averages], pack.seen)
            _decay(recipe, every, gradients)
            for position, gradient in zip(recipe.trained if members.masks else (), gradients, strict=False):
                # Not a product: a gradient that is not finite must not reach a pruned weight. Nor torch.where: with
                # irregular masks a CPU guesses every other of its decisions wrong.
                gradient.view(torch.int32).bitwise_and_(members.masks[position])
            if recipe.optimizer == "adam":
                adam_step(weights, gradients, members.moments, rates)
            elif recipe.momentum:
                momentum_step(weights, gradients, members.moments, rates, recipe.momentum)
            else:
                sgd_step(weights, gradients, rates)

    def _batch(self, members: Members, points: torch.Tensor, draws: Draws | None) -> Batch:
        """The minibatches of some networks; `points` [K, n] are indices."""
        return Batch(self._images(points), self.labels[points], members.axes, draws, self.rates.shape[1])

    def _images(self, points: torch.Tensor) -> torch.Tensor:
        # Whole rows, and not [points], which copies number by number.
        return self.images.index_select(0, points.flatten()).unflatten(0, points.shape)


def _decay(recipe: Recipe, weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Add to the gradients of kernels that of the penalty weight_decay/2 · |kernel|²."""
    if not recipe.weight_decay:
        return
    kernels = set(recipe.having("kernel"))
    for position, gradient in zip(recipe.trained, gradients, strict=True):
        if position in kernels:
            gradient.add_(weights[position], alpha=recipe.weight_decay)
