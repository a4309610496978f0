"""How evenly are the ranks of one fit loaded, and what do they gain?

    python examples/benchmarks/devices.py
    python examples/benchmarks/devices.py --devices cuda:0 cuda:1

One batch is one text of 24 chunks and seven of one chunk, of 512 tokens each; documents cannot be
shared out evenly, but their chunks can. all-MiniLM-L6-v2 trains on it in float32: alone on the
first device, and with all of them. Seconds are those of a step, and CPU seconds those that each
process takes for it, from the difference of a fit of four epochs and one of a single epoch, in
turn. The weights of both fits are compared, too: the largest difference, where AdamW's first steps
are as large as the learning rate of 5e-5. Each process has one thread.
"""

import argparse
import os
import platform
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import torch
from tqdm import tqdm

from sklearn_longbert import LongBertClassifier, LongBertVectorizer, TextChunker
from sklearn_longbert._ranks.workers import workers_of_process

N_STEPS, N_ROUNDS = 3, 1


def make_documents():
    words = np.array(["cook", "fish", "rice", "moon", "comet", "star", "house", "green"])
    random = np.random.RandomState(0)
    texts = [" ".join(random.choice(words, size=510 * n_chunks)) for n_chunks in (24, *[1] * 7)]
    return TextChunker().fit_transform(texts), [0, 1] * 4


def cpu_seconds():
    """Return the CPU seconds of this process, and of each worker."""
    pids = [pid for each in workers_of_process().executors for pid in each._processes]
    times = [psutil.Process(pid).cpu_times() for pid in (os.getpid(), *pids)]
    return np.array([each.user + each.system for each in times])


def timed(documents, labels, device, n_epochs):
    model = LongBertClassifier(
        layers="last",
        baseline=None,
        head_init="random",
        precision="float32",
        max_epochs=n_epochs,
        device=device,
        random_state=0,
    )
    before, start = cpu_seconds(), time.perf_counter()
    model.fit(documents, labels)
    seconds, after = time.perf_counter() - start, cpu_seconds()
    return model, np.array([seconds, *(after - before)])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", nargs="+", default=["cpu", "cpu"])
    devices = parser.parse_args().devices
    documents, labels = make_documents()
    print(platform.processor() or platform.machine(), "torch", torch.__version__)
    figures, models = {"alone": [], "all": []}, {}
    LongBertVectorizer(device=devices).fit().transform(["text"])  # starts the workers
    for _ in tqdm(range(N_ROUNDS)):
        for name, device in (("alone", devices[0]), ("all", devices)):
            _, one = timed(documents, labels, device, 1)
            models[name], more = timed(documents, labels, device, 1 + N_STEPS)
            figures[name].append((more - one) / N_STEPS)
    for name, rows in figures.items():
        seconds, *cpu = np.median(rows, axis=0)
        shown = ", ".join(f"{each:.2f}" for each in cpu)
        print(f"{name:6} {seconds:.2f} s a step; CPU seconds of rank 0, 1, ...: {shown}")
    alone, together = (models[name].net_.module_.state_dict() for name in ("alone", "all"))
    difference = max((alone[name] - together[name]).abs().max().item() for name in alone)
    print(f"largest difference of a weight: {difference:.1e}")


if __name__ == "__main__":
    main()
