"""Who may import whom, what `import jaxmeta` costs, and that what is public says what it is."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {  # dotted name: path; jaxmeta/data is a link to data/
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "jaxmeta").glob("**/*.py")) + sorted((ROOT / "jaxmeta").glob("*/*.py"))
}
CORE = [
    "_types",
    "_learned",
    "_meta_gradient",
    "_adapt",
    "_losses",
    "_evolution",
    "_implicit",
    "_cost",
    "_checks",
    "_dice",
]
# What a module or package may import of jaxmeta. One that is missing here belongs to the top: it may import anything.
ALLOWED = {
    "_types": [],
    "_checks": [],
    "_learned": ["_types"],
    "_losses": ["_types"],
    **{name: CORE for name in CORE[2:] if name not in ("_losses", "_checks")},
    "_unrolled": CORE,
    "_optimizer_training": [*CORE, "_unrolled"],
    "_files": [],
    "_save": ["_types", "_files"],
    "_parallel": ["_types"],
    "_step": ["_types", "_parallel"],
    "_log": ["_types", "_checkpoint", "_files"],
    "_checkpoint": ["_types", "_files"],
    "_processes": [],
    "_loop": ["_types", "_log", "_parallel", "_processes"],
    "_train": ["_types", "_parallel", "_step", "_loop"],
    "_pretrain": ["_types", "_checks", "_losses", "_step", "_loop", "algorithms", "models", "data"],
    "testing": ["_types", "_learned", "_step", "_check_env"],
    "optim": [*CORE, "optim"],
    "algorithms": [*CORE, "optim", "algorithms"],
    "models": ["models"],
    "data": ["_types", "data"],
    "_check_env": ["_types", "envs"],
    "envs": ["_types", "_checks", "envs"],
    "rl": [*CORE, "_parallel", "_step", "algorithms", "envs", "models", "optim", "rl"],
}
HEAVY = [
    "brax",
    "tensorflow_datasets",
    "tensorflow",
    "gymnasium",
    "torch",
    "matplotlib",
    "orbax",
    "PIL",
    "pooch",
    "tyro",
]
PUBLIC = [
    "jaxmeta",
    "jaxmeta.algorithms",
    "jaxmeta.data",
    "jaxmeta.envs",
    "jaxmeta.models",
    "jaxmeta.optim",
    "jaxmeta.rl",
    "jaxmeta.testing",
]


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; of jaxmeta, the part after the first dot."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "jaxmeta" else {node.module}
            )
    return found


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_down_only(name):
    parts = name.split(".")
    used = {module.split(".")[1] for module in imports(SOURCES[name]) if module.startswith("jaxmeta.")}
    if len(parts) > 1 and parts[1] in ALLOWED:
        assert used <= set(ALLOWED[parts[1]]), f"{name} must not import {sorted(used - set(ALLOWED[parts[1]]))}"
    roots = {module.split(".")[0] for module in imports(SOURCES[name])}
    assert not roots & {"experiments", "tests", "data", "envs"}


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("**/*.py")), ids=lambda path: path.stem)
def test_experiments_use_public_names_only(path):
    private = {module for module in imports(path) if module.startswith("jaxmeta.") and "._" in module}
    assert not private


def test_import_is_light():
    code = f"import sys, jaxmeta; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", PUBLIC)
def test_public_names_have_docstrings(module):
    namespace = importlib.import_module(module)
    assert namespace.__doc__
    for name, value in vars(namespace).items():
        if (
            name.startswith("_")
            or inspect.ismodule(value)
            or not str(getattr(value, "__module__", "")).startswith("jaxmeta")
        ):
            continue
        doc = inspect.getdoc(value) or ""
        automatic = doc.startswith(f"{name}(")  # what NamedTuple and dataclass make up
        assert doc and not automatic, f"{module}.{name} has no docstring"


def test_every_package_is_built():
    wanted = {".".join(p.parent.relative_to(ROOT).parts) for p in SOURCES.values() if p.name == "__init__.py"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == wanted


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_are_short(name):
    """A file of more than 300 lines, or a function of more than 60 beside its docstring, wants to be two."""
    text = SOURCES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            assert lines <= 60, f"{node.name} has {lines} lines"
