"""Pins that each example runs from start to end, and makes its picture."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sklearn_longbert

EXAMPLES = sorted(Path(__file__).resolve().parents[1].joinpath("examples").glob("plot_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(example: Path, tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    for path in (example, example.with_name("_data.py")):
        (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(folder / example.name)],
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    picture = folder / f"{example.stem.removeprefix('plot_')}.png"
    assert picture.stat().st_size > 1000


def test_readme_links_each_with_its_picture() -> None:
    root = EXAMPLES[0].parents[1]
    readme = (root / "README.md").read_text(encoding="utf-8")
    for example in EXAMPLES:
        picture = root / "docs" / "images" / f"{example.stem.removeprefix('plot_')}.png"
        assert f"(examples/{example.name}) | ![" in readme
        assert f"({picture.relative_to(root).as_posix()})" in readme
        assert picture.is_file()


def test_the_reference_names_all_that_is_public() -> None:
    reference = EXAMPLES[0].parents[1].joinpath("docs", "api.rst").read_text(encoding="utf-8")
    for name in sklearn_longbert.__all__:
        kind = "autoclass" if isinstance(getattr(sklearn_longbert, name), type) else "autofunction"
        assert f".. {kind}:: {name}\n" in reference
