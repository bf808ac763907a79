"""Folders of predictions: parallel, resumable, and clear about what is wrong."""

import json
import shutil
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
import scipy.io

from mtl_jax import boundaries
from mtl_jax.boundaries import counting
from tests.processes import ROOT

H, W = 40, 60
IDS = ("2008_000003", "2008_000007", "2008_000009", "2008_000016")


@pytest.fixture
def folders(tmp_path):
    """(predictions, label maps) of four images; one label map is PASCAL-Context's .mat."""
    rng = np.random.default_rng(0)
    (tmp_path / "edge").mkdir()
    (tmp_path / "labels").mkdir()
    for i, name in enumerate(IDS):
        labels = cv2.resize(rng.integers(0, 4, (5, 6), np.uint8), (W, H), interpolation=cv2.INTER_NEAREST)
        strength = cv2.GaussianBlur(255 * boundaries.label_boundary(labels).astype(np.uint8), (5, 5), 1)
        cv2.imwrite(str(tmp_path / f"edge/{name}.png"), np.maximum(strength, rng.integers(0, 99, (H, W), np.uint8)))
        if i:
            cv2.imwrite(str(tmp_path / f"labels/{name}.png"), labels)
        else:
            scipy.io.savemat(tmp_path / f"labels/{name}.mat", {"LabelMap": labels.astype(np.uint16)})
    return tmp_path / "edge", tmp_path / "labels"


PLAIN = boundaries.get("plain")


def scored(folders, **options):
    images = boundaries.find_images(*folders)
    return boundaries.score(boundaries.count_images(images, PLAIN, **options), PLAIN)


def test_workers_and_store_change_nothing(folders, tmp_path):
    alone = scored(folders, num_workers=0)
    assert 0.2 < alone.odsF < 1
    assert scored(folders, num_workers=2, store=tmp_path / "counts.jsonl") == alone
    assert scored(folders, num_workers=0, store=tmp_path / "counts.jsonl") == alone


def test_finished_images_are_not_scored_again(folders, tmp_path, monkeypatch):
    store = tmp_path / "counts.jsonl"
    first = boundaries.find_images(*folders)[:2]
    boundaries.count_images(first, PLAIN, store=store, num_workers=0)
    with store.open("a") as file:
        file.write('{"id": "2008_00')  # as a killed run leaves it
    scored_now = []

    def count(strength, truths, protocol):
        scored_now.append(1)
        return boundaries.count(strength, truths, protocol)

    monkeypatch.setattr(counting, "count", count)
    everything = scored(folders, num_workers=0, store=store)
    assert len(scored_now) == 2
    assert everything == scored(folders, num_workers=0, store=store)
    assert len(scored_now) == 2
    cv2.imwrite(str(folders[0] / f"{IDS[0]}.png"), np.zeros((H, W), np.uint8))  # another prediction
    assert scored(folders, num_workers=0, store=store).odsF < everything.odsF
    assert len(scored_now) == 3
    boundaries.count_images(first, boundaries.get("plain", 0.02), store=store, num_workers=0)  # another tolerance
    assert len(scored_now) == 5


def test_missing_predictions(folders):
    (folders[0] / f"{IDS[1]}.png").unlink()
    (folders[0] / f"{IDS[3]}.png").unlink()
    with pytest.raises(FileNotFoundError, match=rf"^2 files are missing: .*{IDS[1]}.png, .*{IDS[3]}.png"):
        boundaries.find_images(*folders)


def test_missing_truth(folders):
    with pytest.raises(
        FileNotFoundError, match=r"2 files are missing: .*edge/2010_000001\.png, .*labels/2010_000001\.png or \.mat"
    ):
        boundaries.find_images(*folders, ids=[IDS[0], "2010_000001"])


def test_extra_predictions_are_ignored_and_told(folders, caplog):
    shutil.copy(folders[0] / f"{IDS[0]}.png", folders[0] / "other.png")
    assert [image.id for image in boundaries.find_images(*folders)] == list(IDS)
    assert "1 predictions" in caplog.text


def test_linked_folders(folders, tmp_path):
    """The predictions and truths of a sub-folder may lie elsewhere."""
    for i, folder in enumerate(folders):
        outer = tmp_path / f"outer{i}"
        outer.mkdir()
        (outer / "linked").symlink_to(folder)
    ids = [f"linked/{name}" for name in IDS]
    assert [image.id for image in boundaries.find_images(tmp_path / "outer0", tmp_path / "outer1", ids)] == ids


def test_counts_of_another_length_are_not_taken(folders, tmp_path):
    store = tmp_path / "counts.jsonl"
    everything = scored(folders, num_workers=0, store=store)
    first, *rest = store.read_text().splitlines()
    line = json.loads(first)
    store.write_text("\n".join([json.dumps(line | {"truth": line["truth"][:-1]}), *rest, ""]))
    assert scored(folders, num_workers=0, store=store) == everything
    assert len(store.read_text().splitlines()) == len(IDS) + 1


def test_nothing_to_score(tmp_path, folders):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"nothing to score: .*empty has neither"):
        boundaries.find_images(folders[0], tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        boundaries.find_images(tmp_path / "nowhere", folders[1])


def test_two_truths(folders):
    cv2.imwrite(str(folders[1] / f"{IDS[0]}.png"), np.zeros((H, W), np.uint8))
    with pytest.raises(ValueError, match=rf"both .*{IDS[0]}\.mat and .*{IDS[0]}\.png are the truth of {IDS[0]}"):
        boundaries.find_images(*folders)


def test_all_faulty_files_are_named_and_the_others_kept(folders, tmp_path):
    predictions, _ = folders
    cv2.imwrite(str(predictions / f"{IDS[0]}.png"), np.zeros((H, W - 1), np.uint8))
    cv2.imwrite(str(predictions / f"{IDS[1]}.png"), np.zeros((H, W), np.uint16))
    (predictions / f"{IDS[2]}.png").write_bytes(b"")
    store = tmp_path / "counts.jsonl"
    with pytest.raises(ValueError, match="3 of 4 images cannot be scored") as error:
        scored(folders, store=store, num_workers=0)
    text = str(error.value)
    assert f"{IDS[0]}: the prediction has the size (40, 59), the true boundaries (40, 60)" in text
    assert f"{IDS[1]}: expected a prediction of 8 bits, uint8 [H, W]; got uint16" in text
    assert f"{IDS[2]}: the prediction {predictions / IDS[2]}.png: no readable image" in text
    assert [json.loads(line)["id"] for line in store.read_text().splitlines()] == [IDS[3]]


def _huge():
    """A PNG whose header promises 200000 x 200000 pixels."""
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    data[16:24] = (200000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nonsense", "neither a PNG nor a .mat file with ground truth: not a readable"),
        (b"\x89PNG\r\n\x1a\n", "no readable image"),
        (_huge(), "OpenCV cannot decode it"),
        (cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes(), "3 channels, expected 1"),
    ],
)
def test_faulty_truth(content, message):
    with pytest.raises(ValueError, match=message):
        boundaries.read_truth(content)


def test_mat_without_the_key(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"labels": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"no key 'LabelMap' or 'groundTruth'; the file has: labels"):
        boundaries.read_truth((tmp_path / "a.mat").read_bytes())


def test_annotators_without_boundaries(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"groundTruth": np.ones((1, 2))})
    with pytest.raises(ValueError, match="groundTruth is no list of annotators with Boundaries"):
        boundaries.read_truth((tmp_path / "a.mat").read_bytes())


def test_repeated_ids(folders):
    with pytest.raises(ValueError, match=f"more than once: {IDS[1]}; list each id once"):
        boundaries.count_images(boundaries.find_images(*folders, ids=[IDS[0], IDS[1], IDS[1]]), PLAIN)
    with pytest.raises(ValueError, match="nothing to score: the list of ids is empty"):
        boundaries.find_images(*folders, ids=[])


def test_several_annotators_from_a_file(tmp_path):
    entries = np.empty((1, 2), object)
    for i in range(2):
        entries[0, i] = {"Boundaries": np.eye(5, k=i, dtype=np.uint8), "Segmentation": np.ones((5, 5), np.uint16)}
    scipy.io.savemat(tmp_path / "a.mat", {"groundTruth": entries})
    found = boundaries.read_truth((tmp_path / "a.mat").read_bytes())
    np.testing.assert_array_equal(found, [np.eye(5, k=i, dtype=bool) for i in range(2)])


def test_an_image_without_true_boundary():
    """Whatever is predicted there is wrong; what was not predicted is no loss."""
    empty, line = np.zeros((H, W), bool), np.zeros((H, W), np.uint8)
    line[20, 10:50] = 255
    counts = boundaries.BoundaryCounts.stack(
        [boundaries.count(line, [empty], PLAIN), boundaries.count(line, [line > 0], PLAIN)]
    )
    scores = boundaries.score(counts, PLAIN)
    assert (scores.ods_recall, scores.ods_precision) == (1, 0.5)
    nothing = boundaries.score(boundaries.BoundaryCounts.stack([boundaries.count(line, [empty], PLAIN)]), PLAIN)
    assert (nothing.odsF, nothing.oisF, nothing.AP) == (0, 0, 0)


def test_no_prediction_at_all():
    line = np.zeros((H, W), bool)
    line[20, 10:50] = True
    counts = boundaries.count(np.zeros((H, W), np.uint8), [line], PLAIN)
    scores = boundaries.score(boundaries.BoundaryCounts.stack([counts]), PLAIN)
    assert (scores.odsF, scores.oisF, scores.ods_recall, scores.ods_precision) == (0, 0, 0, 1)


def test_arguments():
    with pytest.raises(ValueError, match="unknown boundary protocol 'canny'; the protocols are plain, nms, bsds_bench"):
        boundaries.get("canny")
    with pytest.raises(ValueError, match=r"max_dist is 4\.3, expected a fraction"):
        boundaries.get("plain", 4.3)
    assert len(boundaries.pascal_context_ids()) == 2498


def test_command(folders, tmp_path):
    command = [sys.executable, "scripts/edges.py", "--predictions", folders[0], "--ground_truth", folders[1]]
    result = subprocess.run(
        [*map(str, command), "--num_workers", "0"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.startswith("4 images, protocol plain, maxDist 0.0075")
    content = json.loads((tmp_path / "edge_scores/edge_scores.json").read_text())
    assert content["protocol"] == {"name": "plain", "max_dist": 0.0075, "images": 4}
    assert content["scores"]["odsF"] == scored(folders, num_workers=0).odsF
    wrong = subprocess.run([*map(str, command), "--ids", "nowhere"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "--ids is nowhere, which is neither a file nor pascal_context" in wrong.stderr
