"""The examples in the docstrings run and give what they say."""

import doctest
import importlib
from pathlib import Path

import jax
import pytest

import jaxmeta

PACKAGE = Path(str(jaxmeta.__file__)).parent
FILES = [path for folder in (PACKAGE, PACKAGE / "data", PACKAGE / "envs") for path in sorted(folder.rglob("*.py"))]
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
    if ">>> " in path.read_text(encoding="utf-8")
]


def examples(name: str) -> list[doctest.DocTest]:
    """Those of the module's own functions and classes, not of what it imports."""
    return [test for test in doctest.DocTestFinder().find(importlib.import_module(name), name) if test.examples]


@pytest.mark.docs
@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    report: list[str] = []
    with jax.numpy_rank_promotion("allow"):  # as in a reader's session
        for test in examples(name):
            runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


def test_there_are_examples():
    assert len(MODULES) == len(set(MODULES)) > 100
    assert len(examples("jaxmeta.training")) == 0
    assert len(examples("jaxmeta.training._loop")) == 1
