"""Packs side by side on a device."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from deltaball.plan.networks import Trajectory
from deltaball.plan.packing import PACK_NETWORKS
from deltaball.study.methods import METHODS
from deltaball.training.progress import Progress

# Packs that a job trains at a time, at most, and no more networks than a full pack has.
SIDE_BY_SIDE = {"cpu": 1, "cuda": 8}


def side_by_side(
    packs: Sequence[tuple[Trajectory, ...]],
    work: Callable[[Sequence[Trajectory]], int],
    device: str,
    progress: Progress,
) -> int:
    """Do `work` on packs, some at a time, so that none waits for another's Python; returns the sum of what it returns.

    Whatever ends it early (a signal, an error) ends what is under way at the next epoch or transition.
    """
    # JAX has the GPU to itself, and a pack of chains fills it.
    chains = any(METHODS[one.method].on_jax for pack in packs for one in pack)
    most = max(map(len, packs), default=1)
    workers = 1 if chains else max(1, min(SIDE_BY_SIDE[device], PACK_NETWORKS // most))
    if workers == 1:
        return sum(map(work, packs))
    with ThreadPoolExecutor(workers) as pool:
        under_way = [pool.submit(_on_a_stream, work, pack, device) for pack in packs]
        try:
            return sum(one.result() for one in as_completed(under_way))
        except BaseException:
            progress.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _on_a_stream(work: Callable[[Sequence[Trajectory]], int], pack: Sequence[Trajectory], device: str) -> int:
    if device == "cpu":
        return work(pack)
    import torch

    with torch.cuda.stream(torch.cuda.Stream()):
        return work(pack)
