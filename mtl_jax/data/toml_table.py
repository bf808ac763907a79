"""Tables of TOML files: entries that fit, and the faults of those that do not."""

import math
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any


class Table:
    """A reader of the entries of a TOML table that collects the faults of all entries.

    Args:
        content: The table.
        where: Text before the name of an entry in a fault, for example "tasks.depth.".
        problems: List that receives the faults.
    """

    def __init__(self, content: Any, where: str, problems: list[str]):
        self._content = dict(content) if isinstance(content, dict) else {}
        self._where, self._problems = where, problems
        if not isinstance(content, dict):
            self._add(where.removesuffix("."), content, "a table")

    def _add(self, name: str, value: Any, expected: str) -> None:
        state = "is missing" if value in (None, (), {}) else f"is {shortened(value)}"
        self._problems.append(f"{name} {state}, expected {expected}")

    def has(self, name: str) -> bool:
        """Returns True if the table has an entry that was not taken yet."""
        return name in self._content

    def take(self, name: str, default: Any, expected: str, fits: Callable[[Any], bool]) -> Any:
        """Takes an entry, and returns its value, or the default if the entry is missing or does not fit.

        Args:
            name: Name of the entry.
            default: Value of an entry that is missing. It is a fault if it does not fit.
            expected: Description of values that fit.
            fits: Function that returns True for values that fit.
        """
        value = self._content.pop(name, default)
        if not fits(value):
            self._add(f"{self._where}{name}", value, expected)
            return default
        return value

    def conflict(self, message: str) -> None:
        """Adds a fault of entries that do not go together."""
        self._problems.append(f"{self._where}{message}")

    def finish(self, known: str) -> None:
        """Adds a fault for every entry that was not taken.

        Args:
            known: Names of the entries that exist.
        """
        for name in self._content:
            self._problems.append(f"{self._where}{name} is not known; there are {known}")


def shortened(value: Any) -> str:
    """Returns a value as text for a message, cut after 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def with_tuples(value: Any) -> Any:
    """Returns a value with tuples in place of all lists in it."""
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value


# Functions that return True for values that fit.


def is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)


def is_positive(x: Any) -> bool:
    return is_number(x) and 0 < x < math.inf


def is_tables(x: Any) -> bool:
    return isinstance(x, dict) and len(x) > 0


def is_text(x: Any) -> bool:
    return isinstance(x, str) and bool(x)


def is_path(x: Any) -> bool:
    return is_text(x) and "\0" not in x and not PurePosixPath(x).is_absolute() and ".." not in PurePosixPath(x).parts


def is_split_name(x: Any) -> bool:
    return is_path(x) and "/" not in x


def is_whole(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool)


def are_whole(x: Any) -> bool:
    return is_list(x, is_whole)


def are_numbers(x: Any) -> bool:
    return is_list(x, is_number)


def is_list(x: Any, fits: Callable[[Any], bool], length: int | None = None) -> bool:
    return isinstance(x, list) and all(map(fits, x)) and length in (None, len(x))
