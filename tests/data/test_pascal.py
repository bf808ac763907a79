"""The PASCAL builder on rendered pictures in the layout of PASCAL_MT, and on real ones."""

import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from mtl_jax.boundaries import label_boundary
from mtl_jax.codecs import pictures
from mtl_jax.data import catalogue, datasets, pascal, pascal_labels, records
from mtl_jax.data.rendered import people, release_files
from mtl_jax.runtime import messages

PASCAL_LABELS = catalogue.FAMILIES["pascal"]

H, W = 60, 80
IDS = {"train": ["2008_3", "2008_5", "2008_9", "2008_11"], "val": ["2010_0", "2010_1"]}
KEY = "2008_5"
TASKS = ("semseg", "human_parts", "sal", "normals", "edge")
SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "pascal_samples" / "pascal_part"


def truth(key):
    """What `release_files.write_pascal` draws."""
    rng = np.random.default_rng([0, *key.encode()])
    height, width = (side + rng.integers(-(side // 8), side // 8 + 1) for side in (H, W))
    return people.sample(rng, int(height), int(width))


def build(root, data_dir, config="context_subset"):
    return datasets.prepare(f"pascal_mt/{config}", data_dir, root, num_workers=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return release_files.write_pascal(tmp_path_factory.mktemp("raw"), IDS, height=H, width=W)


@pytest.fixture
def root(written, tmp_path):
    """A copy of the files, to change."""
    return Path(shutil.copytree(written, tmp_path / "PASCAL_MT"))


@pytest.fixture(scope="module")
def built(written, tmp_path_factory):
    return build(written, tmp_path_factory.mktemp("tfds"))


def samples(builder, ids):
    for split, names in ids.items():
        source = datasets.open_split(builder, split)
        assert len(source) == len(names)
        for i, name in enumerate(names):
            got = source.sample(i, TASKS, PASCAL_LABELS)
            assert got["id"] == name
            yield name, source[i], got


def test_values(built, written):
    trusted, people_seen = set(), set()
    for key, record, got in samples(built, IDS):
        want = truth(key)
        assert record["image"] == (written / f"JPEGImages/{key}.jpg").read_bytes()
        assert np.abs(got["image"].astype(int) - want["image"]).mean() < 6  # JPEG
        np.testing.assert_array_equal(got["semseg"], want["semseg"])
        people_seen.add("human_parts" in got)
        np.testing.assert_array_equal(pictures.decode(record["human_parts"], 1), want["human_parts"])
        assert ("human_parts" in got) == want["human_parts"].any()
        plain = cv2.imdecode(np.frombuffer(record["semseg"], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(plain, want["semseg"][..., 0])  # no palette: any reader gets the class ids
        data = (written / f"sal_distill/{key}.png").read_bytes()
        assert record["sal"] == data
        np.testing.assert_array_equal(got["sal"], pictures.decode(data, 1) > 127)
        assert np.mean(got["sal"] != want["sal"] / 255) < 0.02  # blurred and thresholded
        labels = release_files.label_map(want)
        np.testing.assert_array_equal(got["edge"][..., 0], pascal_labels.edges(labels))
        stored = pictures.decode(record["normals"], 3)
        keep = pascal_labels.normals_mask(labels)
        assert not stored[~keep].any()
        np.testing.assert_allclose(stored[keep] / 127.5 - 1, want["normals"][keep], atol=0.004)
        assert not got["normals"][~keep].any()
        np.testing.assert_allclose(np.linalg.norm(got["normals"][keep], axis=1), 1, atol=0.02)
        trusted |= set(keep.ravel().tolist())
    assert trusted == people_seen == {False, True}


def test_boundaries_to_score_edges_against(built):
    """Those between the 459 classes, which are not the edges to learn."""
    for split, names in IDS.items():
        source = datasets.open_split(built, split, ("edge",))
        for i, key in enumerate(names):
            boundary = source.boundary(i, source.sample(i, ("edge",), PASCAL_LABELS)["edge"])
            np.testing.assert_array_equal(boundary, label_boundary(release_files.label_map(truth(key))))
            assert (boundary != source.sample(i, ("edge",), PASCAL_LABELS)["edge"][..., 0]).any()


def test_images_with_people(built):
    people_in = {
        split: [i for i, key in enumerate(names) if truth(key)["human_parts"].any()] for split, names in IDS.items()
    }
    assert dict(built.info.metadata)["labelled"] == {"human_parts": people_in}
    again = datasets.make_builder("pascal_mt/context_subset", built.data_path.parents[2])
    assert dict(again.info.metadata)["labelled"] == {"human_parts": people_in}  # read from the prepared data set
    for split, names in IDS.items():
        for i, record in enumerate(built.as_data_source(split=split)):
            found = record["labelled"].decode().split()
            assert found == [task for task in TASKS if task != "human_parts" or i in people_in[split]]
        assert len(names) == i + 1


def test_voc_labels_come_first(root):
    want = np.full((*truth(KEY)["semseg"].shape[:2], 1), 7, np.uint8)
    assert (root / f"semseg/pascal-context/{KEY}.png").is_file()
    (root / f"semseg/VOC12/{KEY}.png").write_bytes(pictures.encode_png(want))
    record, problems = pascal._read_record(root, KEY)
    assert problems == []
    np.testing.assert_array_equal(pictures.decode(record["semseg"], 1), want)


def test_features_and_names():
    default = datasets.make_builder("pascal_mt", "unused")
    assert default.builder_config.name == "context"
    assert default.builder_config.counts == {"train": 4998, "val": 5105}
    assert list(tfds.builder_cls("pascal_mt").builder_configs) == ["context", "context_subset"]
    assert default.info.file_format.value == "array_record"
    assert list(default.info.features) == ["id", "image", *TASKS, "labelled", "boundary"]
    assert catalogue.get("pascal").builder("astmt").split("/")[0] == "pascal_mt"


def test_labels_of_another_size(root):
    """Labels of twice the image's size, and a label map of half the normals' size."""
    height, width = truth(KEY)["sal"].shape[:2]
    for name in ("normals_distill", "sal_distill"):
        path = str(root / name / f"{KEY}.png")
        image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
        cv2.imwrite(path, cv2.resize(image, (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST))
    record, problems = pascal._read_record(root, KEY)
    assert problems == []
    labels = cv2.resize(release_files.label_map(truth(KEY)), (2 * width, 2 * height), interpolation=cv2.INTER_NEAREST)
    stored = pictures.decode(record["normals"], 3)
    np.testing.assert_array_equal(stored.any(axis=2), pascal_labels.normals_mask(labels))
    got = records.decode(record, TASKS, conventions=PASCAL_LABELS)
    assert {got[task].shape[:2] for task in TASKS} == {(height, width)}
    (root / f"sal_distill/{KEY}.png").write_bytes(pictures.encode_png(np.zeros((height, width + 2, 1), np.uint8)))
    assert pascal._read_record(root, KEY)[1] == []  # the rounding of some resize


def test_pixels_without_a_vector():
    """Black or middle grey where there is no prediction are no reason to suspect the others."""
    normals = np.full((10, 10, 3), 128, np.uint8)
    normals[:5], normals[0, 0] = 0, (128, 0, 128)
    wall = np.full((10, 10), 440, np.uint16)
    np.testing.assert_array_equal(pascal._trusted(normals, wall), normals)


def replace(name, data):
    def edit(root):
        path = root / name.format(KEY)
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return edit


def cut(name):
    def edit(root):
        path = root / name.format(KEY)
        path.write_bytes(path.read_bytes()[:500])

    return edit


def rename_part(root):
    """An annotation with wings instead of a torso."""
    path = root / f"human_parts/{KEY}.mat"
    anno = scipy.io.loadmat(path)["anno"]
    for thing in anno[0, 0]["objects"].ravel():
        for part in thing["parts"].ravel():
            part["part_name"] = str(part["part_name"][0]).replace("torso", "wings")
    scipy.io.savemat(path, {"anno": anno})


LABELS = release_files.label_map(truth(KEY))
NOISE = np.random.default_rng(0).integers(0, 256, (*LABELS.shape, 3), dtype=np.uint8)
CONTEXT, PARTS = "pascal-context/trainval/{}.mat", "human_parts/{}.mat"
SEMSEG, NORMALS, SAL = "semseg/pascal-context/{}.png", "normals_distill/{}.png", "sal_distill/{}.png"
MISSING = [name for name in pascal._FILES.values() if "VOC" not in name]
FAULTS = {
    "truncated": (cut("JPEGImages/{}.jpg"), "JPEGImages/{}.jpg: the JPEG ends early (500 bytes"),
    "truncated label": (cut(NORMALS), NORMALS + ": the PNG ends early (500 bytes"),
    **{f"no {name}": (replace(name, None), f"{name} is missing") for name in MISSING},
    "no mat": (replace(PARTS, b"nonsense"), PARTS + ": not a readable .mat file"),
    "LabelMap": (
        replace(CONTEXT, release_files._mat(Labels=LABELS)),
        CONTEXT + ": no key 'LabelMap'; the file has: Labels",
    ),
    "anno": (replace(PARTS, release_files._mat(objects=LABELS)), PARTS + ": no key 'anno'; the file has: objects"),
    "anno content": (replace(PARTS, release_files._mat(anno=LABELS)), PARTS + ": anno is no struct but"),
    "part": (rename_part, PARTS + ": unknown parts of a person: 'wings'; the parts are hair, head"),
    "context id": (replace(CONTEXT, release_files._mat(LabelMap=LABELS + 400)), "expected 0 to 459"),
    "fractions": (
        replace(CONTEXT, release_files._mat(LabelMap=LABELS + 0.25)),
        f"{LABELS.size} values are no whole numbers",
    ),
    "text": (replace(CONTEXT, release_files._mat(LabelMap=np.full((2, 2), "ab"))), "values of type <U"),
    "class id": (
        replace(SEMSEG, pictures.encode_png(np.full((*LABELS.shape, 1), 33, np.uint8))),
        SEMSEG + ": class ids 33, expected 0 (background) to 20, and 255 (void)",
    ),
    "colours": (replace(SEMSEG, pictures.encode_png(NOISE)), SEMSEG + ": it has 3 channels, expected 1"),
    "grey": (replace(NORMALS, pictures.encode_png(NOISE[..., :1])), NORMALS + ": a grey picture, expected 3 channels"),
    "noise": (replace(NORMALS, pictures.encode_png(NOISE)), "of the vectors have length 1: are these surface normals"),
    "shape": (
        replace(SAL, pictures.encode_png(np.zeros((50, 50, 1), np.uint8))),
        f"{SAL}: size 50x50, the image is {messages.size_text(LABELS.shape)}: not of the same shape",
    ),
    "duplicate": (
        replace("ImageSets/Context/val.txt", b"2010_0\n2008_3\n"),
        "id '2008_3' is listed more than once in ImageSets/Context/train.txt and ImageSets/Context/val.txt",
    ),
    "empty split": (replace("ImageSets/Context/val.txt", b"\n"), "ImageSets/Context/val.txt lists no image"),
    "no list": (replace("ImageSets/Context/val.txt", None), "ImageSets/Context/val.txt is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(root, tmp_path, fault):
    edit, message = FAULTS[fault]
    edit(root)
    with pytest.raises(ValueError, match="problem") as error:
        build(root, tmp_path / "tfds")
    assert message.format(KEY) in str(error.value)
    assert str(error.value).count("\n") == 1  # one problem, not its consequences as well
    assert not datasets.make_builder("pascal_mt/context_subset", tmp_path / "tfds").is_prepared()


def test_all_faults_in_one_error(root, tmp_path):
    for edit in (cut("JPEGImages/{}.jpg"), rename_part, replace(SAL, None)):
        edit(root)
    (root / "normals_distill/2010_1.png").unlink()
    with pytest.raises(ValueError, match="4 problem") as error:
        build(root, tmp_path / "tfds")
    for part in (f"JPEGImages/{KEY}.jpg", "'wings'", f"sal_distill/{KEY}.png", "normals_distill/2010_1.png"):
        assert part in str(error.value)


def test_whole_data_set_checks_counts(written, tmp_path):
    with pytest.raises(ValueError, match=r"train.txt lists 4 images, expected 4998.*pascal_mt/context_subset"):
        build(written, tmp_path / "tfds", "context")


def test_processes_and_no_tensorflow(written, tmp_path):
    """Worker processes read the files, and neither TensorFlow nor torch is loaded."""
    code = (
        "import sys\n"
        "from mtl_jax.data import datasets, staging\n"
        "if __name__ == '__main__':\n"
        "    staging.CHUNK = 2\n"
        f"    b = datasets.prepare('pascal_mt/context_subset', {str(tmp_path / 'tfds')!r}, {str(written)!r})\n"
        "    datasets.open_split(b, 'val')[1]\n"
        "    assert 'tensorflow' not in sys.modules and 'torch' not in sys.modules\n"
        "    assert 'numba' not in sys.modules\n"  # the workers alone compile
    )
    (tmp_path / "script.py").write_text(code)
    result = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "died" not in result.stderr


def test_real_pictures(tmp_path):
    """Images and annotations of PASCAL-Part; the label map is made of the objects, normals and saliency are made up."""
    if not SAMPLES.is_dir():
        pytest.skip("no real samples beside the checkout (shared/data/pascal_samples)")
    ids = {"train": ["2008_000652", "2010_000145", "2010_005243"], "val": ["2008_003228", "2010_005275"]}
    context = {0: 440, **release_files.CONTEXT_IDS, 8: 65}
    root, labels = tmp_path / "PASCAL_MT", {}
    for key in ids["train"] + ids["val"]:
        objects = scipy.io.loadmat(SAMPLES / f"{key}.mat")["anno"][0, 0]["objects"].ravel()
        semseg = np.zeros((*objects[0]["mask"].shape, 1), np.uint8)
        for thing in objects:
            semseg[thing["mask"] > 0] = thing["class_ind"]
        labels[key] = np.vectorize(context.get)(semseg[..., 0]).astype(np.uint16)
        upright = np.broadcast_to(np.uint8([128, 0, 128]), (*semseg.shape[:2], 3))
        content = {
            f"JPEGImages/{key}.jpg": (SAMPLES / f"{key}.jpg").read_bytes(),
            f"human_parts/{key}.mat": (SAMPLES / f"{key}.mat").read_bytes(),
            f"semseg/VOC12/{key}.png": pictures.encode_png(semseg),
            f"pascal-context/trainval/{key}.mat": release_files._mat(LabelMap=labels[key]),
            f"normals_distill/{key}.png": pictures.encode_png(upright),
            f"sal_distill/{key}.png": pictures.encode_png(np.where(semseg > 0, 200, 20).astype(np.uint8)),
        }
        for split, names in ids.items():
            content[f"ImageSets/Context/{split}.txt"] = "\n".join(names).encode()
        for name, data in content.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    builder = build(tmp_path, tmp_path / "tfds")
    assert dict(builder.info.metadata)["labelled"] == {"human_parts": {"train": [0, 2], "val": [0]}}
    for key, record, got in samples(builder, ids):
        person = labels[key] == 284
        assert got["image"].shape[:2] == person.shape
        if key in ("2008_000652", "2008_003228"):
            assert np.mean((got["human_parts"][..., 0] > 0) == person) > 0.97
        np.testing.assert_array_equal(got["sal"][..., 0] > 0, got["semseg"][..., 0] > 0)
        stored = pictures.decode(record["normals"], 3).any(axis=2)
        np.testing.assert_array_equal(stored, ~np.isin(labels[key], [31, 207]))  # boat and horse: not indoors
        assert 0 < got["edge"].mean() < 0.1
