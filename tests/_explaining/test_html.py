"""Pins what is above the text of an explanation: its legend, and a strip.

The strip has a cell for each passage, which leads to it.
"""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sklearn_longbert._explaining.explanation import DocumentExplanation

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=900,600",
    "--virtual-time-budget=5000",
    "--dump-dom",
]
# Tints for and against the class, in front of a light and of a dark background.
TINTS = {"light": ("0,114,178", "213,94,0"), "dark": ("86,180,233", "230,140,40")}
# It clicks a cell of the second of two equal pictures, and writes down what is in view then.
SCRIPT = """<script>
addEventListener("load", () => {
  const [, second] = document.querySelectorAll(".longbert");
  const cell = second.querySelectorAll(".strip a")[NUMBER];
  cell.focus();
  const focused = document.activeElement === cell;
  cell.click();
  setTimeout(() => {
    const target = document.querySelector(":target"), box = target.getBoundingClientRect();
    const frame = second.querySelector(".text").getBoundingClientRect();
    const inside = box.top >= frame.top - 2 && box.top < frame.bottom && box.top < innerHeight;
    document.title = [focused, second.contains(target), inside,
      getComputedStyle(target.closest("mark,.fold")).outlineStyle,
      getComputedStyle(cell).backgroundColor.replaceAll(" ", ""),
      target.textContent.slice(0, 3)].join(" ");
  }, 500);
});
</script>"""


def explained(n: int, words: int = 40) -> DocumentExplanation:
    """Return an explanation of `n` passages; each begins with its number."""
    passages = [f"{number:03d} {'fox ' * words}" for number in range(n)]
    ends = np.cumsum([len(passage) for passage in passages])
    contributions = np.random.RandomState(n).randn(n, 1) * [1.0, -1.0]
    logits = contributions.sum(axis=0)
    return DocumentExplanation(
        text="".join(passages),
        start=ends - [len(passage) for passage in passages],
        end=ends,
        classes=np.array(["bad", "good"]),
        contributions=contributions,
        base_value=np.zeros(2),
        logits=logits,
        probabilities=np.exp(logits) / np.exp(logits).sum(),
        predicted="bad",
        chunk_logits=None,
        chunk=np.arange(n),
        level="chunk",
    )


def cells(html: str) -> list[dict[str, str]]:
    strip = re.search(r'<nav class="strip".*?</nav>', html, re.DOTALL)
    assert strip is not None
    return [dict(re.findall(r'([a-z-]+)="([^"]*)"', cell)) for cell in strip[0].split("<a ")[1:]]


@pytest.mark.parametrize("n", [1, 3, 30, 300])
def test_each_passage_has_a_cell(n: int) -> None:
    explanation = explained(n)
    html = explanation._repr_html_()
    of_class = explanation.contributions[:, explanation.main_class]
    found = cells(html)
    assert len(found) == n
    ids = re.findall(r' id="([^"]+)"', html)
    assert [cell["href"] for cell in found] == [f"#{anchor}" for anchor in ids]
    assert len(set(ids)) == n
    for number, (cell, contribution) in enumerate(zip(found, of_class, strict=True), 1):
        assert cell["title"] == f"chunk {number}: {contribution:+.4g}"
    if n <= 30:  # none is folded
        marks = re.findall(r'<mark id="[^"]+" style="([^"]+)"', html)
        assert [cell["style"] for cell in found] == marks


def test_the_same_explanation_twice_on_a_page() -> None:
    explanation = explained(3)
    ids = re.findall(r' id="([^"]+)"', explanation._repr_html_() + explanation._repr_html_())
    assert len(set(ids)) == 6


def test_a_cell_for_several_of_many_passages() -> None:
    """The strongest of them gives the tint, and is where the cell leads."""
    explanation = explained(1200, words=1)
    html = explanation._repr_html_()
    of_class = np.abs(explanation.contributions[:, explanation.main_class])
    found = cells(html)
    assert len(found) == 300
    strongest = [group[of_class[group].argmax()] for group in np.array_split(np.arange(1200), 300)]
    assert [cell["title"].split(":")[0] for cell in found] == [f"chunk {i + 1}" for i in strongest]


def test_an_explanation_without_passages() -> None:
    html = explained(3)[[]]._repr_html_()
    assert cells(html) == []


def legend(html: str) -> list[list[str]]:
    """Return the cells of each row of the legend."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html)
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def test_what_has_no_place_in_the_text_is_shown_of_a_classifier() -> None:
    explanation = explained(3)
    assert legend(explanation._repr_html_())[0] == ["class", "logit", "probability"]
    assert "base value" not in repr(explanation)
    base_value, index = np.array([0.0, -0.25]), explanation.main_class
    based = replace(explanation, base_value=base_value)
    head, first, second = legend(based._repr_html_())
    assert head == [
        "class",
        "logit",
        "part of the logit without a place in the text",
        "probability",
    ]
    assert [first[2], second[2]] == [f"{base_value[i]:.4g}" for i in (index, 1 - index)]
    assert f", base value {base_value[index]:.4g}>" in repr(based)
    assert legend(based[[]]._repr_html_())[0] == head


def run_in_browser(n: int, number: int, scheme: str, folder: Path) -> list[str]:
    html = explained(n)._repr_html_()
    again = explained(n)._repr_html_()
    page = folder / "page.html"
    script = SCRIPT.replace("NUMBER", str(number))
    page.write_text(f"<!doctype html><meta charset=utf-8>{html}{again}{script}", encoding="utf-8")
    settings = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *FLAGS, settings, profile, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None
    return title[1].split(" ")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("n", "number"), [(3, 2), (30, 29), (300, 0), (300, 150), (300, 299)])
def test_a_cell_leads_to_its_passage(n: int, number: int, scheme: str, tmp_path: Path) -> None:
    focused, of_second, inside, outline, tint, *beginning = run_in_browser(
        n, number, scheme, tmp_path
    )
    assert (focused, of_second, inside, outline) == ("true", "true", "true", "solid")
    contributions = explained(n).contributions[:, explained(n).main_class]
    for_it, against_it = TINTS[scheme]
    assert tint.startswith(f"rgba({for_it if contributions[number] > 0 else against_it},")
    if n <= 30:  # none is folded
        assert beginning == [f"{number:03d}"]
