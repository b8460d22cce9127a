"""A GPU that is pretended on a CPU: what torch computes "on cuda" is computed here, and checked as a GPU would want it.

Tensors are ordinary ones whose storages are noted as the device's. Checked is what goes wrong on a GPU alone:
- operations that mix tensors of the device and of the host;
- values that the host asks for while a graph is captured, and how often it waits for them else;
- work of one stream that touches what another one works on without waiting for it, memory that is freed while another
  stream uses it, cuBLAS' memory to work in that two streams share, work that another thread puts on a captured stream.

A captured graph is a list of operations that were not done; a replay does them, on the same memory. Streams keep
vector clocks (Lamport 1978; Fidge 1988), so that a race is found however the threads happen to run.
"""

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deltaball.training import descent, graphs

NAME = "a pretended GPU"
STREAMS = 32  # that torch has; after so many it gives the first again

# The host waits for the values of these.
ASKING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_consecutive"}
# These may take a tensor of the host beside one of the device.
MIXING = {"copy_", "_to_copy", "index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv"}

Clock = dict[int, int]  # of each stream, how much is known to be done

# By storage (or workspace, below 0): first and last byte, whether it was written, by which stream, and when last.
Uses = dict[int, dict[tuple[int, int, bool, int], int]]


class NotOnAGpuError(RuntimeError):
    """What a GPU would refuse, or do wrong."""


class Stream:
    """A CUDA stream: its own clock, and the graph that it is captured into."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.clock: Clock = {}
        self.graph: Graph | None = None

    def wait_stream(self, other: "Stream") -> None:
        self.clock = joined(self.clock, other.clock)
        if other.graph and not self.graph:
            self.graph = other.graph
            self.graph.streams.append(self)

    def synchronize(self) -> None:
        if self.graph:
            raise NotOnAGpuError("operation not permitted when stream is capturing")
        # Threads tell each other what they waited for: what comes later in any of them is ordered.
        gpu().known = joined(gpu().known, self.clock)
        gpu().waits += 1


class Graph:
    """A CUDA graph."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.thread = 0
        self.work: list[tuple[Callable[..., Any], Any, Any, Any]] = []
        self.touched: list[tuple[int, int, int, bool]] = []
        self.uses: Uses = {}
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}
        self.made: set[int] = set()

    def capture_begin(self, pool: object = None, capture_error_mode: str = "global") -> None:
        assert capture_error_mode == "thread_local"
        self.streams, self.thread = [current_stream()], threading.get_ident()
        self.streams[0].graph = self

    def remember(self, tensors: list[torch.Tensor]) -> None:
        """Keep the content of what is overwritten, because nothing is done while it is captured."""
        for one in tensors:
            if key(one) not in self.made and key(one) not in self.before:
                with paused():
                    self.before[key(one)] = one.untyped_storage(), one.untyped_storage().clone()

    def capture_end(self) -> None:
        for stream in self.streams:
            stream.graph = None
        with paused():
            for storage, content in self.before.values():
                storage.copy_(content)
        self.before.clear()

    def replay(self) -> None:
        found = gpu()
        with found.lock, torch.no_grad(), paused():
            for storage, low, high, writes in self.touched:
                found.touch(storage, low, high, writes, current_stream())
            for function, args, kwargs, out in self.work:
                again = function(*args, **kwargs)
                for one, other in zip(tree_leaves(again), tree_leaves(out), strict=True):
                    if isinstance(one, torch.Tensor) and key(other) in self.made and one is not other:
                        other.copy_(one)


def joined(one: Clock, other: Clock) -> Clock:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one.keys() | other.keys()}


def key(tensor: torch.Tensor) -> int:
    return id(tensor.untyped_storage())  # one object, for as long as there is the storage


class Gpu:
    """The state of the device."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.known: Clock = {}  # to the host
        self.default = Stream(0)
        self.pool = [Stream(number + 1) for number in range(STREAMS)]
        self.taken = itertools.count()
        self.here: dict[int, tuple[int, Stream]] = {}  # storages of the device: their bytes, where they were made
        self.uses: Uses = {}
        self.workspaces: dict[int, int] = {}  # of cuBLAS, by stream
        self.names = itertools.count(1)
        self.waits = self.bytes = self.peak = self.graphs = 0
        self.problems: list[str] = []

    def has(self, tensor: object) -> bool:
        return isinstance(tensor, torch.Tensor) and key(tensor) in self.here

    def keep(self, tensor: torch.Tensor) -> None:
        """Note that a tensor is the device's, and was written there just now."""
        storage = tensor.untyped_storage()
        if id(storage) in self.here:
            return
        self.here[id(storage)] = storage.nbytes(), current_stream()
        self.bytes += storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self.forget, id(storage))
        self.touch(id(storage), 0, storage.nbytes(), True, current_stream())

    def forget(self, storage: int) -> None:
        with self.lock:
            size, made_on = self.here.pop(storage, (0, self.default))
            self.bytes -= size
            clock = joined(made_on.clock, self.known)
            for (_, _, _, stream), tick in self.uses.pop(storage, {}).items():
                if stream != made_on.number and clock.get(stream, 0) < tick:
                    self.problems.append(f"freed for stream {made_on.number} while stream {stream} may use it")

    def touch(self, storage: int, low: int, high: int, writes: bool, stream: Stream) -> None:
        """Work on memory, after everything that it has to wait for; else a problem."""
        known = (stream.graph or self).uses.setdefault(storage, {})
        stream.clock = joined(stream.clock, self.known)
        now = stream.clock.get(stream.number, 0) + 1
        stream.clock[stream.number] = now
        for (other_low, other_high, wrote, number), tick in known.items():
            apart = number == stream.number or stream.clock.get(number, 0) >= tick
            if (writes or wrote) and not apart and low < other_high and other_low < high:
                what = "cuBLAS' workspace" if storage < 0 else "memory"
                self.problems.append(f"streams {number} and {stream.number} use the same {what} unordered")
        known[low, high, writes, stream.number] = now

    def ordered(self) -> None:
        """Raise what went wrong."""
        if self.problems:
            raise NotOnAGpuError("; ".join(sorted(set(self.problems))))


_GPU: list[Gpu] = []
_MODES = threading.local()


def gpu() -> Gpu:
    return _GPU[-1]


def current_stream(device: object = None) -> Stream:
    return getattr(_MODES, "stream", None) or gpu().default


@contextlib.contextmanager
def stream(chosen: Stream) -> Iterator[None]:
    """torch.cuda.stream; in a thread that does not pretend yet, it begins to."""
    before = getattr(_MODES, "stream", None)
    _MODES.stream = chosen
    fresh = not getattr(_MODES, "on", False)
    try:
        with modes() if fresh else contextlib.nullcontext():
            yield
    finally:
        _MODES.stream = before


@contextlib.contextmanager
def modes() -> Iterator[None]:
    _MODES.on = True
    try:
        with Operations(), Calls():
            yield
    finally:
        _MODES.on = False


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Operations are done and not looked at."""
    before, _MODES.paused = getattr(_MODES, "paused", False), True
    try:
        yield
    finally:
        _MODES.paused = before


def is_device(value: object) -> bool:
    return isinstance(value, str | torch.device) and torch.device(value).type == "cuda"


class Calls(TorchFunctionMode):
    """What torch's functions say of devices, and where they put tensors."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, found = dict(kwargs or {}), gpu()
        if function == torch.Tensor.device.__get__:
            return torch.device("cuda", 0) if found.has(args[0]) else function(*args)
        if function == torch.Tensor.is_cuda.__get__:
            return found.has(args[0])
        if function in (torch.Tensor.numpy, torch.Tensor.__array__) and found.has(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        kwargs.pop("pin_memory", None)
        there = [one for one in (*args[1:2], kwargs.get("device")) if is_device(one)]
        if function is torch.Tensor.to and len(args) > 1 and isinstance(args[1], torch.Tensor):
            there = [args[1]] if found.has(args[1]) else ["cpu"]
        leaves = function is torch.Tensor.cpu or (
            function is torch.Tensor.to and "cpu" in map(str, (*there, *args[1:]))
        )
        if leaves and found.has(args[0]):
            return self._to_host(args[0])
        moved = [one for one in there if str(one) != "cpu"]
        if moved:
            args = tuple("cpu" if is_device(one) else one for one in args)
            kwargs = {name: "cpu" if is_device(value) else value for name, value in kwargs.items()}
        result = function(*args, **kwargs)
        if moved or (found.has(args[0] if args else None) and function.__name__.startswith("new_")):
            if isinstance(args[0], torch.Tensor) and result is args[0] and not found.has(result):
                with paused():
                    result = result.clone()
            if isinstance(result, torch.Tensor):
                found.keep(result)
        return result

    @staticmethod
    def _to_host(tensor: torch.Tensor) -> torch.Tensor:
        current_stream().synchronize()
        with paused():
            return tensor.detach().clone()


class Operations(TorchDispatchMode):
    """What each operation touches, and on which stream."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(_MODES, "paused", False):
            return function(*args, **kwargs)
        found = gpu()
        with found.lock:
            given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
            ours = [one for one in given if found.has(one)]
            if not ours:
                return function(*args, **kwargs)
            name = function.name().removeprefix("aten::").partition(".")[0]
            self._check(name, function, given, ours, args)
            return self._done(name, function, args, kwargs, given, ours)

    @staticmethod
    def _check(name: str, function: Any, given: list[torch.Tensor], ours: list[torch.Tensor], args: Any) -> None:
        foreign = [one for one in given if not gpu().has(one) and one.ndim]
        if foreign and name not in MIXING:
            raise NotOnAGpuError(f"{name} mixes tensors of the device and of the host")
        by_mask = name.startswith(("index", "_index", "_unsafe_index")) and any(
            isinstance(one, torch.Tensor) and one.dtype in (torch.bool, torch.uint8)
            for one in (args[1] if isinstance(args[1], list | tuple) else ())
        )
        if name in ASKING or by_mask:
            current_stream().synchronize()
        stream = current_stream()
        if stream.graph and stream.graph.thread != threading.get_ident():
            raise NotOnAGpuError(f"{name} of one thread on a stream that another one captures")

    @staticmethod
    def _done(
        name: str, function: Any, args: Any, kwargs: Any, given: list[torch.Tensor], ours: list[torch.Tensor]
    ) -> Any:
        found, stream, graph = gpu(), current_stream(), current_stream().graph
        written = _written(name, args, kwargs)
        touched = [(key(one), *_extent(one), any(one is other for other in written)) for one in ours]
        if name in PRODUCTS:
            touched.append((found.workspaces.setdefault(stream.number, -next(found.names)), 0, 1, True))
        if graph:
            graph.remember(written)
        result = function(*args, **kwargs)
        made = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        made = [one for one in made if not found.has(one)]
        for one in made:
            found.keep(one)
        views = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        if not made and not written and views:  # a view touches nothing
            touched = []
        for storage, low, high, writes in touched:
            found.touch(storage, low, high, writes, stream)
        if graph:
            graph.made.update(map(key, made))
            graph.work.append((function, args, kwargs, result))
            graph.touched += [one for one in touched if one[0] not in graph.made]
        return result


def _written(name: str, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """What an operation overwrites: by torch's naming, x of x.add_(y), and whatever is given as out."""
    changed = [*(args[:1] if name.endswith("_") else ()), kwargs.get("out")]
    return [one for one in tree_leaves(changed) if isinstance(one, torch.Tensor) and gpu().has(one)]


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first byte of its storage that a tensor may touch, and the one after the last."""
    if not tensor.numel():
        return 0, 0
    size = tensor.element_size()
    first = tensor.storage_offset() * size
    reach = sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
    return first, first + (reach + 1) * size


def forget_devices() -> None:
    """Let go what a process keeps of its GPU."""
    graphs.streams.cache_clear()
    descent.resident.cache_clear()


@contextlib.contextmanager
def pretended() -> Iterator[Gpu]:
    """A machine with a GPU, for the block and the threads that take a CUDA stream in it."""
    found = Gpu()
    _GPU.append(found)

    def made(*_: object, **__: object) -> Stream:
        return found.pool[next(found.taken) % STREAMS]

    def new_graph() -> Graph:
        found.graphs += 1
        return Graph()

    instead = {
        "is_available": lambda: True,
        "get_device_name": lambda *_: NAME,
        "Stream": made,
        "stream": stream,
        "current_stream": current_stream,
        "CUDAGraph": new_graph,
        "graph_pool_handle": object,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: [one.synchronize() for one in (found.default, *found.pool)],
        "max_memory_allocated": lambda *_: found.peak,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in instead.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(graphs, "clear_workspaces", found.workspaces.clear)
        forget_devices()
        try:
            with modes():
                yield found
        finally:
            forget_devices()
            _GPU.pop()
    found.ordered()
