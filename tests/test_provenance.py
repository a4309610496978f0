"""Pins that pickles of a version with other modules are refused with its name."""

import pickle

import pytest

OF_0_1_0 = {  # modules that its pickles name, and a class in each
    "_net": "LongBertNet",
    "_chunking": "TextChunker",
    "_explanation": "DocumentExplanation",
    "_display": "PassageDisplay",
}


@pytest.mark.parametrize(("module", "name"), OF_0_1_0.items())
def test_pickles_of_another_layout_are_refused(module: str, name: str) -> None:
    content = f"csklearn_longbert.{module}\n{name}\n.".encode()
    with pytest.raises(
        ImportError, match=r"made by sklearn_longbert 0\.1\.0\.dev0, .*load it with"
    ):
        pickle.loads(content)
