"""Predictions for a data set of Ray, a batch at a time."""

from pathlib import Path

import ray

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8


class Predictor:
    def __init__(self, folder):  # once in each worker
        self.model = LongBertClassifier.from_pretrained(folder)

    def __call__(self, batch):
        return {**batch, "label": self.model.predict(batch["text"])}


folder = Path("fitted").absolute()
model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
model.fit(texts, labels).save_pretrained(folder)
rows = [{"number": number, "text": text} for number, text in enumerate(texts)]
data = ray.data.from_items(rows).map_batches(  # num_gpus=1 gives each worker a GPU
    Predictor,
    fn_constructor_args=[folder],
    batch_size=8,
    compute=ray.data.ActorPoolStrategy(size=2),
)
predicted = sorted(data.take_all(), key=lambda row: row["number"])
assert [row["label"] for row in predicted] == labels
