"""The comparison that all checks use."""

from typing import Any

import chex


def check_close(actual: Any, expected: Any, message: str, tolerance: float = 1e-5) -> None:
    """Raises AssertionError with `message` unless two pytrees are equal up to a relative and absolute tolerance."""
    chex.assert_trees_all_close(actual, expected, rtol=tolerance, atol=tolerance, custom_message=message)
