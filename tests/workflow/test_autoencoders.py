"""Auto-encoders as jobs of their own, before the jobs that need them."""

import json
from pathlib import Path

from builders import grid, study
from tiny_study import deltaball, jobs, snakemake, write_study

from deltaball.plan import loading
from deltaball.store.store import Store

CODER = {"name": "manifold", "dataset": "few", "latent": 2, "filters": 2, "epochs": 2, "batch_size": 20}
ON_MANIFOLD = {"notion": "class_change", "perturbation": "on_manifold", "sigma": 0.5, "autoencoder": "manifold"}
PLAIN = grid(name="plain", dataset="few", width=4, epochs=1, batch_size=32)
TAUGHT = {**PLAIN, "name": "taught", "objective": "on_manifold", "autoencoder": "manifold", "beta": 1.0}


def written(folder: Path, data: Path, *grids: dict, **changed: object) -> None:
    content = study(*grids, data=str(data), guarantee={"epsilon": 0.25, "confidence": 0.95}, **changed)
    write_study(folder, json.loads(json.dumps(content)))


def test_a_coder_is_a_job_before_what_needs_it_and_after_the_data(data_folder: Path, tmp_path: Path) -> None:
    written(tmp_path, data_folder, PLAIN, TAUGHT, autoencoders=[CODER], measures=[{**ON_MANIFOLD, "draws": 3}])
    planned = jobs(snakemake(tmp_path, "-n", "measures"))
    assert planned == {"data": 1, "autoencoder": 1, "train": 2, "measure": 2, "measures": 1}
    # A network that nothing on the manifold is asked of in training does not wait for it.
    plan = loading.planned(tmp_path / "config.yaml")
    plain, taught = plan.shards.values()
    trained = f"{plan.study.folder}/shards/{{}}.trained.parquet"
    assert "autoencoder" not in jobs(snakemake(tmp_path, "-n", trained.format(plain.id)))
    assert jobs(snakemake(tmp_path, "-n", trained.format(taught.id)))["autoencoder"] == 1

    said = snakemake(tmp_path, "measures")
    assert said.index("rule autoencoder:") < said.index("rule measure:")
    store, (coder,) = Store(tmp_path / plan.study.store), plan.autoencoders("few")
    assert store.has(coder.id, 2)
    log = (tmp_path / plan.study.folder / "logs/autoencoders/manifold.log").read_text()
    assert "auto-encoder manifold: squared error of a test image" in log
    assert jobs(snakemake(tmp_path, "-n", "measures")) == {}

    # Another number of epochs is another auto-encoder.
    written(tmp_path, data_folder, PLAIN, autoencoders=[{**CODER, "epochs": 3}], measures=[{**ON_MANIFOLD, "draws": 3}])
    again = jobs(snakemake(tmp_path, "-n", "measures"))
    assert again["autoencoder"] == again["measure"] == 1
    assert "train" not in again


def test_evicted_weights_are_measured_where_they_are_trained_so_both_need_it(data_folder: Path, tmp_path: Path) -> None:
    written(tmp_path, data_folder, {**PLAIN, "weights": "evict"}, autoencoders=[CODER], measures=[ON_MANIFOLD])
    assert jobs(snakemake(tmp_path, "-n", "networks"))["autoencoder"] == 1


def test_an_unknown_one_is_told_in_a_line(data_folder: Path, tmp_path: Path) -> None:
    written(tmp_path, data_folder, PLAIN, autoencoders=[CODER], measures=[ON_MANIFOLD])
    done = deltaball(tmp_path, "autoencoder", "manifolds")
    assert done.returncode == 2
    assert "has no auto-encoder 'manifolds'; did you mean 'manifold'?" in done.stderr
