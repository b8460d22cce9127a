"""Measuring networks that the store has: what is missing of their outcomes is computed, and kept there."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from deltaball.base.statuses import MEASURABLE
from deltaball.estimation.outcomes import Settled, Told, outcomes
from deltaball.estimation.separate import by_corruption
from deltaball.estimation.stored import Judged, StoredOutcomes
from deltaball.local.kernels.known import Known
from deltaball.networks.generators import Generator
from deltaball.networks.layers import Layers
from deltaball.networks.models import Model
from deltaball.networks.packs import Pack
from deltaball.networks.posteriors import Posterior
from deltaball.plan.measures import Measure
from deltaball.plan.networks import CheckpointId
from deltaball.store.store import Store, listed
from deltaball.study.architectures import generator
from deltaball.study.judges import JUDGES, STAGES

Asked = Mapping[CheckpointId, Mapping[Measure, int]]  # of each network its measures, each with its number of points

Heard = Callable[[CheckpointId, Mapping[Measure, Judged]], None]  # of what was computed of a network

Batch = tuple[int, int, tuple[Measure, ...]]  # points from and up to, and what is to be measured of them


def measure(
    asked: Asked,
    layers: Layers,
    images: np.ndarray,
    seed: int,
    store: Store,
    device: str,
    told: Told = lambda measure, count: None,
    labels: np.ndarray | None = None,
    known: Known | None = None,
    heard: Heard = lambda checkpoint, judged: None,
) -> int:
    """Complete the outcomes of networks of one shape; returns how many were computed.

    The points are the first of `images` [N, h, w, c] with their `labels`, int64 [N], which `seed` drew; these may be
    left out where no notion needs them, and what is `known` where no kernel does. The store keeps outcomes per network
    × measure × point, so only what a larger N, a new measure or a new checkpoint adds is computed, and `heard` when the
    store has it. Diverged networks have no outcomes.
    """
    stored = StoredOutcomes(store, seed)

    def keep(checkpoint: CheckpointId, measures: Sequence[Measure], judged: Mapping[Measure, Judged], k: int) -> None:
        of_network = {one: judged[one].of_network(k) for one in measures}
        stored.add(checkpoint, of_network)
        heard(checkpoint, of_network)

    trained = {one: searches(wanted) for one, wanted in asked.items() if is_measurable(one, store)}
    computed = 0
    # What is settled in one stage is not asked again in the next.
    for stage in range(len(STAGES)):
        batches = _batches(trained, stored, stage)
        for (done, samples, measures), together in batches.items():
            shown, own = (None if one is None else one[done:samples] for one in (images, labels))
            whole = [one for one in together if not store.transfers(*one)]
            for checkpoints, model in models(whole, layers, store, device):
                settled = [
                    _settled(measures, _known(checkpoint, trained[checkpoint], stored), slice(done, samples))
                    for checkpoint in checkpoints
                ]
                judged = outcomes(model, shown, measures, device, done, settled, told, own, known)
                for k, checkpoint in enumerate(checkpoints):
                    keep(checkpoint, measures, judged, k)
            for checkpoint in together:
                if checkpoint not in whole:
                    network = partial(_behind, checkpoint, layers, store, device)
                    by = partial(outcomes, images=shown, device=device, first=done, labels=own, known=known)
                    judged = by_corruption(
                        measures, network, lambda model, asked, by=by: by(model, measures=asked), told
                    )
                    keep(checkpoint, measures, judged, 0)
            computed += len(together) * len(measures) * (samples - done)
    return computed


def judged(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    measures: Sequence[Measure],
    device: str,
    before: Mapping[Measure, Judged],
) -> dict[Measure, Judged]:
    """What one judge says of one network at all of `images`, without a store, where `before` is what others said.

    As `measure` finds it, if the others stand before it in JUDGES.
    """
    known = {one: found.outcomes for one, found in before.items()}
    settled = _settled(measures, known, slice(0, len(images)))
    found = outcomes(model, images, measures, device, settled=[settled], labels=labels)
    return {one: found[one].of_network(0) for one in measures}


def models(
    checkpoints: Sequence[CheckpointId], layers: Layers, store: Store, device: str
) -> Iterator[tuple[list[CheckpointId], Model]]:
    """Networks of the store as models: those with weights of their own in one, each mean over samples alone."""
    packed = [checkpoint for checkpoint in checkpoints if not store.is_averaged(*checkpoint)]
    if packed:
        yield packed, pack_of(packed, layers, store, device)
    for checkpoint in checkpoints:
        if store.is_averaged(*checkpoint):
            yield [checkpoint], Posterior.of(layers, store.samples(*checkpoint), device)


def pack_of(checkpoints: Sequence[CheckpointId], layers: Layers, store: Store, device: str = "cpu") -> Pack:
    """Networks of the store that have weights of their own, with the generators that were trained beside them."""
    found = [store.load_whole(*checkpoint) for checkpoint in checkpoints]
    pack = Pack.of(layers, [one.weights for one in found], device)
    beside = [listed(one.state, "generator") for one in found]
    if not all(beside):
        return pack
    *hidden, output = (one for one in beside[0] if one.ndim == 4)  # the kernels
    generators = Generator.of(generator(output.shape[2], len(hidden), layers.shape), beside, device)
    return replace(pack, generator=generators)


def _behind(checkpoint: CheckpointId, layers: Layers, store: Store, device: str, corruption: str) -> Model:
    """A classifier behind its transfer for one corruption."""
    return Pack.of(layers, [store.weights(*checkpoint, corruption)], device)


def is_complete(asked: Asked, seed: int, store: Store) -> bool:
    """Whether the store has every outcome that `measure` would be `asked` for."""
    stored = StoredOutcomes(store, seed)
    return all(
        store.has(*checkpoint)
        and (
            not is_measurable(checkpoint, store)
            or all(stored.has(checkpoint, one, count) for one, count in wanted.items())
        )
        for checkpoint, wanted in asked.items()
    )


def searches(wanted: Mapping[Measure, int]) -> dict[Measure, int]:
    """The measures whose outcomes are to be looked for, where several make numbers of the same ones."""
    found: dict[Measure, int] = {}
    for one, samples in wanted.items():
        found[one.search] = max(samples, found.get(one.search, 0))
    return found


def is_measurable(checkpoint: CheckpointId, store: Store) -> bool:
    """Whether a network that the store has ended in a state that can be measured."""
    return store.facts(*checkpoint)["status"] in MEASURABLE


def lacking(asked: Asked, seed: int, store: Store) -> dict[Measure, int]:
    """How many outcomes by each of the `searches` `measure` would compute of networks that the store has."""
    stored, counts = StoredOutcomes(store, seed), defaultdict(int)
    for checkpoint, wanted in asked.items():
        if is_measurable(checkpoint, store):
            for one, samples in searches(wanted).items():
                counts[one] += max(0, samples - len(stored.of(checkpoint, one).outcomes))
    return counts


def _batches(asked: Asked, stored: StoredOutcomes, stage: int) -> dict[Batch, list[CheckpointId]]:
    """The networks that lack the same points of the same measures of a stage."""
    batches: dict[Batch, list[CheckpointId]] = defaultdict(list)
    for checkpoint, wanted in asked.items():
        lacking: dict[tuple[int, int], list[Measure]] = defaultdict(list)
        for one, samples in wanted.items():
            done = len(stored.of(checkpoint, one).outcomes)
            if JUDGES[one.judge].stage == stage and done < samples:
                lacking[done, samples].append(one)
        for (done, samples), measures in lacking.items():
            batches[done, samples, tuple(measures)].append(checkpoint)
    return batches


def _known(
    checkpoint: CheckpointId, wanted: Mapping[Measure, int], stored: StoredOutcomes
) -> dict[Measure, np.ndarray]:
    """The outcomes of a network that are kept, by measure."""
    return {one: stored.of(checkpoint, one).outcomes for one in wanted}


def _settled(measures: Sequence[Measure], known: Mapping[Measure, np.ndarray], points: slice) -> Settled:
    """What is known of some points of a network before certificates are asked: NaN where nothing is.

    A violation in no larger a ball cannot be certified away. An exact answer may lean on certificates too; their own
    outcomes stay their own, so that a measure added to a study changes no other one.
    """
    settled = {}
    for one in measures:
        values = np.full(points.stop, np.nan, np.float32)
        for other, found in known.items():
            if _bears_on(other, one):
                kept, answer = found[: len(values)], 0 if other.attack else 1
                values[: len(kept)][kept == answer] = answer
        settled[one] = values[points]
    return settled


def _bears_on(other: Measure, one: Measure) -> bool:
    """Whether a violation that `other` found, or a proof that it has, settles a point for `one` too."""
    alike = (other.notion, other.norm, other.gamma) == (one.notion, one.norm, one.gamma)
    if not one.certificate or other.sampling or not alike or not one.is_share:
        return False
    if other.attack:
        return other.delta <= one.delta
    said = JUDGES[other.judge].says, JUDGES[one.judge].says
    return said == ("proves", "decides") and other.delta >= one.delta
