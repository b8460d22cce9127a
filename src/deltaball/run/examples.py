"""Pictures for the report: a few test points of a few networks, with the twins that attacks found.

``examples.parquet`` stands beside the tables and is no part of them: nothing is estimated from it. Networks are drawn
by their ids, which are hashes, so that nobody picks them; points are the first of those that every network is measured
on.
Weights that the store has let go are not trained again for a picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from deltaball.analysis.judges import strength
from deltaball.base.errors import InputError
from deltaball.data.datasets import Dataset
from deltaball.estimation.measuring import is_measurable, pack_of
from deltaball.estimation.outcomes import around_of, notion_of
from deltaball.estimation.points import draw_points
from deltaball.estimation.stored import checkpoint_of
from deltaball.local.judges import judge
from deltaball.networks.models import Model
from deltaball.networks.posteriors import Posterior
from deltaball.plan.batches import IMAGES_MULTIPLE
from deltaball.plan.measures import Measure
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.methods import METHODS
from deltaball.study.notions import NOTIONS
from deltaball.tables import columns, frames

NETWORKS, POINTS, BALLS = 24, 6, 3  # per study, per network, per point
SHOWN = (
    "class_change",
    "softmax_variation",
    "variation_above",
    "classification",
)  # what is shown of, the first that is attacked


def write(plan: Plan) -> Path:
    """Write ``examples.parquet``, on the CPU whatever the study's device is. Returns its path."""
    store = Store(plan.study.store)
    rows: list[dict[str, Any]] = []
    shown = 0
    for network, measures in drawn(plan):
        if shown == NETWORKS:
            break
        found = _rows(plan, store, network, measures)
        rows += found
        shown += bool(found)
    path = plan.study.folder / "examples.parquet"
    frames.write(pd.DataFrame(rows, columns=list(columns.EXAMPLES)).astype(columns.EXAMPLES), path)
    return path


def drawn(plan: Plan) -> Iterator[tuple[Network, list[Measure]]]:
    """The networks that attacks are asked of, in the order of their ids, each kind of network in its turn."""
    kinds: dict[tuple[str, str, str], list[Network]] = {}
    for network in sorted(plan.networks, key=lambda one: one.id):
        kinds.setdefault((network.dataset, network.method, network.architecture), []).append(network)
    for network in chain.from_iterable(zip_longest(*kinds.values())):
        measures = _shown(plan.measures_of(network)) if network else []
        if measures:
            yield network, measures


def _shown(measures: Sequence[Measure]) -> list[Measure]:
    """Of the first notion that is attacked, the strongest attack in the smallest, the middle and the largest ball.

    Then the closest violation that each attack finds, within the largest distance that is asked.
    """
    sought = sorted((one for one in measures if one.attack and NOTIONS[one.notion].is_distance), key=_reach)
    closest = {(one.norm, one.attack): one for one in sought}
    return [*_in_balls(measures), *closest.values()]


def _reach(one: Measure) -> tuple[tuple[int, float], float]:
    return _strength(one), one.delta


def _in_balls(measures: Sequence[Measure]) -> list[Measure]:
    for notion in SHOWN:
        attacks = sorted((one for one in measures if one.attack and one.notion == notion), key=_strength)
        balls = {(one.norm, one.delta): one for one in attacks}
        if balls:
            ordered = [balls[key] for key in sorted(balls)]
            places = {0, len(ordered) // 2, len(ordered) - 1} if len(ordered) > BALLS else range(len(ordered))
            return [ordered[place] for place in sorted(places)]
    return []


def _strength(one: Measure) -> tuple[int, float]:
    return strength(one.label)


def _rows(plan: Plan, store: Store, network: Network, measures: Sequence[Measure]) -> list[dict[str, Any]]:
    """A row per point and ball; none where the store no longer has the network, or never had it."""
    checkpoint, facts = checkpoint_of(network), plan.facts[network.dataset]
    try:
        if not store.has(*checkpoint) or not is_measurable(checkpoint, store):
            return []
        model = _model(plan, store, network)
        dataset = store.load_dataset(facts)
    except InputError:
        return []
    # As many as a call of an attack takes, so that what is found is what was measured.
    points = draw_points(facts, min(IMAGES_MULTIPLE, facts.test), plan.study.guarantee.seed)
    twins = _twins(model, dataset.x_test[points], dataset.y_test[points], measures)
    rows = _described(model, dataset, points[:POINTS], twins)
    return [{"network_id": network.id, "dataset": network.dataset, **row} for row in rows]


def _model(plan: Plan, store: Store, network: Network) -> Model:
    checkpoint, layers = checkpoint_of(network), plan.layers(network)
    if METHODS[network.method].averages_samples:
        return Posterior.of(layers, store.samples(*checkpoint))
    return pack_of([checkpoint], layers, store)


def _twins(
    model: Model, images: np.ndarray, labels: np.ndarray, measures: Sequence[Measure]
) -> dict[Measure, np.ndarray]:
    """The worst points [n, h, w, c] that each measure's attack finds around the images [n, h, w, c]."""
    twins = {}
    for one in measures:
        asked, keys = {around_of(one): [notion_of(one)]}, range(len(images))
        given = torch.from_numpy(images), asked, keys, torch.from_numpy(labels)
        ((_, _, verdict),) = judge(one.judge, **dict(one.settings))(model, *given)
        twins[one] = verdict.perturbed[0].numpy()
    return twins


def _described(
    model: Model, dataset: Dataset, points: np.ndarray, twins: Mapping[Measure, np.ndarray]
) -> Iterator[dict[str, Any]]:
    images = dataset.x_test[points]
    predicted = _classes(model, images)
    height, width, channels = images.shape[1:]
    for one, perturbed in twins.items():
        became = _classes(model, perturbed[: len(points)])
        for place, index in enumerate(points):
            yield {
                "point": place,
                "label": int(dataset.y_test[index]),
                "measure": one.name,
                "attack": one.attack,
                "delta": one.delta,
                "norm": one.norm,
                "predicted": int(predicted[place]),
                "became": int(became[place]),
                "height": height,
                "width": width,
                "channels": channels,
                "image": _bytes(images[place]),
                "perturbed": _bytes(perturbed[place]),
            }


def _classes(model: Model, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(images))[0].argmax(-1).numpy()


def _bytes(image: np.ndarray) -> bytes:
    """An image as 256 levels, which is what a screen shows of it."""
    return (255 * image).round().astype("uint8").tobytes()
