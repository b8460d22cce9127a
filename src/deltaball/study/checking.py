"""What a study asks, beside its data and its networks: refused before anything runs where it cannot be had."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deltaball.base.errors import InputError, alternatives, shown
from deltaball.base.guarantees import epsilon_reached, samples_needed
from deltaball.base.implementations import is_implemented
from deltaball.data import catalogue
from deltaball.data.catalogue import DatasetFacts
from deltaball.networks.layers import Activation, GroupNorm, Layer, Layers, Residual, Standardise
from deltaball.study import choosing
from deltaball.study.architectures import ARCHITECTURES
from deltaball.study.grids import DRAWN, Grid, count_matching
from deltaball.study.judges import JUDGES, Judge, NetworkKind
from deltaball.study.kernels import entry_of
from deltaball.study.measures import AnyMeasure, OwnGuarantee
from deltaball.study.notions import NOTIONS
from deltaball.study.objectives import OBJECTIVES
from deltaball.study.study import Study
from deltaball.study.transfers import NONE

# A figure of the convergence of more networks than this is not read.
MOST_CONVERGING = 6


def check(study: Study, source: str) -> None:
    """Raise InputError, beginning with `source`, for what cannot be had."""
    facts = {}
    for index, grid in enumerate(study.grids):
        where = f"{source}: grids[{index}] ({grid.name})"
        try:
            facts[grid.dataset] = found = catalogue.facts(grid.dataset, Path(study.data))
        except InputError as problem:
            raise InputError(f"{where}.dataset: {problem}") from None
        objective = OBJECTIVES[grid.objective].implementation
        if not is_implemented(objective):
            raise InputError(f"{where}.objective: '{grid.objective}' is not implemented: there is no {objective}")
        try:
            grid.check_points(found)
            grid.check_images(found)
            grid.check_classes(found)
            choosing.check(grid, study.grids)
            _check_transfers(grid)
        except InputError as problem:
            raise InputError(f"{where}.{problem}") from None
        _check_adversary(grid, found, where)
        for one in study.autoencoders:
            if one.name in getattr(grid, "autoencoder", ()) and one.dataset != grid.dataset:
                raise InputError(f"{where}.autoencoder: '{one.name}' is of {one.dataset}, the grid of {grid.dataset}")
    for index, one in enumerate(study.autoencoders):
        where = f"{source}: autoencoders[{index}] ({one.name})"
        if one.dataset not in facts:
            raise InputError(f"{where}.dataset: no grid uses '{one.dataset}'; {alternatives(one.dataset, facts)}")
        if one.batch_size > facts[one.dataset].train:
            count = facts[one.dataset].train
            raise InputError(f"{where}.batch_size = {one.batch_size}: {one.dataset} has {count} training images")
    for index, one in enumerate(study.transfers):
        where = f"{source}: transfers[{index}] ({one.name})"
        if one.dataset not in facts:
            raise InputError(f"{where}.dataset: no grid uses '{one.dataset}'; {alternatives(one.dataset, facts)}")
        try:
            one.check(facts[one.dataset])
        except InputError as problem:
            raise InputError(f"{where}.{problem}") from None
    for index, measure in enumerate(study.measures):
        where = f"{source}: measures[{index}]"
        grids = _check_measure(study, measure, facts, where)
        smallest = min((facts[grid.dataset] for grid in grids), key=lambda one: one.test)
        own = measure.guarantee or OwnGuarantee()
        epsilon, confidence = own.epsilon or study.guarantee.epsilon, own.confidence or study.guarantee.confidence
        key = f"{where}.guarantee.epsilon" if own.epsilon else f"{source}: guarantee.epsilon"
        _check_epsilon(epsilon, confidence, study.estimates_at_once(), smallest, key)
    _check_within(study, f"{source}: analysis.within")
    for index, experiment in enumerate(study.convergence):
        where = f"{source}: convergence[{index}]"
        grids = _check_measure(study, experiment.measure, facts, f"{where}.measure")
        networks = sum(count_matching(experiment.measure.wanted, grid) for grid in grids)
        if networks > MOST_CONVERGING:
            raise InputError(f"{where}.measure.only: chooses {networks} networks; at most {MOST_CONVERGING}")
        for grid in grids:
            for epsilon in experiment.epsilon:
                key = f"{where}.epsilon"
                _check_epsilon(epsilon, study.guarantee.confidence, 1, facts[grid.dataset], key)


def _check_transfers(grid: Grid) -> None:
    """Refuse transfers before what is no single network, or was adapted to corruptions by other means."""
    if grid.transfer != [NONE] and "adaptation" in grid.axis_names():
        raise InputError(f"transfer: networks of method {grid.method} are adapted otherwise already; possible: {NONE}")
    if grid.averages_samples and grid.transfer != [NONE]:
        raise InputError(
            f"transfer: networks of method {grid.method} are means over a posterior, and a transfer goes before one "
            f"network; possible: {NONE}"
        )


def _check_adversary(grid: Grid, facts: DatasetFacts, where: str) -> None:
    """Refuse an attack that cannot find examples of a grid's networks to fine-tune them on."""
    layers = ARCHITECTURES[grid.architecture].layers
    for name in getattr(grid, "adversary", ()):
        if not is_implemented(JUDGES[name].implementation):
            raise InputError(
                f"{where}.adversary: '{name}' is not implemented: there is no {JUDGES[name].implementation}"
            )
        for axes in _shapes(grid, {}):
            network = layers(axes, facts.shape, facts.classes)
            kind = NetworkKind(activations=activations(network), layers=network)
            if reason := JUDGES[name].refuses(NOTIONS["class_change"], "linf", kind):
                named = ", ".join(f"{axis} {value}" for axis, value in axes.items())
                why, _, _ = reason.partition(":")  # without the remedy, which is one for measures
                raise InputError(f"{where}.adversary: '{name}' cannot attack the network {named}: {why}")


def _check_within(study: Study, where: str) -> None:
    """Refuse an ε, of those that the study itself names, within which no distance is sought."""
    if "within" not in study.analysis.model_fields_set:
        return
    reach = [max(one.delta) for one in study.measures if _seeks_distances(one)]
    if not reach:
        raise InputError(f"{where}: no distance is sought; ask margin with an attack, or leave it out")
    if max(study.analysis.within) > max(reach):
        raise InputError(
            f"{where} = {max(study.analysis.within):g}: distances are sought within {max(reach):g} at most; name no "
            "more here, or a larger delta of margin"
        )


def _seeks_distances(measure: AnyMeasure) -> bool:
    return NOTIONS[measure.notion].is_distance and any(JUDGES[name].says != "proves" for name in measure.judges)


def _check_sets(
    study: Study, measure: AnyMeasure, grids: Sequence[Grid], facts: Mapping[str, DatasetFacts], where: str
) -> None:
    """Refuse corrupted sets that are not there, or not of the images that are measured."""
    try:
        brought = study.corrupted_sets(measure)
    except InputError as problem:
        raise InputError(f"{where}.{problem}") from None
    datasets = sorted({grid.dataset for grid in grids})
    for name, known in brought.items():
        if len(datasets) > 1:
            raise InputError(
                f"{where}.perturbation: images of '{name}' are of one data set, and networks of {', '.join(datasets)}; "
                "say of which by only: {dataset: …}"
            )
        try:
            known.check(facts[datasets[0]], measure.draws or 1)
        except InputError as problem:
            raise InputError(f"{where}.perturbation: {problem}") from None


def _check_measure(study: Study, measure: AnyMeasure, facts: Mapping[str, DatasetFacts], where: str) -> list[Grid]:
    """The grids of which a measure concerns networks, at least one. Raises InputError if it cannot judge them."""
    _check_implementations(measure, where)
    for name, values in measure.wanted.items():
        if name == DRAWN:  # more than there are is all
            continue
        there = {one for grid in study.grids for one in _values(grid, name)}
        absent = next((value for value in values if value not in there), None)
        if absent is not None:
            raise InputError(
                f"{where}.only: no network has {name} {shown(absent)}; {alternatives(str(absent), map(str, there))}"
            )
    grids = [grid for grid in study.grids if count_matching(measure.wanted, grid)]
    if not grids:
        raise InputError(f"{where}.only: no network has all of {shown(measure.wanted)} at once")
    datasets = {one.name: one.dataset for one in study.autoencoders}
    for grid in grids:
        for name in measure.autoencoder or ():
            if datasets[name] != grid.dataset:
                raise InputError(
                    f"{where}.autoencoder: '{name}' is of {datasets[name]}, and grid '{grid.name}' of {grid.dataset}; "
                    "leave it out by `only`"
                )
        _check_sets(study, measure, grids, facts, where)
        _check_separate(study, measure, grid, where)
        _check_judges(measure, grid, facts[grid.dataset], where)
        _check_sizes(measure, grid, facts[grid.dataset], where)
    return grids


def _values(grid: Grid, name: str) -> Sequence[Any]:
    """The values that the networks of a grid have on an axis or as a group."""
    if name in grid.groups():
        return [grid.groups()[name]]
    return grid.values(name) if name in grid.axis_names() else []


def _check_implementations(measure: AnyMeasure, where: str) -> None:
    """Refuse what the tables name and the code does not have."""
    judges = [JUDGES[name] for name in measure.judges]
    for key, entry in [("notion", measure.forms[0]), *((judge.key, judge) for judge in judges)]:
        if not is_implemented(entry.implementation):
            raise InputError(f"{where}.{key}: '{entry.name}' is not implemented: there is no {entry.implementation}")


def _check_separate(study: Study, measure: AnyMeasure, grid: Grid, where: str) -> None:
    """Refuse what has no corruption to choose a transfer by, of networks that have one for each corruption."""
    names = [name for name in _transfers(measure, grid) if name != NONE and study.transfer_named[name].separates]
    for entry in (study.transfer_named[name] for name in names):
        remedy = f"leave out transfer '{entry.name}' of grid '{grid.name}' by `only`"
        if not measure.perturbation:
            raise InputError(f"{where}: transfer '{entry.name}' is another one for each corruption; {remedy}")
        for name in measure.perturbation:
            needed = entry_of(name).corruptions
            lacking = next((one for one in needed or [name] if one not in entry.corruptions), None)
            if lacking:
                raise InputError(f"{where}.perturbation: transfer '{entry.name}' has none for {lacking}; {remedy}")
            if len(needed) > 1 and measure.judges != ["mean"]:
                raise InputError(
                    f"{where}.sampling: of several corruptions only a mean is known where each has its own transfer; "
                    f"{remedy}"
                )


def _transfers(measure: AnyMeasure, grid: Grid) -> list[str]:
    """The transfers of the wanted networks of a grid."""
    wanted = measure.wanted.get("transfer", grid.transfer)
    return [name for name in grid.transfer if name in wanted]


def _check_judges(measure: AnyMeasure, grid: Grid, facts: DatasetFacts, where: str) -> None:
    """Refuse what cannot judge the networks of a grid."""
    decodes = _transfers(measure, grid) != [NONE]
    network = NetworkKind(
        layered=not grid.averages_samples,
        has_bounds=grid.has_bounds,
        activations=_activations(measure, grid, facts),
        standardises=_standardises(measure, grid, facts),
        # What is made of a trunk has no generator beside it any more.
        has_generator=OBJECTIVES[grid.objective].generates is not None and not decodes and not grid.has_trunk,
        decodes=decodes,
    )
    for judge in (JUDGES[name] for name in measure.judges):
        if reason := _refused(judge, measure, network):
            named = f"'{judge.name}' cannot judge the networks of grid '{grid.name}'"
            raise InputError(f"{where}.{judge.key}: {named}: {reason}")


def _activations(measure: AnyMeasure, grid: Grid, facts: DatasetFacts) -> tuple[str, ...]:
    """The activations of the wanted networks of a grid."""
    if "activation" in grid.axis_names():
        wanted = measure.wanted.get("activation", grid.activation)
        return tuple(name for name in grid.activation if name in wanted)
    layers = ARCHITECTURES[grid.architecture].layers
    each = (activations(layers(axes, facts.shape, facts.classes)) for axes in _shapes(grid, measure.wanted))
    return tuple(dict.fromkeys(itertools.chain(*each)))


def _standardises(measure: AnyMeasure, grid: Grid, facts: DatasetFacts) -> bool:
    """Whether a wanted network of a grid does; no architecture that is trained does."""
    own = ARCHITECTURES[grid.architecture]
    each = () if own.is_trained else _shapes(grid, measure.wanted)
    return any(standardises(own.layers(axes, facts.shape, facts.classes)) for axes in each)


def standardises(layers: Layers) -> bool:
    """Whether layers divide by a deviation of an image's own numbers."""
    return any(isinstance(layer, Standardise | GroupNorm) for layer, _ in layers.within())


def activations(layers: Iterable[Layer]) -> tuple[str, ...]:
    """The names of the activations among layers."""
    found: dict[str, None] = {}
    for layer in layers:
        if isinstance(layer, Activation):
            found[layer.name] = None
        if isinstance(layer, Residual):
            found |= dict.fromkeys(activations((*layer.body, *layer.shortcut)))
    return tuple(found)


def _refused(judge: Judge, measure: AnyMeasure, network: NetworkKind) -> str | None:
    """Why a judge cannot judge such networks by a form of the notion in a norm that are asked; None if it can all."""
    reasons = (judge.refuses(notion, norm, network) for notion in measure.forms for norm in measure.norm)
    return next(filter(None, reasons), None)


def _check_sizes(measure: AnyMeasure, grid: Grid, facts: DatasetFacts, where: str) -> None:
    """Refuse a judge of which a network of a grid is too large."""
    for judge in (JUDGES[name] for name in measure.judges if JUDGES[name].minds_size):
        for axes in _shapes(grid, measure.wanted):
            layers = ARCHITECTURES[grid.architecture].layers(axes, facts.shape, facts.classes)
            network = NetworkKind(activations=activations(layers), layers=layers)
            if reason := _refused(judge, measure, network):
                named = ", ".join(f"{name} {value}" for name, value in axes.items())
                raise InputError(
                    f"{where}.{judge.key}: '{judge.name}' cannot judge the network {named} of grid '{grid.name}' on "
                    f"{facts.name}: {reason}"
                )


def _shapes(grid: Grid, wanted: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The axes of every architecture of a grid that has wanted networks."""
    names = [name for name in ARCHITECTURES[grid.architecture].model_fields if name != "architecture"]
    for values in itertools.product(*(grid.values(name) for name in names)):
        axes = dict(zip(names, values, strict=True))
        if all(value in wanted.get(name, [value]) for name, value in axes.items()):
            yield axes


def _check_epsilon(epsilon: float, confidence: float, at_once: int, facts: DatasetFacts, key: str) -> None:
    reached = epsilon_reached(facts.test, confidence, estimates=at_once)
    least = _rounded_up(reached)
    can_be_had = f"epsilon = {least} can be had" if least < 1 else "no epsilon below 1 can be had"
    try:
        needed = samples_needed(epsilon, confidence, estimates=at_once)
    except ValueError:
        raise InputError(f"{key} = {epsilon} needs more test points than can be counted; {can_be_had}") from None
    if needed > facts.test:
        raise InputError(
            f"{key} = {epsilon} needs {needed} test points and {facts.name} has {facts.test}; {can_be_had}"
        )


def _rounded_up(epsilon: float) -> float:
    return round(epsilon + 0.00005, 4)
