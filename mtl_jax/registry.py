"""Tables of things by name, which code outside of the package may extend."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")
_extensions: list[str] = []


class Registry(MutableMapping[str, Entry], Generic[Entry]):
    """A table from names to entries that grows by `register` and answers an unknown name with an error.

    `table[name] = entry` replaces an entry, which `register` refuses; `del table[name]` removes it.

    Args:
        kind: what an entry is, for error messages: "task", "backbone", "data set".
        plural: of `kind`.
        register: the public function that adds an entry, for error messages: "mtl_jax.tasks.register".
    """

    def __init__(self, kind: str, plural: str, register: str):
        self._kind, self._plural, self._register = kind, plural, register
        self._entries: dict[str, Entry] = {}

    def register(self, name: str, entry: Entry) -> Entry:
        """Adds an entry, and returns it.

        Raises:
            ValueError: the name is taken by another entry.
        """
        if self._entries.get(name, entry) != entry:
            raise ValueError(f"there is a {self._kind} {name!r} already; give yours another name")
        self._entries[name] = entry
        return entry

    def decorator(self, *names: str) -> Callable[[Any], Any]:
        """Returns a decorator that registers what it decorates under these names, and returns it unchanged.

        Raises:
            ValueError: A name is taken by another entry.
        """

        def add(entry: Any) -> Any:
            for name in names:
                self.register(name, entry)
            return entry

        return add

    def __getitem__(self, name: str) -> Entry:
        """Returns the entry of a name.

        Raises:
            ValueError: the table has no such name; the message lists those it has and says how to add one.
        """
        if name not in self._entries:
            hint = did_you_mean(str(name), self._entries, after=" ")
            raise UnknownNameError(
                f"unknown {self._kind} {name!r}; the {self._plural} are {', '.join(self._entries) or 'none'}. {hint}"
                f"{self._register} adds one, in a module that the configuration names in `imports`"
            )
        return self._entries[name]

    def __setitem__(self, name: str, entry: Entry) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self._plural}: {', '.join(self._entries)})"


def did_you_mean(name: str, known: Iterable[str], most: int = 3, *, before: str = "", after: str = "") -> str:
    """Returns a question that names what a user may have meant, "" if nothing has a similar spelling.

    Args:
        name: What the user wrote.
        known: The names that there are.
        most: Largest number of names in the question.
        before: Text before the question, if there is one.
        after: Text after the question, if there is one.
    """
    near = difflib.get_close_matches(name, list(known), most)
    return f"{before}Did you mean {' or '.join(near)}?{after}" if near else ""


class UnknownNameError(ValueError, KeyError):
    """A table has no entry of this name. It is a `KeyError`, too, as `Mapping.get` and `in` expect."""

    def __str__(self) -> str:
        return ValueError.__str__(self)


def load_extensions(modules: Iterable[str]) -> None:
    """Imports modules outside of this package that register tasks, models, data sets and so on.

    The modules are looked for where Python looks, and in the current folder. Worker processes that the package starts
    import the same modules.

    Raises:
        ValueError: a module cannot be found.
    """
    for module in modules:
        if module in _extensions:
            continue
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise  # a module that the extension imports is missing
            raise ValueError(
                f"imports names the module {module!r}, which cannot be found; it is looked for on PYTHONPATH and in "
                f"the current folder, {os.getcwd()}"
            ) from error
        _extensions.append(module)


def extensions() -> tuple[str, ...]:
    """Returns the names of the modules that `load_extensions` has imported."""
    return tuple(_extensions)
