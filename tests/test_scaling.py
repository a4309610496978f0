"""Pins that each recipe for engines of clusters runs from start to end.

They come with the extra ``scale``, and run with ``-m scale``.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(ROOT.joinpath("examples", "scaling").glob("*.py"))
ENGINES = {"spark": "pyspark", "dask": "distributed"}  # packages of other names


@pytest.mark.scale
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_it_runs(recipe: Path, tmp_path: Path) -> None:
    engine = recipe.stem.partition("_")[2]
    package = ENGINES.get(engine, engine)
    if engine not in ("torchrun", "loky") and find_spec(package) is None:
        pytest.skip(f"{package} is not installed: it comes with the extra scale")
    if engine == "spark" and shutil.which("java") is None:
        pytest.skip("Spark needs a Java runtime")
    launcher = [sys.executable]
    if engine == "torchrun":
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(recipe)],
        cwd=tmp_path,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYSPARK_PYTHON": sys.executable,
            "TOKENIZERS_PARALLELISM": "false",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_guide_shows_each() -> None:
    text = ROOT.joinpath("docs", "guide", "scaling.rst").read_text(encoding="utf-8")
    shown = re.findall(r"literalinclude:: \.\./\.\./examples/scaling/(\w+)\.py", text)
    assert sorted(shown) == [recipe.stem for recipe in RECIPES]
