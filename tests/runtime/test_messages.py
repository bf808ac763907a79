"""Text of messages: names from files, and disks that are full."""

import errno
import os

import pytest

from mtl_jax.runtime import messages

# Colour, return, line break, bell, delete, C1 control (CSI), right-to-left override and isolate, line separator, byte
# that is no UTF-8.
HOSTILE = "a\x1b[31m\r\n\a\x7f\x9b2J\u202etxt\u2066\u2028\udcff.png"


def test_characters_that_control_a_terminal_are_escaped():
    assert messages.printable(HOSTILE) == (
        r"a\x1b[31m\r\n\x07\x7f\x9b2J\u202etxt\u2066\u2028\udcff.png"  # as repr writes them
    )
    assert messages.printable("naïve Straße 道路 ± Δ_m ↑") == "naïve Straße 道路 ± Δ_m ↑"


def test_a_line_break_in_a_name_begins_no_message():
    assert messages.paragraph("1 file:\na\nerror: all is well\x07") == "1 file:\n  a\n  error: all is well\\x07"
    assert messages.listing(["a\nb", "c"]) == r"a\nb, c"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", r"\=1+1"),
        ("+1", r"\+1"),
        ("  -1", r"  \-1"),
        ("@SUM(A1)", r"\@SUM(A1)"),
        ("a-b_c@d", "a-b_c@d"),
        ("a|b", r"a\|b"),
        ("<script>", r"\<script\>"),
        ("[x](y)`*", r"\[x\](y)\`\*"),
        ("a\nb\x1b", r"a\\nb\\x1b"),
    ],
)
def test_a_cell_is_neither_markup_nor_a_formula(text, cell):
    assert messages.markdown_cell(text) == cell


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "another one"),
        (errno.EFBIG, "ulimit"),
    ],
)
def test_a_full_disk_is_explained(code, remedy):
    error = OSError(code, os.strerror(code), "/data/results.json")
    text = messages.explain(error)
    assert text.startswith(f"cannot write /data/results.json: {os.strerror(code)}; ")
    assert remedy in text
    assert text.endswith("run the same command again")
    for raised, place in ((error, "/data/results.json"), (OSError(code, os.strerror(code)), "/given")):
        with pytest.raises(messages.WriteError) as caught, messages.writing("the report", "/given"):
            raise raised
        assert str(caught.value) == text.replace("/data/results.json", f"the report, {place}")
        assert caught.value.errno == code
        assert messages.explain(caught.value) == str(caught.value)


def test_the_reason_in_the_text_of_another_library_is_explained():
    text = "write() failed: No space left on device; writing /data/x.array_record; at byte 4096"
    with pytest.raises(messages.WriteError) as caught, messages.writing("the data set x", "/data"):
        raise RuntimeError(text)
    assert str(caught.value).startswith("cannot write the data set x, /data: No space left on device; free space")


def test_the_reason_of_the_error_before_is_explained():
    before = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x")
    with (
        pytest.raises(messages.WriteError, match="cannot write the set, /data/x: No space") as caught,
        messages.writing("the outer set", "/data"),
        messages.writing("the set", "/data"),
    ):
        raise OSError("Failed to finalize") from before
    assert caught.value.__cause__.__cause__ is before


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
        RuntimeError("No space left in the queue"),
        OSError("the server does not answer"),
        OSError(errno.ENOSPC, "No inotify watches are left"),
    ],
)
def test_other_errors_stay_as_they_are(error):
    assert messages.explain(error) == str(error)
    with pytest.raises(type(error)) as caught, messages.writing("the report", "/given"):
        raise error
    assert caught.value is error
