"""The tables of the page of results, from the JSON lines."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from catalog import TABLES
from lines import LINES, Line, read
from rows import PER_CENT

USUAL_TASKS = 600
NARROW = "\xa0±\xa0"
"""No line breaks around it."""
COLUMNS = ("learner", "task", "paper", "here", "updates x tasks", "minutes", "run")
_Group = list[Line]


def tables(path: Path = LINES) -> dict[str, list[str]]:
    """Returns the lines of Markdown of each table."""
    found = read(path)
    return {name: table(name, [line for line in found if line["table"] == name]) for name in TABLES}


def table(name: str, lines: Sequence[Line]) -> list[str]:
    """Returns one table from its results."""
    groups = chosen(lines, name)
    if not groups:
        return [f"None of its {len(TABLES[name])} rows has been run yet."]
    if name == "sinusoid":
        return _by_steps(groups)
    papers = {(row.label, row.setting): row.paper.text for row in TABLES[name] if row.paper}
    return _markdown(COLUMNS, [_cells(group, papers) for group in groups])


def chosen(lines: Sequence[Line], name: str) -> list[_Group]:
    """Returns the results that count for each row, in the order of the rows: a line per seed of its largest budget."""
    by_row: dict[tuple[str, str], _Group] = {}
    for line in lines:
        by_row.setdefault((line["label"], line["setting"]), []).append(line)
    order = [(row.label, row.setting) for row in TABLES[name]]
    known = sorted(by_row, key=lambda row: order.index(row) if row in order else len(order))
    return [_largest(by_row[row]) for row in known]


def _largest(lines: _Group) -> _Group:
    """Returns the results at the largest budget of a row, the paper's before a small one.

    Seeds belong together that differ in nothing else. Most seeds count before few, then the newest ones.
    """

    def size(line: Line) -> tuple[bool, int]:
        return line["budget"] == "paper", line["updates"] * (line["tasks"] or 1)

    def settings(line: Line) -> str:
        others = {name: value for name, value in line["options"].items() if name != "seed"}
        return json.dumps([line["hardware"], others], sort_keys=True)

    best, groups = max(map(size, lines)), {}
    for line in sorted((line for line in lines if size(line) == best), key=lambda line: line["date"]):
        groups.setdefault(settings(line), {})[line["seed"]] = line
    chosen = max(groups.values(), key=lambda seeds: (len(seeds), max(line["date"] for line in seeds.values())))
    return [line for _, line in sorted(chosen.items())]


def _cells(group: _Group, papers: dict[tuple[str, str], str]) -> list[str]:
    first = group[-1]
    minutes = statistics.mean(line["minutes"] for line in group) if first["minutes"] is not None else None
    return [
        first["label"],
        first["setting"],
        papers.get((first["label"], first["setting"]), "-"),
        _value(group),
        _budget(first),
        "" if minutes is None else f"{minutes:.1f}",
        f"{first['hardware']}, {first['date']}",
    ]


def _budget(line: Line) -> str:
    return f"{line['updates']:,} x {line['tasks']}" if line["tasks"] else f"{line['updates']:,} minibatches"


def _value(group: _Group, count_seeds: bool = True) -> str:
    """Returns the mean with its interval over tasks, or of several seeds with their standard deviation."""
    scale, digits = (100, 2) if group[0]["metric"] == PER_CENT else (1, 3)
    good = [line for line in group if line["value"] is not None]
    notes = [f"{len(group)} seeds"] if count_seeds and len(group) > 1 else []
    if group[0]["test_tasks"] != USUAL_TASKS:
        notes.append(f"{group[0]['test_tasks']} tasks")
    if not good:
        return _with_notes("diverged", notes)
    if len(good) < len(group):
        notes.append(f"{len(group) - len(good)} diverged")
    mean = scale * statistics.mean(line["value"] for line in good)
    digits += mean < 0.01
    spread = good[0]["interval"] if len(good) == 1 else statistics.stdev(line["value"] for line in good)
    return _with_notes(f"{mean:.{digits}f} ± {scale * spread:.{digits}f}", notes)


def _with_notes(text: str, notes: Sequence[str]) -> str:
    return f"{text} ({', '.join(notes)})" if notes else text


def _by_steps(groups: Sequence[_Group]) -> list[str]:
    """Returns the table of sinusoids, with a column for each number of inner steps."""
    rows = [(group, *group[0]["setting"].partition(", ")[::2]) for group in groups]
    columns = sorted({after for *_, after in rows}, key=lambda after: int("".join(filter(str.isdigit, after)) or 99))
    papers = {(row.label, row.setting): row.paper.text for row in TABLES["sinusoid"] if row.paper}
    found = []
    for label, shots in dict.fromkeys((group[0]["label"], shots) for group, shots, _ in rows):
        by_steps = {after: group for group, of, after in rows if (group[0]["label"], of) == (label, shots)}
        last = list(by_steps.values())[-1]
        cells = [label, str(len(last)), shots.split()[0]]
        cells += [_value(by_steps[after], count_seeds=False) if after in by_steps else "" for after in columns]
        published = [papers.get((label, f"{shots}, {after}"), "-") for after in by_steps]
        cells.append(" / ".join(published) if set(published) != {"-"} else "-")
        cells.append(" / ".join(_median(by_steps[after]) for after in by_steps))
        cells.append(" / ".join(_share(by_steps[after]) for after in by_steps))
        found.append([*cells, *_cells(last, {})[4:]])
    titles = [after.removesuffix(" steps") if after else "no steps" for after in columns]
    header = ("learner", "seeds", "shots", *titles, "paper", "median", "diverged", *COLUMNS[4:])
    return _markdown(header, found)


def _median(group: _Group) -> str:
    values = [line["median"] for line in group if line["median"] is not None]
    return f"{statistics.mean(values):.3f}" if values else "-"


def _share(group: _Group) -> str:
    return f"{100 * statistics.mean(line['diverged'] for line in group):.1f}".removesuffix(".0") + " %"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a table whose last column, the hardware and the date, has letters that a line below explains."""
    places = list(dict.fromkeys(row[-1] for row in rows))
    letters = {place: _letter(number) for number, place in enumerate(places)}
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    lines += [f"| {' | '.join([*row[:-1], letters[row[-1]]])} |".replace(" ± ", NARROW) for row in rows]
    return [*lines, "", "Runs: " + "; ".join(f"{letters[place]}: {place}" for place in places) + "."]


def _letter(number: int) -> str:
    """Returns a, b, ... z, ba, bb and so on."""
    first, last = divmod(number, 26)
    return (_letter(first) if first else "") + chr(ord("a") + last)
