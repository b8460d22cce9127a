"""Packs side by side on a device."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from queue import SimpleQueue
from typing import Any

from deltaball.plan.networks import Trajectory
from deltaball.plan.together import at_a_time
from deltaball.training.progress import Progress


def side_by_side(
    packs: Sequence[tuple[Trajectory, ...]],
    work: Callable[[Sequence[Trajectory]], int],
    device: str,
    progress: Progress,
) -> int:
    """Do `work` on packs, some at a time, so that none waits for another's Python; returns the sum of what it returns.

    Whatever ends it early (a signal, an error) ends what is under way at the next epoch or transition.
    """
    workers = at_a_time(packs, device)
    if workers == 1:
        return sum(map(work, packs))
    on_stream = partial(_on_a_stream, work, _free_streams()) if device == "cuda" else work
    with ThreadPoolExecutor(workers) as pool:
        under_way = [pool.submit(on_stream, pack) for pack in packs]
        try:
            return sum(one.result() for one in as_completed(under_way))
        except BaseException:
            progress.stop()
            pool.shutdown(cancel_futures=True)
            raise


def _free_streams() -> SimpleQueue:
    """The CUDA streams of packs, none of which trains yet."""
    from deltaball.training import graphs

    free: SimpleQueue = SimpleQueue()
    with graphs.CAPTURING:
        for stream in graphs.streams().packs:
            free.put(stream)
    return free


def _on_a_stream(work: Callable[[Sequence[Trajectory]], int], free: SimpleQueue, pack: Sequence[Trajectory]) -> int:
    import torch

    stream: Any = free.get()
    try:
        with torch.cuda.stream(stream):
            return work(pack)
    finally:
        free.put(stream)
