"""The wheel: every module and py.typed, nothing else; installed, it works outside the tree.

Nothing here needs a network: the build runs without isolation, the installation without
dependencies.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sklearn_longbert

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "sklearn_longbert"


def pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in ROOT.joinpath(PACKAGE).rglob("*.py")}
    about = f"{PACKAGE}-{sklearn_longbert.__version__}.dist-info"
    metadata = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "licenses/LICENSE")}
    assert names == modules | metadata | {f"{PACKAGE}/py.typed"}


def test_it_works_outside_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip("install", "--no-deps", "--no-index", "--target", target, wheel)
    code = (
        "from importlib.metadata import version\n"
        "import sklearn_longbert\n"
        "from sklearn_longbert import LongBertClassifier\n"
        "LongBertClassifier(chunk_size=64)\n"
        "print(version('sklearn-longbert'), sklearn_longbert.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, path = done.stdout.split(maxsplit=1)
    assert version == sklearn_longbert.__version__
    assert Path(path).is_relative_to(target)
    assert (target / PACKAGE / "py.typed").is_file()
