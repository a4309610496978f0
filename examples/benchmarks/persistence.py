"""How large is a saved estimator, how fast is it loaded, and do processes share its weights?

    python examples/benchmarks/persistence.py

all-MiniLM-L6-v2 with a head for five classes; medians of ten loads, in the file cache. Memory is
what each of four processes takes alone after a prediction (USS), beyond one that has only
imported the package. Checkpoints are those of a fit that writes one after each step; the time is
the median of a write.
"""

import pickle
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._training.resume import FitCheckpoint

N_LOADS, N_PROCESSES = 10, 4
LOADS = {
    "nothing": "None",
    "pickle": "joblib.load(folder / 'estimator.joblib')",
    "pickle, mmap_mode='r'": "joblib.load(folder / 'estimator.joblib', mmap_mode='r')",
    "from_pretrained": "LongBertClassifier.from_pretrained(folder / 'estimator')",
}
WORKER = """
import sys, time
from pathlib import Path
import joblib, psutil
from sklearn_longbert import LongBertClassifier
folder, seconds = Path(sys.argv[1]), []
LongBertClassifier.from_pretrained  # what is imported with it
for _ in range(int(sys.argv[2])):
    start = time.perf_counter()
    model = {load}
    seconds.append(time.perf_counter() - start)
if model is not None:
    model.predict(["A text that is predicted."])
print(sorted(seconds)[len(seconds) // 2], flush=True)
sys.stdin.readline()
print(psutil.Process().memory_full_info().uss)
"""


def measure(load, folder, n_loads, n_processes):
    """Return median seconds of a load, and the mean of bytes that the processes do not share."""
    command = [sys.executable, "-c", WORKER.format(load=load), str(folder), str(n_loads)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(n_processes)]
    seconds = [float(process.stdout.readline()) for process in processes]
    private = [int(process.communicate("\n")[0]) for process in processes]
    return np.mean(seconds), np.mean(private)


def write_checkpoints(model, texts, labels, folder):
    """Return the median seconds of a write, and the bytes of a checkpoint."""
    write, seconds, sizes = FitCheckpoint.write, [], []

    def timed(checkpoint, *arguments, **settings):
        start = time.perf_counter()
        write(checkpoint, *arguments, **settings)
        seconds.append(time.perf_counter() - start)
        sizes.append(checkpoint.path_.stat().st_size)

    FitCheckpoint.write = timed
    model.set_params(checkpoint_folder=folder, checkpoint_interval=0).fit(texts, labels)
    FitCheckpoint.write = write
    model.set_params(checkpoint_folder=None)
    return np.median(seconds), max(sizes)


def main():
    texts, labels = load_bbc_news()
    rows = [row for name in np.unique(labels) for row in np.flatnonzero(labels == name)[:4]]
    model = LongBertClassifier(
        layers="last", baseline=None, max_chunks=1, max_epochs=1, random_state=0
    )
    with tempfile.TemporaryDirectory() as name:
        seconds, n_bytes = write_checkpoints(model, texts[rows], labels[rows], Path(name))
    n_weights = sum(weight.nbytes for weight in model.net_.module_.state_dict().values())
    print(f"checkpoint: {n_bytes / n_weights:.2f} times the weights, a write {seconds:.2f} s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        joblib.dump(model, folder / "estimator.joblib")
        print(f"joblib.dump: {time.perf_counter() - start:.2f} s")
        start = time.perf_counter()
        model.save_pretrained(folder / "estimator")
        print(f"save_pretrained: {time.perf_counter() - start:.2f} s")
        sizes = {
            "pickle": len(pickle.dumps(model)),
            "joblib": (folder / "estimator.joblib").stat().st_size,
            "folder": sum(path.stat().st_size for path in (folder / "estimator").iterdir()),
        }
        for kind, size in sizes.items():
            print(f"{kind}: {size / n_weights:.4f} times the weights ({n_weights / 1e6:.1f} MB)")
        _, base = measure(LOADS.pop("nothing"), folder, 1, N_PROCESSES)
        for kind, load in LOADS.items():
            seconds, _ = measure(load, folder, N_LOADS, 1)
            _, private = measure(load, folder, 1, N_PROCESSES)
            print(
                f"{kind}: loads in {seconds:.3f} s, {(private - base) / 1e6:.0f} MB of its own in "
                f"each of {N_PROCESSES} processes"
            )
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
