"""Who may import whom, what `import jaxmeta` costs, and that what is public says what it is."""

import ast
import graphlib
import importlib
import inspect
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxmeta"  # jaxmeta/data and jaxmeta/envs are links to data/ and envs/
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in (PACKAGE, PACKAGE / "data", PACKAGE / "envs")
    for path in sorted(folder.rglob("*.py"))
}
CORE = ["_types", "_variables", "_checks", "_noise", "_learned", "losses", "_cost", "_files", "_parallel", "_step"]
CORE += ["_summary", "bounded", "display"]
LOOPS = [*CORE, "meta_gradients", "_adapt"]
# What each module or package directly below jaxmeta may import of jaxmeta. One that is missing here is an error.
ALLOWED = {
    "_variables": [],
    "elsewhere": [],
    "display": ["elsewhere"],
    "_types": ["_variables", "display"],
    "_checks": ["_types", "display"],
    "_files": ["bounded"],
    "locks": ["display"],
    "bounded": [],
    "_summary": ["_types", "display"],
    "_cost": ["_checks", "display"],
    "_names": ["_checks"],
    "_noise": ["_types"],
    "_learned": ["_types", "display"],
    "losses": ["_types", "_variables", "_checks", "display"],
    "_parallel": ["_types"],
    "_save": ["_types", "_checks", "_files", "bounded"],
    "_step": ["_types", "_variables", "_checks", "_learned", "_parallel", "display"],
    "meta_gradients": ["_types", "_checks", "_noise", "_learned", "display"],
    "_adapt": [
        "_types",
        "_variables",
        "_checks",
        "_learned",
        "display",
        "losses",
        "meta_gradients",
        "_meta_gradient_checks",
    ],
    "estimators": LOOPS,
    "models": ["_checks", "_types"],
    "optim": LOOPS,
    "algorithms": [*LOOPS, "optim"],
    "bilevel": [*LOOPS, "algorithms"],
    "data": ["_types", "_checks", "_names", "_files", "bounded", "display", "locks"],
    "envs": ["_types", "_checks", "_files", "_names", "display"],
    "rl": [*LOOPS, "algorithms", "envs", "estimators", "models", "optim"],
    "training": [*CORE, "algorithms", "data", "locks", "models"],
    "testing": [*CORE, "envs"],
    "catalog": [*LOOPS, "_names", "algorithms", "data", "envs", "models", "optim", "rl"],
    "register": ["catalog", "data", "envs"],
    "prediction": ["_types", "_checks", "_files", "_save", "algorithms", "bounded", "data", "display"],
    "reports": [*CORE, "algorithms", "catalog", "data", "envs", "rl", "training"],
    "runs": [*CORE, "_names", "_save", "algorithms", "catalog", "data", "envs", "prediction", "reports", "training"],
    "_commands": ["_cost", "prediction", "reports", "runs"],
    "__main__": ["_commands", "_files", "_parallel", "catalog", "reports", "runs", "training"],
}
FLAT = {"algorithms", "optim", "models", "rl", "envs"}  # one thing per file, by design
HEAVY = ["brax", "tensorflow_datasets", "tensorflow", "gymnasium", "torch", "matplotlib", "orbax", "PIL", "pooch"]
HEAVY += ["tyro", "jinja2"]
PUBLIC = ["jaxmeta", *(f"jaxmeta.{name}" for name in ("algorithms", "bilevel", "data", "envs", "estimators"))]
PUBLIC += [f"jaxmeta.{name}" for name in ("meta_gradients", "models", "optim", "register", "rl", "testing")]
PUBLIC += [f"jaxmeta.{name}" for name in ("training", "runs")]


@cache
def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else str(node.module) for name in modules}
    return found


def unit(name: str) -> str:
    """The part of a module's name that `ALLOWED` knows."""
    return name.split(".")[1] if "." in name else ""


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "jaxmeta"])
def test_imports_go_down_only(name):
    assert unit(name) in ALLOWED, f"{name} has no place in ALLOWED: say what it may import"
    used = {unit(module) for module in imports(SOURCES[name]) if module.startswith("jaxmeta.")} - {unit(name)}
    assert used <= set(ALLOWED[unit(name)]), f"{name} must not import {sorted(used - set(ALLOWED[unit(name)]))}"
    assert "jaxmeta" not in imports(SOURCES[name]), f"{name} must import from where a name is, not from the top"
    assert not {module.split(".")[0] for module in imports(SOURCES[name])} & {"experiments", "tests", "data", "envs"}


@pytest.mark.parametrize("name", SOURCES)
def test_packages_are_entered_by_their_front_door(name):
    """A private module is imported by the modules of its own package only."""
    own = name if SOURCES[name].stem == "__init__" else name.rpartition(".")[0]
    private = {m for m in imports(SOURCES[name]) if m.startswith("jaxmeta.") and m.rpartition(".")[2].startswith("_")}
    foreign = {m for m in private if m.rpartition(".")[0] not in ("jaxmeta", own)}
    assert not foreign, f"{name} reaches into {sorted(foreign)}"


def test_there_is_no_import_circle():
    """Also none through imports in functions or in blocks for type checkers."""
    graph = {name: {m for m in imports(path) if m in SOURCES and m != name} for name, path in SOURCES.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("name", SOURCES)
def test_no_import_is_for_type_checkers_only(name):
    assert "TYPE_CHECKING" not in SOURCES[name].read_text(encoding="utf-8")


def test_a_room_shows_itself():
    """At most 16 modules side by side, except in the packages that are flat by design."""
    rooms: dict[Path, int] = {}
    for path in {path.resolve() for path in SOURCES.values() if path.stem != "__init__"}:
        rooms[path.parent] = rooms.get(path.parent, 0) + 1
    assert {str(room.name): count for room, count in rooms.items() if count > 16 and room.name not in FLAT} == {}


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


@pytest.mark.parametrize("module", PUBLIC)
def test_public_named_tuples_show_no_arrays(module):
    for name, value in vars(importlib.import_module(module)).items():
        ours = inspect.isclass(value) and issubclass(value, tuple) and value.__module__.startswith("jaxmeta")
        generated = ours and value.__repr__.__module__ == "collections"
        assert not generated or name.startswith("_"), f"{module}.{name} needs __repr__ = short_repr"


def test_git_ignores_no_source_file():
    """A pattern such as `runs/` without a leading slash would leave the package of that name out of every commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folders = ("jaxmeta", "data", "envs", "experiments", "tests", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = "\n".join(str(path.relative_to(ROOT)) for path in files)
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"], input=names, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 1 and done.stdout == "", done.stdout + done.stderr


@pytest.mark.parametrize("name", SOURCES)
def test_files_and_functions_are_short(name):
    """A file of more than 300 lines, or a function of more than 60 beside its docstring, wants to be two."""
    text = SOURCES[name].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
            assert lines <= 60, f"{node.name} has {lines} lines"


# The decorator of factories in jaxmeta/display is left out: it adds a repr, and nothing that happens.
TRACE = """
import sys, tempfile
import jaxmeta.__main__ as command_line

files = []

def profile(frame, event, argument):
    path = frame.f_code.co_filename
    ours = "site-packages" not in path and ("/jaxmeta/" in path or "/data/" in path or "/envs/" in path)
    ours = ours and "/display/" not in path
    if event == "call" and ours and not frame.f_code.co_name.startswith("<") and path not in files:
        if "/algorithms/" in path:
            sys.setprofile(None)
            print(len(files), *files)
            raise SystemExit
        files.append(path)

sys.setprofile(profile)
command_line.main(["train", "--folder", tempfile.mkdtemp() + "/run"])
"""


def test_train_enters_few_files_before_the_learner():
    done = subprocess.run([sys.executable, "-c", TRACE], capture_output=True, text=True, check=True, cwd=ROOT)
    count, *files = done.stdout.splitlines()[-1].split()
    assert int(count) <= 14, files
