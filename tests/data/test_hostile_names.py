"""Names of files and ids that would control a terminal, in what a build says."""

import pytest

from tests.data import own_folder


def test_the_list_of_problems_can_be_shown_in_a_terminal(tmp_path):
    key = "a\x1b[31m\a\x9b2J\u202e"
    root = own_folder.write(
        tmp_path / "raw", "[tasks.sal]\n", {"sal.png": b"no picture"}, {"train": [key, "b"], "val": ["c"]}
    )
    with pytest.raises(ValueError, match="problem"):
        own_folder.build(root, tmp_path / "tfds")
    (path,) = (tmp_path / "tfds").rglob("problems.txt")
    text = path.read_text(encoding="utf-8")
    assert r"sal/a\x1b[31m\x07\x9b2J\u202e.png" in text
    assert all(line.isprintable() for line in text.split("\n"))
