"""The docs: every Python block runs, every command parses, every public name and option is there."""

import argparse
import ast
import contextlib
import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import jax
import pytest

import jaxmeta
import jaxmeta.testing
from jaxmeta import __main__ as command_line

PAGES = Path(__file__).parents[1] / "docs" / "pages"
BLOCK = re.compile(r"^(?:<!-- skip: (?P<skip>.+) -->\n)?^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of every block of a language that is not marked `<!-- skip: why -->`."""
    text = page.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("code")), match["code"])
        for match in BLOCK.finditer(text)
        if match["language"] == language and not match["skip"]
    ]


def pages_with(language: str) -> list:
    found = [page for page in sorted(PAGES.rglob("*.md")) if blocks(page, language)]
    return [pytest.param(page, id=page.relative_to(PAGES).as_posix()) for page in found]


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    with jax.numpy_rank_promotion("allow"):  # as in a reader's session
        for line, code in blocks(page, "python"):
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_parse(page, monkeypatch):
    class Parsed(Exception):
        pass

    def stop(*args, **kwargs):
        raise Parsed

    monkeypatch.setattr(jaxmeta.Experiment, "run", stop)
    monkeypatch.setattr("jaxmeta._experiment.evaluate_run", stop)
    for _, code in blocks(page, "bash"):
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["jaxmeta"] and "--help" not in words:
                with contextlib.suppress(Parsed):
                    assert command_line.main(words[1:]) == 0, line


def exported(module: str) -> set[str]:
    """What the `__init__` of a package imports under a public name, packages left out."""
    tree = ast.parse(Path(importlib.import_module(module).__file__).read_text(encoding="utf-8"))
    names = {a.asname or a.name for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names}
    return names - {"data", "envs", "models", "optim", "algorithms"}


def test_every_public_name_is_in_the_api_pages():
    public = {f"{module}.{n}" for module in ("jaxmeta", *SUBPACKAGES) for n in exported(module)}
    public |= {f"jaxmeta.testing.{n}" for n in vars(jaxmeta.testing) if n.startswith("check_")}
    pages = [page.read_text(encoding="utf-8") for page in (PAGES / "api").glob("*.md")]
    shown = {name for text in pages for name in re.findall(r"^::: (\S+)$", text, re.M)}
    # A name that the top level exports too is shown under that name only.
    wanted = {name for name in public if name.startswith("jaxmeta.algorithms.") is False}
    assert shown == wanted, f"missing: {sorted(wanted - shown)}; unknown: {sorted(shown - wanted)}"
    assert exported("jaxmeta.algorithms") <= exported("jaxmeta")


SUBPACKAGES = ("jaxmeta.algorithms", "jaxmeta.data", "jaxmeta.models", "jaxmeta.optim")


