"""Pins that each recipe for engines of clusters runs from start to end.

The engines come with the extra ``scale``, without which ``-m scale`` fails.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(ROOT.joinpath("examples", "scaling").glob("*.py"))
NEEDS_JAVA = pytest.mark.skipif(
    shutil.which("java") is None, reason="Spark needs a Java runtime, which pip does not install"
)


@pytest.mark.scale
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, id=path.stem, marks=[NEEDS_JAVA] if "spark" in path.stem else [])
        for path in RECIPES
    ],
)
def test_it_runs(recipe: Path, tmp_path: Path) -> None:
    launcher = [sys.executable]
    if "torchrun" in recipe.stem:
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
