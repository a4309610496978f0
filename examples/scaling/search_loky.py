"""A search in processes of this machine, each with a GPU of its own."""

import multiprocessing
import os

import joblib
from sklearn.model_selection import GridSearchCV

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8
n_gpus = 2


def take_gpu(numbers):
    os.environ["CUDA_VISIBLE_DEVICES"] = str(numbers.get())


if __name__ == "__main__":
    with multiprocessing.Manager() as manager:
        numbers = manager.Queue()
        for number in range(n_gpus):
            numbers.put(number)
        model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
        search = GridSearchCV(model, {"pooling": ["mean", "max"]}, cv=2)
        with joblib.parallel_config(
            "loky", n_jobs=n_gpus, initializer=take_gpu, initargs=(numbers,)
        ):
            search.fit(texts, labels)
    assert search.predict(texts).tolist() == labels
