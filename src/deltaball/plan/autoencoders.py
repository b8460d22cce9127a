"""The auto-encoders that a study trains: an id each, of all that its weights depend on. Light, like the plan."""

import hashlib
import json
from dataclasses import dataclass

from deltaball.data.catalogue import DatasetFacts
from deltaball.study.autoencoders import AutoEncoder


@dataclass(frozen=True)
class AutoEncoding:
    """The training of an auto-encoder; its checkpoint stands in the store under `id`, after its last epoch."""

    id: str
    entry: AutoEncoder


def autoencoding(entry: AutoEncoder, facts: DatasetFacts) -> AutoEncoding:
    """The training that an entry of a study asks for; entries that differ in their names alone share one."""
    axes = entry.model_dump(exclude={"name", "penalty"}) | {"weight": entry.weight}
    # What is fitted to other images under the same name is another one.
    content = {"trained": "autoencoder", "data": facts.fingerprint, "axes": axes}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return AutoEncoding(hashlib.sha256(text.encode()).hexdigest()[:16], entry)
