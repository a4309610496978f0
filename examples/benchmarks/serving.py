"""How many requests does the example of a web service answer, how fast, and with what memory?

    python examples/benchmarks/serving.py

examples/serving/service.py with two workers. 16 clients on the same machine ask for the label of
one BBC news text at a time, each as soon as it has its last answer. With the extra ``openvino``,
the service computes by OpenVINO, too. Memory is the proportional set size (PSS) of each worker
after the requests: a page that n processes share counts as an nth. "torch alone" is that of two
processes that have only imported torch and transformers. It needs the extra ``serve``, and Linux.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np

EXAMPLES = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(EXAMPLES))
from _data import load_bbc_news

from sklearn_longbert import LongBertClassifier

N_WORKERS, N_CLIENTS, N_TRAINED = 2, 16, 100
WAYS = [("torch", "auto"), ("openvino", "auto"), ("openvino", "int8")]
IDLE = "import sys, torch, transformers; print(flush=True); sys.stdin.readline()"
ROW = "{:22} {:>10} {:>8} {:>8} {:>16} {:>12}"


def memory(process):
    """Return the proportional set size of a process in MB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("Pss:")]
    return int(kilobytes) * 1024 / 1e6


def memory_of_torch():
    """Return the memory of each of as many processes that have only imported it."""
    command = [sys.executable, "-c", IDLE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(N_WORKERS)]
    for process in processes:
        process.stdout.readline()
    found = [memory(process.pid) for process in processes]
    for process in processes:
        process.communicate("\n")
    return found


def ask(port, path, content=None):
    """Return the answer to a request, and the seconds that it took."""
    begin = time.perf_counter()
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    body = None if content is None else json.dumps(content)
    method = "GET" if body is None else "POST"
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {read.decode()}")
    return json.loads(read), time.perf_counter() - begin


def workers(process, port, pool):
    """Return the ids of all workers, as soon as they answer."""

    def worker(_):
        try:
            return ask(port, "/health")[0]["pid"]
        except ConnectionError:  # none has loaded the classifier yet
            return None

    found = set()
    while len(found) < N_WORKERS:
        if process.poll() is not None:
            raise RuntimeError("the service has ended")
        found |= {one for one in pool.map(worker, range(N_CLIENTS)) if one}
        time.sleep(0.2)
    return sorted(found)


@contextmanager
def service(folder):
    """Yield the process and the port of a service, which ends afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", f"--port={port}"]
    command += ["--app-dir", str(EXAMPLES / "serving"), "--log-level", "error"]
    command += ["--timeout-worker-healthcheck", "30"]
    settings = {"WEB_CONCURRENCY": str(N_WORKERS), "LONGBERT_FOLDER": str(folder)}
    process = subprocess.Popen(command, env={**os.environ, **settings})
    try:
        yield process, port
    finally:
        process.terminate()
        process.wait()


def measure(folder, texts):
    """Return requests a second, seconds of each request, and the memory of each worker."""
    with service(folder) as (process, port), ThreadPoolExecutor(N_CLIENTS) as pool:
        found = workers(process, port, pool)

        def seconds(text):
            return ask(port, "/predict", {"texts": [text]})[1]

        list(pool.map(seconds, texts[: 2 * N_CLIENTS]))  # both workers have all in memory
        begin = time.perf_counter()
        each = list(pool.map(seconds, texts))
        rate = len(texts) / (time.perf_counter() - begin)
        return rate, np.array(each), [memory(worker) for worker in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=480)
    n_requests = parser.parse_args().requests
    texts, labels = load_bbc_news()
    order = np.random.RandomState(0).permutation(len(texts))
    trained, asked = order[:N_TRAINED], order[N_TRAINED : N_TRAINED + n_requests]
    model = LongBertClassifier(layers="last", baseline=None, freeze_encoder=True, random_state=0)
    model.fit(texts[trained], labels[trained])
    alone = " and ".join(f"{one:.0f}" for one in memory_of_torch())
    print(ROW.format("inference, precision", "requests/s", "p50 ms", "p99 ms", "MB", "torch alone"))
    for inference, precision in WAYS if find_spec("openvino") else WAYS[:1]:
        model.set_params(inference=inference, precision=precision)
        model.predict(texts[trained])  # which calibrates int8
        with tempfile.TemporaryDirectory() as name:
            model.save_pretrained(Path(name, "model"))
            rate, each, used = measure(Path(name, "model"), texts[asked])
        middle, late = (f"{1000 * np.quantile(each, share):.0f}" for share in (0.5, 0.99))
        used = " and ".join(f"{one:.0f}" for one in used)
        way = f"{inference}, {precision}"
        print(ROW.format(way, f"{rate:.1f}", middle, late, used, alone), flush=True)
    print(platform.processor() or platform.machine(), joblib.cpu_count(), "cores")


if __name__ == "__main__":
    main()
