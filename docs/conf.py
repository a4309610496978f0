"""Sphinx: ``python -m sphinx docs docs/_build`` runs every example and writes HTML."""

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
html_theme_options = {"navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_title = project
html_show_sourcelink = False
numpydoc_show_class_members = False
suppress_warnings = ["ref.ref", "ref.term"]  # in what scikit-learn documents of inherited methods
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "ignore_pattern": r"benchmarks|_data",
    "capture_repr": ("_repr_html_",),
    "show_signature": False,
}
