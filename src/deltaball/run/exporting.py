"""One network of a study as a .keras file, which needs no deltaball to be read."""

from pathlib import Path

from deltaball.base.errors import InputError, alternatives
from deltaball.base.files import written_whole
from deltaball.networks.keras_models import keras_model, set_weights
from deltaball.plan import loading
from deltaball.plan.networks import Network
from deltaball.plan.plan import Plan
from deltaball.store.store import Store
from deltaball.study.methods import METHODS


def export(study: Path, identity: str, output: Path | None) -> str:
    """Write the network of this id to `output` (ID.keras if None); returns the path, and how to use what is there.

    Raises InputError when there is no such network, it has no weights in the store, or is a mean over samples.
    """
    planned = loading.planned(study)
    network = _network(planned, study, identity)
    output = output or Path(f"{network.id}.keras")
    if output.suffix != ".keras":
        raise InputError(f"--output {output}: should end in .keras")
    checkpoint = Store(planned.study.store).find(network.trajectory_id, network.checkpoint)
    if checkpoint is None or not checkpoint.weights:
        raise InputError(
            f"network {network.id} has no weights in {planned.study.store}; "
            f"run `deltaball train --study {study} {planned.shard_of[network.trajectory_id]}`, "
            f"with weights: keep for grid '{network.grid}'"
        )
    if METHODS[network.method].averages_samples:
        raise InputError(f"network {network.id} is a mean over a chain's samples, which one .keras file cannot hold")
    layers = planned.layers(network)
    model = keras_model(layers)
    set_weights(model, layers, checkpoint.weights)
    with written_whole(output) as path:
        model.save(path)
    facts = planned.facts[network.dataset]
    return (
        f"{output}: open it by keras.models.load_model, with KERAS_BACKEND set to what is installed (torch, jax or "
        f"tensorflow); it takes float32 images {[*facts.shape]} in [0, 1] and returns {facts.classes} logits, of which "
        "softmax are the probabilities"
    )


def _network(planned: Plan, study: Path, identity: str) -> Network:
    networks = {network.id: network for network in planned.networks}
    if identity not in networks:
        raise InputError(f"{study} plans no network '{identity}'; {alternatives(identity, networks)}")
    return networks[identity]
