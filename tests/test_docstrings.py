"""Public docstrings: complete numpydoc, parameters as the signature has them, examples run."""

import doctest
import inspect
from pathlib import Path

import pytest
from numpydoc.docscrape import ClassDoc
from numpydoc.validate import validate

import sklearn_longbert

PUBLIC = [getattr(sklearn_longbert, name) for name in sklearn_longbert.__all__]
CLASSES = [public for public in PUBLIC if inspect.isclass(public)]
METHODS = [
    f"sklearn_longbert.{cls.__name__}.{name}"
    for cls in CLASSES
    for name in dir(cls)
    if not name.startswith("_")
    and inspect.isroutine(member := getattr(cls, name))
    and member.__module__.startswith("sklearn_longbert")
]
EXAMPLES = {  # by the object that states them: what two classes inherit is one
    inspect.unwrap(getattr(stated, "__func__", stated)): test
    for public in PUBLIC
    for stated in [public, *(getattr(public, name) for name in dir(public) if name[0] != "_")]
    if (inspect.isclass(stated) or inspect.isroutine(stated))
    and stated.__module__.startswith("sklearn_longbert")
    for test in doctest.DocTestFinder(recurse=False).find(stated, stated.__qualname__)
    if test.examples
}
IGNORED = {
    "GL01",  # text starts on the line of the quotes
    "GL08",  # what a base class documents
    "SS06",  # a summary of several lines
    "ES01",  # an extended summary in every method
    "EX01",  # an example in every method: each class has one
    "SA01",  # See Also in every method
    "SA04",
    "RT02",  # a named return value, as scikit-learn has it
    "RT03",  # "self : LongBertClassifier" says it
    "YD01",
}


@pytest.mark.parametrize("name", [f"sklearn_longbert.{p.__name__}" for p in PUBLIC] + METHODS)
def test_numpydoc(name):
    errors = [error for error in validate(name)["errors"] if error[0] not in IGNORED]
    assert not errors


@pytest.mark.parametrize("cls", CLASSES)
def test_defaults_are_documented(cls):
    documented = {entry.name: entry.type for entry in ClassDoc(cls)["Parameters"]}
    signature = inspect.signature(cls).parameters
    assert list(documented) == list(signature)
    for name, parameter in signature.items():
        if parameter.default is parameter.empty:
            continue
        stated = documented[name].split("default=")[1]
        default = f'"{parameter.default}"' if isinstance(parameter.default, str) else None
        expected = default or repr(parameter.default)
        assert stated == expected or float(stated) == parameter.default, name


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=[t.name for t in EXAMPLES.values()])
def test_examples(example):
    runner = doctest.DocTestRunner()
    runner.run(example)
    assert runner.failures == 0


@pytest.mark.parametrize("public", PUBLIC)
def test_every_public_name_has_an_example(public):
    assert inspect.unwrap(public) in EXAMPLES


def test_every_example_of_the_package_is_run():
    package = Path(sklearn_longbert.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in package.rglob("*.py")]
    written = sum(
        line.startswith(">>> ") for text in sources for line in map(str.strip, text.splitlines())
    )
    assert sum(len(example.examples) for example in EXAMPLES.values()) == written
