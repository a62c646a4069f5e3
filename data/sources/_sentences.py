"""Readers of labeled sentences, one for each published layout."""

import posixpath
from collections.abc import Sequence

import numpy as np

from jaxmeta.bounded import load_json
from jaxmeta.data.archives import Files
from jaxmeta.data.containers import Examples
from jaxmeta.data.sources._division import first_rows
from jaxmeta.data.sources._readers import ReadRequest, content_of, lines_of, read_table, visible

_LINE = 1 << 20  # bytes
_MOST_LETTERS = 1 << 28  # of all sentences, each with the room of the longest


def intents(files: Files, request: ReadRequest) -> Examples:
    """Reads CLINC150's `data_full.json`: all 150 utterances of each intent, without those out of scope."""
    name = files.find("data_full.json")
    try:
        content = load_json(content_of(files, name))
        rows = [(sentence, intent) for part in ("train", "val", "test") for sentence, intent in content[part]]
        if not all(isinstance(text, str) for row in rows for text in row):
            raise TypeError("not all sentences and intents are strings")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{files.where(name)} is not CLINC150 ({error!r:.300}). {files.advice}") from error
    return _examples(files, rows, request)


def csv_rows(files: Files, request: ReadRequest) -> Examples:
    """Reads Banking77's `train.csv` and `test.csv` (text, category) together."""
    tables = (read_table(files, name, ("text", "category")) for name in ("train.csv", "test.csv"))
    return _examples(files, [row for table in tables for row in table], request)


def own_sentences(files: Files, request: ReadRequest) -> Examples:
    """Reads tables `<name>.csv` with the columns text and label, or lists of sentences.

    A list in a folder is `<class>.txt` with a sentence in each line. A list alone has lines `class<TAB>sentence`.
    """
    names = visible(files)
    tables = [name for name in names if name.lower().endswith(".csv")]
    lists = [name for name in names if name.lower().endswith(".txt")]
    if bool(tables) == bool(lists):
        found = "both" if tables else "neither"
        where = ", ".join(map(str, files.sources))
        raise ValueError(f"{where} must have tables .csv with text and label, or a list <class>.txt each, got {found}")
    if tables:
        return _examples(files, [row for name in tables for row in read_table(files, name, ("text", "label"))], request)
    if len(files.sources) == 1 and files.sources[0].suffix.lower() == ".txt":
        return _examples(files, _labeled_lines(files, lists[0]), request)
    rows = []
    for name in lists:
        of = posixpath.splitext(posixpath.basename(name))[0]
        rows += [(line, of) for line in lines_of(files, name) if line.strip()]
    return _examples(files, rows, request)


def _labeled_lines(files: Files, name: str) -> list[tuple[str, str]]:
    """Returns the sentences of a list of lines `class<TAB>sentence`, and the class of each."""
    rows = []
    for number, line in enumerate(lines_of(files, name), 1):
        of, tab, sentence = line.partition("\t")
        if line.strip() and not (tab and of.strip()):
            raise ValueError(f"{files.where(name)}: line {number} must be `class<TAB>sentence`, got {line!r:.100}")
        rows += [(sentence, of.strip())] if line.strip() else []
    return rows


def headlines(files: Files, request: ReadRequest) -> Examples:
    """Reads headlines of known categories from the news category data set, one JSON object per line."""
    rows = []
    (name,) = files.names
    with files.open(name) as file:
        for number, line in enumerate(iter(lambda: file.readline(_LINE), b""), 1):
            try:
                article = load_json(line)
                headline, category = article["headline"], article["category"]
                if category in request.known and headline.strip():
                    rows.append((headline, category))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{files.where(name)}: line {number} is not an article ({error!r:.300})") from error
    return _examples(files, rows, request)


def _examples(files: Files, rows: Sequence[tuple[str, str]], request: ReadRequest) -> Examples:
    if not rows:
        raise ValueError(f"{', '.join(map(str, files.sources))} has no sentences of the benchmark's classes")
    kept = [rows[row] for row in first_rows([name for _, name in rows], request.per_class)]
    longest = max(len(sentence) for sentence, _ in kept)
    if longest * len(kept) > _MOST_LETTERS:
        told = f"{', '.join(map(str, files.sources))} has {len(kept)} sentences, and one of {longest} characters"
        raise ValueError(f"{told}. An array gives each the room of the longest: cut it, or leave it out")
    return Examples.of(np.array([sentence for sentence, _ in kept], str), [name for _, name in kept])
