"""How near to its limit is a GPU, does its memory stay flat, and what do long chunks cost?

Three questions, for random encoders and texts of random words, without a network:

- What share of the machine's bfloat16 matrix products is used? A BERT of 12 x 768 is trained on
  texts of mixed lengths, and predicts them. The goals are 35 % in training and 45 % in prediction.
  Sides: this package, from texts and from documents that were cut before; belt-nlp, if it is
  installed, in float32, which is all that it knows; transformers in plain loops, with torch's
  attention ("sdpa") and with its own ("eager"), whose texts are truncated to 512 tokens. The work
  and the rate are those of speed.py, and a fit of this package has one more forward pass, for its
  linear probe. The sides take turns, and figures are medians.
- Does the memory of training depend on the length of a text? One text of 16 to 4,096 chunks of 512
  tokens is trained on for one step. On a GPU the figure is the peak of what tensors hold. On a CPU
  it is the peak of the process so far.
- How many tokens a second does a random ModernBERT of 22 x 768 take, in chunks of 128 to 8,192?

    python examples/benchmarks/gpu.py
    python examples/benchmarks/gpu.py --device cpu --small  # to try the script
"""

import argparse
import platform
import resource
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec

import numpy as np
import pandas as pd
import torch
from speed import Plain, make_longbert, make_published, matrix_rate, save_base, work
from transformers import AutoTokenizer, ModernBertConfig, ModernBertModel
from transformers.utils import logging

from sklearn_longbert import LongBertClassifier, TextChunker

WORDS = ["the", "cook", "fries", "fish", "and", "bread", "while", "a", "comet", "shines"]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
PLANS = {  # by whether it is small
    False: {
        "texts": 512,
        "longest": 2000,
        "chunks": [16, 64, 256, 1024, 4096],
        "chunk_size": 512,
        "chunk_sizes": [128, 512, 2048, 8192],
        "tokens": 65536,
    },
    True: {
        "texts": 16,
        "longest": 300,
        "chunks": [4, 16],
        "chunk_size": 64,
        "chunk_sizes": [16, 64],
        "tokens": 512,
    },
}


def text_of(n_words, random):
    return " ".join(random.choice(WORDS, n_words))


def mixed_texts(n_texts, longest):
    """Return texts of 20 words and more, whose lengths are spread evenly by their logarithm."""
    random = np.random.RandomState(0)
    lengths = np.exp(random.uniform(np.log(20), np.log(longest), n_texts)).astype(int)
    return [text_of(length, random) for length in lengths], [n % 2 for n in range(n_texts)]


def timed(device, call):
    """Return the seconds of a call, with all that it has left the device to do."""
    start = time.perf_counter()
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


# Shares of the machine's rate


def sides_of(folder, texts, device):
    """Return, for each side, what makes its model, what the model gets, and what it truncates."""
    documents = TextChunker(folder).fit_transform(texts)
    ours = partial(make_longbert, folder, 2, device, "bfloat16")
    sides = {"longbert": (ours, texts, False), "longbert, documents": (ours, documents, False)}
    if find_spec("belt_nlp") is None:
        print("belt-nlp is not installed (extra benchmark), and is left out.")
    else:
        sides["belt, float32"] = partial(make_published, folder, 2, device, "float32"), texts, False
    for attention in ("sdpa", "eager"):
        plain = partial(Plain, folder, 2, device, "bfloat16", attention)
        sides[f"plain, {attention}"] = plain, texts, True
    return sides


def run_side(make, inputs, labels, device):
    """Return the seconds of a fit and of a prediction; None if memory has run out."""
    model = make()
    try:
        return [
            timed(device, lambda: model.fit(inputs, labels)),
            timed(device, lambda: model.predict(inputs)),
        ]
    except (torch.OutOfMemoryError, MemoryError) as error:
        print(f"  out of memory: {str(error).splitlines()[0]}")
        return None


def measure_shares(folder, plan, device, n_repeats):
    texts, labels = mixed_texts(plan["texts"], plan["longest"])
    sides = sides_of(folder, texts, device)
    seconds, rates = {name: [] for name in sides}, [matrix_rate(device, "bfloat16")]
    for repeat in range(n_repeats + 1):
        for name, (make, inputs, _) in sides.items():
            found = run_side(make, inputs, labels, device)
            if repeat:  # the first of each warms up
                seconds[name].append(found or [np.nan, np.nan])
                print(f"  {repeat} {name}: {seconds[name][-1]}", flush=True)
        rates.append(matrix_rate(device, "bfloat16"))
    rate, rows = max(rates), []
    for name, (_, _, truncated) in sides.items():
        n_tokens, operations = work(folder, texts, truncated)
        fit, predict = np.median(seconds[name], axis=0)
        row = {"side": name, "tokens": n_tokens, "fit_s": fit, "predict_s": predict}
        row |= {"fit_share_%": 100 * 3 * operations / fit / rate}
        row |= {"predict_share_%": 100 * operations / predict / rate}
        row |= {"fit_tokens_s": n_tokens / fit, "predict_tokens_s": n_tokens / predict}
        rows.append(row)
    print(f"\nmatrix products in bfloat16: {rate / 1e12:.2f} TFLOP/s")
    return pd.DataFrame(rows).round(2)


# Memory


def peak_mb(device):
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure_memory(folder, plan, device):
    random, rows = np.random.RandomState(0), []
    chunker = TextChunker(folder, chunk_size=plan["chunk_size"])
    for n_chunks in plan["chunks"]:
        texts = [text_of(n_chunks * (plan["chunk_size"] - 2), random), "news"]
        documents = chunker.fit_transform(texts)
        model = make_longbert(folder, 2, device, "bfloat16")
        model.set_params(head_init="random", chunk_size=plan["chunk_size"])
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(device)
        seconds = timed(device, partial(model.fit, documents, [0, 1]))
        rows.append({"chunks": documents[0].n_chunks, "fit_s": seconds, "peak_mb": peak_mb(device)})
    return pd.DataFrame(rows).round(2)


# Long chunks


def save_modernbert(folder, longest, **sizes):
    """Save a random ModernBERT of 22 x 768, but for the sizes, with the tokenizer of save_base."""
    save_base(folder, **SMALL)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": tokenizer.cls_token_id, "cls_token_id": tokenizer.cls_token_id}
    ends |= {"eos_token_id": tokenizer.sep_token_id, "sep_token_id": tokenizer.sep_token_id}
    config = ModernBertConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=longest,
        **ends,
        **sizes,
    )
    ModernBertModel(config).save_pretrained(folder)


def measure_chunk_sizes(folder, plan, device):
    random, rows = np.random.RandomState(0), []
    for chunk_size in plan["chunk_sizes"]:
        texts = [text_of(plan["tokens"], random), text_of(plan["tokens"] // 8, random)]
        documents = TextChunker(folder, chunk_size=chunk_size).fit_transform(texts)
        n_tokens = sum(len(chunk) for document in documents for chunk in document.chunks())
        model = LongBertClassifier(
            folder,
            chunk_size=chunk_size,
            layers="last",
            baseline=None,
            head_init="random",
            max_epochs=1,
            precision="bfloat16",
            device=device,
            random_state=0,
        )
        run_side(lambda model=model: model, documents, [0, 1], device)  # warms up
        found = run_side(lambda model=model: model, documents, [0, 1], device)
        fit, predict = found or [np.nan, np.nan]
        row = {"chunk_size": chunk_size, "tokens": n_tokens}
        rows.append({**row, "fit_tokens_s": n_tokens / fit, "predict_tokens_s": n_tokens / predict})
    return pd.DataFrame(rows).round(0)


def machine(device):
    parts = [platform.processor() or platform.machine(), f"torch {torch.__version__}"]
    if device.startswith("cuda"):
        about = torch.cuda.get_device_properties(device)
        parts = [f"{about.name}, {about.total_memory / 2**30:.0f} GiB", *parts]
        parts.append(f"CUDA {torch.version.cuda}, capability {about.major}.{about.minor}")
    return ", ".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="tiny encoders and few texts")
    options = parser.parse_args()
    device, plan = options.device, PLANS[options.small]
    if device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch finds no GPU of CUDA here; --device cpu --small tries the script.")
    logging.disable_progress_bar()
    start = time.perf_counter()
    sizes = SMALL if options.small else {}
    tables = {}
    with tempfile.TemporaryDirectory() as folder:
        save_base(folder, **sizes)
        tables["Shares of the rate"] = measure_shares(folder, plan, device, options.repeats)
        tables["One text of training"] = measure_memory(folder, plan, device)
    with tempfile.TemporaryDirectory() as folder:
        save_modernbert(folder, max(plan["chunk_sizes"]), **sizes)
        tables["ModernBERT"] = measure_chunk_sizes(folder, plan, device)
    print(f"\n{machine(device)}; {(time.perf_counter() - start) / 60:.1f} minutes")
    for title, table in tables.items():
        print(f"\n{title}\n{table.to_string(index=False)}")


if __name__ == "__main__":
    main()
