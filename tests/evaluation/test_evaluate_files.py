"""Scoring the files of another tool."""

import json
import logging
import shutil
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import scipy.io
from PIL import Image

from mtl_jax import data
from mtl_jax.data import catalogue, datasets
from mtl_jax.data.records import as_text
from mtl_jax.evaluation import predictions, scoring
from mtl_jax.evaluation.edge_scores import EdgeScores
from mtl_jax.evaluation.resume_log import ResumeLog
from mtl_jax.metrics import build
from mtl_jax.protocol import EdgeRule
from mtl_jax.tasks import TASKS as TABLE
from tests import scripts
from tests.marks import slow
from tests.processes import ROOT

PASCAL_LABELS = catalogue.FAMILIES["pascal"]

TASKS = ("semseg", "human_parts", "sal", "normals", "edge")
CHANNELS = {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1}


@pytest.fixture(scope="module")
def source(data_dir):
    builder = datasets.prepare("rendered_scenes/pascal_tiny", data_dir)
    return datasets.open_split(builder, "val", TASKS)


@pytest.fixture
def folder(source, tmp_path):
    """Perfect predictions of the rendered people, as another tool would write them."""
    for index in range(len(source)):
        sample = source.sample(index, TASKS, PASCAL_LABELS)
        for task in TASKS:
            path = tmp_path / "tool" / task / f"{sample['id']}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            label = sample.get(task, np.zeros((*sample["image"].shape[:2], 1), np.uint8))  # no person
            if task == "normals":
                label = 255 * (label[..., ::-1] + 1) / 2
            elif task in ("sal", "edge"):
                label = 255 * label
            else:
                label = np.where(label == 255, 0, label)  # nobody predicts "ignored"
            cv2.imwrite(str(path), np.rint(label).astype(np.uint8))
    return tmp_path / "tool"


def script(*args):
    command = [sys.executable, "scripts/evaluate.py", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)


def test_command(folder, data_dir):
    command = ("--predictions", folder, "--dataset", "pascal", "--builder", "rendered_scenes/pascal_tiny")
    run = script(*command, "--data_dir", data_dir, "--num_workers", 0)
    assert run.returncode == 0, run.stderr
    report = json.loads((folder / "results.json").read_text())
    results = report["results"]
    assert list(results) == list(TASKS)
    assert results["semseg"]["mIoU_present"] == results["human_parts"]["mIoU_present"] == results["sal"]["mIoU"] == 1
    assert results["normals"]["mean"] < 0.5  # 8 bits
    # Rendered ids are not among the 2498 of PASCAL-Context, which the protocol scores.
    assert results["edge"]["odsF"] is None
    assert report["protocol"] == {
        "data": "rendered_scenes/pascal_tiny",
        "depth": "image",
        "saliency": "mIoU",
        "edge": "plain, maxDist 0.0075, pascal_context images",
    }
    assert report["step"] is None

    again = script(
        *command,
        "--data_dir",
        data_dir,
        "--num_workers",
        0,
        "--protocol",
        "astmt",
        "--tasks",
        "edge,sal",
        "--bootstrap",
        20,
    )
    assert again.returncode == 0, again.stderr
    report = json.loads((folder / "results_astmt.json").read_text())
    assert list(report["results"]) == ["sal", "edge"]
    assert report["protocol"]["edge"] == "nms, maxDist 0.0075, all images"
    assert 0.8 < report["results"]["edge"]["odsF"] <= 1
    assert len((folder / "edge_counts.jsonl").read_text().splitlines()) == 5
    low, high = report["intervals"]["edge"]["odsF"]
    assert low <= report["results"]["edge"]["odsF"] <= high
    assert "95 % intervals of edge: loss" in again.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        slow("", "give either --workdir"),
        slow("--predictions {}/run --dataset nyud", "is the work directory of a run; give it as --work"),
        slow("--predictions {}/nowhere", "there is no folder"),
        slow("--predictions {}", "--predictions needs --dataset: nyud, pascal, folder"),
        ("--predictions {} --dataset nyud", "has no sub-folder of a task of nyud: semseg"),
    ],
)
def test_wrong_arguments(tmp_path, args, message):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    run = scripts.run("evaluate", *(arg.format(tmp_path) for arg in args.split()))
    assert run.returncode == 1
    assert message in run.stderr
    assert "Traceback" not in run.stderr


def read(folder, source, tasks=TASKS):
    images = scoring.read_predictions(folder, source, {task: CHANNELS[task] for task in tasks})
    return [{task: load(task, source.labels(i, (), PASCAL_LABELS)) for task in tasks} for i, load in images]


def test_missing_and_extra_files(folder, source, caplog):
    ids = [as_text(source[i]["id"]) for i in range(len(source))]
    (folder / f"sal/{ids[0]}.png").unlink()
    (folder / f"edge/{ids[2]}.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"2 predictions are missing: .*sal/{ids[0]}\.png, .*edge/{ids[2]}\.png"
    ):
        read(folder, source)
    (folder / "normals/other.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        assert len(read(folder, source, ("normals",))) == len(source)
    assert "1 files" in caplog.text
    assert not predictions.saved(folder, TASKS, ids[0])
    assert predictions.saved(folder, TASKS, ids[1])


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        ("sal", np.zeros((7, 9), np.uint8), r"sal/.*\.png: size 7x9, the image is \d+x\d+: store predictions at that"),
        ("edge", np.zeros((7, 9), np.uint16), r"edge/.*\.png: expected a PNG of 8 bits with 1 channel"),
        ("semseg", np.zeros((7, 9, 3), np.uint8), r"semseg/.*\.png: it has 3 channels, expected 1"),
        ("normals", np.zeros((7, 9), np.uint8), r"normals/.*\.png: expected a PNG of 8 bits with 3 channel"),
        ("normals", b"", r"normals/.*\.png: it is empty"),
        ("human_parts", 7, r"human_parts/.*\.png: class id 7, expected 0 to 6"),
    ],
)
def test_faulty_files(folder, source, task, value, message):
    path = folder / task / f"{as_text(source[1]['id'])}.png"
    if isinstance(value, bytes):
        path.write_bytes(value)
    elif isinstance(value, int):
        cv2.imwrite(str(path), np.full_like(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), value))
    else:
        cv2.imwrite(str(path), value)
    with pytest.raises(ValueError, match=message):
        read(folder, source)


def test_class_ids_in_few_bits_and_palettes(tmp_path):
    Image.fromarray(np.eye(4, dtype=np.uint8) * 9).convert("P").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: a PNG with a palette, expected greys"):
        predictions.load("sal", tmp_path / "a")
    cv2.imwrite(str(tmp_path / "b.png"), np.eye(4, dtype=np.uint8) * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
    np.testing.assert_array_equal(predictions.load("semseg", tmp_path / "b", classes=2), np.eye(4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"depth": np.array([[1.0, np.nan], [np.inf, 2.0]])}, "2 values are NaN or infinite"),
        ({"pred": np.ones((2, 2))}, "no key 'depth'; the file has: pred"),
        ({"depth": np.ones((2, 2, 2))}, r"depth is float64 with the shape \(2, 2, 2\), expected numbers"),
        ({"depth": np.ones((3, 2))}, "size 3x2, the image is 2x2"),
        (b"nothing", "not a readable .mat file"),
    ],
)
def test_faulty_depth(tmp_path, content, message):
    path = tmp_path / "a.mat"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        scipy.io.savemat(path, content)
    with pytest.raises(ValueError, match=rf"a\.mat: .*{message}"):
        predictions.load("depth", tmp_path / "a", (2, 2))


def test_the_loops_are_compiled_before_the_first_image(monkeypatch):
    asked = []
    monkeypatch.setattr("mtl_jax.boundaries.compile_loops", lambda: asked.append(1))
    source = SimpleNamespace(boundary=lambda index, label: label[..., 0] > 0)
    edges = EdgeScores(source, EdgeRule("plain"), num_workers=0)
    assert len(asked) == 1
    empty = np.zeros((4, 4, 1), np.uint8)
    for index in range(2):
        assert edges.encode(index, {"id": "a", "edge": empty}, empty)
    assert len(asked) == 1


def test_an_interrupted_evaluation_goes_on(folder, source, tmp_path):
    """The scores are those of an evaluation that was not, and no finished image is read again."""
    metrics = {task: build(TABLE[task].metric, num_classes=CHANNELS[task], final=True) for task in TASKS}
    rule = EdgeRule("plain")

    def final(images, progress=None):
        edges = EdgeScores(source, rule, num_workers=0)
        return scoring.final(images, source, metrics, PASCAL_LABELS, edges, progress)

    def images(last=None, skip=()):
        for index, load in scoring.read_predictions(folder, source, CHANNELS, skip):
            if index == last:
                raise KeyboardInterrupt
            taken.append(index)
            yield index, load

    taken = []
    once = final(images())
    keys = scoring.keys(source, metrics, {"edge": str(rule)}, source.ids())
    with ResumeLog(tmp_path / "results.partial", keys) as progress, pytest.raises(KeyboardInterrupt):
        final(images(last=3), progress)
    with ResumeLog(tmp_path / "results.partial", keys) as progress:
        assert list(progress) == [0, 1, 2]
        taken.clear()
        again = final(images(skip=progress), progress)
        assert taken == [3, 4]
        np.testing.assert_equal(final(images(), progress).results, once.results)  # skipped here, too
    assert 0.8 < once.results["edge"]["odsF"] <= 1
    np.testing.assert_equal(again.results, once.results)
    assert again.bootstrap(5) == once.bootstrap(5)


def test_folders_have_one_owner(tmp_path):
    folder, owner = tmp_path / "new" / "saved", {"model": "a", "data": "b"}
    predictions.claim(folder, owner, "runs/a, step 6")
    (folder / "edge").mkdir()
    predictions.claim(folder, owner, "moved/a, step 6")
    with pytest.raises(
        ValueError, match=r"the predictions of runs/a, step 6, these are of runs/a, step 8.*another fold"
    ):
        predictions.claim(folder, owner | {"model": "b"}, "runs/a, step 8")
    for content in ("{", "7"):
        (folder / predictions.OWNER).write_text(content)
        with pytest.raises(ValueError, match=r"predictions\.json cannot be read"):
            predictions.claim(folder, owner, "runs/a, step 6")
    (folder / predictions.OWNER).unlink()
    with pytest.raises(ValueError, match=r"is not empty and has no predictions\.json: whose are the files"):
        predictions.claim(folder, owner, "runs/a, step 6")


def test_keys_tell_what_scores_follow_from(folder, source, data_dir, tmp_path):
    def keys(split=source, protocol="plain"):
        stamps = [predictions.stamp(folder, TASKS, name) for name in source.ids()]
        return scoring.keys(split, {"sal": build("saliency", num_classes=1)}, {"edge": protocol}, stamps)

    first = keys()
    assert keys() == first
    assert len(set(first)) == len(source)
    assert not set(keys(protocol="nms")) & set(first)
    assert not set(keys(source.subset([1, 0]))) & set(first)
    shutil.copytree(source.path, tmp_path / "built")  # the same bytes, but built at another time
    again = data.Split(source.name, source.split, str(tmp_path / "built"), range(len(source)), TASKS, True)
    assert keys(again) == first
    (tmp_path / "built" / "dataset_info.json").touch()
    assert not set(keys(again)) & set(first)
    path = folder / "edge" / f"{source.ids()[1]}.png"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert [a == b for a, b in zip(keys(), first, strict=True)] == [True, False, True, True, True]


@pytest.mark.slow
def test_the_command_goes_on_behind_a_faulty_file(folder, source, data_dir):
    command = ("--predictions", folder, "--dataset", "pascal", "--builder", "rendered_scenes/pascal_tiny")
    command = (*command, "--data_dir", data_dir, "--num_workers", 0)
    path = folder / "normals" / f"{source.ids()[3]}.png"
    content = path.read_bytes()
    path.write_bytes(b"")
    failed = script(*command)
    assert failed.returncode == 1
    assert "it is empty" in failed.stderr
    assert (folder / "results.partial").exists()
    path.write_bytes(content)
    again = script(*command)
    assert again.returncode == 0, again.stderr
    assert " 3/5 " in again.stderr  # where the bar begins
    results = (folder / "results.json").read_text()
    assert not list(folder.glob("*.partial*"))
    assert script(*command).returncode == 0
    assert (folder / "results.json").read_text() == results


def test_a_subset_of_a_split(source):
    part = source.subset([3, 1])
    assert [part[i]["id"] for i in range(len(part))] == [source[3]["id"], source[1]["id"]]
    assert part.subset([1])[0]["id"] == source[1]["id"]
