"""One fit on the executors of a cluster, by Spark's TorchDistributor."""

from pathlib import Path

from pyspark.ml.torch.distributor import TorchDistributor
from pyspark.sql import SparkSession

from sklearn_longbert import LongBertClassifier


def fit(texts, labels, folder):
    import torch.distributed as dist

    from sklearn_longbert import LongBertClassifier, distributed

    dist.init_process_group("gloo")  # "nccl" on GPUs
    with distributed():
        model = LongBertClassifier(chunk_size=64, max_epochs=1, random_state=0).fit(texts, labels)
    if dist.get_rank() == 0:
        model.save_pretrained(folder)
    dist.destroy_process_group()


texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8
folder = str(Path("fitted").absolute())  # on a disk that all machines share

spark = SparkSession.builder.master("local[2]").getOrCreate()
TorchDistributor(num_processes=2, local_mode=True, use_gpu=False).run(fit, texts, labels, folder)
assert LongBertClassifier.from_pretrained(folder).predict(texts).tolist() == labels
spark.stop()
