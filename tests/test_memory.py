"""Free memory under control groups, bytes of a graph, and allocation errors."""

import psutil
import pytest
import torch
from torch import nn

from sklearn_longbert import LongBertClassifier, _memory
from sklearn_longbert import _net as net_module

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GiB available, whose control groups are files below tmp_path."""

    class Available:
        available = 8 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Available)
    monkeypatch.setattr(_memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(_memory, "PROCESS_CGROUPS", tmp_path / "self")

    def write(path, **files):
        folder = tmp_path / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    return write


def test_without_control_groups(machine):
    assert _memory.free_memory(CPU) == 8 * GIB


def test_version_2(machine):
    machine("", self="0::/user/job")
    machine("user/job", memory__max="max", memory__current=GIB, memory__stat="inactive_file 5")
    assert _memory.free_memory(CPU) == 8 * GIB
    # a limit further up binds; what the page cache can give back is free
    stat = f"anon 7\ninactive_file {GIB // 2}"
    machine("user", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=stat)
    assert _memory.free_memory(CPU) == 4 * GIB - 3 * GIB + GIB // 2
    machine("user/job", memory__max=2 * GIB, memory__current=2 * GIB, memory__stat="anon 1")
    assert _memory.free_memory(CPU) == 0


def test_version_1(machine):
    machine("", self="7:cpu,cpuacct:/other\n4:memory:/job\n0::/")
    files = {"memory__limit_in_bytes": 3 * GIB, "memory__usage_in_bytes": GIB}
    machine("memory/job", **files, memory__stat="total_inactive_file 0")
    assert _memory.free_memory(CPU) == 2 * GIB
    machine("memory/job", memory__limit_in_bytes=9223372036854771712)
    assert _memory.free_memory(CPU) == 8 * GIB


def test_this_machine():
    assert 0 < _memory.free_memory(CPU) <= psutil.virtual_memory().total


def test_graph_bytes_by_hand():
    x = torch.ones(10, 4)
    layer = nn.Linear(4, 6)
    # the product keeps its input, relu its output; the weight is counted nowhere
    assert _memory.graph_bytes(lambda: layer(x).relu()) == 4 * (10 * 4 + 10 * 6)
    assert _memory.graph_bytes(lambda: x * 2) == 0


def test_failed_allocations_are_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert _memory.is_out_of_memory(raised.value)
    assert _memory.requested_bytes(raised.value) == 4 * 10**15
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 MiB. GPU 0 has")
    assert _memory.is_out_of_memory(cuda)
    assert _memory.requested_bytes(cuda) == 3 * 2**19
    assert _memory.is_out_of_memory(MemoryError())
    assert _memory.requested_bytes(MemoryError()) is None
    assert not _memory.is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_auto_follows_free_memory(precision, tiny_bert, monkeypatch):
    """Half of what is free, less gradients and moments, over what a token takes in the graph."""
    limits, bytes_per_token = [], []
    measure = net_module.graph_bytes
    monkeypatch.setattr(
        net_module,
        "graph_bytes",
        lambda forward: bytes_per_token.append(measure(forward) / 64) or 64 * bytes_per_token[-1],
    )
    train = net_module.LongBertNet._backward
    monkeypatch.setattr(
        net_module.LongBertNet,
        "_backward",
        lambda self, *batch: limits.append(self.limits_) or train(self, *batch),
    )
    text = "good news " * 60
    for free in (2**20, 4 * 2**20, 2**50):
        monkeypatch.setattr(net_module, "free_memory", lambda device, free=free: free)
        model = LongBertClassifier(tiny_bert, max_epochs=1, precision=precision)
        model.fit([text, "bad"], [0, 1])
    n_weights = sum(weight.numel() for weight in model.net_.module_.parameters())
    assert bytes_per_token[0] == bytes_per_token[2] > 16 * 4
    for free, (pass_tokens, graph_tokens) in zip((2**20, 4 * 2**20), limits[:2], strict=True):
        assert graph_tokens == int((free / 2 - 3 * 4 * n_weights) / bytes_per_token[0])
        assert pass_tokens == min(graph_tokens, _memory.PASS_TOKENS["cpu"])
    assert limits[2] == (_memory.PASS_TOKENS["cpu"], _memory.GRAPH_TOKENS["cpu"])
