"""Reading of zip archives whose members may claim any size."""

import zipfile
from pathlib import Path

_FACTOR, _FLOOR = 4, 64 * 2**20
_END, _END_SIZE = b"PK\5\6", 22  # beginning and size of the record at the end, without the comment


def allowance(path: Path) -> int:
    """Returns how many bytes the arrays of a file may take: 64 MiB, and four times the size of the file.

    Arrays take more than their file where it is compressed, where tensors share numbers, and where bfloat16 becomes
    float32. All of these stay below the allowance in files of trained weights.
    """
    return _FACTOR * path.stat().st_size + _FLOOR


def check_allowance(size: int, path: Path) -> None:
    """Checks the size that arrays or members of a file take.

    Args:
        size: Their size in bytes.
        path: The file.

    Raises:
        ValueError: The size exceeds the file's allowance.
    """
    if size > (allowed := allowance(path)):
        raise ValueError(
            f"it asks for {size} bytes, and a file of {path.stat().st_size} bytes may hold at most {allowed} bytes of "
            "arrays"
        )


def check_count(archive: zipfile.ZipFile, path: Path) -> None:
    """Checks that a zip archive has as many members as the record at its end says.

    A wrong length in the table of members makes zipfile skip the members behind it, without an error.

    Args:
        archive: The archive.
        path: The file of the archive.

    Raises:
        zipfile.BadZipFile: There are more or fewer members.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_SIZE - len(archive.comment)))
        end = file.read(_END_SIZE)
    counted = int.from_bytes(end[10:12], "little")
    # With 65535 the number is in another record. Archives with something behind the end are left alone.
    if end[:4] == _END and counted != 0xFFFF and counted != len(archive.infolist()):
        raise zipfile.BadZipFile(f"it lists {len(archive.infolist())} members, and its end says {counted}")


def read_member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    """Returns the content of a member, which is stored or deflated.

    Args:
        archive: The archive.
        name: Name of the member.
        path: The file of the archive, for its allowance.

    Raises:
        KeyError: The archive has no such member.
        ValueError: The member is larger than the allowance, is shorter than it claims, or is compressed otherwise.
        zipfile.BadZipFile, zlib.error, EOFError: The archive is damaged.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {name!r:.80} is compressed by another method than deflate")
    check_allowance(info.file_size, path)
    with archive.open(info) as member:
        content = member.read(info.file_size)  # with a size, nothing is decompressed beyond it
    if len(content) != info.file_size:
        raise ValueError(f"its member {name!r:.80} has {len(content)} bytes instead of {info.file_size}")
    return content
