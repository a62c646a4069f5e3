"""MkDocs hook: `::: package.*` on an API page means all public names of the package that no API page lists by itself.

A new model or learner therefore needs no change of the pages.
"""

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGES = Path(__file__).parent / "pages" / "api"
_LISTED = re.compile(r"^::: (\S+[^*\s])$", re.M)
_ALL_OTHERS = re.compile(r"^::: (\S+)\.\*$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the text of a page for MkDocs, see `expand`."""
    return expand(markdown)


def expand(markdown: str) -> str:
    """Returns the text with one `:::` line per name instead of `::: package.*`."""
    listed = {name for page in PAGES.glob("*.md") for name in _LISTED.findall(page.read_text(encoding="utf-8"))}

    def others(match: re.Match[str]) -> str:
        return "\n".join(f"::: {name}" for name in _exports(match[1]) if name not in listed)

    return _ALL_OTHERS.sub(others, markdown)


def _exports(package: str) -> list[str]:
    """Full names that a package or module exports, at the root if `jaxmeta` exports all of them too."""
    imports = _imports(package)
    at_root = any(node.module == package and node.names[0].name == "*" for node in _imports("jaxmeta"))
    prefix = "jaxmeta" if at_root else package
    return [f"{prefix}.{alias.asname or alias.name}" for node in imports for alias in node.names]


def _imports(package: str) -> list[ast.ImportFrom]:
    path = ROOT.joinpath(*package.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
