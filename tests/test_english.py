"""Docstrings and pages are plain English: first lines that stand alone, few semicolons, one dialect."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("jaxmeta", "data", "envs") for path in (ROOT / folder).rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs" / "pages").rglob("*.md"))]
RIDDLES = re.compile(r"(What|How|Where|Whether|Which|Of|When|That|Such|If|The same)\b")
IMPERATIVE = re.compile(
    r"(Return|Raise|Make|Build|Draw|Read|Check|Create|Get|Set|Give|Take|Add) (an?|all|one|the|if)\b"
)
BRITISH = re.compile(r"\b\w*(?:colour|behaviour|neighbour|favour|[mn]ormalis|ptimis[ei]|[mx]imis|[lr]alis)\w*\b")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those below fields included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def prose(text: str) -> str:
    """The sentences of a page: no code, no tables, no links' addresses, no directives."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||:::|<|#|!\[|\?\?\?)", line)]
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", "\n".join(lines))


def whole_docstrings(path: Path) -> str:
    """The prose of a file's docstrings, without examples and references."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            text = re.split(r"\n\s*(?:Example|References):", node.value.value)[0]
            found.append(prose(re.sub(r">>>.*|\.\.\. .*", "", text)))
    return "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_first_lines_stand_alone(path):
    bad = []
    for line, text in docstrings(path):
        first = text.split("\n")[0].strip()
        if RIDDLES.match(first) or IMPERATIVE.match(first):
            bad.append(f"line {line} begins with {first.split()[0]!r}: {first}")
        elif not re.search(r"[.:?!]$|\)\.$", first) and not first.startswith("`"):
            bad.append(f"line {line} does not end its first sentence on its first line: {first}")
    assert not bad, "\n".join(bad)


def test_few_semicolons():
    """At most 5 in 100 sentences."""
    for name, texts in {
        "pages": [prose(page.read_text(encoding="utf-8")) for page in PAGES],
        "docstrings": [whole_docstrings(path) for path in SOURCES],
    }.items():
        text = "\n".join(texts)
        sentences = len(re.findall(r"[.!?](?=\s|$)", text))
        semicolons = text.count(";")
        assert semicolons <= 0.05 * sentences, f"{semicolons} semicolons in {sentences} sentences of {name}"


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_one_dialect(path):
    assert not BRITISH.findall(path.read_text(encoding="utf-8"))
