"""The package: cheap import, public names, version."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import sklearn_longbert


def test_import_is_lazy():
    code = (
        "import sys, sklearn_longbert as package\n"
        "heavy = {'torch', 'transformers', 'skorch', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(package.__all__) <= set(dir(package))\n"
        "package.LongBertClassifier\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names():
    for name in sklearn_longbert.__all__:
        assert getattr(sklearn_longbert, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'LongBertClasifier'"):
        sklearn_longbert.LongBertClasifier  # noqa: B018


def test_version():
    assert sklearn_longbert.__version__ == version("sklearn-longbert")


def test_the_citation_has_the_version():
    citation = Path(__file__).resolve().parents[1].joinpath("CITATION.cff")
    assert f"\nversion: {sklearn_longbert.__version__}\n" in citation.read_text(encoding="utf-8")
