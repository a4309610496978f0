"""Sphinx: ``python -m sphinx -W docs docs/_build`` runs every example and writes HTML."""

import re

from sphinx.application import Sphinx

from sklearn_longbert import __version__

project = "sklearn_longbert"
release = __version__
extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build"]
html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_sidebars = {"api": [], "index": [], "gallery/plot_*": []}  # code needs the width
autodoc_typehints = "none"  # the parameters' own entries tell the types
toc_object_entries_show_parents = "hide"
numpydoc_show_class_members = False
suppress_warnings = ["ref.ref", "ref.term"]  # in what scikit-learn documents of inherited methods
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "ignore_pattern": r"benchmarks|_data",
    "capture_repr": ("_repr_html_",),
    "show_signature": False,
}


def drop_progress_bars(app: Sphinx, docname: str, source: list[str]) -> None:
    """Leave out progress bars: a page would show a line for each of their updates."""
    source[0] = re.sub(r"(?<=[\r\n]) *\w+: +\d+%\|[^\r\n]*[\r\n]", "", source[0])


def setup(app: Sphinx) -> None:
    """Sphinx calls this by its name."""
    app.connect("source-read", drop_progress_bars)
