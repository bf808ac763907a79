"""Where a data set's files come from: a folder, an archive, a download."""

import http.server
import json
import shutil
import sys
import tarfile
import threading
import types
import zipfile
from pathlib import Path

import pytest

from mtl_jax.data import datasets, fetch, nyud
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
def server(tmp_path):
    """Serves tmp_path/www on this machine; yields the address."""
    (tmp_path / "www").mkdir()

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


def test_published_checksum(tmp_path, server):
    (tmp_path / "www" / "file.tgz").write_bytes(b"content")
    source = fetch.Download("file.tgz", f"{server}/file.tgz", sha256="0" * 64)
    with pytest.raises(ValueError, match=r"file.tgz has SHA-256 ed7002.*, published is 0000"):
        fetch.download(source, tmp_path / "dl")


def test_drive(tmp_path, monkeypatch):
    source = fetch.Download.on_drive("NYUD_MT.tgz", "abc")
    monkeypatch.setitem(sys.modules, "gdown", None)  # as if it were not installed
    with pytest.raises(OSError, match=r"(?s)drive.google.com/file/d/abc.*'mtl-jax\[drive\]'.*--manual_dir=DIR"):
        fetch.download(source, tmp_path / "dl")

    def download(id, output, resume):
        assert (id, resume) == ("abc", True)
        Path(output).write_bytes(b"content")
        return output

    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=download))
    assert fetch.download(source, tmp_path / "dl").read_bytes() == b"content"
    assert sorted(path.name for path in (tmp_path / "dl").iterdir()) == ["NYUD_MT.tgz", "NYUD_MT.tgz.json"]


def test_failed_download(tmp_path, server):
    remedy = r"cannot download NYUD_MT.tgz from http.*--config.data.manual_dir=DIR"
    (tmp_path / "www" / "page.html").write_text("<html>quota exceeded</html>")
    for name, reason in [("absent.tgz", "404"), ("page.html", "web page")]:
        with pytest.raises(OSError, match=f"(?s){reason}") as error:
            fetch.download(fetch.Download("NYUD_MT.tgz", f"{server}/{name}"), tmp_path / "dl")
        error.match(remedy)
    assert list((tmp_path / "dl").iterdir()) == []
