"""How a GPU takes many steps without waiting for Python: CUDA graphs, captured once and replayed."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch

from deltaball.plan.together import SIDE_BY_SIDE

# Steps of one replay. A graph of more starts no faster and takes longer to capture.
BLOCK = 16

# Steps of a size that are taken as they are written first: in them libraries choose their kernels and reserve memory.
WARM_UP = 2

# Parts of a pack, at most, that a GPU works on at once.
LANES = 8

# One thread at a time captures or puts work on the lanes: what another thread put on a stream that is captured would
# become a part of that graph.
CAPTURING = threading.RLock()

Step = Callable[[int], None]  # of so many images
Record = Callable[[Callable[[], None]], Callable[[], None]]


class Streams(NamedTuple):
    """The CUDA streams of a process, no two of them the same: torch has 32, and after these gives the first again."""

    packs: tuple[torch.cuda.Stream, ...]  # of what is trained side by side
    lanes: tuple[torch.cuda.Stream, ...]
    capture: torch.cuda.Stream


@lru_cache(maxsize=1)
def streams() -> Streams:
    """This process's streams. For who holds CAPTURING, so that they are made once."""
    packs, lanes = (tuple(torch.cuda.Stream() for _ in range(count)) for count in (SIDE_BY_SIDE["cuda"], LANES))
    return Streams(packs, lanes, torch.cuda.Stream())


class Replayed:
    """Takes steps by replays of what `record` makes of them: BLOCK at a time, the rest one by one.

    It keeps no step, so that whoever takes steps through it is let go with it, and the memory of its graphs too.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.warm: Counter[int] = Counter()
        self.replays: dict[tuple[int, int], Callable[[], None]] = {}

    def __call__(self, step: Step, size: int, count: int) -> None:
        """Take `count` steps of `size` images, always by the same `step`."""
        while count:
            if self.warm[size] < WARM_UP:
                step(size)
                self.warm[size] += 1
                count -= 1
                continue
            block = BLOCK if count >= BLOCK else 1
            self._replay(step, size, block)()
            count -= block

    def _replay(self, step: Step, size: int, block: int) -> Callable[[], None]:
        if (size, block) not in self.replays:

            def work() -> None:
                for _ in range(block):
                    step(size)

            self.replays[size, block] = self.record(work)
        return self.replays[size, block]


class Captured:
    """Makes CUDA graphs, which share the memory of what they compute on the way: they never run at the same time."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph of `work`, to be replayed; `work` itself, and a line, where it cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        with CAPTURING, _own_workspaces():
            stream = streams().capture
            stream.wait_stream(torch.cuda.current_stream())
            try:
                with torch.cuda.stream(stream):
                    self._capture(graph, work)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as problem:
                print(f"steps are not captured in a CUDA graph, and slower: {problem}".splitlines()[0], flush=True)
                return work
        return graph.replay

    def _capture(self, graph: torch.cuda.CUDAGraph, work: Callable[[], None]) -> None:
        # thread_local, because other threads train and allocate meanwhile.
        graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
        try:
            work()
        except BaseException:
            # Ending a broken capture fails too, and would hide what broke it.
            with contextlib.suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()


@contextlib.contextmanager
def _own_workspaces() -> Iterator[None]:
    """Let cuBLAS take memory to work in anew, and leave it to what is captured meanwhile.

    It keeps such memory for each stream. Graphs that were captured on one stream would share it, and those of packs
    side by side run at the same time.
    """
    clear_workspaces()
    try:
        yield
    finally:
        clear_workspaces()


def clear_workspaces() -> None:
    """Make cuBLAS let go of the memory that it works in."""
    torch._C._cuda_clearCublasWorkspaces()  # noqa: SLF001 (torch has no other name for it)
