"""Where a data set's files come from: a folder, an archive, a download."""

import hashlib
import http.server
import json
import shutil
import sys
import tarfile
import threading
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mtl_jax.data import datasets, fetch, nyud
from mtl_jax.runtime import download
from tests.file_server import Answer, serving
from tests.nyud_release import IDS, build, write


@pytest.mark.parametrize("layout", ["itself", "inside", ".tgz", ".tar", ".zip", "given.tgz"])
def test_manual_dir(tmp_path, layout):
    folder = write(tmp_path / "raw", "survey")
    if layout in ("itself", "inside"):
        manual = folder if layout == "itself" else folder.parent
    else:
        manual = tmp_path / "manual"
        manual.mkdir()
        if layout == ".zip":
            with zipfile.ZipFile(manual / "NYUD_MT.zip", "w") as archive:
                for path in folder.rglob("*"):
                    archive.write(path, path.relative_to(folder.parent))
        else:
            path = manual / f"NYUD_MT{layout}"
            with tarfile.open(path, "w:gz" if layout.endswith(".tgz") else "w") as archive:
                archive.add(folder, "NYUD_MT")
            manual = path if layout == "given.tgz" else manual
    builder = build("survey", tmp_path / "tfds", manual)
    assert {split: builder.info.splits[split].num_examples for split in IDS} == {"train": 3, "val": 2}
    shutil.rmtree(tmp_path / "raw")
    again = build("survey", tmp_path / "tfds", None)  # built: the files are not needed any more
    assert len(datasets.open_split(again, "train")) == 3


def test_manual_dir_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere, given as manual_dir, is neither a folder nor an archive"):
        build("astmt", tmp_path / "tfds", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no NYUD_MT files in .*Download NYUD_MT\.tgz from https"):
        build("astmt", tmp_path / "tfds", tmp_path / "empty")
    (tmp_path / "empty" / "NYUD_MT.tgz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"cannot unpack .*NYUD_MT\.tgz"):
        build("astmt", tmp_path / "tfds", tmp_path / "empty")
    damaged = tmp_path / "damaged.tgz"
    with tarfile.open(damaged, "w:gz") as archive:
        archive.add(write(tmp_path / "raw", "survey"), "NYUD_MT")
    data = damaged.read_bytes()
    damaged.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cannot unpack .*damaged\.tgz"):
        build("survey", tmp_path / "tfds", damaged)


def test_archive_of_something_else(tmp_path):
    with tarfile.open(tmp_path / "NYUD_MT.tgz", "w:gz") as archive:
        archive.add(write(tmp_path / "raw", "survey"), "nyu")
    with pytest.raises(
        FileNotFoundError, match=r"NYUD_MT.tgz holds nyu, expected NYUD_MT with gt_sets in it; give the"
    ):
        build("survey", tmp_path / "tfds", tmp_path / "NYUD_MT.tgz")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves tmp_path/www on this machine; yields the address."""
    (tmp_path / "www").mkdir()
    monkeypatch.setattr(download, "_SCHEMES", ("http",))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "www"))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_download(tmp_path, server, monkeypatch):
    folder = write(tmp_path / "raw", "survey")
    with tarfile.open(tmp_path / "www" / "NYUD_MT.tgz", "w:gz") as archive:
        archive.add(folder, "NYUD_MT")
    config = next(c for c in nyud.NyudMt.BUILDER_CONFIGS if c.name == "survey_subset")
    monkeypatch.setattr(config, "source", fetch.Download("NYUD_MT.tgz", f"{server}/NYUD_MT.tgz"))
    builder = build("survey", tmp_path / "tfds", None)
    assert len(datasets.open_split(builder, "train")) == 3
    (note,) = (tmp_path / "tfds" / "downloads").rglob("NYUD_MT.tgz.json")
    file = note.with_suffix("")
    assert json.loads(note.read_text())["sha256"] == fetch.sha256(file)

    file.write_bytes(file.read_bytes()[:-1])
    shutil.rmtree(tmp_path / "tfds" / "nyud_mt")
    with pytest.raises(ValueError, match=r"has SHA-256 .* but NYUD_MT.tgz.json beside it records"):
        build("survey", tmp_path / "tfds", None)


def test_default_manual_folder_of_others_is_no_matter(tmp_path, server, monkeypatch):
    """tfds' own folder for files by hand may be there for another data set; then the archive is downloaded."""
    (tmp_path / "tfds" / "downloads" / "manual").mkdir(parents=True)
    folder = write(tmp_path / "raw", "survey")
    with tarfile.open(tmp_path / "www" / "NYUD_MT.tgz", "w:gz") as archive:
        archive.add(folder, "NYUD_MT")
    config = next(c for c in nyud.NyudMt.BUILDER_CONFIGS if c.name == "survey_subset")
    monkeypatch.setattr(config, "source", fetch.Download("NYUD_MT.tgz", f"{server}/NYUD_MT.tgz"))
    assert len(datasets.open_split(build("survey", tmp_path / "tfds", None), "train")) == 3


def archive(folder):
    """A whole archive of one file."""
    path = folder / "archive"
    with tarfile.open(path, "w:gz") as written:
        written.addfile(tarfile.TarInfo("empty"))
    return path.read_bytes()


def names(folder):
    """Names of the files in a folder, without those of locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_published_checksum(tmp_path, server):
    """A file of another checksum is not kept; one that lies there is left to the user."""
    content = archive(tmp_path)
    (tmp_path / "www" / "file.tgz").write_bytes(content)
    source = fetch.Download("file.tgz", f"{server}/file.tgz", sha256="0" * 64)
    with pytest.raises(
        ValueError, match=r"file.tgz from http.* has SHA-256 [0-9a-f]{64}, published is 0000.* not kept"
    ):
        fetch.download(source, tmp_path / "dl")
    assert names(tmp_path / "dl") == []
    (tmp_path / "dl" / "file.tgz").write_bytes(content)
    with pytest.raises(ValueError, match=r"dl/file.tgz has SHA-256 .*, published is 0000.* Delete the file"):
        fetch.download(source, tmp_path / "dl")
    assert names(tmp_path / "dl") == ["file.tgz"]
    right = fetch.Download("file.tgz", f"{server}/file.tgz", sha256=hashlib.sha256(content).hexdigest())
    assert fetch.download(right, tmp_path / "dl").read_bytes() == content


@pytest.mark.parametrize("length", [True, False])
def test_a_download_cut_short_is_not_recorded(tmp_path, monkeypatch, length):
    """Neither if the server says how long it is, nor if it does not."""
    content = archive(tmp_path)
    with serving(monkeypatch) as running:
        source = fetch.Download("file.tgz", running.url)
        running.answers.append(Answer(content, cut=len(content) - 4, length=length))
        with pytest.raises((OSError, ValueError), match=r"(broke after|no whole archive: ).*--manual_dir=DIR"):
            fetch.download(source, tmp_path / "dl")
        assert names(tmp_path / "dl") == []
        running.answers[:] = [Answer(content, length=length)]
        assert fetch.download(source, tmp_path / "dl").read_bytes() == content
        assert names(tmp_path / "dl") == ["file.tgz", "file.tgz.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n<!DOCTYPE html><title>Google Drive - Quota exceeded</title>", "it is a web page instead of the file"),
        (b"content", "no whole archive"),
        (b"", "no whole archive"),
    ],
)
@pytest.mark.parametrize("file", ["file.tgz", "file.zip"])
def test_something_else_than_an_archive_is_not_recorded(tmp_path, server, content, message, file):
    """Whatever type the server says it has."""
    (tmp_path / "www" / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"the download from http.* was not kept: .*{message}.*--manual_dir=DIR"):
        fetch.download(fetch.Download(file, f"{server}/{file}"), tmp_path / "dl")
    assert names(tmp_path / "dl") == []


def test_a_file_put_into_the_folder_of_downloads_is_checked_before_its_checksum_is_recorded(tmp_path):
    source = fetch.Download("file.tgz", "https://nowhere.invalid/file.tgz")
    (tmp_path / "dl").mkdir()
    (tmp_path / "dl" / "file.tgz").write_bytes(archive(tmp_path)[:-4])
    with pytest.raises(ValueError, match=r"file.tgz is no whole archive"):
        fetch.download(source, tmp_path / "dl")
    assert names(tmp_path / "dl") == ["file.tgz"]
    (tmp_path / "dl" / "file.tgz").write_bytes(archive(tmp_path))
    fetch.download(source, tmp_path / "dl")
    assert names(tmp_path / "dl") == ["file.tgz", "file.tgz.json"]


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b'{"url": "x"}', b"7"])
def test_a_damaged_record_of_a_checksum(tmp_path, content):
    source = fetch.Download("file.tgz", "https://nowhere.invalid/file.tgz")
    (tmp_path / "dl").mkdir()
    (tmp_path / "dl" / "file.tgz").write_bytes(archive(tmp_path))
    (tmp_path / "dl" / "file.tgz.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"file.tgz.json, the record of the checksum of file.tgz, is damaged .*; delete"
    ):
        fetch.download(source, tmp_path / "dl")


def test_several_at_once(tmp_path, monkeypatch):
    content = archive(tmp_path)
    with serving(monkeypatch) as running, ThreadPoolExecutor(4) as pool:
        running.answers.append(Answer(content, wait=0.1))
        source = fetch.Download("file.tgz", running.url)
        paths = list(pool.map(lambda _: fetch.download(source, tmp_path / "dl"), range(4)))
        assert paths == [tmp_path / "dl" / "file.tgz"] * 4
        assert len(running.requests) == 1
    assert names(tmp_path / "dl") == ["file.tgz", "file.tgz.json"]


def test_what_a_killed_process_left_unpacked_goes(tmp_path):
    (tmp_path / "file.tgz").write_bytes(archive(tmp_path))
    for name in ("incomplete.file.tgz.0123", "incomplete.other.tgz.4567"):
        (tmp_path / "into" / name / "folder").mkdir(parents=True)
    for _ in range(2):
        folder = fetch.extract(tmp_path / "file.tgz", tmp_path / "into")
        assert list((tmp_path / "into").iterdir()) == [folder]
        assert names(folder) == ["empty"]


def test_drive(tmp_path, monkeypatch):
    source = fetch.Download.on_drive("NYUD_MT.tgz", "abc")
    monkeypatch.setitem(sys.modules, "gdown", None)  # as if it were not installed
    with pytest.raises(OSError, match=r"(?s)drive.google.com/file/d/abc.*mtl-jax\[drive\].*--manual_dir=DIR"):
        fetch.download(source, tmp_path / "dl")
    served = [b"<html>Quota exceeded</html>", archive(tmp_path)]

    def download(id, output, resume):
        assert (id, resume) == ("abc", True)
        Path(output).write_bytes(served.pop(0))
        return output

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))
    with pytest.raises(ValueError, match=r"drive.google.com.* was not kept: .* a web page instead .*--manual_dir=DIR"):
        fetch.download(source, tmp_path / "dl")
    assert names(tmp_path / "dl") == []
    assert fetch.download(source, tmp_path / "dl").read_bytes() == archive(tmp_path)
    assert names(tmp_path / "dl") == ["NYUD_MT.tgz", "NYUD_MT.tgz.json"]


def test_failed_download(tmp_path, server):
    remedy = r"cannot download NYUD_MT.tgz from http.*--data.manual_dir=DIR"
    (tmp_path / "www" / "page.html").write_text("<html>quota exceeded</html>")
    for name, reason in [("absent.tgz", "404"), ("page.html", "web page")]:
        with pytest.raises(OSError, match=f"(?s){reason}") as error:
            fetch.download(fetch.Download("NYUD_MT.tgz", f"{server}/{name}"), tmp_path / "dl")
        error.match(remedy)
    assert names(tmp_path / "dl") == []
