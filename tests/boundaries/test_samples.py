"""Real predictions on BSDS500 images with official results, where they lie beside the checkout."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io

from mtl_jax import boundaries
from mtl_jax.boundaries import BoundaryCounts
from mtl_jax.boundaries.counts import count_strength
from mtl_jax.boundaries.protocols import equally_spaced

SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "bsds_samples"
BENCH = SAMPLES / "bench" / "data"
pytestmark = pytest.mark.skipif(
    not SAMPLES.is_dir(), reason="no real samples beside the checkout (shared/data/bsds_samples)"
)
IDS = sorted(path.stem for path in (SAMPLES / "hed" / "png").glob("*.png"))


def annotators(name):
    folder = next(path for path in (BENCH, SAMPLES / "BSDS500") if (path / f"groundTruth/{name}.mat").exists())
    return boundaries.read_truth((folder / f"groundTruth/{name}.mat").read_bytes())


@pytest.mark.parametrize("name", IDS)
def test_counts_of_hed(name):
    table = {f"{row[0]:.2f}": row[1:].astype(int) for row in np.loadtxt(SAMPLES / f"hed/ev1/{name}_ev1.txt")}
    protocol = replace(boundaries.get("plain"), thresholds=("0.10", "0.30", "0.50", "0.70", "0.90"))
    prediction = cv2.imread(str(SAMPLES / f"hed/png/{name}.png"), cv2.IMREAD_UNCHANGED)
    counts = boundaries.count(prediction, annotators(name), protocol)
    matched_truth, truth, matched_prediction, predicted = np.array([table[t] for t in protocol.thresholds]).T
    np.testing.assert_array_equal(counts.truth, truth)
    np.testing.assert_array_equal(counts.prediction, predicted)
    gain = counts.matched_truth - matched_truth
    assert ((gain >= 0) & (gain <= np.maximum(7, 0.0025 * matched_truth))).all()
    assert (np.abs(counts.matched_prediction - matched_prediction) <= np.maximum(8, 0.003 * matched_prediction)).all()


@pytest.mark.parametrize(("kind", "noise"), [("ucm2", 8e-4), ("png", 6e-4)])
def test_benchmark(kind, noise):
    """The official matcher is random; its two runs on nearly the same maps differ by 0.0004 themselves."""
    bench = replace(boundaries.get("bsds_bench"), thresholds=equally_spaced(5))
    ids = sorted(path.stem for path in (BENCH / "groundTruth").glob("*.mat"))
    counts = []
    for name in ids:
        if kind == "ucm2":
            strength = scipy.io.loadmat(BENCH / f"ucm2/{name}.mat")["ucm2"][2::2, 2::2]
        else:
            strength = cv2.imread(str(BENCH / f"png/{name}.png"), cv2.IMREAD_UNCHANGED) / 255
        counts.append(count_strength(np.asarray(strength, np.float64), annotators(name), bench))
    stacked = BoundaryCounts.stack(counts)
    scores = boundaries.score(stacked, bench)
    results = BENCH / {"ucm2": "test_1", "png": "test_2"}[kind]
    curve = np.loadtxt(results / "eval_bdry_thr.txt")
    np.testing.assert_allclose(np.array([scores.recall, scores.precision, scores.F]).T, curve[:, 1:], atol=noise)
    *best, _, _, ois, area = np.loadtxt(results / "eval_bdry.txt")
    got = [scores.ods_threshold, scores.ods_recall, scores.ods_precision, scores.odsF, scores.oisF, scores.AP]
    np.testing.assert_allclose(got, [*best, ois, area], atol=1e-3)
    images = np.loadtxt(results / "eval_bdry_img.txt")
    np.testing.assert_allclose(boundaries.image_scores(stacked, bench)[:, 3], images[:, 4], atol=1e-3)


def test_scores_of_two_hundred_images():
    """From the counts that MATLAB stored for gPb-UCM: the published three digits."""
    folder = SAMPLES / "seism" / "results"
    thresholds = boundaries.get("plain").thresholds
    tables = [np.loadtxt(next(folder.glob(f"BSDS500/*/test_fb_{threshold}.txt"))) for threshold in thresholds]
    stored = np.stack(tables, axis=1)[..., 3:].astype(np.int64)  # [image, threshold, count]
    scores = boundaries.score(BoundaryCounts(*np.moveaxis(stored, -1, 0)), boundaries.get("plain"))
    assert stored.shape[:2] == (200, 99)
    assert [round(x, 3) for x in (scores.odsF, scores.oisF, scores.AP)] == [0.726, 0.760, 0.727]
