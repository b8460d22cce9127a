"""The pretended GPU finds what it is there for."""

import threading

import pytest
import torch
from pretended_gpu import NotOnAGpuError, current_stream, pretended

from deltaball.training.graphs import Captured


def test_arithmetic_is_that_of_the_host_and_takes_the_device_along() -> None:
    with pretended() as gpu:
        x = torch.arange(6.0).view(2, 3).to("cuda")
        y = torch.where(x > 1, 0.5, x) @ torch.ones(3, 2, device=x.device)
        assert y.is_cuda
        assert y.device == torch.device("cuda", 0)
        assert torch.zeros_like(y).is_cuda
        assert not y.cpu().is_cuda
        assert gpu.waits == 1
    assert y.tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_tensors_of_two_devices_do_not_mix() -> None:
    with pretended():
        x = torch.ones(3, device="cuda")
        assert (x + torch.tensor(1.0)).is_cuda  # a single number may come from the host
        assert x[torch.tensor([0, 2])].is_cuda  # and so may places
        with pytest.raises(NotOnAGpuError, match="add mixes tensors"):
            x + torch.ones(3)
        with pytest.raises(TypeError, match="can't convert"):
            x.numpy()


def test_memory_is_counted() -> None:
    with pretended() as gpu:
        x = torch.ones(1000, device="cuda")
        y = x + 1
        del y
        assert (gpu.bytes, gpu.peak) == (4000, 8000)


@pytest.mark.parametrize("waits", [False, True])
def test_work_of_two_streams_must_be_ordered(waits: bool) -> None:
    with pretended() as gpu:
        x, stream = torch.ones(3, device="cuda"), torch.cuda.Stream()
        if waits:
            stream.wait_stream(current_stream())
        with torch.cuda.stream(stream):
            y = x + 1
        assert bool(gpu.problems) != waits
        gpu.problems.clear()
        if waits:
            current_stream().wait_stream(stream)
        x += 1
        assert bool(gpu.problems) != waits
        gpu.problems.clear()
    assert y.tolist() == [2, 2, 2]


def test_memory_is_not_freed_while_another_stream_uses_it() -> None:
    with pretended() as gpu:
        x, stream = torch.ones(3, device="cuda"), torch.cuda.Stream()
        stream.wait_stream(current_stream())
        with torch.cuda.stream(stream):
            x + 1
        del x
        assert gpu.problems == [f"freed for stream 0 while stream {stream.number} may use it"]
        gpu.problems.clear()


def test_a_graph_does_nothing_until_it_is_replayed() -> None:
    with pretended():
        x = torch.zeros(3, device="cuda")
        y = torch.zeros(3, device="cuda")

        def work() -> None:
            x.add_(1)
            y.add_(x * 2)

        replay = Captured()(work)
        assert (x.tolist(), y.tolist()) == ([0, 0, 0], [0, 0, 0])
        replay()
        x.fill_(5)
        replay()
        assert (x.tolist(), y.tolist()) == ([6, 6, 6], [14, 14, 14])


def test_work_that_asks_for_a_value_is_not_captured(capsys: pytest.CaptureFixture[str]) -> None:
    with pretended():
        x = torch.zeros(3, device="cuda")

        def work() -> None:
            x.add_(1 if x.sum() < 9 else 0)

        Captured()(work)()
        assert x.tolist() == [1, 1, 1]
    assert "not captured" in capsys.readouterr().out


def test_graphs_that_run_at_the_same_time_do_not_share_what_cublas_works_in() -> None:
    with pretended() as gpu:
        products = [torch.ones(3, 3, device="cuda") for _ in range(4)]
        torch.cuda.synchronize()
        stream, graphs = torch.cuda.Stream(), []
        for x, y in zip(products[:2], products[2:], strict=True):
            graphs.append(torch.cuda.CUDAGraph())
            with torch.cuda.stream(stream):
                graphs[-1].capture_begin(capture_error_mode="thread_local")
                torch.mm(x, x, out=y)
                graphs[-1].capture_end()
        for graph in graphs:
            with torch.cuda.stream(torch.cuda.Stream()):
                graph.replay()
        assert len(gpu.problems) == 1
        assert "the same cuBLAS' workspace unordered" in gpu.problems.pop()


def test_no_thread_works_on_a_stream_that_another_one_captures() -> None:
    with pretended():
        x, stream, found = torch.zeros(3, device="cuda"), torch.cuda.Stream(), []
        graph = torch.cuda.CUDAGraph()

        def other() -> None:
            try:
                with torch.cuda.stream(stream):
                    torch.ones(3, device="cuda").add_(1)
            except NotOnAGpuError as problem:
                found.append(str(problem))

        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            x.add_(1)
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            graph.capture_end()
        assert found == ["add_ of one thread on a stream that another one captures"]
