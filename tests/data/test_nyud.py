"""The NYUD builder on small data sets in the layouts of both releases."""

import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import types
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from mtl_jax.boundaries import label_boundary
from mtl_jax.data import datasets, fetch, nyud, records

H, W = 48, 64
IDS = {"train": ["0003", "0001", "0002"], "val": ["0010", "0011"]}
SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "nyud_samples"


def frame(seed):
    """image, semseg (raw ids), depth, normals (unit), edge (0/1)"""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(H, W, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=2, keepdims=True)
    return {
        "image": cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (W, H)),
        "semseg": rng.integers(0, 41, (H, W), dtype=np.uint8),
        "depth": rng.uniform(0, 9, (H, W)).astype(np.float32),
        "normals": normals,
        "edge": rng.integers(0, 2, (H, W), dtype=np.uint8),
    }


def encode(suffix, x):
    success, data = cv2.imencode(suffix, x[..., ::-1] if x.ndim == 3 else x)
    assert success
    return data.tobytes()


def mat(**arrays):
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


def npy(x):
    file = io.BytesIO()
    np.save(file, x)
    return file.getvalue()


def files_of(release, x):
    """{folder with suffix: bytes}"""
    files = {"images.jpg": encode(".jpg", x["image"])}
    if release == "astmt":
        coded = np.clip(np.rint((x["normals"] + 1) * 127.5), 0, 255).astype(np.uint8)
        return files | {
            "segmentation.mat": mat(segmentation=x["semseg"]),
            "depth.mat": mat(depth=x["depth"]),
            "normals.jpg": encode(".jpg", coded),
            "edge.png": encode(".png", x["edge"] * 255),
        }
    return files | {
        "segmentation.png": encode(".png", x["semseg"]),
        "depth.npy": npy(x["depth"]),
        "normals.npy": npy(x["normals"]),
        "edge.npy": npy(x["edge"].astype(np.float32)),
    }


def write(root, release, ids=IDS, frames=frame):
    """Writes NYUD_MT below `root` and returns that folder."""
    folder = root / "NYUD_MT"
    (folder / "gt_sets").mkdir(parents=True)
    for split, names in ids.items():
        (folder / "gt_sets" / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            for key, data in files_of(release, frames(int(name))).items():
                kind, suffix = key.split(".")
                path = folder / kind / f"{name}.{suffix}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
    return folder


def build(release, data_dir, manual_dir):
    return datasets.prepare(f"nyud_mt/{release}_subset", data_dir, manual_dir)


@pytest.mark.parametrize("release", ["astmt", "survey"])
def test_values(tmp_path, release):
    write(tmp_path / "raw", release)
    builder = build(release, tmp_path / "tfds", tmp_path / "raw")
    for split, names in IDS.items():
        source = datasets.open_split(builder, split)
        assert len(source) == len(names)
        seen = set()
        for i in range(len(source)):
            got = records.decode(source[i], ("semseg", "normals", "edge", "depth"))
            want = frame(int(got["id"]))
            seen.add(got["id"])
            jpeg = files_of(release, want)["images.jpg"]
            assert bytes(source[i]["image"]) == jpeg
            np.testing.assert_array_equal(got["image"], records.decode_image(jpeg, 3))
            semseg = np.where(want["semseg"] == 0, 255, want["semseg"].astype(int) - 1)
            np.testing.assert_array_equal(got["semseg"][..., 0], semseg)
            np.testing.assert_array_equal(got["depth"][..., 0], want["depth"])
            np.testing.assert_array_equal(got["edge"][..., 0], want["edge"])
            if release == "survey":
                np.testing.assert_array_equal(got["normals"], want["normals"])
            else:
                coded = records.decode_image(files_of(release, want)["normals.jpg"], 3)
                np.testing.assert_allclose(got["normals"], coded * (2 / 255) - 1, atol=1e-6)
            both_sides = label_boundary(want["edge"])
            np.testing.assert_array_equal(source.boundary(i, source.sample(i, ("edge",), "nyud")["edge"]), both_sides)
            assert (both_sides != want["edge"]).any()
        assert seen == set(names)


def test_features_and_names():
    assert [config.name for config in nyud.NyudMt.BUILDER_CONFIGS] == [
        "astmt",
        "survey",
        "astmt_subset",
        "survey_subset",
    ]
    survey = tfds.builder("nyud_mt/survey", data_dir="unused")
    default = tfds.builder("nyud_mt", data_dir="unused")
    assert default.builder_config.name == "astmt"
    assert default.info.file_format.value == "array_record"
    assert list(default.info.features) == ["id", "image", "semseg", "depth", "normals", "edge"]
    assert default.info.features["normals"].np_dtype == np.uint8
    assert survey.info.features["normals"].np_dtype == np.float32
    assert default.builder_config.counts == {"train": 795, "val": 654}


def test_no_tensorflow(tmp_path):
    write(tmp_path / "raw", "survey")
    code = (
        "import sys; from mtl_jax.data import datasets\n"
        f"b = datasets.prepare('nyud_mt/survey_subset', {str(tmp_path / 'tfds')!r}, {str(tmp_path / 'raw')!r})\n"
        "datasets.open_split(b, 'val')[0]\n"
        "assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], capture_output=True)


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


def replace(name, data):
    def edit(folder):
        path = folder / name
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return edit


SEG = frame(1)["semseg"]
NAN = np.where(np.arange(W) == 5, np.nan, frame(1)["depth"])
JPEG = files_of("astmt", frame(1))["images.jpg"]
FAULTS = {
    "missing": ("astmt", replace("depth/0001.mat", None), "depth/0001.mat is missing"),
    "key": ("astmt", replace("depth/0001.mat", mat(other=NAN)), r"0001.mat: no key 'depth'; the file has: other"),
    "mat": ("astmt", replace("segmentation/0001.mat", b"nonsense"), "segmentation/0001.mat: not a readable .mat file"),
    "nan": ("astmt", replace("depth/0001.mat", mat(depth=NAN)), f"depth/0001.mat: {H} values are NaN"),
    "nan npy": ("survey", replace("depth/0001.npy", npy(NAN)), f"depth/0001.npy: {H} values are NaN"),
    "npy": ("survey", replace("normals/0001.npy", b""), "normals/0001.npy: not a readable .npy file"),
    "shape": ("survey", replace("normals/0001.npy", npy(NAN)), r"shape \(48, 64\), expected \[H, W, 3\]"),
    "size": (
        "survey",
        replace("edge/0001.npy", npy(np.zeros((H, W - 1)))),
        "edge/0001.npy: size 48x63, the image is 48x64",
    ),
    "edge values": ("survey", replace("edge/0001.npy", npy(NAN * 0 + 7)), "NaN|expected 0 to 1"),
    "ids": ("astmt", replace("segmentation/0001.mat", mat(segmentation=SEG + 100)), "class ids .* from 0 .void. to 40"),
    "fraction": ("astmt", replace("segmentation/0001.mat", mat(segmentation=SEG / 2)), "class ids 0.5, 1.5"),
    "truncated": ("astmt", replace("images/0001.jpg", JPEG[:400]), r"images/0001.jpg: the JPEG ends early \(400 bytes"),
    "no image": ("astmt", replace("images/0001.jpg", b"x" * 99), "images/0001.jpg: it is no image"),
    "empty file": ("astmt", replace("edge/0001.png", b""), "edge/0001.png: it is empty"),
    "duplicate": ("astmt", replace("gt_sets/val.txt", b"0010\n0001\n"), "id '0001' is listed more than once"),
    "empty split": ("astmt", replace("gt_sets/val.txt", b"\n"), "gt_sets/val.txt lists no image"),
    "no list": ("astmt", replace("gt_sets/val.txt", None), "gt_sets/val.txt is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path, fault):
    release, edit, message = FAULTS[fault]
    edit(write(tmp_path / "raw", release))
    with pytest.raises(ValueError, match=message):
        build(release, tmp_path / "tfds", tmp_path / "raw")
    builder = tfds.builder(f"nyud_mt/{release}_subset", data_dir=tmp_path / "tfds")
    assert not builder.is_prepared()
    with pytest.raises(FileNotFoundError, match="not built"):
        datasets.open_split(builder, "train")


def test_all_faults_in_one_error(tmp_path):
    folder = write(tmp_path / "raw", "astmt")
    for name in ("depth/0001.mat", "edge/0002.png", "images/0010.jpg"):  # the last in another split
        (folder / name).unlink()
    replace("segmentation/0011.mat", mat(segmentation=SEG + 100))(folder)
    with pytest.raises(ValueError, match="4 problem") as error:
        build("astmt", tmp_path / "tfds", tmp_path / "raw")
    for name in ("depth/0001.mat", "edge/0002.png", "images/0010.jpg", "segmentation/0011.mat"):
        assert name in str(error.value)


def test_long_lists_are_cut(tmp_path):
    folder = write(tmp_path / "raw", "astmt", {"train": [f"{i:04}" for i in range(25)], "val": ["0100"]})
    shutil.rmtree(folder / "depth")
    with pytest.raises(ValueError, match=r"26 problem(?s:.)*0019.mat is missing\n  and 6 more, listed in ") as error:
        build("astmt", tmp_path / "tfds", tmp_path / "raw")
    listed = Path(str(error.value).rpartition("listed in ")[2]).read_text().splitlines()
    assert listed == [f"depth/{i:04}.mat is missing" for i in (*range(25), 100)]


def test_full_release_checks_counts_and_size(tmp_path):
    write(tmp_path / "raw", "astmt")
    with pytest.raises(ValueError, match="lists 3 images, expected 795") as error:
        datasets.prepare("nyud_mt/astmt", tmp_path / "tfds", tmp_path / "raw")
    assert "size 48x64, expected 480x640" in str(error.value)


def run_dying(tmp_path, module, function, at):
    """Builds in a process that dies when it calls a function for the `at`-th time."""
    code = (
        f"import os; from mtl_jax.data import datasets, nyud, {module} as module\n"
        f"original, seen = module.{function}, []\n"
        "def dying(*args):\n"
        "    seen.append(args)\n"
        f"    if len(seen) == {at}: os._exit(9)\n"
        "    return original(*args)\n"
        f"module.{function} = dying\n"
        f"datasets.prepare('nyud_mt/survey_subset', {str(tmp_path / 'tfds')!r}, {str(tmp_path / 'raw')!r}, 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True)
    assert result.returncode == 9, result.stderr.decode()
    assert not tfds.builder("nyud_mt/survey_subset", data_dir=tmp_path / "tfds").is_prepared()


def test_killed_build_is_not_complete(tmp_path):
    """A process that dies while writing leaves nothing that is read as the data set, and the next build works."""
    write(tmp_path / "raw", "survey")
    run_dying(tmp_path, "staging", "pickle.loads", 2)  # the second split is being written
    folder = tmp_path / "tfds" / "nyud_mt" / "survey_subset"
    assert any("incomplete" in name for name in os.listdir(folder))
    builder = build("survey", tmp_path / "tfds", tmp_path / "raw")
    assert len(datasets.open_split(builder, "train")) == 3
    assert os.listdir(folder) == ["1.1.0"]
    assert list((tmp_path / "tfds" / "staging").iterdir()) == []


def test_killed_build_is_continued(tmp_path, monkeypatch):
    """What was read before is not read again, unless its files have changed."""
    ids = {"train": [f"{i:04}" for i in range(40)], "val": ["0100"]}
    folder = write(tmp_path / "raw", "survey", ids)
    run_dying(tmp_path, "nyud", "_read_record", 36)  # in the third chunk of 16
    np.save(folder / "depth" / "0003.npy", np.ones((H, W), np.float32))
    read, original = [], nyud._read_record
    monkeypatch.setattr(nyud, "_read_record", lambda root, config, key: read.append(key) or original(root, config, key))
    builder = datasets.prepare("nyud_mt/survey_subset", tmp_path / "tfds", tmp_path / "raw", num_workers=0)
    assert read == ids["train"][:16] + ids["train"][32:] + ids["val"]
    source = datasets.open_split(builder, "train", ("depth",))
    assert [source.sample(i, (), "nyud")["id"] for i in range(40)] == ids["train"]
    assert np.all(source[3]["depth"] == 1)


def test_worker_processes_change_nothing(tmp_path):
    write(tmp_path / "raw", "survey", {"train": [f"{i:04}" for i in range(20)], "val": ["0100"]})
    sources = [
        datasets.open_split(
            datasets.prepare("nyud_mt/survey_subset", tmp_path / f"tfds{n}", tmp_path / "raw", num_workers=n), "train"
        )
        for n in (0, 2)
    ]
    for i in range(20):
        one, other = (source[i] for source in sources)
        assert {key: np.array_equal(one[key], other[key]) for key in one} == dict.fromkeys(one, True)


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
    monkeypatch.setattr(config, "source", fetch.Source("NYUD_MT.tgz", f"{server}/NYUD_MT.tgz"))
    builder = build("survey", tmp_path / "tfds", None)
    assert len(datasets.open_split(builder, "train")) == 3
    (note,) = (tmp_path / "tfds" / "downloads").rglob("NYUD_MT.tgz.json")
    file = note.with_suffix("")
    assert json.loads(note.read_text())["sha256"] == fetch.sha256(file)

    file.write_bytes(file.read_bytes()[:-1])
    shutil.rmtree(tmp_path / "tfds" / "nyud_mt")
    with pytest.raises(ValueError, match=r"has SHA-256 .* but NYUD_MT.tgz.json beside it records"):
        build("survey", tmp_path / "tfds", None)


def test_published_checksum(tmp_path, server):
    (tmp_path / "www" / "file.tgz").write_bytes(b"content")
    source = fetch.Source("file.tgz", f"{server}/file.tgz", sha256="0" * 64)
    with pytest.raises(ValueError, match=r"file.tgz has SHA-256 ed7002.*, published is 0000"):
        fetch.download(source, tmp_path / "dl")


def test_drive(tmp_path, monkeypatch):
    source = fetch.Source.on_drive("NYUD_MT.tgz", "abc")
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
            fetch.download(fetch.Source("NYUD_MT.tgz", f"{server}/{name}"), tmp_path / "dl")
        error.match(remedy)
    assert list((tmp_path / "dl").iterdir()) == []


def test_real_frame(tmp_path):
    """NYU Depth v2 image 433, re-encoded into the layout of the first release."""
    folder = SAMPLES / "multi-task-refinenet" / "ExpNYUD_three"
    if not folder.is_dir():
        pytest.skip("no real samples beside the checkout (shared/data/nyud_samples)")
    image = cv2.imread(str(folder / "000433.png"))[..., ::-1]
    semseg = cv2.imread(str(folder / "segm_gt_000433.png"), cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(str(folder / "depth_gt_000433.png"), cv2.IMREAD_UNCHANGED) / np.float32(5000)
    normals = cv2.imread(str(folder / "norm_gt_000433.png"))[..., ::-1] / np.float32(127.5) - 1
    raw = np.where(semseg == 255, 0, semseg + 1).astype(np.uint8)
    edge = (cv2.Laplacian(raw, cv2.CV_64F) != 0).astype(np.uint8)
    x = {"image": image, "semseg": raw, "depth": depth, "normals": normals, "edge": edge}
    write(tmp_path / "raw", "astmt", {"train": ["433"], "val": ["434"]}, frames=lambda _: x)
    source = datasets.open_split(build("astmt", tmp_path / "tfds", tmp_path / "raw"), "train")
    got = records.decode(source[0], ("semseg", "normals", "edge", "depth"))
    assert got["id"] == "433"
    assert got["image"].shape == (480, 640, 3)
    assert np.abs(got["image"].astype(int) - image).mean() < 3  # JPEG
    np.testing.assert_array_equal(got["semseg"][..., 0], semseg)
    np.testing.assert_array_equal(got["depth"][..., 0], depth)
    np.testing.assert_array_equal(got["edge"][..., 0], edge)
    assert np.median(np.abs(got["normals"] - normals)) < 0.03  # JPEG
    assert 0.5 < np.median(got["depth"][got["depth"] > 0]) < 10


def test_default_manual_folder_of_others_is_no_matter(tmp_path, server, monkeypatch):
    """tfds' own folder for files by hand may be there for another data set; then the archive is downloaded."""
    (tmp_path / "tfds" / "downloads" / "manual").mkdir(parents=True)
    folder = write(tmp_path / "raw", "survey")
    with tarfile.open(tmp_path / "www" / "NYUD_MT.tgz", "w:gz") as archive:
        archive.add(folder, "NYUD_MT")
    config = next(c for c in nyud.NyudMt.BUILDER_CONFIGS if c.name == "survey_subset")
    monkeypatch.setattr(config, "source", fetch.Source("NYUD_MT.tgz", f"{server}/NYUD_MT.tgz"))
    assert len(datasets.open_split(build("survey", tmp_path / "tfds", None), "train")) == 3


def test_archive_of_something_else(tmp_path):
    with tarfile.open(tmp_path / "NYUD_MT.tgz", "w:gz") as archive:
        archive.add(write(tmp_path / "raw", "survey"), "nyu")
    with pytest.raises(
        FileNotFoundError, match=r"NYUD_MT.tgz holds nyu, expected NYUD_MT with gt_sets in it; give the"
    ):
        build("survey", tmp_path / "tfds", tmp_path / "NYUD_MT.tgz")


def test_two_processes_build_at_once(tmp_path):
    """The second waits for the first, and then finds the data set built."""
    write(tmp_path / "raw", "survey", {"train": [f"{i:04}" for i in range(40)], "val": ["0100"]})
    code = (
        "from mtl_jax.data import datasets\n"
        "if __name__ == '__main__':\n"
        f"    b = datasets.prepare('nyud_mt/survey_subset', {str(tmp_path / 'tfds')!r}, {str(tmp_path / 'raw')!r}, 0)\n"
        "    assert len(datasets.open_split(b, 'train')) == 40\n"
    )
    command = [sys.executable, "-c", code]
    running = [subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
