"""Writes the generated tables of the documentation: `python docs/generate.py`. A test holds that they are current."""

import re
import sys
from pathlib import Path

from jaxmeta.runs import options_tables, recipes_tables

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "tables"))
import page as results_page

PAGES = [
    Path(__file__).parent / "pages" / name
    for name in ("command-line.md", "many-devices.md", "predict.md", "results.md", "strangers.md")
]
ROOT = Path(__file__).parents[1]
PAGES.append(ROOT / "README.md")
RESULTS = ROOT / "experiments" / "results"
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?( ± [\d.]+)?")
REGION = re.compile(r"(<!-- generated: (?P<kind>\w+) (?P<name>[\w -]+) -->\n)[^<]*(<!-- end -->)", re.S)


def looked_up(reference: str) -> str:
    """Returns a number of the tables on the page of results, the mean of several rows to two digits.

    Args:
        reference: heading of the section, first cells of the row (`*` for any), and column, between semicolons.
    """
    heading, *wanted, column = reference.split("; ")
    page = (Path(__file__).parent / "pages" / "results.md").read_text(encoding="utf-8")
    page = replaced(page, {"tables": results_page.tables()}).replace("\xa0", " ")
    section = re.split(rf"^#+ {re.escape(heading)}\n", page, flags=re.M)[1]
    header, first, found = [""], "", []
    for line in re.split(r"^#+ ", section, flags=re.M)[0].splitlines():
        cells = [cell.strip(" *") for cell in line[1:-1].split("|")] if line.startswith("|") else []
        if column in cells:
            header = cells
        elif cells and column in header:
            first = cells[0] = cells[0] or first  # a row without a name belongs to the one above
            number = NUMBER.match(cells[header.index(column)])
            if number and all(want in ("*", cell) for want, cell in zip(wanted, cells, strict=False)):
                found.append(number[0])
    if not found:
        raise ValueError(f"the page of results has no {reference!r}")
    if len(found) == 1:
        return found[0]
    return f"{sum(float(number.split()[0]) for number in found) / len(found):.2f}"


def generated(page: str) -> str:
    """Returns the text of a page with its tables made anew."""
    tables = {
        "options": options_tables(),
        "recipes": recipes_tables(),
        "tables": results_page.tables(),
        "results": {
            path.stem: re.sub("{(.+?)}", lambda m: looked_up(m[1]), path.read_text(encoding="utf-8")).splitlines()
            for path in RESULTS.glob("*.md")
        },
    }
    return replaced(page, tables)


def replaced(page: str, tables: dict[str, dict[str, list[str]]]) -> str:
    """Returns the text of a page with its tables of some kinds made anew."""

    def region(match: re.Match[str]) -> str:
        if match["kind"] not in tables:
            return match[0]
        return "\n".join([match[1], *tables[match["kind"]][match["name"]], "", match[4]])

    return REGION.sub(region, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(generated(path.read_text(encoding="utf-8")), encoding="utf-8")
