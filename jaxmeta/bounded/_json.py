"""Reading of JSON whose depth and memory are bounded."""

import json
import re
from typing import Any

_MOST = 5_000_000  # values in one text, of up to a hundred bytes each
_DEPTH = 100
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


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
    if text.count("[") + text.count("{") > _DEPTH and _depth(text) > _DEPTH:
        raise ValueError(f"it is nested more than {_DEPTH} times")
    return json.loads(text)


def _depth(text: str) -> int:
    """Returns how deeply a text is nested at most."""
    depth = deepest = 0
    for found in _TOKEN.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0][0], 0)
        deepest = max(depth, deepest)
    return deepest
