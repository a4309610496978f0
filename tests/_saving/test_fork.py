"""Pins that loading starts no threads, so that a process that is forked off afterwards predicts.

And that after a prediction the cure of the guide helps, which is one thread in the worker.
"""

import os
import subprocess
import sys
from pathlib import Path

import joblib
import pytest
import torch
from tiny import bert_tokenizer
from transformers import BertConfig, BertForSequenceClassification

from sklearn_longbert import LongBertClassifier

TEXTS = ["good fox jumps " * 9, "bad dog runs " * 9] * 2

SCRIPT = """
import os, signal, sys
from pathlib import Path
import joblib, torch
from sklearn_longbert import LongBertClassifier

def load(way):
    if way == "joblib":
        return joblib.load(folder / "estimator.joblib")
    return LongBertClassifier.from_pretrained(folder / way, chunk_size=32, precision="float32")

def predict_in_worker(model, n_threads):
    worker = os.fork()
    if not worker:
        signal.alarm(10)  # ends a worker that hangs
        torch.set_num_threads(n_threads)
        model.predict(texts)
        os._exit(0)
    return "hung" if os.WIFSIGNALED(os.waitpid(worker, 0)[1]) else "predicted"

torch.set_num_threads(2)
folder, texts = Path(sys.argv[1]), ["good fox jumps " * 9] * 4
for way in ("checkpoint", "saved", "joblib"):
    model = load(way)
    print(way, predict_in_worker(model, 2))
model.predict(texts)
print("cured", predict_in_worker(model, 1))
"""


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an estimator, saved in two ways, and a checkpoint.

    They are large enough for torch to use several threads.
    """
    folder = tmp_path_factory.mktemp("kept")
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=1024,
        num_labels=150,
    )
    with torch.random.fork_rng(devices=[]):
        BertForSequenceClassification(config).save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    model = LongBertClassifier.from_pretrained(
        folder / "checkpoint", chunk_size=32, device="cpu", precision="float32"
    )
    model.save_pretrained(folder / "saved")
    joblib.dump(model, folder / "estimator.joblib")
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_worker_predicts_after_a_fork(kept: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, str(kept)],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ways = ("checkpoint", "saved", "joblib", "cured")
    assert run.stdout == "".join(f"{way} predicted\n" for way in ways), run.stderr
