"""Formatting of lists and sizes in messages."""

from collections.abc import Sequence

_LISTED = 20


def listing(items: Sequence[str], separator: str = ", ") -> str:
    """Joins at most 20 items, followed by the number of the other ones."""
    rest = len(items) - _LISTED
    return separator.join((*items[:_LISTED], *([f"and {rest} more"] if rest > 0 else [])))


def size_text(size: tuple[int, int]) -> str:
    """Formats a size: (480, 640) becomes "480x640", height first."""
    return "x".join(map(str, size))
