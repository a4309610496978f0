"""A search on the workers of a cluster, by Ray."""

import joblib
import ray
from ray.util.joblib import register_ray
from sklearn.model_selection import GridSearchCV

from sklearn_longbert import LongBertClassifier

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8

ray.init(num_cpus=2)
register_ray()
model = LongBertClassifier(chunk_size=64, freeze_encoder=True, random_state=0)
search = GridSearchCV(model, {"pooling": ["mean", "max"]}, cv=2)
# on GPUs: parallel_backend("ray", ray_remote_args={"num_gpus": 1})
with joblib.parallel_backend("ray"):
    search.fit(texts, labels)
assert search.predict(texts).tolist() == labels
