"""A web service for a saved classifier that gives each text one label.

    pip install "sklearn-longbert[serve]"
    LONGBERT_FOLDER=reviews WEB_CONCURRENCY=2 uvicorn service:app --timeout-worker-healthcheck 30

uvicorn reads WEB_CONCURRENCY as --workers, and so does this file. LONGBERT_FOLDER is a folder of
``save_pretrained``. The other settings below have variables of the same form. Set
LRU_CACHE_CAPACITY and ONEDNN_PRIMITIVE_CACHE_CAPACITY to 32, so that workers do not grow on CPUs.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import joblib
import torch
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from sklearn_longbert import LongBertClassifier


class Settings(BaseModel):
    folder: Path = Path("classifier")
    max_texts: PositiveInt = 32  # of a request
    max_characters: PositiveInt = 100_000  # of a text
    max_bytes: PositiveInt = 1_000_000  # of the body of a request
    max_requests: PositiveInt = 16  # that a worker has accepted and not yet answered
    threads: PositiveInt = 1  # of a worker, each with a request of its own

    @classmethod
    def of_environment(cls) -> "Settings":
        names = {name: f"LONGBERT_{name.upper()}" for name in cls.model_fields}
        return cls(**{name: os.environ[key] for name, key in names.items() if key in os.environ})


SETTINGS = Settings.of_environment()
RETRY_AFTER = {"Retry-After": "1"}  # seconds
Text = Annotated[str, Field(max_length=SETTINGS.max_characters)]
Label = str | bool | int | float


class Texts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    texts: Annotated[list[Text], Field(min_length=1, max_length=SETTINGS.max_texts)]


class Prediction(BaseModel):
    label: Label
    probabilities: dict[str, float]


class Passage(BaseModel):
    start: int  # the passage is text[start:end], counted in characters of Unicode
    end: int
    contribution: float


class Explanation(BaseModel):
    label: Label
    logit: float  # of this label: base_value and all contributions added up
    base_value: float
    passages: list[Passage]


def load() -> LongBertClassifier:
    folder = SETTINGS.folder.resolve(strict=True)  # a name that is no folder is not for the Hub
    classifier = LongBertClassifier.from_pretrained(folder)
    if classifier.predict(["The first prediction takes longer than others."]).ndim != 1:
        raise ValueError(f"The classifier in {folder} gives a text several labels, not one.")
    return classifier


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    n_workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
    n_cores = max(joblib.cpu_count() // (n_workers * SETTINGS.threads), 1)
    with ThreadPoolExecutor(SETTINGS.threads, "work", torch.set_num_threads, (n_cores,)) as pool:
        app.state.pool, app.state.n_requests = pool, 0
        app.state.classifier = await asyncio.get_running_loop().run_in_executor(pool, load)
        yield


app = FastAPI(lifespan=lifespan, max_body_size=SETTINGS.max_bytes)


@app.exception_handler(RequestValidationError)
async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
    """Say where the first errors are, without sending the texts back."""
    messages = []
    for found in error.errors()[:10]:
        place = "".join(f"[{part}]" if isinstance(part, int) else part for part in found["loc"][1:])
        messages.append(f"{place or 'body'}: {found['msg']}")
    return JSONResponse({"detail": messages}, status_code=422)


async def answer(compute: Callable[..., list[Any]], texts: list[str]) -> list[Any]:
    """Compute in a thread of the pool, so that this one goes on to answer others."""
    state = app.state
    if state.n_requests >= SETTINGS.max_requests:
        raise HTTPException(503, "This worker has no room for more requests.", RETRY_AFTER)
    state.n_requests += 1
    try:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(state.pool, compute, state.classifier, texts)
    finally:
        state.n_requests -= 1


def predictions(classifier: LongBertClassifier, texts: list[str]) -> list[Prediction]:
    labels = classifier.classes_.tolist()
    rows = classifier.predict_proba(texts)
    return [
        Prediction(
            label=labels[row.argmax()],
            probabilities=dict(zip(map(str, labels), row.tolist(), strict=True)),
        )
        for row in rows
    ]


def explanation(found: Any) -> Explanation:
    number = found.main_class
    places = zip(found.start, found.end, found.contributions[:, number], strict=True)
    return Explanation(
        label=found.classes.tolist()[number],
        logit=found.logits[number],
        base_value=found.base_value[number],
        passages=[Passage(start=start, end=end, contribution=part) for start, end, part in places],
    )


def explanations(classifier: LongBertClassifier, texts: list[str]) -> list[Explanation]:
    return [explanation(found) for found in classifier.explain(texts)]


@app.post("/predict")
async def predict(body: Texts) -> list[Prediction]:
    return await answer(predictions, body.texts)


@app.post("/explain")
async def explain(body: Texts) -> list[Explanation]:
    return await answer(explanations, body.texts)


@app.get("/health")
async def health() -> dict[str, Any]:
    """Answer as soon as the classifier is loaded: a worker takes no connection before."""
    return {"loaded": True, "pid": os.getpid(), "n_requests": app.state.n_requests}
