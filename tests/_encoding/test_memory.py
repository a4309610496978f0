"""Free memory under control groups, bytes of a graph, and allocation errors."""

from contextlib import nullcontext
from dataclasses import replace

import psutil
import pytest
import torch
from tiny import ENCODER_ALONE
from torch import nn

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._encoding import memory as memory_module
from sklearn_longbert._encoding import passes as passes_module
from sklearn_longbert._encoding.batches import ChunkBatch

CPU = torch.device("cpu")
GIB = 2**30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GiB available, whose control groups are files below tmp_path."""

    class Available:
        available = 8 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Available)
    monkeypatch.setattr(memory_module, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory_module, "PROCESS_CGROUPS", tmp_path / "self")

    def write(path, **files):
        folder = tmp_path / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (folder / name.replace("__", ".")).write_text(f"{value}\n")

    return write


def test_without_control_groups(machine):
    assert memory_module.free_memory(CPU) == 8 * GIB


def test_version_2(machine):
    machine("", self="0::/user/job")
    machine("user/job", memory__max="max", memory__current=GIB, memory__stat="inactive_file 5")
    assert memory_module.free_memory(CPU) == 8 * GIB
    # a limit further up binds; what the page cache can give back is free
    stat = f"anon 7\ninactive_file {GIB // 2}"
    machine("user", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=stat)
    assert memory_module.free_memory(CPU) == 4 * GIB - 3 * GIB + GIB // 2
    machine("user/job", memory__max=2 * GIB, memory__current=2 * GIB, memory__stat="anon 1")
    assert memory_module.free_memory(CPU) == 0


def test_version_1(machine):
    machine("", self="7:cpu,cpuacct:/other\n4:memory:/job\n0::/")
    files = {"memory__limit_in_bytes": 3 * GIB, "memory__usage_in_bytes": GIB}
    machine("memory/job", **files, memory__stat="total_inactive_file 0")
    assert memory_module.free_memory(CPU) == 2 * GIB
    machine("memory/job", memory__limit_in_bytes=9223372036854771712)
    assert memory_module.free_memory(CPU) == 8 * GIB


def test_this_machine():
    assert 0 < memory_module.free_memory(CPU) <= psutil.virtual_memory().total


def test_a_group_that_cannot_be_read_sets_no_limit(machine):
    machine("", self="0::/job")
    machine("job", memory__max=GIB)  # without what is used, as where it may not be read
    assert memory_module.free_memory(CPU) == 8 * GIB
    machine("", self="0::/elsewhere")
    assert memory_module.free_memory(CPU) == 8 * GIB


def test_graph_bytes_by_hand():
    x = torch.ones(10, 4, requires_grad=True)
    layer = nn.Linear(4, 6)
    # the product keeps its input and its weight, relu its output
    assert memory_module.graph_bytes(lambda: layer(x).relu()) == 4 * (10 * 4 + 4 * 6 + 10 * 6)
    assert memory_module.graph_bytes(lambda: x * 2) == 0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bytes_per_token_do_not_count_weights(precision, tiny_bert):
    """What a token of a chunk takes hardly depends on how long the chunk is."""
    of = []
    for n_words in (3, 30):
        documents = TextChunker(tiny_bert).fit_transform(["good " * n_words])
        model = LongBertClassifier(
            tiny_bert, **ENCODER_ALONE, max_epochs=1, precision=precision
        ).fit(["good", "bad"], [0, 1])
        net = model.net_
        net._set_training(True)
        chunks = ChunkBatch([documents[0]])
        of.append(passes_module._bytes_per_token(net.module_, chunks, net._passes, net._encode))
    size, inner = 16, 32
    assert min(of) > 2 * 2 * (4 * size + 2 * inner)  # two layers, at least two bytes
    assert max(of) < 2 * 4 * (30 * size + 10 * inner)
    assert max(of) / min(of) < 1.3


def test_measuring_keeps_the_random_state_of_its_own_device(tiny_bert, monkeypatch):
    """And not that of the current one, which may be another GPU."""
    net = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1).fit(["a", "b"], [0, 1]).net_
    kept = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda gpus: kept.append(gpus) or nullcontext())
    monkeypatch.setattr(passes_module, "BYTES_PER_TOKEN", {})
    chunks = ChunkBatch(TextChunker(tiny_bert).fit_transform(["good news"]))
    for place, expected in (("cuda:1", [1]), ("cpu", [])):
        passes = replace(net._passes, device=torch.device(place))
        passes_module._bytes_per_token(net.module_, chunks, passes, net._encode)
        assert kept.pop() == expected


def test_failed_allocations_are_recognised():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert memory_module.is_out_of_memory(raised.value)
    assert memory_module.requested_bytes(raised.value) == 4 * 10**15
    cuda = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 MiB. GPU 0 has")
    assert memory_module.is_out_of_memory(cuda)
    assert memory_module.requested_bytes(cuda) == 3 * 2**19
    assert memory_module.is_out_of_memory(MemoryError())
    assert memory_module.requested_bytes(MemoryError()) is None
    assert not memory_module.is_out_of_memory(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (2**50, (2048, 16384)),
        (2 * (500_000 + 5000 * 1000), (2048, 5000)),  # half of it, less what is reserved
        (2 * (500_000 + 2047 * 1000), (1024, 2047)),
        (2 * (500_000 + 1025 * 1000), (1024, 1025)),
        (600, (1, 1)),
        (0, (1, 1)),
    ],
)
def test_limits_by_hand(free, expected, monkeypatch):
    monkeypatch.setattr(memory_module, "free_memory", lambda device: free)
    assert memory_module.auto_limits(1000.0, 500_000, CPU) == expected


def test_limits_elsewhere(monkeypatch):
    monkeypatch.setattr(memory_module, "free_memory", lambda device: 2**50)
    assert memory_module.auto_limits(1000.0, 0, torch.device("cuda")) == (32768, 65536)


def test_limits_of_a_fit(tiny_bert, monkeypatch):
    """Gradients and AdamW's two moments are reserved; batches that fit anyway need no measuring."""
    asked = []
    monkeypatch.setattr(passes_module, "auto_limits", lambda *args: asked.append(args) or (64, 64))
    model = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1).fit(
        ["good", "bad"], [0, 1]
    )
    assert not asked
    model.fit(["good " * 1500, "bad"], [0, 1])
    monkeypatch.setattr(passes_module, "graph_bytes", None)  # measured once in a process
    model.fit(["good " * 1500, "bad"], [0, 1])
    (bytes_per_token, reserved, device), second = asked
    assert second == asked[0]
    n_weights = sum(weight.numel() for weight in model.net_.module_.parameters())
    assert bytes_per_token > 2 * 16
    assert (reserved, device) == (3 * 4 * n_weights, CPU)
