"""Predictions for a table of dask, a part at a time."""

from functools import lru_cache

import dask.dataframe as dd
import pandas as pd
from dask.distributed import Client

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8


@lru_cache(maxsize=1)
def loaded(folder):  # once in each worker, and not in the graph
    return LongBertClassifier.from_pretrained(folder)


def predict(part, folder="fitted"):
    return pd.Series(loaded(folder).predict(part["text"]), index=part.index, dtype=object)


if __name__ == "__main__":
    model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
    model.fit(texts, labels).save_pretrained("fitted")
    table = dd.from_pandas(pd.DataFrame({"text": texts}), npartitions=4)
    with Client(n_workers=2, threads_per_worker=1):
        predicted = table.map_partitions(predict, meta=("label", object)).compute()
    assert predicted.tolist() == labels
