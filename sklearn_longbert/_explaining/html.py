"""Show an explanation as HTML: the text itself, with passages tinted by their contributions.

A strip above the text has a cell for each passage, which leads to it.

Invariants: everything of the text is escaped; ids are unique to a call. In long texts, passages
that contribute little are folded, and the page holds only their beginnings and ends.
"""

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn_longbert._explaining.explanation import DocumentExplanation

WHOLE_CHARACTERS = 20_000  # most characters of a text that is shown whole
MOST_SHOWN = 20  # most passages of a longer text that are not folded
ENDS = 80  # characters shown of either end of a folded part
MOST_CELLS = 300  # most cells of the strip; if there are more passages, a cell stands for several
MOST_CLASSES = 8  # most classes in the legend: those with the largest logits
OF_NO_PASSAGE = "part of the logit without a place in the text"  # the base value

# Passages are blue (for) or orange (against), which colour-blind people can tell apart.
STYLE = """
.longbert{--for:0,114,178;--against:213,94,0;--line:#8884;font:14px/1.6 system-ui,sans-serif;
 color-scheme:light dark;color:#1a1a1a;background:#fff;padding:.8em;border-radius:6px;
 border:1px solid var(--line)}
@media (prefers-color-scheme:dark){.longbert{--for:86,180,233;--against:230,140,40;color:#eee;
 background:#1b1b1b}}
.longbert .text{white-space:pre-wrap;overflow-wrap:anywhere;max-height:32em;overflow-y:auto}
.longbert mark{color:inherit;border-radius:3px;padding:.1em 0}
.longbert .strip{display:grid;grid-template-columns:repeat(auto-fit,minmax(12px,1fr));gap:2px;
 margin:0 0 .8em}
.longbert .strip a{height:1.2em;box-sizing:border-box;border:1px solid var(--line);
 border-radius:2px}
.longbert .strip a:hover,.longbert .strip a:focus-visible,.longbert mark:target,
.longbert .fold:has(:target){outline:2px solid currentColor;outline-offset:1px}
.longbert .fold{opacity:.7;font-style:italic}
.longbert table{border-collapse:collapse;margin:.4em 0 .8em;color:inherit;font:inherit}
.longbert td,.longbert th{padding:.1em .8em .1em 0;text-align:left;font-weight:normal}
.longbert .predicted td{font-weight:bold}
.longbert .scale{display:inline-block;width:9em;height:.8em;border-radius:3px;vertical-align:middle;
 background:linear-gradient(90deg,rgba(var(--against),.6),rgba(var(--against),0) 50%,
 rgba(var(--for),0) 50%,rgba(var(--for),.6))}
"""


def to_html(explanation: "DocumentExplanation") -> str:
    """Return a fragment of HTML, with its own style."""
    index = explanation.main_class
    contributions = explanation.contributions[:, index]
    strongest = float(np.abs(contributions).max(initial=0)) or 1.0
    order = np.argsort(explanation.start, kind="stable")
    # The passages that the strip leads to, and their ids.
    groups = np.array_split(order, min(len(order), MOST_CELLS)) if len(order) else []
    shown = [int(group[np.argmax(np.abs(contributions[group]))]) for group in groups]
    prefix = f"longbert-{uuid4().hex[:12]}"  # the page may show the same explanation twice
    anchors = {row: f"{prefix}-{number}" for number, row in enumerate(shown)}
    strip = "".join(_cell(explanation, contributions, strongest, *item) for item in anchors.items())
    parts = "".join(_passages(explanation, contributions, strongest, order, anchors))
    return (
        f'<style>{STYLE}</style><div class="longbert">{_legend(explanation, strongest)}'
        f'<nav class="strip" aria-label="{explanation.level}s">{strip}</nav>'
        f'<div class="text">{parts}</div></div>'
    )


def _cell(
    explanation: "DocumentExplanation",
    contributions: NDArray[np.float64],
    strongest: float,
    row: int,
    anchor: str,
) -> str:
    label = f"{explanation.level} {explanation.chunk[row] + 1}: {contributions[row]:+.4g}"
    return (
        f'<a href="#{anchor}" title="{label}" style="{_tint(contributions[row], strongest)}"></a>'
    )


def _legend(explanation: "DocumentExplanation", strongest: float) -> str:
    order = np.argsort(-explanation.logits, kind="stable")[:MOST_CLASSES]
    columns = _columns(explanation)
    head = "".join(f"<th>{name}</th>" for name in columns)
    rows = [
        f"<tr{_class_of(explanation, index)}>"
        + "".join(f"<td>{column[index]}</td>" for column in columns.values())
        + "</tr>"
        for index in order
    ]
    n_left_out = len(explanation.classes) - len(order)
    if n_left_out:
        rows.append(f"<tr><td>and {n_left_out} more</td></tr>")
    label = _word(explanation.classes[explanation.main_class])
    what = "chunks" if explanation.level == "chunk" else "sentences"
    return (
        f"<table><tr>{head}</tr>{''.join(rows)}</table><p>{len(explanation)} {what}, tinted by "
        f"their contributions to <b>{label}</b>: {-strongest:+.3g} "
        f'<span class="scale"></span> {strongest:+.3g}</p>'
    )


def _columns(explanation: "DocumentExplanation") -> dict[str, list[str]]:
    """Return the columns of the legend: their names, and a cell for each class."""
    names = [_word(label) for label in explanation.classes]
    logits = [f"{logit:.4g}" for logit in explanation.logits]
    base_values = [f"{value:.4g}" for value in explanation.base_value]
    if explanation.probabilities is None:
        return {"target": names, "prediction": logits, "base value": base_values}
    columns = {"class": names, "logit": logits}
    if explanation.base_value.any():  # of a baseline
        columns[OF_NO_PASSAGE] = base_values
    return {**columns, "probability": [f"{value:.1%}" for value in explanation.probabilities]}


def _class_of(explanation: "DocumentExplanation", index: int) -> str:
    return ' class="predicted"' if index == explanation.main_class else ""


def _word(label: Any) -> str:
    return escape(str(label))


def _passages(
    explanation: "DocumentExplanation",
    contributions: NDArray[np.float64],
    strongest: float,
    order: NDArray[np.intp],
    anchors: dict[int, str],
) -> Iterator[str]:
    """Yield the passages in the order of the text; a run of folded ones is one part."""
    folded = np.zeros(len(order), dtype=bool)
    if len(explanation.text) > WHOLE_CHARACTERS:
        folded[np.argsort(-np.abs(contributions), kind="stable")[MOST_SHOWN:]] = True
    reached = 0
    for is_folded, group in groupby(order, key=lambda number: bool(folded[number])):
        rows = list(group)
        start, end = int(explanation.start[rows[0]]), int(explanation.end[rows[-1]])
        yield _left_out(explanation.text, reached, start)
        if is_folded:
            ids = [anchors[row] for row in rows if row in anchors]
            yield _fold(explanation.text[start:end], contributions[rows].sum(), len(rows), ids)
        else:
            for row in rows:
                yield _left_out(explanation.text, reached, int(explanation.start[row]))
                reached = int(explanation.end[row])
                passage = explanation.text[explanation.start[row] : reached]
                yield _tinted(passage, contributions[row], strongest, anchors.get(int(row)))
        reached = end
    yield _left_out(explanation.text, reached, len(explanation.text))


def _tint(contribution: float, strongest: float) -> str:
    side = "for" if contribution >= 0 else "against"
    return f"background:rgba(var(--{side}),{0.6 * abs(contribution) / strongest:.3f})"


def _tinted(passage: str, contribution: float, strongest: float, anchor: str | None) -> str:
    of_strip = "" if anchor is None else f' id="{anchor}"'
    shown = escape(_ends(passage) if len(passage) > WHOLE_CHARACTERS else passage)
    return (
        f'<mark{of_strip} style="{_tint(contribution, strongest)}" title="{contribution:+.4g}">'
        f"{shown}</mark>"
    )


def _fold(passage: str, contribution: float, n: int, ids: list[str]) -> str:
    of_strip = "".join(f'<span id="{anchor}"></span>' for anchor in ids)
    return (
        f'<span class="fold" title="{contribution:+.4g}">{of_strip}{escape(_ends(passage))} '
        f"[{n} passages, {len(passage):,} characters, together {contribution:+.3g}] </span>"
    )


def _left_out(text: str, start: int, end: int) -> str:
    """Return a part that no passage covers, because it was cut or nobody asked for it."""
    if end <= start:
        return ""
    return (
        f'<span class="fold">{escape(_ends(text[start:end]))} '
        f"[not explained: {end - start:,} characters] </span>"
    )


def _ends(passage: str) -> str:
    return passage if len(passage) <= 2 * ENDS else f"{passage[:ENDS]} … {passage[-ENDS:]}"
