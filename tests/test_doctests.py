"""The examples in the docstrings run and give what they say."""

import doctest
import importlib
import pkgutil

import jax
import pytest

import jaxmeta

MODULES = sorted(
    {
        "jaxmeta",
        *(m.name for m in pkgutil.walk_packages(jaxmeta.__path__, "jaxmeta.") if not m.name.endswith("__main__")),
    }
)


def examples(name: str) -> list[doctest.DocTest]:
    """Those of the module's own functions and classes, not of what it imports."""
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name), name) if test.examples]


@pytest.mark.docs
@pytest.mark.parametrize("name", [name for name in MODULES if examples(name)])
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    with jax.numpy_rank_promotion("allow"):  # as in a reader's session
        for test in examples(name):
            runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_there_are_examples():
    assert sum(len(examples(name)) for name in MODULES) > 20
