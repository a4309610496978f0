"""How long does a fresh process take to its first prediction, and how much memory?

    python examples/benchmarks/cold_start.py

A classifier of five topics of BBC news, with a frozen MiniLM and the baseline "words", is saved as
a folder. Fresh processes, ``--repeats`` of them, import, load it and predict one text. Shown is
the median of the seconds of each stage, and the memory after it: the resident set, and what of it
belongs to this process alone. ``import torch, transformers`` comes first: it does not load
transformers' models, which every encoder needs, and which the second stage imports.

Then it names modules that were imported although a prediction does not need them, with the seconds
that ``python -X importtime`` counts for them.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from _data import load_bbc_news
from sklearn.model_selection import train_test_split

STAGES = {
    "import torch, transformers": "import torch, transformers",
    "transformers' models": "from transformers import AutoModel, PreTrainedModel",
    "import sklearn_longbert": "from sklearn_longbert import LongBertClassifier",
    "from_pretrained": "model = LongBertClassifier.from_pretrained(FOLDER)",
    "first prediction": "model.predict([TEXT])",
    "second prediction": "model.predict([TEXT])",
}
PROCESS = """
import json, sys, time
FOLDER, TEXT, stages = json.loads(sys.argv[1])
def memory():
    lines = dict(line.split(":") for line in open("/proc/self/smaps_rollup").readlines()[1:])
    private = int(lines["Private_Clean"].split()[0]) + int(lines["Private_Dirty"].split()[0])
    return int(lines["Rss"].split()[0]) / 1000, private / 1000
rows = []
for name, code in stages.items():
    start = time.perf_counter()
    exec(code)
    rows.append((name, time.perf_counter() - start, *memory()))
print(json.dumps(rows))
"""
NOT_NEEDED = ("skorch", "pandas", "scipy.stats", "scipy.optimize", "sklearn.linear_model")


def save_model(folder):
    texts, labels = load_bbc_news()
    X, X_test, y, _ = train_test_split(
        texts, labels, train_size=40, stratify=labels, random_state=0
    )
    from sklearn_longbert import LongBertClassifier

    LongBertClassifier(freeze_encoder=True, random_state=0).fit(X, y).save_pretrained(folder)
    return X_test[0]


def stages_of_a_process(folder, text):
    job = json.dumps([str(folder), text, STAGES])
    command = [sys.executable, "-W", "ignore", "-c", PROCESS, job]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def seconds_of_imports():
    """Return the cumulative seconds of modules that a prediction does not need."""
    code = "import torch, transformers, sklearn_longbert; sklearn_longbert.LongBertClassifier"
    command = [sys.executable, "-X", "importtime", "-c", code]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True)
    found = {}
    for line in result.stderr.splitlines():
        if line.startswith("import time:") and line.count("|") == 2:
            _, cumulative, name = line.removeprefix("import time:").split("|")
            if name.strip() in NOT_NEEDED:
                found[name.strip()] = int(cumulative) / 1e6
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "model")
        text = save_model(folder)
        n_bytes = (folder / "model.safetensors").stat().st_size
        rows = [row for _ in range(options.repeats) for row in stages_of_a_process(folder, text)]
    columns = ["stage", "seconds", "resident MB", "private MB"]
    table = pd.DataFrame(rows, columns=columns).groupby("stage", sort=False).median()
    print(table.round(2).to_string())
    print(f"weights: {n_bytes / 1e6:.0f} MB")
    print("imported, and not needed:", seconds_of_imports())
    print(platform.processor() or platform.machine())


if __name__ == "__main__":
    main()
