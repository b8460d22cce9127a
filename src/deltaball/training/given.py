"""Networks that users bring: nothing is trained, the weights of their files are checked and kept in the store."""

from collections.abc import Sequence
from pathlib import Path

from deltaball.base.errors import OutsideError
from deltaball.base.statuses import TRAINED
from deltaball.data.datasets import Dataset
from deltaball.exchange import checking, reading
from deltaball.networks.layers import Layers
from deltaball.networks.packs import Pack
from deltaball.plan.networks import Trajectory
from deltaball.store.store import Checkpoint, Store
from deltaball.training.descent import evaluated, missing_steps, provenance, resident
from deltaball.training.progress import SILENT, Progress


def train(
    trajectories: Sequence[Trajectory],
    layers: Layers,
    dataset: Dataset,
    store: Store,
    device: str,
    progress: Progress = SILENT,
) -> int:
    """Put the weights of files in the store that lacks them; returns how many.

    Raises InputError where a file's own runtime and our layers differ, or where a file is not what was planned.
    """
    lacking = [one for one in trajectories if missing_steps(one, store)]
    for one in lacking:
        path = Path(one.axes["file"])
        file = reading.opened(path, dataset.facts.shape, dataset.facts.classes)
        weights = checking.weights(file)
        if reading.digest(path) != one.axes["content"] or file.layers != layers:
            raise OutsideError(f"{path} was changed while the study ran; run it again")
        network = Pack.of(layers, [weights], device)
        checking.check_range(file, network, dataset.x_train, dataset.y_train, device)
        x_train, y_train, x_test, y_test = resident(dataset, device)
        train_accuracy, _ = evaluated(layers, network.weights, x_train, y_train)
        test_accuracy, test_loss = evaluated(layers, network.weights, x_test, y_test)
        facts = {
            **provenance(dataset, device),
            "status": TRAINED,
            "train_accuracy": train_accuracy.item(),
            "test_accuracy": test_accuracy.item(),
            "test_loss": test_loss.item(),
        }
        store.save(one.id, 0, Checkpoint(tuple(weights), {}, facts))
        store.note("kept", one.id, 0)
        progress.finish(1)
    return len(lacking)
