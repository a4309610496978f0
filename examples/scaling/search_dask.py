"""A search on the workers of a cluster, by dask."""

import joblib
from dask.distributed import Client
from sklearn.model_selection import GridSearchCV

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8

if __name__ == "__main__":  # workers of this machine import this file
    model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
    search = GridSearchCV(model, {"pooling": ["mean", "max"]}, cv=2)
    with Client(n_workers=2, threads_per_worker=1), joblib.parallel_backend("dask"):
        search.fit(texts, labels)
    assert search.predict(texts).tolist() == labels
