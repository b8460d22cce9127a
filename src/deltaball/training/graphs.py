"""How a GPU takes many steps without waiting for Python: CUDA graphs, captured once and replayed."""

import threading
from collections import Counter
from collections.abc import Callable

import torch

# Steps of one replay. A graph of more starts no faster and takes longer to capture.
BLOCK = 16

# Steps of a size that are taken as they are written first: in them libraries choose their kernels and reserve memory.
WARM_UP = 2

# Only one thread captures at a time.
CAPTURING = threading.Lock()


class Replayed:
    """Steps by replays of what `record` makes of them: BLOCK at a time, the rest one by one."""

    def __init__(self, step: Callable[[int], None], record: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        self.step, self.record = step, record
        self.warm: Counter[int] = Counter()
        self.replays: dict[tuple[int, int], Callable[[], None]] = {}

    def __call__(self, size: int, count: int) -> None:
        while count:
            if self.warm[size] < WARM_UP:
                self.step(size)
                self.warm[size] += 1
                count -= 1
                continue
            block = BLOCK if count >= BLOCK else 1
            self._replay(size, block)()
            count -= block

    def _replay(self, size: int, block: int) -> Callable[[], None]:
        if (size, block) not in self.replays:

            def work() -> None:
                for _ in range(block):
                    self.step(size)

            self.replays[size, block] = self.record(work)
        return self.replays[size, block]


class Captured:
    """Makes CUDA graphs, which share the memory of what they compute on the way: they never run at the same time."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph of `work`, to be replayed; `work` itself, and a line, where it cannot be captured."""
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with CAPTURING, torch.cuda.stream(stream):
                # thread_local, because other threads train and allocate meanwhile.
                graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
                try:
                    work()
                finally:
                    graph.capture_end()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as problem:
            print(f"steps are not captured in a CUDA graph, and slower: {problem}".splitlines()[0], flush=True)
            return work
        return graph.replay
