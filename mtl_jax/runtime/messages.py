"""Lists and sizes in messages."""

from collections.abc import Sequence

_LISTED = 20


def listing(items: Sequence[str], separator: str = ", ") -> str:
    """Some of the items, and how many more there are."""
    rest = len(items) - _LISTED
    return separator.join((*items[:_LISTED], *([f"and {rest} more"] if rest > 0 else [])))


def size_text(size: tuple[int, int]) -> str:
    """(480, 640) -> "480x640", height first."""
    return "x".join(map(str, size))
