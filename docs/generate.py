"""Writes the generated tables of the documentation: `python docs/generate.py`. A test holds that they are current."""

import re
from pathlib import Path

from jaxmeta.runs import options_tables, recipes_tables

PAGES = [
    Path(__file__).parent / "pages" / name
    for name in ("command-line.md", "many-devices.md", "predict.md", "results.md", "strangers.md")
]
RESULTS = Path(__file__).parents[1] / "experiments" / "results"
REGION = re.compile(r"(<!-- generated: (?P<kind>\w+) (?P<name>[\w ]+) -->\n)[^<]*(<!-- end -->)", re.S)


def generated(page: str) -> str:
    """Returns the text of a page with its tables made anew."""
    tables = {
        "options": options_tables(),
        "recipes": recipes_tables(),
        "results": {path.stem: path.read_text(encoding="utf-8").splitlines() for path in RESULTS.glob("*.md")},
    }
    return REGION.sub(lambda m: "\n".join([m[1], *tables[m["kind"]][m["name"]], "", m[4]]), page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")
