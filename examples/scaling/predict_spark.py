"""Predictions for a table of Spark, by mapInPandas."""

from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8
folder = str(Path("fitted").absolute())


def predict(parts):
    model = LongBertClassifier.from_pretrained(folder, missing="empty")  # once in each task
    for part in parts:
        yield part[["number"]].assign(label=model.predict(part["text"]))


model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
model.fit(texts, labels).save_pretrained(folder)
spark = SparkSession.builder.master("local[2]").getOrCreate()
table = spark.createDataFrame(pd.DataFrame({"number": range(len(texts)), "text": texts}))
rows = table.mapInPandas(predict, "number long, label string").collect()
assert [row.label for row in sorted(rows, key=lambda row: row.number)] == labels
spark.stop()
