"""Text of messages: lists, sizes, names from files, and errors of a full disk."""

import errno
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LISTED = 20
_REMEDIES = {
    errno.ENOSPC: "free space on that disk, or name a folder on another disk",
    errno.EDQUOT: "your quota there is used up: delete files of yours there, or name a folder on another disk",
    errno.EROFS: "nothing can be written to that file system: name a folder on another one",
    errno.EFBIG: "the limit on the size of a file is reached: raise the limit (ulimit -f), or name another folder",
}
_MARKDOWN = re.compile(r"[\\`*\[\]<>|]|^ *[=+\-@]")  # the second part begins a formula in a spreadsheet


class WriteError(OSError):
    """A file cannot be written; the message names the file and says what to do."""


def listing(items: Sequence[str], separator: str = ", ") -> str:
    """Joins at most 20 items, made `printable`, followed by the number of the other ones."""
    rest = len(items) - _LISTED
    return separator.join((*map(printable, items[:_LISTED]), *([f"and {rest} more"] if rest > 0 else [])))


def size_text(size: tuple[int, int]) -> str:
    """Formats a size: (480, 640) becomes "480x640", height first."""
    return "x".join(map(str, size))


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: "1 epoch", "3 epochs"."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def install(extra: str) -> str:
    """Returns the commands that install an extra of the package."""
    return f'pip install "mtl-jax[{extra}]", or in a checkout pip install -c requirements.lock -e ".[{extra}]"'


def printable(text: str) -> str:
    r"""Returns a text of one line in which escapes such as `\x1b` stand for all characters that cannot be printed.

    The characters are those that `repr` escapes: control characters, line breaks, marks that change the direction of
    text, and bytes of file names that are no UTF-8. A name from a file can thus not control a terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def paragraph(text: str) -> str:
    """Returns a text that may have several lines, each of them `printable`, all but the first one indented.

    A line break in a name can thus not begin a line that looks like a message of its own.
    """
    return "\n  ".join(map(printable, text.split("\n")))


def markdown_cell(text: str) -> str:
    """Returns a text as the cell of a table in Markdown, which shows the text as it is.

    Characters that begin markup or HTML, or that would make a formula of the cell in a spreadsheet, have a backslash.
    """
    return _MARKDOWN.sub(lambda match: rf"{match[0][:-1]}\{match[0][-1]}", printable(text))


def explain(error: Exception) -> str:
    """Returns the message of an error. For a disk that is full or read-only, the message also says what to do."""
    code = _code(error) if isinstance(error, OSError) else None
    return str(error) if code is None else _cannot_write(getattr(error, "filename", None) or "a file", code)


@contextmanager
def writing(what: str, path: str | Path) -> Iterator[None]:
    """Explains the errors of a disk that is full or read-only inside of the `with` block.

    Args:
        what: What is being written, for example "the log".
        path: The file or the folder; an error that names a file itself takes its place.

    Raises:
        WriteError: The disk is full or read-only, or the quota is used up. Other errors are raised as they are.
    """
    try:
        yield
    except WriteError:
        raise
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and _code(cause) is None:
            cause = cause.__cause__  # TFDS puts an error without a number in front of the system's
        if cause is None or (code := _code(cause)) is None:
            raise
        explained = WriteError(_cannot_write(f"{what}, {getattr(cause, 'filename', None) or path}", code))
        explained.errno = code
        raise explained from error


@contextmanager
def dropped(logger: logging.Logger, text: str) -> Iterator[None]:
    """Keeps the messages of a logger that begin with a text from everybody, inside of the `with` block.

    Args:
        logger: Logger of a library that offers no other way.
        text: Beginning of the messages.
    """

    def others(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(text)

    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


@contextmanager
def warnings_only(part: str) -> Iterator[None]:
    """Keeps notes of a part of the package out of the log, inside of the `with` block; warnings stay.

    Args:
        part: Name of the part's logger, for example "mtl_jax.weights".
    """
    logger = logging.getLogger(part)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _code(error: BaseException) -> int | None:
    """Returns the number of an error of the system that has a remedy, or None."""
    if isinstance(error, OSError):
        # An error with another text than the system's has been explained already.
        code = error.errno if error.errno in _REMEDIES else None
        return code if code is not None and error.strerror == os.strerror(code) else None
    # Libraries in C++, such as ArrayRecord, tell the reason in the text alone.
    return next((code for code in _REMEDIES if os.strerror(code) in str(error)), None)


def _cannot_write(what: str, code: int) -> str:
    return f"cannot write {what}: {os.strerror(code)}; {_REMEDIES[code]}, and run the same command again"
