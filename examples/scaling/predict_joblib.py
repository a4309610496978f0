"""Predictions on several GPUs of this machine: a process for each, without a cluster."""

import joblib
import numpy as np
import torch

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8
devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())] or ["cpu", "cpu"]


def predict(part, device):
    return LongBertClassifier.from_pretrained("fitted", device=device).predict(part)


if __name__ == "__main__":
    model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
    model.fit(texts, labels).save_pretrained("fitted")
    parts = np.array_split(np.array(texts, dtype=object), len(devices))
    predicted = joblib.Parallel(n_jobs=len(devices))(
        joblib.delayed(predict)(part, device) for part, device in zip(parts, devices, strict=True)
    )
    assert np.concatenate(predicted).tolist() == labels
