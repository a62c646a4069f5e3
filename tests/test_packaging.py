"""The package and its documentation as a stranger finds them: versions, metadata, pages that open from the disk."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import jaxmeta
from jaxmeta.training import installed_versions

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def test_a_checkout_that_is_not_installed_has_an_unknown_version():
    assert installed_versions("jax", "no-such-package-here") == {
        "jax": importlib.metadata.version("jax"),
        "no-such-package-here": "unknown",
    }
    assert jaxmeta.__version__ in (PROJECT["version"], "unknown")


def test_the_version_is_said_once_more_in_the_citation():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.*)$", citation, re.M)[1] == PROJECT["version"]  # pyright: ignore[reportOptionalSubscript]


def test_the_metadata_say_who_what_and_for_which_python():
    assert PROJECT["authors"] and PROJECT["license"] == "MIT" and PROJECT["keywords"]
    least = int(PROJECT["requires-python"].removeprefix(">=3."))
    named = [int(c.rpartition("3.")[2]) for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    tested = {int(minor) for minor in re.findall(r'"3\.(\d+)"', (ROOT / ".github/workflows/ci.yml").read_text())}
    assert min(named) == least and set(named) == tested


def test_every_dependency_has_a_lower_bound():
    for dependency in PROJECT["dependencies"]:
        assert ">=" in dependency, dependency


def test_the_pages_and_their_search_open_from_the_disk():
    """Links name files, and the search needs no server: its index is a script, and so is its worker."""
    config = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^use_directory_urls: false\b", config, re.M)
    assert re.search(r"^  - offline$", config, re.M)
    (worker,) = re.findall(r"^    - (assets/iframe-worker\S*)$", config, re.M)
    assert (ROOT / "docs" / "pages" / worker).is_file()


def test_every_package_is_in_a_build():
    """A folder that is not listed would be missing, or, with files of data, be built with a warning."""
    folders = {"": "jaxmeta", ".data": "data", ".envs": "envs"}
    found = {
        ".".join([f"jaxmeta{name}", *path.relative_to(ROOT / folder).parent.parts])
        for name, folder in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".json") and path.is_file()
    }
    assert sorted(found) == sorted(PYPROJECT["tool"]["setuptools"]["packages"])
