"""Downloads from servers that break off, change, stall, redirect or answer something else."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtl_jax.runtime import download
from tests.file_server import Answer, serving, wait_until

CONTENT = bytes(range(256)) * 40
OTHER = CONTENT[::-1]
TAG = {"ETag": '"one"'}
ATTEMPTS = 5


@pytest.fixture
def server(monkeypatch):
    with serving(monkeypatch) as running:
        yield running


def whole(path):
    if path.read_bytes() != CONTENT:
        raise ValueError(f"not the file, but {path.stat().st_size} bytes")


def fetch(server, folder, verify=whole, **kwargs):
    """Downloads the file, and returns its content."""
    download.retrieve(server.url, folder / "file.bin", verify, **kwargs)
    return (folder / "file.bin").read_bytes()


def names(folder):
    """Names of the files in a folder, without those of locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def starts(server):
    """The first byte that each request asks for."""
    return [int(headers.get("Range", "bytes=0-")[6:-1]) for headers in server.requests]


def test_the_whole_file(server, tmp_path):
    server.answers.append(Answer(CONTENT))
    assert fetch(server, tmp_path) == CONTENT
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.requests) == 1
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("headers", [TAG, {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}])
@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_broken_download_goes_on(server, tmp_path, headers, kind):
    chunked = kind == "chunked"
    server.answers += [Answer(CONTENT, headers=headers, cut=cut, chunked=chunked) for cut in (3000, 4000)]
    server.answers.append(Answer(CONTENT, headers=headers))
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 3000, 7000]
    assert [sent.get("If-Range") for sent in server.requests] == [None, *headers.values(), *headers.values()]
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    ("answer", "further"),
    [
        (Answer(CONTENT, headers=TAG, ranges=False), 3000),
        (Answer(CONTENT, headers={"ETag": 'W/"weak"'}), 0),  # the same for contents that are alike
        (Answer(CONTENT), 0),
        (Answer(CONTENT, headers={"ETag": '"\xe9"'}), 0),  # cannot be sent back
    ],
    ids=["ranges ignored", "weak tag", "nothing to tell a changed file by", "not ASCII"],
)
def test_a_download_that_cannot_go_on_starts_anew(server, tmp_path, answer, further):
    server.answers += [Answer(CONTENT, headers=answer.headers, cut=3000), answer]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, further]


def test_a_file_that_changes_meanwhile_starts_anew(server, tmp_path):
    """The server has an older file at the first attempt."""
    server.answers += [Answer(OTHER, headers={"ETag": '"old"'}, cut=3000), Answer(CONTENT, headers=TAG)]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 3000]


class Careless(Answer):
    """A server that sends the range whatever file it belongs to."""

    def send(self, request):
        if "Range" in request.headers:
            request.headers.replace_header("If-Range", self.headers.get("ETag"))
        super().send(request)


@pytest.mark.parametrize("tells", [True, False])
def test_a_changed_file_is_never_mixed_with_the_old_one(server, tmp_path, tells, caplog):
    """Either the tag of the range tells that the file has changed, or the check of the whole does."""
    new = Careless(CONTENT, headers={"ETag": '"new"'} if tells else {})
    if not tells:
        new.send = lambda request: (request.headers.__delitem__("If-Range"), Answer.send(new, request))
    server.answers += [Answer(OTHER, headers={"ETag": '"old"'}, cut=3000), new, Answer(CONTENT)]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 3000, 0]
    assert ("has changed" if tells else "is wrong or not whole (not the file, but 10240 bytes)") in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 17-10239/10240"},
        {"Content-Range": "bytes 3000-10239/99999"},
        {"Content-Range": "nonsense"},
        {},
    ],
)
def test_another_range_than_the_one_asked_for(server, tmp_path, headers):
    wrong = Answer(CONTENT, status=206, headers=TAG | headers)
    server.answers += [Answer(CONTENT, headers=TAG, cut=3000), wrong, Answer(CONTENT, headers=TAG)]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 3000, 0]


def test_the_file_has_become_shorter(server, tmp_path):
    server.answers += [Answer(OTHER, headers=TAG, cut=3000), Answer(status=416), Answer(CONTENT)]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 3000, 0]


def test_cut_short_without_a_length(server, tmp_path):
    """Only the check of the content can tell. It is tried once more."""
    server.answers += [Answer(CONTENT, length=False, cut=3000), Answer(CONTENT, length=False)]
    assert fetch(server, tmp_path) == CONTENT
    (tmp_path / "file.bin").unlink()
    del server.answers[1:]
    with pytest.raises(ValueError, match="not the file, but 3000 bytes"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []
    assert len(server.requests) == 4


def test_attempts_end_and_the_next_call_goes_on(server, tmp_path, caplog):
    server.answers += [Answer(CONTENT, headers=TAG, cut=1000)] * ATTEMPTS
    with pytest.raises(download.DownloadError) as error:
        fetch(server, tmp_path)
    part = tmp_path / "incomplete.file.bin"
    assert str(error.value) == (
        f"cannot download file.bin from {server.url}: the connection broke after 5000 of 10240 bytes; 5 attempts have "
        f"failed. 5000 of 10240 bytes are in {part}; the next download goes on there"
    )
    assert sum("attempt" in record.getMessage() for record in caplog.records) == ATTEMPTS - 1
    server.answers.append(Answer(CONTENT, headers=TAG))
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 1000, 2000, 3000, 4000, 5000]
    assert names(tmp_path) == ["file.bin"]


def test_attempts_end_and_nothing_useless_is_kept(server, tmp_path):
    server.answers.append(Answer(CONTENT, cut=1000))
    with pytest.raises(download.DownloadError, match=r"after 1000 of 10240 bytes; 5 attempts have failed$"):
        fetch(server, tmp_path)
    assert len(server.requests) == ATTEMPTS
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server, tmp_path, status):
    server.answers += [Answer(status=status), Answer(CONTENT)]
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [204, 206, 403, 404])
def test_other_answers_are_final(server, tmp_path, status):
    server.answers.append(Answer(status=status))
    with pytest.raises(download.DownloadError, match=f"cannot download file.bin from http.*{status}"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_a_server_that_is_not_there(tmp_path, server):
    server.url = "http://127.0.0.1:9/file.bin"
    with pytest.raises(download.DownloadError, match=r"refused.*; 5 attempts have failed$"):
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/x", "http://127.0.0.1/x", "file:///etc/hosts", "data:,x", "https:/[", "https://["]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_lead_to_https_only(server, tmp_path, monkeypatch, url, status):
    server.answers.append(Answer(status=status, headers={"Location": url}))
    monkeypatch.setattr(download, "_check_scheme", one_http(server.url))
    with pytest.raises(
        download.DownloadError, match=r"redirects to .*; only addresses https://\.\.\. are fetched|Invalid IPv6"
    ):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def one_http(url):
    """The check of addresses as users have it, but for one address."""
    original = download._check_scheme

    def check(asked, who=""):
        if asked != url:
            with pytest.MonkeyPatch.context() as context:
                context.setattr(download, "_SCHEMES", ("https",))
                original(asked, who)

    return check


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http://127.0.0.1/x", "file:///etc/hosts", "x", "https:/x", ""])
def test_only_https_is_fetched(tmp_path, url):
    with pytest.raises(
        download.DownloadError, match=r"cannot download x from .*; only addresses https://\.\.\. are fetched"
    ):
        download.retrieve(url, tmp_path / "x", whole)


def test_a_permitted_redirect_keeps_the_range(server, tmp_path):
    away = Answer(status=302, headers={"Location": server.url})
    server.answers += [away, Answer(CONTENT, headers=TAG, cut=3000), away, Answer(CONTENT, headers=TAG)]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 0, 3000, 3000]


def test_a_web_page_instead_of_the_file(server, tmp_path):
    server.answers.append(Answer(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"}))
    with pytest.raises(download.DownloadError, match="a web page instead of the file"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []


def test_a_stalled_server(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.05)
    server.answers += [Answer(CONTENT, headers=TAG, wait=60), Answer(CONTENT, headers=TAG)]
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0, 10]


def test_a_server_that_trickles(server, tmp_path, monkeypatch):
    """Each byte comes in time, all together would take for ever."""
    clock = iter(range(10**6))
    monkeypatch.setattr(download.time, "monotonic", lambda: next(clock) * 100.0)
    server.answers.append(Answer(CONTENT, headers=TAG, wait=0.01))
    with pytest.raises(download.DownloadError, match=r"the server sent 10 bytes in 100 seconds; 5 attempts"):
        fetch(server, tmp_path)


def test_a_wrong_file_is_not_kept(server, tmp_path):
    server.answers.append(Answer(OTHER, headers=TAG))
    with pytest.raises(ValueError, match="not the file"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("length", [True, False])
def test_too_large(server, tmp_path, length):
    server.answers.append(Answer(CONTENT, headers=TAG, length=length))
    with pytest.raises(download.DownloadError, match=r"more than 5000|larger than 5000 bytes"):
        fetch(server, tmp_path, limit=5000)
    assert names(tmp_path) == []
    assert fetch(server, tmp_path, limit=len(CONTENT)) == CONTENT


def test_a_full_disk_is_seen_before(server, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**6, 0, 10000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: usage)
    server.answers += [Answer(CONTENT, headers=TAG), Answer(CONTENT[:10000], headers=TAG)]
    with pytest.raises(download.DownloadError, match=r"10240 bytes are missing and .* has room for 10000; free disk"):
        fetch(server, tmp_path)
    assert names(tmp_path) == []
    assert fetch(server, tmp_path, verify=lambda path: None) == CONTENT[:10000]


def test_a_disk_that_fills_up_keeps_what_has_arrived(server, tmp_path, monkeypatch):
    copy = download._copy

    def full(response, file, *args):
        file.write(response.read1(4000))
        file.flush()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_copy", full)
    server.answers.append(Answer(CONTENT, headers=TAG))
    with pytest.raises(download.DownloadError, match=r"No space left on device\. \d+ of 10240 bytes are in"):
        fetch(server, tmp_path)
    monkeypatch.setattr(download, "_copy", copy)
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server)[0] == 0
    assert starts(server)[1] > 0


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"url": "URL", "validator": "", "total": null}',
        b'{"url": "URL", "validator": "x\\r\\nHost: y", "total": 10240}',
        b'{"url": "URL", "validator": "\\"one\\"", "total": "10240"}',
        b'{"url": "URL", "validator": "\\"one\\"", "total": 5}',
        b'{"url": "https://elsewhere", "validator": "\\"one\\"", "total": 10240}',
    ],
)
def test_a_note_that_says_nothing_usable(server, tmp_path, note):
    """The file was put there by something else, or the note is damaged."""
    (tmp_path / "incomplete.file.bin").write_bytes(OTHER[:3000])
    (tmp_path / "incomplete.file.bin.json").write_bytes(note.replace(b"URL", server.url.encode()))
    server.answers.append(Answer(CONTENT, headers=TAG))
    assert fetch(server, tmp_path) == CONTENT
    assert starts(server) == [0]
    assert names(tmp_path) == ["file.bin"]


def test_what_older_versions_left_behind(server, tmp_path):
    """It goes once it is old: an older version may still write a new one."""
    ours, new, others = (
        tmp_path / f"incomplete.{name}" for name in ("0123abcd.file.bin", "12345678.file.bin", "0123abcd.other.bin")
    )
    for path in (ours, new, others):
        path.write_bytes(b"x")
        os.utime(path, (0, 0) if path != new else None)
    server.answers.append(Answer(CONTENT))
    fetch(server, tmp_path)
    assert names(tmp_path) == ["file.bin", others.name, new.name]


KILLED = """
import sys
from pathlib import Path
from mtl_jax.runtime import download
download._SCHEMES = ("http",)
download.retrieve(sys.argv[1], Path(sys.argv[2]), lambda path: None)
"""


def test_a_killed_process(server, tmp_path):
    """Its lock is free, and the next process goes on where it was."""
    server.answers += [Answer(CONTENT, headers=TAG, wait=60), Answer(CONTENT, headers=TAG)]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, server.url, str(tmp_path / "file.bin")],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.DEVNULL,
    )
    part = tmp_path / "incomplete.file.bin"
    try:
        wait_until(lambda: len(server.requests) == 1 and part.exists())
    finally:
        process.kill()
        process.wait()
    assert names(tmp_path) == ["incomplete.file.bin", "incomplete.file.bin.json"]
    assert fetch(server, tmp_path) == CONTENT
    assert names(tmp_path) == ["file.bin"]


def test_killed_before_the_new_name(server, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    def dying(path):
        raise KilledError

    server.answers.append(Answer(CONTENT, headers=TAG))
    with pytest.raises(KilledError):
        fetch(server, tmp_path, verify=dying)
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.requests) == 1
    assert names(tmp_path) == ["file.bin"]


def test_several_at_once_download_once(server, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    server.answers.append(Answer(CONTENT, wait=0.2))
    barrier = threading.Barrier(4)

    def one(_):
        barrier.wait(timeout=60)
        return fetch(server, tmp_path)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == [CONTENT] * 4
    assert len(server.requests) == 1
    assert sum("waiting for it" in record.getMessage() for record in caplog.records) == 3


def test_a_file_put_there_by_hand(server, tmp_path):
    """It is verified, and what a download left behind goes."""
    server.answers.append(Answer(CONTENT, headers=TAG, cut=1000))
    with pytest.raises(download.DownloadError):
        fetch(server, tmp_path)
    (tmp_path / "file.bin").write_bytes(CONTENT)
    assert fetch(server, tmp_path) == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert len(server.requests) == ATTEMPTS
    (tmp_path / "file.bin").write_bytes(OTHER)
    with pytest.raises(ValueError, match="not the file"):
        fetch(server, tmp_path)
    assert names(tmp_path) == ["file.bin"]


def test_pauses_grow(server, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(download, "_PAUSE", 1.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    server.answers.append(Answer(status=503))
    with pytest.raises(download.DownloadError, match="503"):
        fetch(server, tmp_path)
    assert pauses == [1, 2, 4, 8]
