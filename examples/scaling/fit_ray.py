"""One fit on the GPUs of a cluster, by Ray Train."""

from pathlib import Path

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from sklearn_longbert import LongBertClassifier, distributed

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8
folder = Path("fitted").absolute()  # on a disk that all machines share


def fit():
    with distributed():
        model = LongBertClassifier(chunk_size=64, max_epochs=1, random_state=0).fit(texts, labels)
    if ray.train.get_context().get_world_rank() == 0:
        model.save_pretrained(folder)


scaling = ray.train.ScalingConfig(num_workers=2, use_gpu=False)  # True on GPUs, "nccl" below
storage = ray.train.RunConfig(storage_path=str(Path("runs").absolute()))
TorchTrainer(
    fit, torch_config=TorchConfig(backend="gloo"), scaling_config=scaling, run_config=storage
).fit()
assert LongBertClassifier.from_pretrained(folder).predict(texts).tolist() == labels
