"""Writes the generated tables of the documentation: `python docs/generate.py`. A test holds that they are current."""

import re
from pathlib import Path

from jaxmeta.runs import options_tables, recipes_tables

PAGE = Path(__file__).parent / "pages" / "command-line.md"
REGION = re.compile(r"(<!-- generated: (?P<kind>\w+) (?P<name>[\w ]+) -->\n)[^<]*(<!-- end -->)", re.S)


def generated(page: str) -> str:
    """Returns the text of the page of the command line with its tables made anew."""
    tables = {"options": options_tables(), "recipes": recipes_tables()}
    return REGION.sub(lambda m: "\n".join([m[1], *tables[m["kind"]][m["name"]], "", m[4]]), page)


if __name__ == "__main__":
    PAGE.write_text(generated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
