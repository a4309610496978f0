"""Pins what the example of a web service answers: real requests to two workers of uvicorn.

They come with the extra ``serve``, and run with ``-m slow``.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from sklearn_longbert import LongBertClassifier

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("fastapi") is None or find_spec("uvicorn") is None,
        reason='FastAPI and uvicorn are not installed: pip install -e ".[serve]"',
    ),
]
ROOT = Path(__file__).resolve().parents[1]
COOKING = "The cook fries the fish, boils the rice and cuts the bread. "
SKY = "The new telescope shows Jupiter, the rings of Saturn and a distant comet. "
MUSIC = "The choir sings, and the pianist plays a waltz of Chopin. "
TEXTS = [COOKING * 30, SKY, f"{MUSIC * 20}{SKY * 3}", "", "Zoë hört Musik 🎵 und kocht. " * 9]
MOST_BYTES, MOST_CHARACTERS = 50_000, 9_000


@dataclass(frozen=True)
class Service:
    process: subprocess.Popen
    port: int
    log: Path

    def ask(self, path: str, content: Any = None) -> tuple[int, dict[str, str], Any]:
        """Return status, headers and content of the answer; a str is sent as it is."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        body = content if content is None or isinstance(content, str) else json.dumps(content)
        headers = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        is_json = answer.headers["Content-Type"] == "application/json"
        return answer.status, dict(answer.headers), json.loads(text) if is_json else text

    def wait_until_loaded(self) -> set[int]:
        """Return the processes that answer, as soon as there are two."""
        found: set[int] = set()
        end = time.monotonic() + 300
        with ThreadPoolExecutor(8) as pool:
            while len(found) < 2:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                answers = [answer for answer in pool.map(self._health, range(16)) if answer]
                found |= {answer["pid"] for answer in answers if answer["loaded"]}
                time.sleep(0.2)
        return found

    def _health(self, _: int) -> dict[str, Any] | None:
        try:
            return self.ask("/health")[2]
        except ConnectionError:  # no worker has loaded the classifier yet
            return None


def start(folder: Path, place: Path, **settings: Any) -> Service:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", f"--port={port}"]
    command += ["--timeout-worker-healthcheck=30", "--app-dir", str(ROOT / "examples" / "serving")]
    limits = {f"LONGBERT_{name.upper()}": str(value) for name, value in settings.items()}
    environment = {**os.environ, "LONGBERT_FOLDER": str(folder), "WEB_CONCURRENCY": "2", **limits}
    log = place / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    return Service(process, port, log)


def stop(service: Service) -> None:
    """End the service by SIGTERM, and see that it ends itself and all that it started."""
    workers = psutil.Process(service.process.pid).children(recursive=True)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(timeout=60) == 0, service.log.read_text()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    with pytest.raises(ConnectionRefusedError):
        service.ask("/health")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go to this machine only."""
    look_up = socket.getaddrinfo

    def refuse(host: Any, *args: Any, **kwargs: Any) -> Any:
        assert host == "127.0.0.1"
        return look_up(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts, labels = [COOKING * 4, SKY * 4, MUSIC * 4] * 4, ["cooking", "sky", "music"] * 4
    classifier = LongBertClassifier(
        chunk_size=64, freeze_encoder=True, precision="float32", random_state=0
    )
    folder = tmp_path_factory.mktemp("saved") / "classifier"
    classifier.fit(texts, labels).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def classifier(folder: Path) -> LongBertClassifier:
    return LongBertClassifier.from_pretrained(folder)


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = {
        "max_texts": 5,
        "max_bytes": MOST_BYTES,
        "max_characters": MOST_CHARACTERS,
        "max_requests": 2,
    }
    service = start(folder, tmp_path_factory.mktemp("service"), **limits)
    try:
        service.wait_until_loaded()
        yield service
        stop(service)
    finally:
        service.process.kill()


def test_predictions_are_those_of_the_estimator(
    service: Service, classifier: LongBertClassifier
) -> None:
    status, _, answers = service.ask("/predict", {"texts": TEXTS})
    assert status == 200
    assert [answer["label"] for answer in answers] == classifier.predict(TEXTS).tolist()
    assert len({answer["label"] for answer in answers}) > 1
    for answer in answers:
        assert list(answer["probabilities"]) == classifier.classes_.tolist()
    found = [list(answer["probabilities"].values()) for answer in answers]
    np.testing.assert_allclose(found, classifier.predict_proba(TEXTS), rtol=1e-5)


def test_contributions_add_up_to_the_logit(
    service: Service, classifier: LongBertClassifier
) -> None:
    status, _, answers = service.ask("/explain", {"texts": TEXTS})
    assert status == 200
    for answer, expected in zip(answers, classifier.explain(TEXTS), strict=True):
        parts = [passage["contribution"] for passage in answer["passages"]]
        assert answer["base_value"] + sum(parts) == pytest.approx(answer["logit"], abs=1e-5)
        number = classifier.classes_.tolist().index(answer["label"])
        assert answer["label"] == expected.predicted
        assert answer["logit"] == pytest.approx(expected.logits[number], rel=1e-5)
        np.testing.assert_allclose(parts, expected.contributions[:, number], atol=1e-5)
        places = [(passage["start"], passage["end"]) for passage in answer["passages"]]
        passages = [expected.text[begin:end] for begin, end in places]
        assert passages == expected.passages
    assert max(len(answer["passages"]) for answer in answers) > 2


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"texts": []}, "texts: List should have at least 1 item"),
        ({"texts": ["a"] * 6}, "texts: List should have at most 5 items"),
        ({"texts": ["a", "b" * 9_001]}, "texts[1]: String should have at most 9000 characters"),
        ({"texts": ["a", "b", 3]}, "texts[2]: Input should be a valid string"),
        ({"texts": [None]}, "texts[0]: Input should be a valid string"),
        ({"texts": ["a", "\ud800"]}, "texts[1]: Input should be a valid string, unable to parse"),
        ({"texts": "a"}, "texts: Input should be a valid list"),
        ({"texts": ["a"], "level": "chunk"}, "level: Extra inputs are not permitted"),
        ({}, "texts: Field required"),
        (["a"], "body: Input should be a valid dictionary"),
        ('{"texts": ["a"', "[14]: JSON decode error"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    service: Service, path: str, content: Any, message: str
) -> None:
    status, _, answer = service.ask(path, content)
    assert status == 422
    (found,) = answer["detail"]
    assert found.startswith(message)
    assert len(found) < 200  # the text itself is not sent back


def test_a_body_that_is_too_large(service: Service) -> None:
    status, _, answer = service.ask("/predict", {"texts": ["a" * MOST_BYTES]})
    assert (status, answer) == (413, "Content Too Large")


def test_texts_at_the_limits_are_answered(service: Service) -> None:
    status, _, answers = service.ask("/predict", {"texts": ["a " * (MOST_CHARACTERS // 2)] * 5})
    assert (status, len(answers)) == (200, 5)


def test_what_is_beyond_the_room_of_workers_is_told_to_come_again(service: Service) -> None:
    """Two workers have room for two requests each; health is answered meanwhile."""
    long = {"texts": [COOKING * 140] * 5}
    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(service.ask, "/explain", long) for _ in range(12)]
        while not any(one.done() for one in asked):
            assert service.ask("/health")[0] == 200
        answers = [one.result() for one in asked]
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 2
    for status, headers, content in answers:
        if status == 503:
            assert headers["retry-after"] == "1"
            assert content == {"detail": "This worker has no room for more requests."}
    assert service.ask("/predict", {"texts": ["a"]})[0] == 200


@pytest.mark.skipif(
    not sys.platform.startswith("linux"),
    reason="only Linux says which pages of a file a process shares",
)
def test_both_workers_share_the_weights(service: Service, folder: Path) -> None:
    """The file of the weights is mapped, and no worker has pages of it that it has changed."""
    workers = service.wait_until_loaded()
    parent = psutil.Process(service.process.pid)
    assert workers <= {child.pid for child in parent.children()}
    for worker in workers:
        maps = psutil.Process(worker).memory_maps(grouped=True)
        (weights,) = [one for one in maps if one.path == str(folder / "model.safetensors")]
        assert weights.rss > 0.9 * (folder / "model.safetensors").stat().st_size
        assert weights.private_dirty == 0


def test_a_request_that_was_accepted_is_answered_before_the_end(
    folder: Path, tmp_path: Path
) -> None:
    service = start(folder, tmp_path)
    try:
        service.wait_until_loaded()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(service.ask, "/explain", {"texts": [COOKING * 1000]})
            time.sleep(0.5)
            stop(service)
            assert asked.result()[0] == 200
    finally:
        service.process.kill()


def save_nothing(folder: Path) -> str:
    return "FileNotFoundError"


def save_labels(folder: Path) -> str:
    """Save a classifier that gives a text several labels."""
    table = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 2)
    classifier = LongBertClassifier(
        freeze_encoder=True, baseline=None, head_init="random", max_epochs=1, random_state=0
    )
    classifier.fit([COOKING, SKY, MUSIC, "Nothing."] * 2, table).save_pretrained(folder)
    return "gives a text several labels, not one"


@pytest.mark.parametrize("save", [save_nothing, save_labels])
def test_a_folder_that_cannot_be_served_ends_it(
    save: Callable[[Path], str], tmp_path: Path
) -> None:
    message = save(tmp_path / "classifier")
    service = start(tmp_path / "classifier", tmp_path)
    try:
        service.process.wait(timeout=180)
    finally:
        service.process.kill()
    assert message in service.log.read_text()
    assert "failed to start, stopping the parent process" in service.log.read_text()
