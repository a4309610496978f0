"""The net: predictions do not depend on grouping, and optimizer, schedule and loss by hand."""

import gc

import numpy as np
import pytest
import skorch.callbacks
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._training.callbacks import linear_schedule


@pytest.fixture(scope="module")
def words():
    return ["good", "bad", "news", "story", "world", "Größe", "time", "sport", "year", "東京"]


@pytest.fixture(scope="module", params=["mean", "max"])
def fitted(request, tiny_bert, words):
    texts = [" ".join(words[: 1 + index]) * 9 for index in range(9)]
    classifier = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        chunk_size=12,
        chunk_overlap=3,
        pooling=request.param,
        random_state=0,
    ).set_params(learning_rate=1e-2, precision="float32")
    return classifier.fit(texts, [0, 1, 2] * 3)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_predictions_depend_on_the_text_alone(fitted, words, data):
    text = st.lists(st.sampled_from(words), max_size=60).map(" ".join)
    texts = data.draw(st.lists(text, min_size=1, max_size=8))
    alone = np.concatenate([fitted.decision_function([one]) for one in texts])
    order = data.draw(st.permutations(range(len(texts))))
    # a parameter of prediction: it takes effect without another fit
    fitted.set_params(micro_batch_tokens=data.draw(st.sampled_from(["auto", 1, 30, 100, 9999])))
    together = fitted.decision_function([texts[index] for index in order])
    np.testing.assert_allclose(together, alone[list(order)], rtol=1e-5, atol=1e-6)


@pytest.fixture
def passes(fitted):
    """The shapes of what the encoder reads in each pass."""
    shapes = []
    hook = fitted.net_.module_.encoder.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    fitted.predict(["good"])  # the first one, after fit, may probe
    shapes.clear()
    yield shapes
    hook.remove()


@pytest.mark.parametrize("max_tokens", [1, 40, 96])
def test_micro_batch_tokens_bounds_each_encoder_pass(fitted, words, passes, max_tokens):
    texts = [" ".join(np.random.RandomState(seed).choice(words, 40)) for seed in range(3)]
    fitted.set_params(micro_batch_tokens=max_tokens).predict(texts)
    assert len(passes) > 1
    assert all(n_rows * longest <= max(max_tokens, 12) for n_rows, longest in passes)
    if max_tokens > 12:
        assert any(n_rows * longest > 12 for n_rows, longest in passes)


@pytest.mark.parametrize("wrong", [0, "Auto", None, 2.5])
def test_micro_batch_tokens_is_checked_in_prediction_too(fitted, wrong):
    with pytest.raises(ValueError, match="'micro_batch_tokens' parameter"):
        fitted.set_params(micro_batch_tokens=wrong).predict(["good"])
    fitted.set_params(micro_batch_tokens="auto").predict(["good"])


def test_repeated_texts_and_equal_chunks_are_encoded_once(fitted, words, passes):
    fitted.set_params(micro_batch_tokens="auto")
    chunk = " ".join(words[:4])
    once = ["good", chunk]
    documents = fitted.chunker_.transform(once)
    logits = fitted.decision_function([*once, "good", "good", chunk])
    assert [document.n_chunks for document in documents] == [1, 1]
    assert sum(n_rows * longest for n_rows, longest in passes) == sum(
        document.n_tokens + 2 for document in documents
    )
    np.testing.assert_array_equal(logits[[0, 0, 1]], logits[[2, 3, 4]])
    assert not np.allclose(logits[0], logits[1])


def test_predictions_do_not_depend_on_the_order_to_the_last_bit(fitted, words):
    rng = np.random.RandomState(0)
    texts = [" ".join(rng.choice(words, rng.randint(1, 60))) for _ in range(30)]
    fitted.set_params(micro_batch_tokens=100)
    logits = fitted.decision_function(texts)
    order = rng.permutation(len(texts))
    shuffled = fitted.decision_function([texts[index] for index in order])
    np.testing.assert_array_equal(shuffled, logits[order])


def test_schedule_by_hand():
    factors = [linear_schedule(step, n_warmup=2, n_steps=6) for step in range(6)]
    np.testing.assert_allclose(factors, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4])
    assert linear_schedule(0, n_warmup=0, n_steps=1) == 1
    assert linear_schedule(0, n_warmup=1, n_steps=1) == 1 / 2


def record_rates(classifier, texts, labels):
    rates = []

    def step(self, *args, **kwargs):
        rates.append([group["lr"] for group in self.param_groups])
        return original(self, *args, **kwargs)

    original = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        classifier.fit(texts, labels)
    return np.array(rates)


def test_learning_rate_of_each_step(tiny_bert):
    classifier = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        max_epochs=2,
        batch_size=2,
        learning_rate=1e-3,
        warmup_fraction=0.25,
    )
    rates = record_rates(classifier, ["good", "bad"] * 4, [0, 1] * 4)
    expected = 1e-3 * np.array([1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    np.testing.assert_allclose(rates, np.column_stack([expected, expected]))
    assert [epoch["learning_rate"] for epoch in classifier.history_] == pytest.approx(
        [expected[3], expected[7]]
    )


def test_what_others_draw_changes_no_weight(tiny_bert, words):
    """Order, chunks and dropout follow from places, not from generators that run on."""

    class Draw(skorch.callbacks.Callback):
        def on_batch_begin(self, net, **kwargs):
            torch.rand(3)

    settings = {"chunk_selection": "random", "max_chunks": 2, "dropout": 0.3, "random_state": 0}
    model = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, **settings, chunk_size=8, batch_size=2, max_epochs=2
    )
    texts = [" ".join(words[: 2 + index]) * 4 for index in range(6)]
    plain = model.fit(texts, [0, 1] * 3).decision_function(texts)
    drawn = model.set_params(callbacks=[Draw()]).fit(texts, [0, 1] * 3).decision_function(texts)
    np.testing.assert_array_equal(drawn, plain)
    other = model.set_params(random_state=1).fit(texts, [0, 1] * 3).decision_function(texts)
    assert abs(other - plain).max() > 1e-6


def test_weight_decay_spares_biases_and_norms(tiny_bert):
    groups = []

    class Recorder(torch.optim.AdamW):
        def __init__(self, params, **kwargs):
            groups.extend(params)
            assert kwargs["fused"]
            super().__init__(params, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim, "AdamW", Recorder)
        classifier = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1, weight_decay=0.3)
        network = classifier.fit(["good", "bad"], [0, 1]).net_.module_
    decayed, spared = ([id(weight) for weight in group["params"]] for group in groups)
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    for name, weight in network.named_parameters():
        is_spared = name.endswith("bias") or "LayerNorm" in name
        assert (id(weight) in spared) == is_spared, name
        assert (id(weight) in decayed) != is_spared, name


@pytest.mark.parametrize("max_grad_norm", [1e-3, None])
def test_gradients_are_clipped(tiny_bert, max_grad_norm):
    norms = []
    original = torch.optim.AdamW.step

    def step(self, closure):
        def and_measure():
            loss = closure()
            gradients = [w.grad.norm() for g in self.param_groups for w in g["params"]]
            norms.append(float(torch.stack(gradients).norm()))
            return loss

        return original(self, and_measure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        settings = {"max_epochs": 1, "head_init": "random", "random_state": 0}
        LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_grad_norm=max_grad_norm, **settings).fit(
            ["good", "bad"], [0, 1]
        )
    assert len(norms) == 1
    assert (norms[0] <= 1.001e-3) == (max_grad_norm is not None)


def test_every_text_counts_once_whatever_its_length(tiny_bert, words):
    """The loss of a long and a short text is the mean of the losses that each has alone."""
    long, short = " ".join(words * 20), "bad"
    classifier = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        chunk_size=12,
        max_epochs=1,
        dropout=0.0,
        precision="float32",
        random_state=0,
    )
    classifier.set_params(head_init="random", learning_rate=1e-30).fit([long, short], [0, 1])
    assert classifier.n_chunks_[0] > 20 * classifier.n_chunks_[1]
    alone = -classifier.predict_log_proba([long, short])[[0, 1], [0, 1]]
    assert abs(alone[0] - alone[1]) > 1e-2
    assert classifier.history_[0]["train_loss"] == pytest.approx(alone.mean(), rel=1e-5)


@pytest.mark.parametrize("weights", [[3.0, 1.0, 0.5], [0.0, 2.0, 2.0]])
def test_weighted_loss_by_hand(tiny_bert, weights):
    texts, labels = ["good news", "bad", "story"], [0, 1, 1]
    if weights[0] == 0:
        labels = [0, 0, 1]
    classifier = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        batch_size=2,
        max_epochs=1,
        dropout=0.0,
        precision="float32",
        random_state=0,
    ).set_params(learning_rate=1e-30)
    classifier.fit(texts, labels, sample_weight=weights)
    losses = -classifier.predict_log_proba(texts)[range(3), labels]
    assert classifier.history_[0]["train_loss"] == pytest.approx(
        np.average(losses, weights=weights), rel=1e-5
    )


def test_bfloat16_computes_in_it_and_keeps_weights_in_float32(tiny_bert, words):
    texts = [" ".join(words[:n]) for n in (1, 4, 9)]
    logits = {}
    for precision in ("float32", "bfloat16"):
        classifier = LongBertClassifier(
            tiny_bert,
            **ENCODER_ALONE,
            precision=precision,
            max_epochs=1,
            learning_rate=1e-30,
            random_state=0,
        ).fit(texts, [0, 1, 2])
        assert {weight.dtype for weight in classifier.net_.module_.parameters()} == {torch.float32}
        logits[precision] = classifier.decision_function(texts)
        assert logits[precision].dtype == np.float32
    difference = np.abs(logits["float32"] - logits["bfloat16"]).max()
    assert 0 < difference < 0.05 * np.abs(logits["float32"]).max()


def test_bfloat16_trains_the_present_weights(tiny_bert, words):
    """And not those of the first step, which autocast would keep."""
    texts = [" ".join(words[n : n + 4]) for n in range(6)]
    losses = {}
    for precision in ("float32", "bfloat16"):
        classifier = LongBertClassifier(
            tiny_bert,
            **ENCODER_ALONE,
            precision=precision,
            head_init="random",
            batch_size=2,
            max_epochs=8,
            learning_rate=1e-2,
            dropout=0.0,
            random_state=0,
        ).fit(texts, [0, 1, 2] * 2)
        losses[precision] = [epoch["train_loss"] for epoch in classifier.history_]
    assert losses["float32"][-1] < 0.5 * losses["float32"][0]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.05)


def test_nothing_of_training_is_left(tiny_bert, words):
    net = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1).fit(words[:2], [0, 1]).net_
    assert not hasattr(net, "optimizer_")
    assert all(weight.grad is None for weight in net.module_.parameters())
    assert not net.module_.training
    tables = [layer for layer in net.module_.modules() if isinstance(layer, torch.nn.Embedding)]
    assert len(tables) == 3
    assert not any(table.sparse for table in tables)
    assert not any(table.weight._post_accumulate_grad_hooks for table in tables)


def test_a_pass_costs_the_rows_of_a_table_that_it_reads(tiny_bert, words):
    """On a CPU: gradients of the tables come as rows, and are dense where anybody sees them."""
    seen = []

    class Spy(skorch.callbacks.Callback):
        def on_grad_computed(self, net, **_):
            table = net.module_.encoder.get_input_embeddings()
            seen.append((table.sparse, table.weight.grad.is_sparse))

    LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1, callbacks=[Spy]).fit(
        words[:2], [0, 1]
    )
    assert seen == [(True, False)]


def test_a_sequence_of_fits_leaves_nothing_behind(tiny_bert, words):
    alive = []
    for _ in range(4):
        classifier = LongBertClassifier(
            tiny_bert, **ENCODER_ALONE, max_epochs=2, batch_size=2, dropout=0.3
        )
        classifier.fit(words[:6], [0, 1] * 3).predict(words)
        del classifier
        gc.collect()
        kinds = (torch.Tensor, torch.nn.Module, torch.optim.Optimizer)
        alive.append(sum(issubclass(type(thing), kinds) for thing in gc.get_objects()))
    assert alive[1] == alive[2] == alive[3]
