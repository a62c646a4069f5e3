"""All tables by their names, in the order of the page."""

import cifar_fs
import cub
import fc100
import mini_imagenet
import omniglot
import sinusoid
import tiered_imagenet
from rows import Row

_ROWS = [
    *omniglot.ROWS,
    *cifar_fs.ROWS,
    *fc100.ROWS,
    *mini_imagenet.ROWS,
    *tiered_imagenet.ROWS,
    *cub.ROWS,
    *sinusoid.ROWS,
]
TABLES = {name: [row for row in _ROWS if row.table == name] for name in dict.fromkeys(row.table for row in _ROWS)}


def of_tables(names: tuple[str, ...]) -> list[Row]:
    """Returns the rows of some tables, or of all, most valuable first; those of `omniglot` are `omniglot-heads` too.

    Raises:
        ValueError: if there is no such table.
    """
    for name in names:
        if name not in TABLES:
            raise ValueError(f"tables must be among {', '.join(TABLES)}, got {name!r}")
    chosen = [table for table in TABLES if not names or any(f"{table}-".startswith(f"{name}-") for name in names)]
    return sorted((row for table in chosen for row in TABLES[table]), key=lambda row: row.order)
