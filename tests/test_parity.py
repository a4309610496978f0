"""Our logits and our training step are those of plain transformers and torch.

The reference below uses none of the package's code: it tokenizes, cuts, pads, encodes and
pools as the method is described, one text at a time.
"""

import itertools

import numpy as np
import pytest
import torch
from tiny import ENCODER_ALONE
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL, find_folder

CHUNK_SIZE = 16
WORDS = ["good", "bad", "news", "story", "world", "Größe", "time", "sport", "year", "東京"]


def text_of(n_chunks: int, tokenizer, n_special: int = 2) -> str:
    """A text whose tokens fill `n_chunks` chunks, the last one in part."""
    rng = np.random.RandomState(n_chunks)
    words: list[str] = []
    body = CHUNK_SIZE - n_special
    while -(-len(tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]) // body) < (
        n_chunks
    ):
        words.append(str(rng.choice(WORDS)))
    return " ".join(words)


def reference_logits(texts, tokenizer, encoder, weight, bias, pooling, token_pooling) -> Tensor:
    pooled = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        chunker = TextChunker(tokenizer.name_or_path, chunk_size=CHUNK_SIZE)
        edges = [0, *chunker.fit_transform([text])[0].cuts, len(ids)]  # test_cuts has the cuts
        pieces = [ids[start:end] for start, end in itertools.pairwise(edges)]
        rows = [[tokenizer.cls_token_id, *piece, tokenizer.sep_token_id] for piece in pieces]
        input_ids = torch.full((len(rows), CHUNK_SIZE), tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), CHUNK_SIZE, dtype=torch.long)
        for row, chunk in enumerate(rows):
            input_ids[row, : len(chunk)] = torch.tensor(chunk)
            mask[row, : len(chunk)] = 1
        hidden = encoder(input_ids=input_ids, attention_mask=mask)[0]
        if token_pooling == "mean":
            embeddings = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        else:
            embeddings = hidden[:, 0]
        logits = embeddings @ weight.T + bias
        pooled.append(logits.mean(0) if pooling == "mean" else logits.max(0).values)
    return torch.stack(pooled)


def parts(folder: str):
    # Attention dropout 0 and eval mode make transformers' own network deterministic.
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def untrained(folder: str, texts, n_classes: int = 3, **parameters) -> LongBertClassifier:
    """An estimator whose encoder is as it was loaded: its learning rate is next to nothing."""
    classifier = LongBertClassifier(
        folder,
        **ENCODER_ALONE,
        chunk_size=CHUNK_SIZE,
        max_epochs=1,
        precision="float32",
        random_state=0,
        **parameters,
    ).set_params(learning_rate=1e-30, weight_decay=0.0)
    return classifier.fit(texts, [index % n_classes for index in range(len(texts))])


@pytest.mark.parametrize("token_pooling", ["mean", "cls"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("architecture", ["bert", "mpnet", "roberta", "albert"])
def test_pooled_logits(architecture, pooling, token_pooling, tiny_encoder):
    check_pooled_logits(tiny_encoder(architecture), pooling, token_pooling)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooled_logits_of_minilm(pooling):
    check_pooled_logits(str(find_folder(DEFAULT_MODEL)), pooling, "mean")


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooled_logits_of_mpnet(pooling, mpnet):
    """Real weights, other special ids (0, 1, 2) and positions that start at 2."""
    chunker = TextChunker(mpnet).fit()
    assert (chunker.chunk_size_, chunker.layout_.pad_id) == (512, 1)
    assert (chunker.layout_.prefix, chunker.layout_.suffix) == ((0,), (2,))
    with pytest.raises(ValueError, match="at most 512"):
        TextChunker(mpnet, chunk_size=513).fit()
    check_pooled_logits(mpnet, pooling, "mean")


def check_pooled_logits(folder, pooling, token_pooling):
    tokenizer, encoder = parts(folder)
    texts = [text_of(n_chunks, tokenizer) for n_chunks in (7, 1, 2)]
    ours = untrained(folder, texts, pooling=pooling, token_pooling=token_pooling)
    assert ours.n_chunks_.tolist() == [7, 1, 2]
    head = ours.net_.module_.head
    with torch.no_grad():
        theirs = reference_logits(
            texts, tokenizer, encoder, head.weight, head.bias, pooling, token_pooling
        )
    np.testing.assert_allclose(ours.decision_function(texts), theirs, rtol=1e-5, atol=1e-5)
    # texts and poolings must matter, or equality would mean nothing
    assert np.ptp(theirs.numpy(), axis=0).min() > 1e-4


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_one_sgd_step(architecture, pooling, tiny_encoder, monkeypatch):
    folder = tiny_encoder(architecture)
    tokenizer, encoder = parts(folder)
    texts = [text_of(n_chunks, tokenizer) for n_chunks in (7, 1, 2)]
    start = untrained(folder, texts, pooling=pooling)
    weight = start.net_.module_.head.weight.detach().clone().requires_grad_()
    bias = start.net_.module_.head.bias.detach().clone().requires_grad_()

    # AdamW with a first step this small against eps is no test of gradients: take plain SGD.
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)
    ours = LongBertClassifier(
        folder,
        **ENCODER_ALONE,
        chunk_size=CHUNK_SIZE,
        pooling=pooling,
        max_epochs=1,
        random_state=0,
        dropout=0.0,
    ).set_params(learning_rate=0.1, weight_decay=0.0, warmup_fraction=0.0, max_grad_norm=None)
    ours.set_params(precision="float32", fine_tuning_share=1.0)
    ours.fit(texts, [0, 1, 2])

    logits = reference_logits(texts, tokenizer, encoder, weight, bias, pooling, "mean")
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2]))
    theirs = {f"encoder.{name}": value for name, value in encoder.named_parameters()}
    theirs |= {"head.weight": weight, "head.bias": bias}
    gradients = dict(
        zip(theirs, torch.autograd.grad(loss, theirs.values(), allow_unused=True), strict=True)
    )

    moved = 0
    for name, trained in ours.net_.module_.named_parameters():
        gradient = gradients[name]
        expected = theirs[name] if gradient is None else theirs[name] - 0.1 * gradient
        torch.testing.assert_close(trained, expected, rtol=1e-5, atol=1e-6, msg=name)
        moved += gradient is not None and bool((gradient.abs() > 1e-4).any())
    assert moved > 10  # the loss reached the encoder
    assert ours.history_[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
