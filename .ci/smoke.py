"""An installed wheel fits and predicts: ``python -P smoke.py``, from outside the source tree."""

import sys
from importlib.metadata import version
from pathlib import Path

import sklearn_longbert
from sklearn_longbert import LongBertClassifier

folder = Path(sklearn_longbert.__file__).parent
assert folder.is_relative_to(sys.prefix), f"{folder} is not in {sys.prefix}"
assert sklearn_longbert.__version__ == version("sklearn-longbert")
assert (folder / "py.typed").is_file()

texts = ["the team won the match " * 200, "the bank raised its rates " * 200] * 3
labels = ["sports", "business"] * 3
model = LongBertClassifier(chunk_size=128, max_epochs=1, device="cpu", random_state=0)
predicted = model.fit(texts, labels).predict(texts).tolist()
assert predicted == labels, predicted
