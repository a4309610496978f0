"""The package: cheap import, public names, version."""

import subprocess
import sys
from importlib.metadata import version

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
