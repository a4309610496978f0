"""Build tiny random encoders, each with its own kind of tokenizer, and save them to a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

# What most tests take: several layers and a baseline multiply the time of fits of a few words.
ENCODER_ALONE: dict[str, Any] = {"layers": "last", "baseline": None}
CORPUS = [
    "The quick brown fox jumps over the lazy dog and runs away.",
    "Long texts are cut into chunks, and every chunk is scored by the encoder.",
    "good bad news sport match film story year people world time market",
    "Größe, naïve café, smørrebrød; Привет мир; 東京都; 0123456789 !?.,:;()",
] * 5


def _word_pieces(special_tokens: list[str]) -> dict[str, int]:
    """Characters, words and their ends: a trained vocabulary would differ from run to run."""
    splitter = pre_tokenizers.BertPreTokenizer()
    words = sorted({word for word, _ in splitter.pre_tokenize_str(" ".join(CORPUS).lower())})
    characters = sorted(set("".join(words)))
    ends = sorted({f"##{word[start:]}" for word in words for start in range(1, len(word))})
    pieces = [*special_tokens, *characters, *(f"##{c}" for c in characters), *words, *ends]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def _byte_pairs(special_tokens: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _unigrams(special_tokens: list[str]) -> list[tuple[str, float]]:
    """Characters and frequent words behind the special tokens, as SentencePiece would have them."""
    text = " ".join(CORPUS)
    characters = sorted(set(text) - {" "})
    words = sorted(set(text.split()))
    pieces = ["▁", *characters, *(f"▁{word}" for word in words if len(word) > 1)]
    return [(token, 0.0) for token in special_tokens] + [
        (piece, -float(len(pieces)) / (1 + len(piece))) for piece in pieces
    ]


BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bert_tokenizer() -> Any:
    return transformers.BertTokenizer(vocab=_word_pieces(BERT_SPECIALS))


def mpnet_tokenizer() -> Any:
    vocab = _word_pieces(["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    return transformers.MPNetTokenizer(vocab=vocab)


def roberta_tokenizer() -> Any:
    vocab, merges = _byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return transformers.RobertaTokenizer(vocab=vocab, merges=merges)


def xlm_roberta_tokenizer() -> Any:
    vocab = _unigrams(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return transformers.XLMRobertaTokenizer(vocab=vocab)


def albert_tokenizer() -> Any:
    return transformers.AlbertTokenizer(
        vocab=_unigrams(["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"])
    )


def deberta_tokenizer() -> Any:
    return transformers.DebertaV2Tokenizer(
        vocab=_unigrams(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    )


def modernbert_tokenizer() -> Any:
    vocab, merges = _byte_pairs(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
    )


# Weights ten times as large as usual, so that every token tells on every hidden state.
SIZE = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,
}


def _config(name: str, n_layers: int, **kwargs: Any) -> Any:
    return getattr(transformers, name)(**SIZE, num_hidden_layers=n_layers, **kwargs)


def _distilbert(vocab_size: int, pad_token_id: int) -> Any:
    return transformers.DistilBertConfig(
        vocab_size=vocab_size,
        pad_token_id=pad_token_id,
        dim=16,
        n_heads=2,
        hidden_dim=32,
        n_layers=2,
        initializer_range=0.2,
        max_position_embeddings=64,
    )


# architecture: tokenizer, config, what the encoder can read
# Those that take packed chunks: their attention is transformers' own choice, their positions are
# given, none has a window.
PACKABLE = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert"}
ARCHITECTURES: dict[str, tuple[Callable[[], Any], Callable[..., Any], int]] = {
    "bert": (
        bert_tokenizer,
        lambda **ids: _config("BertConfig", 2, max_position_embeddings=64, **ids),
        64,
    ),
    "roberta": (
        roberta_tokenizer,
        lambda **ids: _config("RobertaConfig", 2, max_position_embeddings=66, **ids),
        64,
    ),
    "xlm-roberta": (
        xlm_roberta_tokenizer,
        lambda **ids: _config("XLMRobertaConfig", 2, max_position_embeddings=66, **ids),
        64,
    ),
    "mpnet": (
        mpnet_tokenizer,
        lambda **ids: _config("MPNetConfig", 2, max_position_embeddings=66, **ids),
        64,
    ),
    "distilbert": (bert_tokenizer, _distilbert, 64),
    "electra": (
        bert_tokenizer,
        lambda **ids: _config(
            "ElectraConfig", 2, embedding_size=8, max_position_embeddings=64, **ids
        ),
        64,
    ),
    "albert": (
        albert_tokenizer,
        lambda **ids: _config(
            "AlbertConfig", 2, embedding_size=8, max_position_embeddings=64, **ids
        ),
        64,
    ),
    "deberta-v2": (
        deberta_tokenizer,
        lambda **ids: _config(
            "DebertaV2Config",
            2,
            max_position_embeddings=64,
            relative_attention=True,
            position_biased_input=False,
            pos_att_type=["p2c", "c2p"],
            **ids,
        ),
        64,
    ),
    "modernbert": (
        modernbert_tokenizer,
        lambda **ids: _config(
            "ModernBertConfig",
            2,
            max_position_embeddings=1024,
            bos_token_id=1,
            cls_token_id=1,
            eos_token_id=2,
            sep_token_id=2,
            **ids,
        ),
        1024,
    ),
}


def save_tiny_encoder(architecture: str, folder: Path, **settings: Any) -> Path:
    """Save a random encoder of `architecture` and its tokenizer; return the folder.

    The settings are added to those of its config.
    """
    make_tokenizer, make_config, _ = ARCHITECTURES[architecture]
    tokenizer = make_tokenizer()
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = make_config(**ids, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = transformers.AutoModel.from_config(config)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_bert(folder: Path, **settings: Any) -> Path:
    """Save a random BERT, of the tiny one's sizes but for the settings; return the folder."""
    tokenizer = bert_tokenizer()
    config = transformers.BertConfig(
        **{**SIZE, "num_hidden_layers": 2, "vocab_size": len(tokenizer), **settings}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = transformers.BertModel(config)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
