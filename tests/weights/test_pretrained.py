import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mtl_jax import backbones, weights
from mtl_jax.weights import pretrained

ARRAYS = {"conv1.weight": np.ones((2, 3), np.float32), "layer1.0.bias": np.zeros(3, np.float32)}
CLASSIFIER = {"fc.weight": np.ones(3, np.float32), "incre_modules.0.0.conv1.weight": np.ones(2, np.float32)}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server's folder with one file, and an empty cache; returns (file, path in the cache)."""
    (tmp_path / "www").mkdir()
    weights.write_arrays(tmp_path / "www" / "x.npz", ARRAYS | CLASSIFIER)
    digest = hashlib.sha256((tmp_path / "www" / "x.npz").read_bytes()).hexdigest()
    file = (tmp_path / "www" / "x.npz").rename(tmp_path / "www" / f"resnet18-{digest[:8]}.npz")
    monkeypatch.setitem(pretrained._PUBLISHED, "resnet18", file.as_uri())
    monkeypatch.setenv("MTL_JAX_CACHE", str(tmp_path / "cache"))
    return file, tmp_path / "cache" / file.name


@pytest.mark.parametrize("backbone", ["resnet18", "resnet18_dilated"])
def test_downloads_once(published, backbone):
    file, cached = published
    for _ in range(2):
        arrays = weights.read_pretrained("imagenet", backbone)
        assert arrays.keys() == ARRAYS.keys()
        np.testing.assert_array_equal(arrays["conv1.weight"], ARRAYS["conv1.weight"])
        assert list(cached.parent.iterdir()) == [cached]
        file.unlink(missing_ok=True)


def test_says_what_to_fetch_without_a_network(published):
    file, cached = published
    file.unlink()
    with pytest.raises(OSError, match="cannot download") as error:
        weights.read_pretrained("imagenet", "resnet18_dilated")
    message = str(error.value)
    for part in (
        f"fetch {file.as_uri()} by other means and put it at {cached}",
        "weights of resnet18_dilated",
        "--config.model.pretrained=PATH",
        "--config.model.pretrained=",
    ):
        assert part in message
    assert list(cached.parent.iterdir()) == []


def test_a_file_put_there_is_used_and_verified(published):
    file, cached = published
    content = file.read_bytes()
    file.unlink()
    cached.parent.mkdir()
    cached.write_bytes(content)
    assert weights.read_pretrained("imagenet", "resnet18").keys() == ARRAYS.keys()
    cached.write_bytes(content[:-1])
    found = hashlib.sha256(content[:-1]).hexdigest()
    with pytest.raises(ValueError, match=rf"begins with {file.stem[-8:]}, found {found}") as error:
        weights.read_pretrained("imagenet", "resnet18")
    assert str(cached) in str(error.value)


def test_a_wrong_download_is_not_kept(published):
    file, cached = published
    file.write_bytes(b"another file")
    with pytest.raises(ValueError, match=rf"begins with {file.stem[-8:]}, found"):
        weights.read_pretrained("imagenet", "resnet18")
    assert list(cached.parent.iterdir()) == []


def test_processes_that_start_together_do_not_disturb_each_other(published, monkeypatch):
    _, cached = published
    barrier, verify = threading.Barrier(4), pretrained.sha256

    def wait(path):
        barrier.wait(timeout=60)  # all have downloaded, none has finished
        return verify(path)

    monkeypatch.setattr(pretrained, "sha256", wait)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: weights.read_pretrained("imagenet", "resnet18"), range(4)))
    assert all(arrays.keys() == ARRAYS.keys() for arrays in results)
    assert list(cached.parent.iterdir()) == [cached]


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
    """Every backbone has a file, whose name tells eight digits of its checksum."""
    for name in backbones.BACKBONES:
        url = pretrained._PUBLISHED[name.removesuffix("_dilated")]
        digits = Path(url).stem.rpartition("-")[-1]
        assert url.startswith("https://")
        assert len(digits) == 8
        int(digits, 16)
