"""Reading of pickles that nobody vouches for, without importing or calling anything that they name.

A pickle is a program for a small stack machine, and Python's own machine calls every function that a pickle names. The
machine in this module executes the same operations on plain values. The caller says what a few names stand for. Every
other name becomes a placeholder, an `Unknown`: calling it, setting its state and filling it have no effect.

The length of a pickle bounds the time and the memory that the machine takes. No operation walks through a nested value,
none hashes anything but short text, and the number of operations has a limit.
"""

import mmap
import pickletools
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, cast

_MAX_OPERATIONS = 5_000_000  # a checkpoint of 10 000 tensors with the state of Adam has 1.3 million
_MAX_KEY = 1000  # characters of a key
_SHOWN = 80  # characters of a text that a message shows
_DICTIONARIES = ("collections.OrderedDict", "collections.defaultdict")
# Operations whose argument is the value that they push.
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


class Unknown:
    """A placeholder for an object that is not read.

    Attributes:
        name: Name of the object's class or function, for messages.
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name[:_SHOWN]


class Function(NamedTuple):
    """A function that a pickle may call."""

    call: Callable[..., Any]


def load(source: IO[bytes] | mmap.mmap, known: Mapping[str, Any], persistent: Callable[[Any], Any]) -> Any:
    """Reads one pickle, and nothing after it.

    Numbers, text, bytes, lists, tuples and dictionaries are read as such, ordered dictionaries as dictionaries, and
    sets as lists. A key of a dictionary that is no text, or a very long one, becomes an `Unknown`.

    Args:
        source: The file, at the beginning of the pickle. Its `read` must not reserve more memory than what is left of
            the file; those of `io.BytesIO` and `mmap.mmap` do not.
        known: {"module.name": what the name stands for}. A `Function` is called where the pickle calls the name.
        persistent: Function that returns the object of a persistent id.

    Raises:
        ValueError, LookupError, TypeError, OverflowError: The pickle is damaged, or it has too many operations.
    """
    return _Machine(known, persistent).run(source)


def describe(value: Any) -> str:
    """Returns a few words about a value from a pickle, however large and deep it is."""
    match value:
        case Unknown():
            return value.name
        case str():
            return repr(value[:_SHOWN])
        case dict() | list() | tuple() if type(value) in (dict, list, tuple):
            return f"{type(value).__name__} of {len(value)}"
        case int() if not isinstance(value, bool) and value.bit_length() < 64:
            return str(value)
    return type(value).__name__


class _Machine:
    """The machine that executes a pickle: a stack, the stacks below the marks, and a memo of numbered values."""

    def __init__(self, known: Mapping[str, Any], persistent: Callable[[Any], Any]):
        self.known, self.persistent = known, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.left = _MAX_OPERATIONS

    def run(self, source: IO[bytes] | mmap.mmap) -> Any:
        for opcode, argument, _ in pickletools.genops(cast(IO[bytes], source)):
            self.charge(1)
            if opcode.name in _VALUES:
                self.stack.append(argument)
            else:
                self.execute(opcode.name, argument)
        return self.stack.pop()

    def charge(self, operations: int) -> None:
        self.left -= operations
        if self.left < 0:
            raise ValueError(f"it has more than {_MAX_OPERATIONS} operations")

    def execute(self, operation: str, argument: Any) -> None:
        stack = self.stack
        match operation:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.put(argument)
            case "MEMOIZE":
                self.put(len(self.memo))
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "MARK":
                self.below.append(stack)
                self.stack = []
            case "TUPLE":
                items = self.above_mark()
                self.stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(operation[-1])
                stack[-size:] = [tuple(self.top(size))]
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "LIST" | "FROZENSET":
                items = self.above_mark()
                self.stack.append(items)
            case "DICT":
                items = self.above_mark()
                self.stack.append({})
                self.fill(items)
            case "APPEND":
                self.extend([stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.above_mark())
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self.fill([key, value])
            case "SETITEMS":
                self.fill(self.above_mark())
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation == "NEWTRUE")
            case "BINPERSID" | "PERSID":
                stack.append(self.persistent(stack.pop() if operation == "BINPERSID" else argument))
            case "GLOBAL":
                stack.append(self.named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self.named(module, name))
            case "REDUCE" | "NEWOBJ":
                arguments, function = stack.pop(), stack.pop()
                stack.append(self.called(function, arguments))
            case "NEWOBJ_EX":
                _, arguments, function = stack.pop(), stack.pop(), stack.pop()
                stack.append(self.called(function, arguments))
            case "OBJ":
                function, *items = self.above_mark()
                self.stack.append(self.called(function, tuple(items)))
            case "INST":
                items = self.above_mark()
                self.stack.append(self.called(self.named(*argument.split(" ", 1)), tuple(items)))
            case "BUILD":
                stack.pop()  # the state of the object below it
                self.top(1)
            case "STRING" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(_python2_text(argument))
            case "EXT1" | "EXT2" | "EXT4" | "NEXT_BUFFER":
                stack.append(Unknown(f"an object of the pickle operation {operation}"))
            case "POP":
                self.pop()
            case "POP_MARK":
                self.above_mark()
            case "DUP":
                stack.append(stack[-1])
            case "PROTO" | "FRAME" | "STOP" | "READONLY_BUFFER":
                pass
            case _:
                raise ValueError(f"it has the unknown pickle operation {operation}")

    def top(self, size: int) -> list[Any]:
        if len(self.stack) < size:
            raise ValueError("its pickle takes more from the stack than there is")
        return self.stack[-size:]

    def pop(self) -> None:
        """Removes the top of the stack, which is the mark itself where nothing lies above it."""
        if self.stack:
            self.stack.pop()
        else:
            self.above_mark()

    def above_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, number: int) -> None:
        if not 0 <= number < _MAX_OPERATIONS:
            raise ValueError(f"its pickle numbers a value {describe(number)}")
        self.memo[number] = self.stack[-1]

    def extend(self, items: list[Any]) -> None:
        """Appends to the list on top of the stack."""
        match self.stack[-1]:
            case list() as target:
                target.extend(items)
            case Unknown():
                pass
            case other:
                raise ValueError(f"its pickle appends to {describe(other)}")

    def fill(self, items: list[Any]) -> None:
        """Stores keys and values, which alternate, in the dictionary on top of the stack."""
        match self.stack[-1]:
            case dict() as target:
                for key, value in zip(items[::2], items[1::2], strict=True):
                    target[_key(key)] = value
            case Unknown():
                pass
            case other:
                raise ValueError(f"its pickle stores items in {describe(other)}")

    def named(self, module: Any, name: Any) -> Any:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError(f"its pickle names {describe(module)}, {describe(name)} instead of a module and a name")
        full = f"{module[:_SHOWN]}.{name[:_SHOWN]}"
        return _Dictionary if full in _DICTIONARIES else self.known.get(full, Unknown(full))

    def called(self, function: Any, arguments: Any) -> Any:
        if function is _Dictionary:
            return self.dictionary(arguments)
        if isinstance(function, Function) and isinstance(arguments, tuple):
            return function.call(*arguments)
        return Unknown(describe(function))

    def dictionary(self, arguments: Any) -> dict[Any, Any]:
        """Returns a new dictionary. Python 2 gives an OrderedDict its pairs as an argument."""
        match arguments:
            case (list() as pairs,):
                self.charge(len(pairs))
                return {_key(key): value for key, value in pairs}
        return {}


class _Dictionary:
    """A placeholder for the names of classes of dictionaries."""


def _key(key: Any) -> Any:
    """Returns a key that is hashed fast, whatever the pickle holds."""
    return key if isinstance(key, str) and len(key) <= _MAX_KEY else Unknown(describe(key))


def _python2_text(argument: str) -> str:
    """Returns text that Python 2 has pickled as bytes. pickletools reads them as Latin-1."""
    try:
        return argument.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return argument
