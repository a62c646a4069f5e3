"""Reading of JSON whose depth and memory are bounded."""

import json
from typing import Any

_MOST = 2_000_000  # values in one text, of up to a hundred bytes each
_DEPTH = 100


def load_json(content: str | bytes) -> Any:
    """Reads JSON.

    Args:
        content: the text, or its bytes in UTF-8.

    Returns:
        The values.

    Raises:
        ValueError: if it is not JSON, is nested more than a hundred times, or holds millions of values.
    """
    text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    if sum(map(text.count, ",[{")) > _MOST:
        raise ValueError(f"it holds more than {_MOST} values")
    try:
        tree = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested more than {_DEPTH} times") from error
    level = [tree] if isinstance(tree, dict | list) else []
    for _ in range(_DEPTH):
        level = [part for node in level for part in _parts(node) if isinstance(part, dict | list)]
    if level:
        raise ValueError(f"it is nested more than {_DEPTH} times")
    return tree


def _parts(node: Any) -> Any:
    return node.values() if isinstance(node, dict) else node
