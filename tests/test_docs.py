"""The docs: every Python block runs, every command parses, every public name and option is there."""

import ast
import contextlib
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pytest
import tyro

from jaxmeta import Experiment, _commands
from jaxmeta import __main__ as command_line
from jaxmeta.catalog import LEARNERS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = ROOT / "docs" / "pages"
BLOCK = re.compile(
    r"^(?:<!-- skip: (?P<skip>[^\n]+) -->\n)?^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$", re.M | re.S
)
SCRIPTS = [path for path in sorted(ROOT.glob("experiments/**/*.py")) if "tyro.cli" in path.read_text(encoding="utf-8")]
COMMANDS = [README, ROOT / "Makefile", *PAGES.rglob("*.md"), *SCRIPTS]


def all_blocks(page: Path) -> list[tuple[str, int, str]]:
    """Language, line number and text of every block that is not marked `<!-- skip: why -->`."""
    text = page.read_text(encoding="utf-8")
    return [
        (match["language"], text.count("\n", 0, match.start("code")), match["code"])
        for match in BLOCK.finditer(text)
        if not match["skip"]
    ]


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Line number and text of every block of a language."""
    return [(line, code) for found, line, code in all_blocks(page) if found == language]


def pages_with(language: str) -> list:
    found = [page for page in [README, *sorted(PAGES.rglob("*.md"))] if blocks(page, language)]
    return [pytest.param(page, id=page.name) for page in found]


@pytest.mark.docs
@pytest.mark.parametrize("page", pages_with("python"))
def test_blocks_run(page, tmp_path, monkeypatch):
    """Python runs on every page, and the commands in between on those that are a story from nothing to predictions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    namespace = {"__name__": page.stem}
    with jax.numpy_rank_promotion("allow"):  # as in a reader's session
        for language, line, code in all_blocks(page):
            if language == "python":
                exec(compile("\n" * line + code, str(page), "exec"), namespace)
            elif language == "bash" and page.stem.startswith("your-"):
                subprocess.run(["bash", "-ec", code], check=True)


class Parsed(Exception):
    """Raised instead of a run."""


@pytest.mark.parametrize("page", pages_with("bash"))
def test_commands_parse(page, monkeypatch):
    def stop(*args, **kwargs):
        raise Parsed

    monkeypatch.setattr(Experiment, "run", stop)
    monkeypatch.setattr(_commands, "run_all", stop)
    monkeypatch.setattr(_commands, "evaluate_run", stop)
    monkeypatch.setattr(_commands, "load_run", stop)
    monkeypatch.setattr(_commands, "compare_runs", stop)
    monkeypatch.setattr(_commands, "load_classifier", stop)
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    monkeypatch.setattr(Path, "exists", lambda path: True)
    monkeypatch.setattr("jax.distributed.initialize", lambda *_: None)
    for _, code in blocks(page, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["jaxmeta"] and "--help" not in words:
                with contextlib.suppress(Parsed):
                    assert command_line.main(words[1:]) == 0, line


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_commands_of_experiments_parse(script, monkeypatch):
    """Each command that the pages, the Makefile or the experiments show, by the script's own parser."""
    real = tyro.cli

    def parse(*args, **kwargs):
        real(*args, **kwargs)
        raise Parsed

    monkeypatch.setattr(tyro, "cli", parse)
    monkeypatch.syspath_prepend(script.parent)
    name = script.relative_to(ROOT).as_posix()
    texts = [path.read_text(encoding="utf-8").replace("\\\n", " ") for path in COMMANDS]
    shown = {line for text in texts for line in re.findall(rf"\bpython {name}\b(.*)", text)}
    assert shown
    for line in shown:
        monkeypatch.setattr(sys, "argv", [name, *shlex.split(re.sub("<.+?>", "folder", line), comments=True)])
        with pytest.raises(Parsed):
            runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "compare", "list"])
def test_command_line_page_has_every_option_and_no_other(command, capsys):
    with pytest.raises(SystemExit):
        command_line.main([command, "--help"])
    option = re.compile(r"--[a-z][a-z-]+")
    known = set(option.findall(capsys.readouterr().out)) - {"--help"}
    page = (PAGES / "command-line.md").read_text(encoding="utf-8")
    section = page.split(f"## jaxmeta {command}\n")[1].split("\n## ")[0]
    assert set(option.findall(section)) == known


def test_numbers_of_the_readme_are_those_of_the_results_page():
    results = (PAGES / "results.md").read_text(encoding="utf-8")
    table = README.read_text(encoding="utf-8").split("## Results")[1].split("## More")[0]
    cells = [line.split("|")[3] for line in table.splitlines() if line.startswith("|")][2:]
    numbers = [number for cell in cells for number in re.findall(r"-?\d(?:[\d,]*\d)?(?:\.\d+)?", cell)]
    missing = [number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", results)]
    assert len(numbers) > 25 and not missing


def exported(package: str) -> set[str]:
    """The public names that the `__init__` of a package imports, packages and stars left out."""
    tree = ast.parse(Path(str(importlib.import_module(package).__file__)).read_text(encoding="utf-8"))
    names = {a.asname or a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    names = {name for name in names if not name.startswith("_")}
    return names - {"*", "algorithms", "bilevel", "data", "envs", "estimators", "models", "optim", "rl", "testing"}


def test_api_pages_have_every_public_name_and_no_other():
    root = ("jaxmeta", "jaxmeta.algorithms", "jaxmeta.meta_gradients")
    public = {f"jaxmeta.{name}" for package in root for name in exported(package)}
    parts = ("bilevel", "data", "envs", "estimators", "models", "optim", "register", "rl", "testing")
    public |= {f"jaxmeta.{part}.{name}" for part in parts for name in exported(f"jaxmeta.{part}")}
    expand = runpy.run_path(str(PAGES.parent / "members.py"))["expand"]
    pages = [expand(page.read_text(encoding="utf-8")) for page in (PAGES / "api").glob("*.md")]
    shown = [name for text in pages for name in re.findall(r"^::: (\S+)$", text, re.M)]
    assert sorted(shown) == sorted(public), f"missing {public - set(shown)}, unknown {set(shown) - public}"


def test_generated_tables_are_current():
    """`python docs/generate.py` writes them from the options, the recipes and the results of runs."""
    generator = runpy.run_path(str(PAGES.parent / "generate.py"))
    for path in generator["PAGES"]:
        assert generator["generated"](path.read_text(encoding="utf-8")) == path.read_text(encoding="utf-8")
    page = (PAGES / "command-line.md").read_text(encoding="utf-8")
    for name in LEARNERS:
        assert f"| `{name}`" in page
