import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mtl_jax import weights
from mtl_jax.backbones import hrnet, resnet
from mtl_jax.weights import pretrained
from tests.file_server import Answer, serving

ARRAYS = {"conv1.weight": np.ones((2, 3), np.float32), "layer1.0.bias": np.zeros(3, np.float32)}
CLASSIFIER = {"fc.weight": np.ones(3, np.float32), "incre_modules.0.0.conv1.weight": np.ones(2, np.float32)}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server of one file, and an empty cache; yields (server, content, path in the cache)."""
    weights.write_arrays(tmp_path / "x.npz", ARRAYS | CLASSIFIER)
    content = (tmp_path / "x.npz").read_bytes()
    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.npz"
    monkeypatch.setenv("MTL_JAX_CACHE", str(tmp_path / "cache"))
    with serving(monkeypatch) as server:
        server.url = f"{server.url}/{name}"
        monkeypatch.setitem(pretrained._PUBLISHED, "resnet18", server.url)
        server.answers.append(Answer(content))
        yield server, content, tmp_path / "cache" / name


def names(folder):
    """Names of the files in a folder, without those of locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18_dilated"])
def test_downloads_once(published, backbone):
    server, _, cached = published
    for _ in range(2):
        arrays = weights.read_pretrained("imagenet", backbone)
        assert arrays.keys() == ARRAYS.keys()
        np.testing.assert_array_equal(arrays["conv1.weight"], ARRAYS["conv1.weight"])
        assert names(cached.parent) == [cached.name]
    assert len(server.requests) == 1


def test_says_what_to_fetch_without_a_network(published):
    server, _, cached = published
    server.answers[:] = [Answer(status=404)]
    with pytest.raises(OSError, match="cannot download") as error:
        weights.read_pretrained("imagenet", "resnet18_dilated")
    message = str(error.value)
    for part in (
        f"fetch {server.url} by other means and put it at {cached}",
        "weights of resnet18_dilated",
        "--model.pretrained=PATH",
        "--model.pretrained=",
    ):
        assert part in message
    assert names(cached.parent) == []


def test_a_file_put_there_is_used_and_verified(published):
    server, content, cached = published
    cached.parent.mkdir()
    cached.write_bytes(content)
    cached.parent.chmod(0o500)  # a cache that others share
    assert weights.read_pretrained("imagenet", "resnet18").keys() == ARRAYS.keys()
    cached.write_bytes(content[:-1])
    found = hashlib.sha256(content[:-1]).hexdigest()
    with pytest.raises(ValueError, match=rf"begins with {cached.stem[-8:]}, found {found}") as error:
        weights.read_pretrained("imagenet", "resnet18")
    assert str(cached) in str(error.value)
    assert server.requests == []
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    cached.parent.chmod(0o700)  # pytest removes it


@pytest.mark.parametrize("length", [True, False])
def test_a_wrong_download_is_not_kept(published, length):
    """Nor one cut short by a server that does not say how long it is."""
    server, content, cached = published
    server.answers[:] = [Answer(b"another file" if length else content[:-1], length=length)]
    with pytest.raises(ValueError, match=rf"begins with {cached.stem[-8:]}, found"):
        weights.read_pretrained("imagenet", "resnet18")
    assert names(cached.parent) == []


def test_processes_that_start_together_download_once(published):
    server, content, cached = published
    server.answers[:] = [Answer(content, wait=0.2)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: weights.read_pretrained("imagenet", "resnet18"), range(4)))
    assert all(arrays.keys() == ARRAYS.keys() for arrays in results)
    assert names(cached.parent) == [cached.name]
    assert len(server.requests) == 1


@pytest.mark.parametrize("suffix", weights.WRITABLE)
def test_a_file_of_the_user(tmp_path, suffix):
    arrays = {f"module.{name}": value for name, value in (ARRAYS | CLASSIFIER).items()}
    weights.write_arrays(tmp_path / f"x{suffix}", arrays)
    assert weights.read_pretrained(str(tmp_path / f"x{suffix}"), "any").keys() == ARRAYS.keys()
    with pytest.raises(FileNotFoundError, match=r"model\.pretrained is .*none\.npz.* no such file"):
        weights.read_pretrained(str(tmp_path / "none.npz"), "any")


def test_unknown_backbones_are_refused():
    with pytest.raises(ValueError, match=r"no ImageNet weights are known for backbone 'vgg' \(known: resnet18, "):
        weights.read_pretrained("imagenet", "vgg")


def test_the_table():
    """Every HRNet and ResNet has a file, whose name tells eight digits of its checksum."""
    for name in (*hrnet.VARIANTS, *resnet.VARIANTS):
        url = pretrained._PUBLISHED[name.removesuffix("_dilated")]
        digits = Path(url).stem.rpartition("-")[-1]
        assert url.startswith("https://")
        assert len(digits) == 8
        int(digits, 16)
