"""How much memory a computation holds at most, without doing it: its tensors are fake, their sizes are real."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Memory(TorchDispatchMode):
    """Counts the bytes of the storages that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.bytes = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self._count(one.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self.sizes:
            self.sizes[id(storage)] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, storage: int) -> None:
        self.bytes -= self.sizes.pop(storage)


@contextlib.contextmanager
def counted() -> Iterator[Memory]:
    """Memory of what is computed in the block, where nothing is: no tensor of it has values."""
    with FakeTensorMode(allow_non_fake_inputs=True), Memory() as memory:
        yield memory
