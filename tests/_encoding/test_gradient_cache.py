"""Gradients do not depend on how chunks are grouped, nor on which of them are encoded twice.

Pinned here, all with dropout on:

- micro-batches of one chunk, of three, and of everything give the same gradients to 1e-6 in
  float32, for each pooling, with and without sample weights, for packed and padded encoders,
  for both losses and under clipping;
- nor do those of an encoder with a table of relative positions, whatever the table's size;
- without the same masks in both passes they would not;
- a graph that is kept and one that is made again give the same gradients to the last bit, also
  in bfloat16;
- chunks without a gradient are not encoded again, a frozen encoder never;
- a micro-batch that does not fit into memory is halved, and the step is the same.
"""

from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytest
import skorch.callbacks
import torch
from tiny import ARCHITECTURES, ENCODER_ALONE, save_tiny_encoder
from torch import Tensor, nn

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._encoding import gradient_cache as gradient_cache_module
from sklearn_longbert._encoding import memory as memory_module
from sklearn_longbert._encoding.batches import MicroBatch
from sklearn_longbert._encoding.memory import too_large
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._encoding.poolings import POOLINGS
from sklearn_longbert._training import net as net_module

WORDS = ["good", "bad", "news", "story", "world", "time", "sport", "year", "fox", "dog", "lazy"]
CHUNK = 12


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Four texts of one to six chunks."""
    rng = np.random.RandomState(0)
    return [" ".join(rng.choice(WORDS, size=size)) for size in (55, 4, 31, 20)]


class Recorder(skorch.callbacks.Callback):
    """Keep the gradients of every step. A fit clones its callbacks, so all share one list."""

    steps: list[dict[str, Tensor]] = []

    def on_grad_computed(self, net: Any, named_parameters: Any, **_: Any) -> None:
        self.steps.append({n: p.grad.clone() for n, p in named_parameters if p.grad is not None})


def gradients_of(model: Any, X: list[str], y: Any, **fit: Any) -> list[dict[str, Tensor]]:
    Recorder.steps.clear()
    model.set_params(callbacks=[*(model.callbacks or []), Recorder()]).fit(X, y, **fit)
    return list(Recorder.steps)


def relative_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    flat = [torch.cat([one[name].ravel() for name in theirs]).double() for one in (ours, theirs)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@pytest.fixture
def make(tiny_encoder: Any) -> Any:
    """An estimator for one step on all texts, its dropout and its weights large."""

    def estimator(
        architecture: str = "bert", cls: Any = LongBertClassifier, **settings: Any
    ) -> Any:
        defaults: dict[str, Any] = {"chunk_size": CHUNK, "max_epochs": 1, "dropout": 0.3}
        defaults |= {"max_grad_norm": None, "precision": "float32", "random_state": 0}
        defaults["head_init"] = "random"  # the gradients of a fitted head are all but zero
        return cls(tiny_encoder(architecture), **{**ENCODER_ALONE, **defaults, **settings})

    return estimator


# BERT with every pooling and weight; of the others, what has gradients of all chunks and of few
GROUPED = [("bert", pooling, weighted) for pooling in POOLINGS for weighted in (False, True)]
GROUPED += [
    (architecture, *case)
    for architecture in ARCHITECTURES
    for case in (("mean", True), ("max", False))
    if architecture != "bert"
]


@pytest.mark.parametrize(("architecture", "pooling", "weighted"), GROUPED)
def test_any_grouping_gives_the_same_gradients(architecture, pooling, weighted, make, texts):
    fit = {"sample_weight": [1.0, 0.3, 2.0, 5.0]} if weighted else {}
    of = {
        tokens: gradients_of(
            make(architecture, pooling=pooling, micro_batch_tokens=tokens),
            texts,
            [0, 1, 2, 0],
            **fit,
        )[0]
        for tokens in (1, 3 * CHUNK, 10**6)
    }
    assert sum(name.startswith("encoder.") for name in of[1]) > 10
    assert relative_error(of[1], of[10**6]) < 1e-6
    assert relative_error(of[3 * CHUNK], of[10**6]) < 1e-6
    no_dropout = make(architecture, pooling=pooling, dropout=0.0)
    assert relative_error(of[1], gradients_of(no_dropout, texts, [0, 1, 2, 0], **fit)[0]) > 0.05


@pytest.mark.parametrize("layers", ["spread", (0,)], ids=str)
@pytest.mark.parametrize("pooling", ["max", "attention"])
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "albert"])
def test_several_layers_too(architecture, pooling, layers, make, texts):
    embedding = {"layers": layers, "token_pooling": "mean_max", "pooling": pooling}
    of = {
        tokens: gradients_of(
            make(architecture, micro_batch_tokens=tokens, **embedding), texts, [0, 1, 2, 0]
        )[0]
        for tokens in (1, 3 * CHUNK, 10**6)
    }
    assert relative_error(of[1], of[10**6]) < 1e-6
    assert relative_error(of[3 * CHUNK], of[10**6]) < 1e-6
    no_dropout = make(architecture, dropout=0.0, **embedding)
    assert relative_error(of[1], gradients_of(no_dropout, texts, [0, 1, 2, 0])[0]) > 0.05


class DoubleClassifier(LongBertClassifier):
    """In float64: how far float32's rounding reaches depends on the processor."""

    def _load_encoder(self, folder: Any, dropouts: tuple[float, float]) -> Any:
        return super()._load_encoder(folder, dropouts).double()


def test_of_the_real_encoder(texts):
    """Sentence encoders react to dropout most where it counts: in their own weights."""
    of = [
        gradients_of(
            DoubleClassifier(
                chunk_size=CHUNK,
                max_epochs=1,
                precision="float32",
                head_init="random",
                micro_batch_tokens=tokens,
                random_state=0,
            ),
            texts,
            [0, 1, 2, 0],
        )[0]
        for tokens in (1, 10**6)
    ]
    assert relative_error(*of) < 1e-12


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "mpnet", "deberta-v2"])
def test_dropped_attention_weights_too(architecture, make, texts):
    of = [
        gradients_of(
            make(architecture, attention_dropout=0.4, dropout=0.0, micro_batch_tokens=tokens),
            texts,
            [0, 1, 2, 0],
        )[0]
        for tokens in (1, 10**6)
    ]
    assert relative_error(*of) < 1e-6
    without = gradients_of(make(architecture, dropout=0.0), texts, [0, 1, 2, 0])[0]
    assert relative_error(of[0], without) > 0.05


@pytest.mark.parametrize("n_chunks", [7, 8, 9])
def test_a_table_is_not_taken_for_chunks(n_chunks, make, tmp_path):
    """DeBERTa drops elements of a table of relative positions, here of eight entries."""
    encoder = save_tiny_encoder("deberta-v2", tmp_path, position_buckets=4)
    texts = [f"{WORDS[number]} news" for number in range(n_chunks)]
    of = []
    for tokens in (1, 10**6):
        model = make(micro_batch_tokens=tokens, batch_size=n_chunks).set_params(model_name=encoder)
        of += gradients_of(model, texts, np.arange(n_chunks) % 2)
        assert model.n_chunks_.tolist() == [1] * n_chunks
    assert len(model.net_.module_.encoder.encoder.rel_embeddings.weight) == 8
    assert relative_error(*of) < 1e-6


def test_regression(make, texts):
    y = [1.0, -3.0, 8.0, 0.5]
    of = [
        gradients_of(make(cls=LongBertRegressor, micro_batch_tokens=tokens), texts, y)[0]
        for tokens in (1, 10**6)
    ]
    assert relative_error(*of) < 1e-6


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_without_the_same_masks_they_differ(pooling, make, texts, monkeypatch):
    """What the tests above would see if the second pass drew anew."""
    whole = gradients_of(make(pooling=pooling, micro_batch_tokens=10**6), texts, [0, 1, 2, 0])[0]
    keys, drawn = MicroBatch.dropout_keys, iter(range(10**6))
    monkeypatch.setattr(
        MicroBatch, "dropout_keys", lambda self, seed: keys(self, seed + next(drawn))
    )
    anew = gradients_of(make(pooling=pooling, micro_batch_tokens=1), texts, [0, 1, 2, 0])[0]
    assert relative_error(anew, whole) > 0.05


def test_whole_fits_agree(make, texts):
    """Several clipped steps: the weights, and so every prediction, are the same."""
    logits = [
        make(max_epochs=4, batch_size=2, max_grad_norm=0.1, micro_batch_tokens=tokens)
        .set_params(learning_rate=1e-3)
        .fit(texts, [0, 1, 2, 0])
        .decision_function(texts)
        for tokens in (1, 3 * CHUNK, 10**6)
    ]
    np.testing.assert_allclose(logits[0], logits[2], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(logits[1], logits[2], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_and_remade_graphs_agree_to_the_last_bit(
    architecture, precision, make, texts, monkeypatch
):
    of = []
    for graph_tokens in (1, 40, 10**6):
        limits = (30, graph_tokens)
        monkeypatch.setattr(net_module, "training_limits", lambda *_, limits=limits: limits)
        of.append(gradients_of(make(architecture, precision=precision), texts, [0, 1, 2, 0])[0])
    for name, gradient in of[0].items():
        assert torch.equal(gradient, of[1][name]), name
        assert torch.equal(gradient, of[2][name]), name


@pytest.fixture
def passes(monkeypatch):
    """Whether each pass of the encoder had a graph, and the chunks it read."""
    seen = []
    encode = LongBertNetwork.encode

    def record(self, micro_batch, seed=0):
        if self.training:
            seen.append((torch.is_grad_enabled(), micro_batch.numbers.tolist()))
        return encode(self, micro_batch, seed)

    monkeypatch.setattr(LongBertNetwork, "encode", record)
    return seen


def test_one_pass_where_everything_fits(make, texts, passes):
    model = make(micro_batch_tokens=10**6).fit(texts, [0, 1, 2, 0])
    ((has_graph, numbers),) = passes
    assert has_graph
    assert sorted(numbers) == list(range(model.n_chunks_.sum()))


def test_first_graph_is_kept_and_others_are_made_again(make, texts, passes):
    model = make(micro_batch_tokens=2 * CHUNK).fit(texts, [0, 1, 2, 0])
    first = [numbers for has_graph, numbers in passes if not has_graph]
    again = [numbers for has_graph, numbers in passes[1:] if has_graph]
    assert passes[0][0]  # the first graph is kept
    assert first == again
    assert sorted(chain(passes[0][1], *first)) == list(range(model.n_chunks_.sum()))


def test_max_pooling_encodes_only_winners_again(make, texts, passes):
    model = make(pooling="max", micro_batch_tokens=CHUNK).fit(texts[::2], [0, 1])
    assert model.n_chunks_.sum() >= 9
    again = [number for has_graph, numbers in passes[1:] for number in numbers if has_graph]
    # two documents with two logits each, less those of the graph that was kept
    assert 0 < len(again) == len(set(again)) <= 4


@pytest.mark.parametrize("head_init", ["linear_probe", "random"])
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_frozen_encoder_reads_each_chunk_once_a_fit(head_init, pooling, make, texts, monkeypatch):
    read = []
    encode = LongBertNetwork.encode

    def record(self, micro_batch, seed=0):
        assert not self.training
        assert not torch.is_grad_enabled()
        read.extend(chunk.tobytes() for chunk in micro_batch.chunks)
        return encode(self, micro_batch, seed)

    monkeypatch.setattr(LongBertNetwork, "encode", record)
    model = make(freeze_encoder=True, head_init=head_init, pooling=pooling, micro_batch_tokens=1)
    model.set_params(max_epochs=3, batch_size=2)
    steps = gradients_of(model, texts, [0, 1, 2, 0], X_val=texts[:1], y_val=[0])
    assert len(steps) == 6
    assert len(read) == len(set(read)) == model.n_chunks_.sum()
    heads = {"head.weight", "head.bias"}
    assert heads <= steps[0].keys()
    assert all(name in heads or name.startswith("attention.") for name in steps[0])


class FunctionalDropout(nn.Module):
    """An encoder whose dropout is torch's own, which only a replayed state can repeat."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(9, 4, dtype=torch.float64))
        self.states = torch.randn(7, 9, dtype=torch.float64)

    def forward(self, numbers: np.ndarray) -> Tensor:
        return nn.functional.dropout(self.states[numbers], 0.4) @ self.weight

    def gradient(self, n_kept: int) -> Tensor:
        torch.manual_seed(1)
        groups = [np.array(group) for group in ([4, 1], [0, 6, 2], [3], [5])]
        place = torch.device("cpu")
        loss = gradient_cache_module.backward(
            self, groups, n_kept, lambda embeddings: embeddings.tanh().sum() ** 2, place
        )
        assert loss.item() > 0
        self.after = torch.rand(1)
        gradient, self.weight.grad = self.weight.grad, None
        return gradient


def test_states_of_torchs_own_generator_are_replayed(monkeypatch):
    encoder = FunctionalDropout()
    kept, after = encoder.gradient(4), encoder.after
    for n_kept in range(4):
        torch.testing.assert_close(encoder.gradient(n_kept), kept, rtol=1e-12, atol=0)
        assert encoder.after == after  # the next batch draws on
    monkeypatch.setattr(gradient_cache_module, "restore", lambda states, device: None)
    assert (encoder.gradient(0) - kept).norm() > 0.05 * kept.norm()


def limit_memory(monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> None:
    """Let every pass of the encoder over more than `most` tokens fail as the allocator would."""
    encode = LongBertNetwork.encode

    def fail(self, micro_batch, seed=0):
        if sum(micro_batch.lengths) > most:
            raise error
        return encode(self, micro_batch, seed)

    monkeypatch.setattr(LongBertNetwork, "encode", fail)


CUDA_ERROR = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB"
)
CPU_ERROR = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize("error", [CUDA_ERROR, CPU_ERROR], ids=["cuda", "cpu"])
@pytest.mark.parametrize("settings", [{}, {"micro_batch_tokens": 100}])
def test_what_does_not_fit_is_halved_without_losing_the_step(
    error, settings, make, texts, monkeypatch
):
    fit = partial(gradients_of, X=texts, y=[0, 1, 2, 0])
    expected, model = fit(make(**settings)), make(**settings)
    logits = make(**settings).fit(texts, [0, 1, 2, 0]).decision_function(texts)
    limit_memory(monkeypatch, 2 * CHUNK, error)
    for ours, theirs in zip(fit(model), expected, strict=True):
        assert relative_error(ours, theirs) < 1e-6
    np.testing.assert_allclose(model.decision_function(texts), logits, rtol=1e-4, atol=1e-6)


def test_one_chunk_that_does_not_fit_is_an_error_of_our_own(make, texts, monkeypatch):
    model = make().fit(texts, [0, 1, 2, 0])
    limit_memory(monkeypatch, CHUNK - 1, CUDA_ERROR)
    parts = [f"chunk of {CHUNK} tokens", str(5 * 2**29), "missing", "chunk_size"]
    parts += ["precision='bfloat16'"]
    assert "bfloat16" not in str(too_large(CUDA_ERROR, 1, torch.device("cpu"), "bfloat16"))
    for call in (lambda: model.predict(texts), lambda: make().fit(texts, [0, 1, 2, 0])):
        with pytest.raises(MemoryError) as raised:
            call()
        assert all(part in str(raised.value) for part in parts), raised.value
        assert raised.value.__cause__ is CUDA_ERROR


def test_other_errors_are_not_taken_for_a_lack_of_memory(make, texts, monkeypatch):
    model = make().fit(texts, [0, 1, 2, 0])
    limit_memory(monkeypatch, 0, RuntimeError("the device is on fire"))
    for call in (lambda: model.predict(texts), lambda: make().fit(texts, [0, 1, 2, 0])):
        with pytest.raises(RuntimeError, match="on fire"):
            call()


def test_little_memory_changes_nothing_but_the_grouping(make, texts, monkeypatch, passes):
    plenty = gradients_of(make(), texts, [0, 1, 2, 0])[0]
    n_passes = len(passes)
    monkeypatch.setattr(memory_module, "free_memory", lambda device: 10_000)
    monkeypatch.setitem(memory_module.PASS_TOKENS, "cpu", 64)  # so that it is asked at all
    little = gradients_of(make(), texts, [0, 1, 2, 0])[0]
    assert len(passes) - n_passes > n_passes
    assert relative_error(little, plenty) < 1e-6
