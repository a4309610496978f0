"""Show an explanation as HTML: the text itself, with passages tinted by their contributions.

Invariant: everything of the text is escaped. In long texts, passages that contribute little are
folded, and the page holds only their beginnings and ends.
"""

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sklearn_longbert._explaining.explanation import DocumentExplanation

WHOLE_CHARACTERS = 20_000  # most characters of a text that is shown whole
MOST_SHOWN = 20  # most passages of a longer text that are not folded
ENDS = 80  # characters shown of either end of a folded part
MOST_CLASSES = 8  # most classes in the legend: those with the largest logits

# Passages are blue (for) or orange (against), which colour-blind people can tell apart.
STYLE = """
.longbert{--for:0,114,178;--against:213,94,0;--line:#8884;font:14px/1.6 system-ui,sans-serif;
 color:#1a1a1a;background:#fff;padding:.8em;border:1px solid var(--line);border-radius:6px}
@media (prefers-color-scheme:dark){.longbert{--for:86,180,233;--against:230,140,40;color:#eee;
 background:#1b1b1b}}
.longbert .text{white-space:pre-wrap;overflow-wrap:anywhere;max-height:32em;overflow-y:auto}
.longbert mark{color:inherit;border-radius:3px;padding:.1em 0}
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
    parts = "".join(_passages(explanation, contributions, strongest))
    return (
        f'<style>{STYLE}</style><div class="longbert">{_legend(explanation, strongest)}'
        f'<div class="text">{parts}</div></div>'
    )


def _legend(explanation: "DocumentExplanation", strongest: float) -> str:
    order = np.argsort(-explanation.logits, kind="stable")[:MOST_CLASSES]
    probabilities = explanation.probabilities
    rows = [
        f"<tr{_class_of(explanation, index)}><td>{_word(explanation.classes[index])}</td>"
        f"<td>{explanation.logits[index]:.4g}</td>"
        + (
            f"<td>{explanation.base_value[index]:.4g}</td>"
            if probabilities is None
            else f"<td>{probabilities[index]:.1%}</td>"
        )
        + "</tr>"
        for index in order
    ]
    n_left_out = len(explanation.classes) - len(order)
    if n_left_out:
        rows.append(f"<tr><td>and {n_left_out} more</td></tr>")
    if probabilities is None:
        head = "<tr><th>target</th><th>prediction</th><th>base value</th></tr>"
    else:
        head = "<tr><th>class</th><th>logit</th><th>probability</th></tr>"
    label = _word(explanation.classes[explanation.main_class])
    what = "chunks" if explanation.level == "chunk" else "sentences"
    return (
        f"<table>{head}{''.join(rows)}</table><p>{len(explanation)} {what}, tinted by their "
        f"contributions to <b>{label}</b>: {-strongest:+.3g} "
        f'<span class="scale"></span> {strongest:+.3g}</p>'
    )


def _class_of(explanation: "DocumentExplanation", index: int) -> str:
    return ' class="predicted"' if index == explanation.main_class else ""


def _word(label: Any) -> str:
    return escape(str(label))


def _passages(
    explanation: "DocumentExplanation", contributions: NDArray[np.float64], strongest: float
) -> Iterator[str]:
    """Yield the passages in the order of the text; a run of folded ones is one part."""
    order = np.argsort(explanation.start, kind="stable")
    folded = np.zeros(len(order), dtype=bool)
    if len(explanation.text) > WHOLE_CHARACTERS:
        folded[np.argsort(-np.abs(contributions), kind="stable")[MOST_SHOWN:]] = True
    reached = 0
    for is_folded, group in groupby(order, key=lambda number: bool(folded[number])):
        rows = list(group)
        start, end = int(explanation.start[rows[0]]), int(explanation.end[rows[-1]])
        yield _left_out(explanation.text, reached, start)
        if is_folded:
            yield _fold(explanation.text[start:end], contributions[rows].sum(), len(rows))
        else:
            for row in rows:
                yield _left_out(explanation.text, reached, int(explanation.start[row]))
                reached = int(explanation.end[row])
                passage = explanation.text[explanation.start[row] : reached]
                yield _tinted(passage, contributions[row], strongest)
        reached = end
    yield _left_out(explanation.text, reached, len(explanation.text))


def _tinted(passage: str, contribution: float, strongest: float) -> str:
    side = "for" if contribution >= 0 else "against"
    tint = 0.6 * abs(contribution) / strongest
    shown = escape(_ends(passage) if len(passage) > WHOLE_CHARACTERS else passage)
    return (
        f'<mark style="background:rgba(var(--{side}),{tint:.3f})" title="{contribution:+.4g}">'
        f"{shown}</mark>"
    )


def _fold(passage: str, contribution: float, n: int) -> str:
    return (
        f'<span class="fold" title="{contribution:+.4g}">{escape(_ends(passage))} '
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
