"""Files that ask for much memory or time. One process with little memory reads them all."""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
_READ = """
import json, resource, sys
from mtl_jax import weights
pages = int(open("/proc/self/statm").read().split()[0])
memory = pages * resource.getpagesize() + 512 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
messages = {}
for path in sys.argv[1:]:
    try:
        messages[path] = {name: value.shape for name, value in weights.read_arrays(path).items()}
    except ValueError as error:
        messages[path] = str(error)
print(json.dumps(messages))
"""
_DEEP = 200_000


def _torch(pickle, storage=bytes(16), mode=zipfile.ZIP_STORED, names=("archive/data/0",)):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", mode) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + pickle + b".")
        for name in names:
            archive.writestr(name, storage)
    return file.getvalue()


def _number(n):
    data = n.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _tensor(*, offset=0, shape=4, stride=1, size=4, key=b"0"):
    storage = b"((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0" + key + b"X\3\0\0\0cpu" + _number(size) + b"tQ"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n"
        + storage
        + b"".join([_number(offset), _number(shape), b"\x85", _number(stride), b"\x85\x89NtR"])
    )


def _named(*tensors):
    return b"}(" + b"".join(b"X\1\0\0\0" + bytes([97 + i]) + tensor for i, tensor in enumerate(tensors)) + b"u"


def _claims(data, member, size):
    """An archive whose directory claims another size of a member."""
    place = data.index(b"PK\1\2", data.index(b"PK\1\2") if member == "data.pkl" else data.rindex(b"PK\1\2"))
    return data[: place + 20] + struct.pack("<II", size, size) + data[place + 28 :]


def _overlapping(members, size):
    """An archive whose storages are the same bytes."""
    data = _torch(_named(*(_tensor(size=size >> 2, key=b"%d" % i) for i in range(members))), bytes(size))
    keys = [f"archive/data/{i}".encode() for i in range(1, members)]
    start = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    entry, end = data[start : data.index(b"PK\5\6")], data[data.index(b"PK\5\6") :]
    added = b"".join(entry.replace(b"archive/data/0", key) for key in keys)
    head, _, tail = end[:8], end[8:16], end[16:]
    directory = struct.unpack("<I", end[12:16])[0] + len(added)
    return data[: start + len(entry)] + added + head + struct.pack("<HHI", members + 1, members + 1, directory) + tail


def _safetensors(header, numbers=bytes(16), length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def _place(start, stop, shape=(4,)):
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


def _npy(count, numbers=b""):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count,)})
    return file.getvalue() + numbers


def _npz(*members, mode=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", mode) as archive:
        for i, data in enumerate(members):
            archive.writestr(f"{i}.npy", data)
    return file.getvalue()


_HUGE = 3 << 30  # bytes
_NO_SAFETENSORS = "cannot be read as safetensors: "  # what follows are the words of the safetensors package
FILES = {
    "good.pth": (_torch(_named(_tensor())), {"a": [4]}),
    "good.safetensors": (_safetensors({"a": _place(0, 16)}), {"a": [4]}),
    "good.npz": (_npz(_npy(4, bytes(16))), {"0": [4]}),
    # The content of the pickle.
    "lists.pth": (
        _torch(b"]q\0" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60))),
        "holds list of 2 instead of named arrays",
    ),
    "legacy_lists.pth": (
        b"\x80\x02]q\0" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(60)) + b".",
        "it begins with list of 2 and not with torch's number",
    ),
    "key.pth": (_torch(b"})" + b"2\x86" * 60 + b"K\1s"), "holds tuple of 2: 1 instead of named arrays"),
    "deep_key.pth": (_torch(b"})" + b"\x85" * _DEEP + b"K\1s"), "holds tuple of 1: 1 instead of named arrays"),
    "deep.pth": (_torch(b"]" * _DEEP + b"a" * (_DEEP - 1)), "holds list of 1 instead of named arrays"),
    "deep_entries.pth": (
        _torch(b"}X\5\0\0\0model" * _DEEP + b"}" + b"s" * _DEEP),
        "holds 'model': dict of 1 instead of named arrays",
    ),
    "cycle.pth": (_torch(b"}q\0X\5\0\0\0modelh\0s"), "holds 'model': dict of 1 instead of named arrays"),
    "memo.pth": (_torch(b"]r\xff\xff\xff\x7f"), "its pickle numbers a value 2147483647"),
    "bytes.pth": (_torch(b"\x8e" + struct.pack("<Q", 2**62)), "expected 4611686018427387904 bytes"),
    "legacy_bytes.pth": (b"\x80\x02B" + struct.pack("<I", _HUGE) + b"x.", "expected 3221225472 bytes in a bytes4"),
    # Descriptions of tensors.
    "repeated.pth": (_torch(_named(_tensor(shape=_HUGE // 4, stride=0))), "it asks for 3221225472 bytes"),
    "many.pth": (
        _torch(_named(*[_tensor(shape=2**20, stride=0)] * 24)),
        "it asks for 100663296 bytes, and a file of",
    ),
    "short.pth": (_torch(_named(_tensor(shape=5))), "'a' of shape (5,) reaches beyond its storage of 4 elements"),
    "small.pth": (_torch(_named(_tensor(size=5))), "storage '0' has 16 bytes instead of 20"),
    "negative.pth": (_torch(_named(_tensor(offset=-1))), "it describes a tensor as (Storage, -1, tuple of 1"),
    "far.pth": (_torch(_named(_tensor(offset=2**62))), "it describes a tensor as (Storage, 4611686018427387904"),
    # Members of archives.
    "storage.pth": (
        _claims(_torch(_named(_tensor(size=_HUGE // 4))), "data/0", _HUGE),
        "it asks for 3221225472 bytes",
    ),
    "pickle.pth": (_claims(_torch(_named(_tensor())), "data.pkl", _HUGE), "it asks for 3221225472 bytes"),
    "deflated.pth": (
        _torch(_named(_tensor(size=2**25)), bytes(2**27), zipfile.ZIP_DEFLATED),
        "it asks for 134217728 bytes",
    ),
    "lzma.pth": (_torch(_named(_tensor()), mode=zipfile.ZIP_LZMA), "compressed by another method than deflate"),
    "overlapping.pth": (_overlapping(9, 2**24), "it asks for 150994944 bytes"),
    "claim.npz": (_npz(_npy(_HUGE // 4)), "header of '0.npy' claims 3221225472 bytes of numbers, and there are 0"),
    "deflated.npz": (
        _npz(_npy(2**25, bytes(2**27)), mode=zipfile.ZIP_DEFLATED),
        "it asks for 134217856 bytes, and a file of",
    ),
    "lzma.npz": (_npz(_npy(4, bytes(16)), mode=zipfile.ZIP_LZMA), "compressed by another method than deflate"),
    # Headers of safetensors files.
    "length.safetensors": (_safetensors({"a": _place(0, 16)}, length=2**62), _NO_SAFETENSORS),
    "long.bin": (_safetensors({"a": _place(0, 16)}, length=_HUGE), _NO_SAFETENSORS),
    "longer.safetensors": (_safetensors({"a": _place(0, 16)}, length=1000), _NO_SAFETENSORS),
    "nested.safetensors": (_safetensors(b'{"a":' + b"[" * _DEEP), _NO_SAFETENSORS),
    "range.safetensors": (_safetensors({"a": _place(0, 32, [8])}), _NO_SAFETENSORS),
    "negative.safetensors": (_safetensors({"a": _place(-16, 0)}), _NO_SAFETENSORS),
    "overlapping.safetensors": (_safetensors({"a": _place(0, 16), "b": _place(8, 24)}), _NO_SAFETENSORS),
    "shape.safetensors": (_safetensors({"a": _place(0, 16, [2**40])}), _NO_SAFETENSORS),
    "product.safetensors": (_safetensors({"a": _place(0, 16, [2**40, 2**40])}), _NO_SAFETENSORS),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{name of the file: shapes of its arrays, or the message}"""
    folder = tmp_path_factory.mktemp("hostile")
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)
    process = subprocess.run(
        [sys.executable, "-c", _READ, *(str(folder / name) for name in FILES)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return {Path(path).name: result for path, result in json.loads(process.stdout).items()}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of a process as Linux does")
@pytest.mark.parametrize("name", FILES)
def test_files_are_refused_in_little_memory(results, name):
    wanted = FILES[name][1]
    if isinstance(wanted, str):
        assert wanted in results[name]
        assert name in results[name]
    else:
        assert results[name] == wanted
