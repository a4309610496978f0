"""One fit on all GPUs of a machine: torchrun --nproc-per-node 2 fit_torchrun.py."""

import torch.distributed as dist

from sklearn_longbert import LongBertClassifier, distributed

texts = ["The cook fries the fish. " * 40, "The telescope shows a comet. " * 40] * 8
labels = ["cooking", "astronomy"] * 8

dist.init_process_group()
with distributed():  # all ranks fit the same
    model = LongBertClassifier(chunk_size=64, max_epochs=1, random_state=0).fit(texts, labels)
if dist.get_rank() == 0:
    assert model.predict(texts).tolist() == labels
    model.save_pretrained("fitted")
dist.destroy_process_group()
