"""Archives that are cut short, damaged or hostile."""

import gzip
import io
import random
import stat
import tarfile
import zipfile
from collections import namedtuple

import numpy as np
import pytest

from mtl_jax.data import archives

CONTENTS = {"a/one.txt": b"one" * 400, "a/b/two.bin": np.random.default_rng(0).bytes(2000), "three": b""}
SUFFIXES = (".tgz", ".tar", ".zip", ".tar.gz")


def tar_member(name, content=b"", **fields):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in fields.items():
        setattr(member, key, value)
    return member, io.BytesIO(content)


def write_tar(path, members):
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for member, content in members:
            archive.addfile(member, content)
    return path


def write(path, contents=CONTENTS):
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return path
    return write_tar(path, [tar_member(*item) for item in contents.items()])


def unpacked(path):
    """{name: content} of what the archive unpacks to."""
    into = path.parent / f"{path.name}.into"
    into.mkdir(exist_ok=True)
    archives.unpack(path, into)
    return {str(each.relative_to(into)): each.read_bytes() for each in into.rglob("*") if each.is_file()}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_archives(tmp_path, suffix):
    path = write(tmp_path / f"x{suffix}")
    archives.check(path)
    assert unpacked(path) == CONTENTS


@pytest.mark.parametrize("compression", ["bz2", "xz"])
def test_other_compressions(tmp_path, compression):
    path = tmp_path / "x.tar"
    with tarfile.open(path, f"w:{compression}") as archive:
        archive.addfile(*tar_member("one", b"content"))
    archives.check(path)
    assert unpacked(path) == {"one": b"content"}


def test_times_are_kept(tmp_path):
    """A build that goes on knows files by their times."""
    path = write_tar(tmp_path / "x.tgz", [tar_member("one", b"content", mtime=10**9)])
    unpacked(path)
    assert (tmp_path / "x.tgz.into" / "one").stat().st_mtime == 10**9


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cut_short(tmp_path, suffix):
    """At any place: a tar archive without its end looks whole to tarfile if it is cut between two members."""
    data = write(tmp_path / f"x{suffix}").read_bytes()
    path = tmp_path / f"cut{suffix}"
    whole = len(data)
    if suffix == ".tar":
        whole = len(data.rstrip(b"\0")) + 512  # what follows only fills it up
    places = [0, 1, 512, 1024, whole - 513, whole - 1, *random.Random(0).sample(range(whole), 30)]
    for length in filter(lambda length: 0 <= length < whole, places):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f"cut{suffix} is no whole archive: "):
            archives.check(path)
        with pytest.raises(ValueError, match=f"cannot unpack .*cut{suffix}: .*; get the archive again, or free disk"):
            unpacked(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged(tmp_path, suffix):
    """Unpacking ends with the error or with the right contents, whatever byte is changed."""
    data = write(tmp_path / f"x{suffix}").read_bytes()
    rng = random.Random(1)
    refused = 0
    for number in range(60):
        content = bytearray(data)
        place = rng.randrange(len(data) if suffix != ".tar" else 512)  # the contents of a tar have no checksum
        content[place] ^= 1 << rng.randrange(8)
        path = tmp_path / f"{number}{suffix}"
        path.write_bytes(content)
        try:
            archives.check(path)
        except ValueError:
            refused += 1
            continue
        assert set(unpacked(path).values()) == set(CONTENTS.values())
    assert refused > 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "../x"}, r"\.\. in its name"),
        ({"name": "a/../../x"}, r"\.\. in its name"),
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "/etc"}, "absolute path"),
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "../.."}, "outside the destination"),
        ({"name": "l", "type": tarfile.SYMTYPE, "linkname": "a/../../.."}, "its link 'l' leads to"),
        ({"name": "l", "type": tarfile.LNKTYPE, "linkname": "../x"}, "outside the destination"),
        ({"name": "p", "type": tarfile.FIFOTYPE}, "special file"),
        ({"name": "d", "type": tarfile.CHRTYPE}, "special file"),
        ({"name": "d", "type": tarfile.BLKTYPE}, "special file"),
    ],
)
def test_what_leaves_the_folder_of_a_tar_is_refused(tmp_path, fields, message):
    path = write_tar(tmp_path / "x.tgz", [tar_member("good", b"content"), tar_member(**fields)])
    for action in (archives.check, unpacked):
        with pytest.raises(ValueError, match=message):
            action(path)


def test_links_inside_are_kept(tmp_path):
    link = tar_member("a/link", type=tarfile.SYMTYPE, linkname="../b/file")
    hard = tar_member("hard", type=tarfile.LNKTYPE, linkname="b/file")
    path = write_tar(tmp_path / "x.tgz", [tar_member("b/file", b"content"), link, hard])
    archives.check(path)
    assert unpacked(path) == dict.fromkeys(("b/file", "a/link", "hard"), b"content")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "link/file"},
        {"name": "./link/file"},
        {"name": "other", "type": tarfile.SYMTYPE, "linkname": "link/b"},
        {"name": "c/other", "type": tarfile.SYMTYPE, "linkname": "../link/b"},
        {"name": "other", "type": tarfile.LNKTYPE, "linkname": "link/b"},
    ],
)
def test_paths_through_links_are_refused(tmp_path, fields):
    """Chains of links have misled Python's own check."""
    link = tar_member("link", type=tarfile.SYMTYPE, linkname="a")
    path = write_tar(tmp_path / "x.tgz", [tar_member("a/b", b""), link, tar_member(**fields)])
    for action in (archives.check, unpacked):
        with pytest.raises(ValueError, match=r"passes through the link 'link'"):
            action(path)


def zip_member(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("../x", "lies outside of the folder"),
        ("/etc/x", "lies outside of the folder"),
        ("a/../../x", "lies outside of the folder"),
        ("..\\x", "lies outside of the folder"),
        ("C:\\x", "lies outside of the folder"),
        (zip_member("link", stat.S_IFLNK | 0o777), "a link or special file"),
        (zip_member("pipe", stat.S_IFIFO | 0o777), "a link or special file"),
    ],
)
def test_what_leaves_the_folder_of_a_zip_is_refused(tmp_path, member, message):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good", b"content")
        archive.writestr(member, b"/etc/passwd")
    for action in (archives.check, unpacked):
        with pytest.raises(ValueError, match=message):
            action(path)
    assert list((tmp_path / "x.zip.into").iterdir()) == []


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_bombs(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(archives, "_FLOOR", 1000)
    ordinary = np.random.default_rng(0).bytes(2000)
    bomb = write(tmp_path / f"bomb{suffix}", {"ordinary": ordinary, "zeros": bytes(10**6)})
    for action in (archives.check, unpacked):
        with pytest.raises(ValueError, match=r"it unpacks to more than \d+ bytes, the most that is permitted"):
            action(bomb)
    assert not (tmp_path / f"bomb{suffix}.into" / "zeros").exists()
    archives.check(write(tmp_path / f"x{suffix}", {"ordinary": ordinary}))


def test_zeros_behind_the_end_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_FLOOR", 1000)
    path = tmp_path / "x.tgz"
    plain = write(tmp_path / "x.tar").read_bytes()
    path.write_bytes(gzip.compress(plain + bytes(10**6)))
    with pytest.raises(ValueError, match="it unpacks to more than"):
        archives.check(path)


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_too_many_members(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(archives, "_MEMBERS", 2)
    for action in (archives.check, unpacked):
        with pytest.raises(ValueError, match="it has more than 2 members"):
            action(write(tmp_path / f"x{suffix}"))
    archives.check(write(tmp_path / f"y{suffix}", {"one": b"", "two": b""}))


@pytest.mark.parametrize("suffix", [".tgz", ".zip"])
def test_no_more_than_the_disk_has_room_for(tmp_path, monkeypatch, suffix):
    usage = namedtuple("usage", "total used free")(10**6, 0, 1500)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    path = write(tmp_path / f"x{suffix}")
    archives.check(path)
    with pytest.raises(ValueError, match=r"it unpacks to more than 1500 bytes, the free space for .*; get .* or free"):
        unpacked(path)


def test_headers_that_memory_cannot_hold_are_not_read(tmp_path):
    """The extended header of a member may be as long as it says."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 2 * archives._LONGEST
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(ValueError, match=r"a header of it claims 33554432 bytes"):
        archives.check(path)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_negative_sizes(tmp_path, kind):
    """They would lead back to the header before, for ever."""
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, -512
    path = tmp_path / "x.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(ValueError, match=r"claims -512 bytes"):
        archives.check(path)


def test_encrypted(tmp_path):
    path = write(tmp_path / "x.zip", {"one": b"content"})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the header of the member, and in the table at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is no whole archive: .*encrypted"):
        archives.check(path)
