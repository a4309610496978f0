"""The package on a GPU of CUDA, in one command that needs no network:

    python -m pytest -m cuda

Pinned here: what the GPU computes is what plain transformers, the CPU, padding and one graph
compute; a seed makes fits equal; memory that runs out is halved, and comes back after a fit;
pickles, threads, process groups and the caller's modes work. Without a GPU all of it is skipped.

    SKLEARN_LONGBERT_CUDA_TESTS_ON=cpu python -m pytest -m cuda

puts the CPU, or another device of torch, in the place of the GPU. It tests the tests: only those
are skipped that need CUDA's memory, kernels or NCCL.
"""

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skorch.callbacks
import torch
import torch.distributed as dist
from killed_fits import CLASSES, X, differences, fit, result_of
from ranked_fits import Gradients, seen
from test_parity import CHUNK_SIZE, parts, reference_logits, text_of, untrained
from test_resume import Stop, interrupted
from tiny import ENCODER_ALONE, PACKABLE, save_bert

from sklearn_longbert import LongBertClassifier, LongBertVectorizer, distributed
from sklearn_longbert._encoding import attention as attention_module
from sklearn_longbert._encoding import encoder as encoder_module
from sklearn_longbert._encoding.batches import MicroBatch
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._pretrained.loading import load_encoder
from sklearn_longbert._ranks.group import Group

PLACE = os.environ.get("SKLEARN_LONGBERT_CUDA_TESTS_ON", "cuda")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        PLACE == "cuda" and not torch.cuda.is_available(), reason="torch finds no GPU of CUDA"
    ),
]
needs_cuda = pytest.mark.skipif(
    PLACE != "cuda", reason="needs CUDA's own memory, kernels or processes"
)

LONG = 512  # tokens: several blocks of the attention kernels, whose sums have an order


@pytest.fixture
def device() -> str:
    return PLACE


@pytest.fixture(scope="module", autouse=True)
def ordered_matrix_products() -> Iterator[None]:
    """What torch's deterministic algorithms ask for, before the first matrix product."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        yield


@pytest.fixture
def deterministic() -> Iterator[None]:
    """What the guide asks for, where a GPU shall give the same weights bit for bit."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.fixture
def make(tiny_bert: str, device: str) -> Callable[..., LongBertClassifier]:
    settings = {"chunk_size": 10, "batch_size": 3, "learning_rate": 1e-2, "random_state": 7}
    return partial(LongBertClassifier, tiny_bert, **ENCODER_ALONE, **settings, device=device)


@pytest.fixture
def long_bert(tmp_path: Path) -> Path:
    """An encoder that takes long chunks, with activations that are large beside its weights."""
    return save_bert(
        tmp_path / "long",
        hidden_size=64,
        intermediate_size=1024,
        initializer_range=0.05,
        max_position_embeddings=LONG,
    )


def words(n_words: int) -> str:
    return " ".join(np.random.RandomState(n_words).choice(["good", "bad", "news", "fox"], n_words))


def relative(found: Any, expected: Any) -> float:
    """Return the norm of the difference of two results, relative to that of the second."""
    found, expected = (np.asarray(each, dtype=float) for each in (found, expected))
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def relative_gradients(found: dict[str, Any], expected: dict[str, Any]) -> float:
    assert list(found["gradients"]) == list(expected["gradients"])
    flat = [
        np.concatenate([part.ravel() for part in each["gradients"].values()])
        for each in (found, expected)
    ]
    return relative(*flat)


# What is computed


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "roberta", "albert", "modernbert"])
def test_logits_of_plain_transformers(
    architecture: str, pooling: str, tiny_encoder: Any, device: str
) -> None:
    """Those of float32 on the CPU, up to the rounding of either precision."""
    folder = tiny_encoder(architecture)
    tokenizer, encoder = parts(folder)
    texts = [text_of(n_chunks, tokenizer) for n_chunks in (7, 1, 2)]
    ours = untrained(folder, texts, pooling=pooling, device=device)
    assert next(ours.net_.module_.parameters()).device.type == torch.device(device).type
    head = copy.deepcopy(ours.net_.module_.head).cpu()
    with torch.no_grad():
        theirs = reference_logits(
            texts, tokenizer, encoder, head.weight, head.bias, pooling, "mean"
        ).numpy()
    np.testing.assert_allclose(ours.decision_function(texts), theirs, rtol=1e-4, atol=1e-4)
    narrow = ours.set_params(precision="bfloat16").decision_function(texts)
    assert 0 < relative(narrow, theirs) < 0.05
    assert ours.n_chunks_.max() * CHUNK_SIZE > 100


def network_of(folder: Any, device: str) -> LongBertNetwork:
    torch.manual_seed(0)
    encoder = load_encoder(Path(folder), 0.3, 0.0)
    return LongBertNetwork(encoder, 2, "mean", "mean", 0.3).train().to(device)


def encoded(
    network: LongBertNetwork, lengths: list[int], packed: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings in training, and the gradients of a loss of them, in bfloat16."""
    rng = np.random.RandomState(0)
    size = network.encoder.config.vocab_size
    chunks = [rng.randint(size, size=length).astype(np.int32) for length in lengths]
    network.zero_grad()
    with monkeypatch.context() as patch:
        patch.setattr(LongBertNetwork, "packs", lambda self: packed)
        with torch.autocast(PLACE, dtype=torch.bfloat16, cache_enabled=False):
            embeddings = network.encode(MicroBatch(chunks, np.arange(len(chunks)), 1), seed=5)
        embeddings.tanh().sum().backward()
    gradients = [w.grad.ravel() for w in network.parameters() if w.grad is not None]
    return embeddings.detach().cpu().numpy(), torch.cat(gradients).cpu().numpy()


@pytest.mark.parametrize("architecture", [*sorted(PACKABLE), "long"])
def test_packing_is_padding(
    architecture: str, tiny_encoder: Any, long_bert: Path, device: str, monkeypatch: Any
) -> None:
    is_long = architecture == "long"
    network = network_of(long_bert if is_long else tiny_encoder(architecture), device)
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    lengths = [LONG, 300, 300, 129, 7, 1] if is_long else [60, 20, 20, 7, 3]
    calls = []
    kernel = attention_module._attend_in_kernel
    monkeypatch.setattr(
        attention_module, "_attend_in_kernel", lambda *each: calls.append(1) or kernel(*each)
    )
    with torch.autocast(PLACE, dtype=torch.bfloat16, cache_enabled=False):
        assert network.packs()
    packed, padded = (encoded(network, lengths, packed, monkeypatch) for packed in (True, False))
    assert len(calls) == (4 if PLACE == "cuda" else 0)  # two layers, asked and used
    assert relative(packed[0], padded[0]) < 0.02
    assert relative(packed[1], padded[1]) < 0.05
    other = encoded(network, lengths[1:], True, monkeypatch)
    assert relative(other[1], padded[1]) > 0.05


@pytest.mark.parametrize("n_heads", [2, 3])
@pytest.mark.parametrize("head_size", [12, 264])
def test_heads_that_the_kernel_refuses(
    head_size: int, n_heads: int, tmp_path: Path, device: str, monkeypatch: Any
) -> None:
    """It takes multiples of 8 up to 256; others are padded."""
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    folder = save_bert(
        tmp_path, hidden_size=n_heads * head_size, num_attention_heads=n_heads, num_hidden_layers=1
    )
    settings: dict[str, Any] = {"chunk_size": 10, "max_epochs": 1, "device": device}
    model = LongBertClassifier(
        folder, **ENCODER_ALONE, **settings, precision="bfloat16", random_state=0
    ).fit(X, CLASSES)
    if PLACE == "cuda":
        assert list(encoder_module.PACKING_AGREES.values()) == [False]
    narrow = model.decision_function(X)
    assert relative(narrow, model.set_params(precision="float32").decision_function(X)) < 0.05


CASES = [
    "defaults",
    "max-classes",
    "attention-labels",
    "numbers and weights",
    "frozen and stopped",
    "DeBERTa",
]


@pytest.mark.parametrize("case", CASES)
def test_a_fit_is_that_of_the_cpu_in_any_micro_batches(
    case: str, encoders: Path, device: str
) -> None:
    of_cpu = seen(case, encoders, device="cpu")
    for n_tokens in (10, 30, 10**6):
        found = seen(case, encoders, device=device, micro_batch_tokens=n_tokens)
        assert relative_gradients(found, of_cpu) < 1e-4
        losses = [[each["train_loss"] for each in one["history"]] for one in (found, of_cpu)]
        np.testing.assert_allclose(*losses, rtol=1e-3)


def long_fit(
    folder: Path, texts: list[str] | None = None, **settings: Any
) -> tuple[LongBertClassifier, np.ndarray]:
    """Return an estimator of chunks of LONG tokens, and the gradients of its first step."""
    callback = Gradients()
    texts = texts or [words(1500), words(300), words(40)]
    model = LongBertClassifier(
        folder,
        **ENCODER_ALONE,
        chunk_size=LONG,
        head_init="random",
        callbacks=[callback],
        random_state=0,
        **{"max_epochs": 2, **settings},
    ).fit(texts, [0, *[1] * (len(texts) - 1)])
    return model, np.concatenate([part.ravel() for part in callback.first.values()])


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_micro_batches_of_long_chunks(
    precision: str, tolerance: float, long_bert: Path, device: str
) -> None:
    fit_long = partial(long_fit, long_bert, precision=precision, device=device)
    model, in_parts = fit_long(micro_batch_tokens=1)
    assert model.n_chunks_.tolist() == [3, 1, 1]
    assert relative(in_parts, fit_long(micro_batch_tokens=10**6)[1]) < tolerance
    assert relative(in_parts, fit_long(dropout=0.0)[1]) > 0.05


def test_bfloat16_trains_the_present_weights(make: Any) -> None:
    """And not those of the first step, which autocast would keep."""
    losses = {
        precision: [
            epoch["train_loss"]
            for epoch in make(precision=precision, head_init="random", max_epochs=8, dropout=0.0)
            .fit(X, CLASSES)
            .history_
        ]
        for precision in ("float32", "bfloat16")
    }
    assert losses["float32"][-1] < 0.7 * losses["float32"][0]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_explanations_and_embeddings(
    make: Any, tiny_bert: str, device: str, precision: str
) -> None:
    model = make(precision=precision, pooling="logsumexp").fit(X, CLASSES)
    for explained in model.explain(X[:3]):
        np.testing.assert_allclose(explained.contributions.sum(0), explained.logits, atol=1e-4)
    settings = {"precision": precision, "layers": "spread", "chunk_size": 10}
    of_place, of_cpu = (
        LongBertVectorizer(tiny_bert, **settings, device=place).fit_transform(X)
        for place in (device, "cpu")
    )
    assert relative(of_place, of_cpu) < (1e-5 if precision == "float32" else 0.02)


# A seed


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_a_seed_makes_fits_equal(
    case: str, precision: str, encoders: Path, device: str, deterministic: None
) -> None:
    again = partial(fit, case, encoders, device=device, precision=precision)
    expected = result_of(again())
    assert differences(result_of(again()), expected) == []
    assert differences(result_of(again(random_state=8)), expected) != []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_seed_makes_fits_of_long_chunks_equal(
    precision: str, long_bert: Path, device: str, deterministic: None
) -> None:
    """They have several blocks of attention, whose gradients are else added in any order."""
    fits = [
        long_fit(long_bert, precision=precision, device=device, micro_batch_tokens=tokens)
        for tokens in (1, 1, 10**6, 10**6)
    ]
    for (model, gradients), (other, of_other) in (fits[:2], fits[2:]):
        np.testing.assert_array_equal(gradients, of_other)
        for weight, other_weight in zip(
            model.net_.module_.parameters(), other.net_.module_.parameters(), strict=True
        ):
            assert torch.equal(weight, other_weight)


def test_a_seed_makes_fits_of_short_chunks_equal(make: Any) -> None:
    """Also without torch's deterministic algorithms, because a chunk is one block of attention."""
    again = partial(make, precision="bfloat16", dropout=0.3)
    expected = result_of(again().fit(X, CLASSES))
    assert differences(result_of(again().fit(X, CLASSES)), expected) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("n_steps", [2, 7])
def test_an_interrupted_fit_goes_on(
    make: Any, n_steps: int, precision: str, tmp_path: Path, deterministic: None
) -> None:
    expected = make(precision=precision).fit(X, CLASSES)
    checkpoints = {"checkpoint_folder": tmp_path / "checkpoints", "checkpoint_interval": 0}
    other = interrupted(make(precision=precision, **checkpoints), n_steps)
    assert list((tmp_path / "checkpoints").glob("*/*"))
    other.fit(X, CLASSES)
    assert differences(result_of(other), result_of(expected)) == []


def test_the_random_states_of_the_caller(make: Any, device: str) -> None:
    before = torch.get_rng_state(), rng_states(device)
    model = make(attention_dropout=0.2, dropout=0.3).fit(X, CLASSES)
    model.predict(X)
    model.partial_fit(X, CLASSES)
    after = torch.get_rng_state(), rng_states(device)
    assert torch.equal(before[0], after[0])
    assert [state.tolist() for state in before[1]] == [state.tolist() for state in after[1]]


def rng_states(device: str) -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if device == "cuda" else []


# Memory


@pytest.fixture
def leave(device: str) -> Iterator[Callable[[int], None]]:
    """Return what leaves this process so many bytes more of the GPU's memory."""

    def limit(n_bytes: int) -> None:
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        share = (torch.cuda.memory_reserved(device) + n_bytes) / total
        torch.cuda.set_per_process_memory_fraction(share, 0)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    torch.cuda.empty_cache()


def n_failed_allocations(device: str) -> int:
    return torch.cuda.memory_stats(device)["num_ooms"]


def level(device: str) -> int:
    """Return the bytes that tensors hold."""
    gc.collect()
    torch.cuda.synchronize(device)
    return torch.cuda.memory_allocated(device)


@needs_cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("micro_batch_tokens", ["auto", 10**6])
def test_what_does_not_fit_is_halved(
    micro_batch_tokens: Any, precision: str, long_bert: Path, device: str, leave: Any
) -> None:
    """One layer's activations of 60,000 tokens take 120 MB and more, those of a chunk 1 MB."""
    settings = {"micro_batch_tokens": micro_batch_tokens, "precision": precision, "device": device}
    expected = long_fit(long_bert, **settings)[0]
    texts = [words(60_000), words(200)]
    logits = expected.decision_function(texts)
    in_one_step = partial(step_gradients, long_bert, texts, **settings)
    of_step = in_one_step()
    leave(80 * 2**20)
    failed = n_failed_allocations(device)
    assert relative(expected.decision_function(texts), logits) < 0.05
    assert n_failed_allocations(device) > failed
    failed = n_failed_allocations(device)
    assert relative(in_one_step(), of_step) < 0.05
    assert n_failed_allocations(device) > failed


def step_gradients(folder: Path, texts: list[str], **settings: Any) -> np.ndarray:
    """Return the gradients of one step on long texts."""
    return long_fit(folder, texts, max_epochs=1, **settings)[1]


@needs_cuda
def test_one_chunk_that_does_not_fit(long_bert: Path, device: str, leave: Any) -> None:
    model = long_fit(long_bert, device=device, precision="float32")[0]
    expected = model.decision_function([words(400)])
    twin = copy.deepcopy(model).set_params(callbacks=None)
    leave(0)
    with pytest.raises(MemoryError, match="does not fit into the memory") as raised:
        model.predict([words(60_000)])
    with pytest.raises(MemoryError, match="does not fit into the memory"):
        twin.partial_fit([words(60_000)], [0])
    assert isinstance(raised.value.__cause__, torch.OutOfMemoryError)
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    np.testing.assert_array_equal(model.decision_function([words(400)]), expected)


class Boom(skorch.callbacks.Callback):
    def on_grad_computed(self, net: Any, **_: Any) -> None:
        raise ZeroDivisionError("of a callback")


@needs_cuda
@pytest.mark.parametrize("settings", [{}, {"freeze_encoder": True}, {"pooling": "attention"}])
def test_memory_comes_back(make: Any, device: str, settings: Any) -> None:
    make(**settings).fit(X, CLASSES).predict(X)  # libraries take memory of their own, once
    empty = level(device)
    model = make(**settings).fit(X, CLASSES)
    weights = [*model.net_.module_.parameters(), *model.net_.module_.buffers()]
    fitted = level(device)
    # an allocation is a multiple of 512 bytes
    assert 0 < fitted - empty <= sum(weight.nbytes + 512 for weight in weights)
    model.predict(X)
    model.explain(X[:2])
    assert level(device) == fitted
    with pytest.raises(ZeroDivisionError, match="of a callback"):
        make(**settings, callbacks=[Boom()]).fit(X, CLASSES)
    assert level(device) == fitted
    with pytest.raises(KeyboardInterrupt):
        make(**settings, callbacks=[Stop(4)]).fit(X, CLASSES)
    assert level(device) == fitted
    del model, weights
    assert level(device) == empty


# Devices, copies and threads


def test_names_of_devices(make: Any, device: str) -> None:
    expected = make(precision="float32").fit(X, CLASSES)
    logits = expected.decision_function(X)
    for name in (f"{device}:0", torch.device(device), [device], [f"{device}:0"]):
        model = make(precision="float32").set_params(device=name).fit(X, CLASSES)
        np.testing.assert_array_equal(model.decision_function(X), logits)
        assert torch.device(model.device_).type == device
    auto = make().set_params(device="auto").fit(X, CLASSES)
    assert torch.device(auto.device_).type == ("cuda" if torch.cuda.is_available() else "cpu")


@needs_cuda
def test_a_gpu_that_is_missing(make: Any) -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"device='{missing}' cannot be used on this machine"):
        make(device=missing).fit(X, CLASSES)


@needs_cuda
def test_openvino_is_for_cpus(make: Any) -> None:
    for precision in ("auto", "int8"):
        with pytest.raises(ValueError, match="takes one CPU, with all its cores, and the device"):
            make(inference="openvino", precision=precision).fit(X, CLASSES)


ON_A_CPU = """
import pickle, sys
import numpy as np
model, texts, expected = pickle.load(sys.stdin.buffer)
assert model.device_ == "cpu", model.device_
np.testing.assert_allclose(model.decision_function(texts), expected, rtol=1e-3, atol=1e-3)
sys.stdout.buffer.write(pickle.dumps(model))
"""


def test_pickles_move(make: Any, device: str) -> None:
    """To a process that has no GPU, and back into this one."""
    model = make(precision="float32").fit(X, CLASSES)
    logits = model.decision_function(X)
    here = pickle.loads(pickle.dumps(model))
    assert here.device_ == model.device_
    np.testing.assert_array_equal(here.decision_function(X), logits)
    done = subprocess.run(
        [sys.executable, "-c", ON_A_CPU],
        input=pickle.dumps((model, X, logits)),
        capture_output=True,
        check=False,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr.decode()
    back = pickle.loads(done.stdout)
    np.testing.assert_allclose(back.decision_function(X), logits, rtol=1e-3, atol=1e-3)
    again = back.fit(X, CLASSES)
    assert torch.device(again.device_).type == device
    np.testing.assert_array_equal(again.decision_function(X), logits)


def test_saved_folders_move(make: Any, device: str, tmp_path: Path) -> None:
    model = make(precision="float32").fit(X, CLASSES)
    model.save_pretrained(tmp_path / "saved")
    for place in (device, "cpu"):
        loaded = LongBertClassifier.from_pretrained(tmp_path / "saved", device=place)
        assert torch.device(loaded.device_).type == place
        logits = loaded.decision_function(X)
        np.testing.assert_allclose(logits, model.decision_function(X), rtol=1e-3, atol=1e-3)
        assert loaded.partial_fit(X, CLASSES).predict(X).shape == (len(X),)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_estimators_and_threads(make: Any, precision: str) -> None:
    models = [
        make(precision=precision, pooling=pooling).fit(X, CLASSES) for pooling in ("mean", "max")
    ]
    rng = np.random.RandomState(0)
    inputs = [list(rng.permutation(X)[: rng.randint(1, len(X))]) for _ in range(8)]
    tasks = [(model, texts) for texts in inputs for model in models]
    expected = [model.decision_function(texts) for model, texts in tasks]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda task: task[0].decision_function(task[1]), tasks))
        fits = list(pool.map(lambda seed: make(random_state=seed).fit(X, CLASSES), range(3)))
    for one, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, right)
    assert all(np.isfinite(model.predict_proba(X)).all() for model in fits)


@pytest.mark.parametrize("mode", ["autocast", "inference mode", "no gradients"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_inside_of_the_modes_of_the_caller(
    mode: str, precision: str, make: Any, device: str
) -> None:
    plain = make(precision=precision).fit(X, CLASSES)
    logits = plain.decision_function(X)
    modes = {
        "autocast": lambda: torch.autocast(device, dtype=torch.bfloat16),
        "inference mode": torch.inference_mode,
        "no gradients": torch.no_grad,
    }
    with modes[mode]():
        model = make(precision=precision).fit(X, CLASSES)
        np.testing.assert_array_equal(model.decision_function(X), logits)
        np.testing.assert_array_equal(plain.decision_function(X), logits)


# Several processes


@pytest.fixture
def backend(device: str) -> str:
    return "nccl" if device == "cuda" else "gloo"


@pytest.fixture
def one_rank(backend: str, tmp_path: Path, make: Any) -> Iterator[None]:
    """A process group of this process alone."""
    where = f"file://{tmp_path}/store"
    dist.init_process_group(backend, init_method=where, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_distributed(make: Any, one_rank: None) -> None:
    expected = make(precision="float32").fit(X, CLASSES).decision_function(X)
    with distributed():
        model = make(precision="float32").fit(X, CLASSES)
        np.testing.assert_array_equal(model.decision_function(X), expected)


def test_weights_pass_through_the_group(one_rank: None, device: str) -> None:
    """By NCCL where they are on a GPU; of one rank they come back as they were."""
    messages = dist.new_group(backend="gloo")
    group = Group(0, 1, messages, dist.group.WORLD)
    buffer = group.buffer(5, torch.zeros(1, device=device))
    assert buffer.device.type == device
    buffer.copy_(torch.arange(5))
    group.spread(buffer)
    group.sum(buffer)
    assert buffer.tolist() == [0, 1, 2, 3, 4]
    assert not group.is_broken
    group.close()


def test_two_processes_on_one_device(make: Any, device: str) -> None:
    """They send weights through the memory of the CPU, because NCCL takes one rank for each GPU."""
    alone = make(precision="float32", learning_rate=1e-3).fit(X, CLASSES)
    both = make(precision="float32", learning_rate=1e-3).set_params(device=[f"{device}:0"] * 2)
    both.fit(X, CLASSES)
    found, expected = ([epoch["train_loss"] for epoch in each.history_] for each in (both, alone))
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert relative(both.decision_function(X), alone.decision_function(X)) < 1e-2


# The benchmark


def test_the_benchmark_runs(device: str) -> None:
    script = Path(__file__).parents[1] / "examples" / "benchmarks" / "gpu.py"
    done = subprocess.run(
        [sys.executable, script, "--small", "--repeats", "1", "--device", device],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for title in ("Shares of the rate", "One text of training", "ModernBERT"):
        assert f"\n{title}\n" in done.stdout
    assert f"torch {torch.__version__}" in done.stdout
    assert "nan" not in done.stdout.lower()
