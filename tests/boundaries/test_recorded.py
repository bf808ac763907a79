"""Against the recorded counts and scores of the official programs (tests/boundaries/golden/README.md)."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtl_jax import boundaries
from mtl_jax.boundaries import BoundaryCounts, labels
from mtl_jax.boundaries.counts import count_strength
from mtl_jax.boundaries.matching import cheapest_pairs, count_pairs, tolerance
from mtl_jax.boundaries.protocols import equally_spaced

GOLDEN = Path(__file__).parent / "golden"
CASES = {case["name"]: case for case in json.loads((GOLDEN / "single_gt_cases.json").read_text())["cases"]}
AGGREGATES = json.loads((GOLDEN / "aggregates.json").read_text())
GPB = json.loads((GOLDEN / "gpb_ucm_matlab_counts.json").read_text())
SCORES = ("odsF", "oisF", "AP")


def image(name):
    return cv2.imread(str(GOLDEN / name), cv2.IMREAD_UNCHANGED)


@cache
def masks():
    return dict(np.load(GOLDEN / "masks.npz"))


def mask(name, height, width):
    return np.unpackbits(masks()[name])[: height * width].reshape(height, width).astype(bool)


def stem(case):
    return case["name"].rsplit("_", 1)[0]


def protocol(case):
    return boundaries.get("nms" if case["nms"] else "plain", case["max_dist"])


@cache
def truth(name):
    case = CASES[name]
    return boundaries.read_truth((GOLDEN / case["gt"]).read_bytes())[0]


@cache
def counted(name):
    """BoundaryCounts of a case; with suppression from the recorded survivors, whose choice hangs on roundings."""
    case = CASES[name]
    prediction = image(case["pred"])
    if not case["nms"]:
        return boundaries.count(prediction, [truth(name)], protocol(case))
    strength = np.where(
        mask(f"{stem(case)}_nms_survivors", case["height"], case["width"]), damped(prediction), np.float32(0)
    )
    return count_strength(strength, [truth(name)], protocol(case))


def damped(prediction):
    """The strength with the factors of the image's border."""
    strength = prediction.astype(np.float32) / np.float32(255)
    height, width = strength.shape
    for i, factor in enumerate(np.array([0, 0.2, 0.4, 0.6, 0.8], np.float32)):
        strength[:, [i, width - 1 - i]] *= factor
    for i, factor in enumerate(np.array([0, 0.2, 0.4, 0.6, 0.8], np.float32)):
        strength[[i, height - 1 - i]] *= factor
    return strength


@pytest.mark.parametrize("name", CASES)
def test_thresholds(name):
    assert list(protocol(CASES[name]).thresholds) == CASES[name]["thresholds"]


@pytest.mark.parametrize("name", sorted({stem(case): case["name"] for case in CASES.values()}.values()))
def test_truth(name):
    case = CASES[name]
    size = case["height"], case["width"]
    np.testing.assert_array_equal(labels.mark(image(case["gt"])), mask(f"{stem(case)}_gt_raw", *size))
    np.testing.assert_array_equal(truth(name), mask(f"{stem(case)}_gt_thin", *size))
    assert truth(name).sum() == case["sumR"]


def test_thinned_predictions():
    compared = 0
    for name, case in CASES.items():
        size = case["height"], case["width"]
        kind = "nmsthin" if case["nms"] else "thin"
        for key in masks():
            prefix = f"{stem(case)}_{kind}_"
            if key.startswith(prefix) and not key.endswith("_shape"):
                strength = damped(image(case["pred"])) if case["nms"] else image(case["pred"]) / 255
                if case["nms"]:
                    strength = np.where(mask(f"{stem(case)}_nms_survivors", *size), strength, np.float32(0))
                passing = protocol(case).passing(strength, key.removeprefix(prefix))
                np.testing.assert_array_equal(boundaries.thin(passing), mask(key, *size), err_msg=f"{name} {key}")
                compared += 1
    assert compared >= len(CASES)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["nms"]])
def test_suppression(name):
    case = CASES[name]
    ours = boundaries.suppress(image(case["pred"]).astype(np.float32) / np.float32(255)) > 0
    recorded = mask(f"{stem(case)}_nms_survivors", case["height"], case["width"])
    assert (ours != recorded).sum() <= 0.005 * recorded.sum()


@pytest.mark.parametrize("name", CASES)
def test_counts(name):
    case, counts = CASES[name], counted(name)
    assert counts.truth.tolist() == [case["sumR"]] * len(case["thresholds"])
    assert counts.prediction.tolist() == case["sumP"]
    assert counts.matched_truth.tolist() == counts.matched_prediction.tolist() == case["cnt_max_cardinality"]
    for run in case["cnt_official"]:  # the official program restricts its search at random
        gain = counts.matched_truth - np.array(run)
        assert (gain >= 0).all()
        assert (gain <= np.maximum(15, 0.01 * np.array(run))).all()


@pytest.mark.parametrize("name", ["bsds_3063_plain", "nyud_0001_nms"])
def test_cheapest_matching_has_the_recorded_number_of_pairs(name):
    case = CASES[name]
    size = case["height"], case["width"]
    kind = "nmsthin" if case["nms"] else "thin"
    prefix = f"{stem(case)}_{kind}_"
    for key in [key for key in masks() if key.startswith(prefix) and not key.endswith("_shape")]:
        at = case["thresholds"].index(key.removeprefix(prefix))
        matched = cheapest_pairs(mask(key, *size), truth(name), tolerance(case["max_dist"], size))
        assert matched.sum() == case["cnt_min_cost"][at]
        assert not (matched & ~mask(key, *size)).any()


@pytest.mark.parametrize("group", [group for group in AGGREGATES if group != "seism_HED"])
def test_scores(group):
    expected = AGGREGATES[group]
    cases = [CASES[name] for name in expected["images"]]
    for source in ("max_cardinality", "min_cost"):
        recorded = [
            BoundaryCounts(
                *(
                    np.array(np.broadcast_to(x, len(case["thresholds"])), np.int64)
                    for x in (case[f"cnt_{source}"], case["sumR"], case[f"cnt_{source}"], case["sumP"])
                )
            )
            for case in cases
        ]
        scores = boundaries.score(BoundaryCounts.stack(recorded), protocol(cases[0]))
        assert scores.ods_threshold == float(expected[source]["ods_threshold"])
        got = [scores.odsF, scores.oisF, scores.AP, scores.ods_recall, scores.ods_precision]
        want = [expected[source][key] for key in (*SCORES, "odsR", "odsP")]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-6)
    scores = boundaries.score(BoundaryCounts.stack([counted(case["name"]) for case in cases]), protocol(cases[0]))
    np.testing.assert_allclose(
        [getattr(scores, key) for key in SCORES], [expected["max_cardinality"][key] for key in SCORES], atol=1e-6
    )
    for run in expected["official_runs"]:
        assert -0.0001 <= scores.odsF - run["odsF"] <= 0.001
        assert abs(scores.oisF - run["oisF"]) <= 0.001
        assert abs(scores.AP - run["AP"]) <= 0.002


@pytest.mark.parametrize("group", [group for group in AGGREGATES if group.startswith("nms")])
def test_scores_with_own_suppression(group):
    expected = AGGREGATES[group]
    cases = [CASES[name] for name in expected["images"]]
    counts = [boundaries.count(image(case["pred"]), [truth(case["name"])], protocol(case)) for case in cases]
    scores = boundaries.score(BoundaryCounts.stack(counts), protocol(cases[0]))
    np.testing.assert_allclose(
        [getattr(scores, key) for key in SCORES], [expected["max_cardinality"][key] for key in SCORES], atol=5e-4
    )


def test_published_scores_follow_from_the_stored_counts():
    stored = np.load(GOLDEN / "seism_pascalcontext_HED_counts.npz")
    shape = stored["cnt"].shape
    true = np.broadcast_to(stored["sumR"].astype(np.int64)[:, None], shape)
    pairs = stored["cnt"].astype(np.int64)
    counts = BoundaryCounts(pairs, true, pairs, stored["sumP"].astype(np.int64))
    thresholds = tuple(str(threshold) for threshold in stored["thresholds"])
    scores = boundaries.score(counts, replace(boundaries.get("nms"), thresholds=thresholds))
    expected = AGGREGATES["seism_HED"]
    assert {key: round(getattr(scores, key), 3) for key in SCORES} == expected["published_3_decimals"]
    assert scores.odsF == pytest.approx(expected["recomputed"]["odsF"], abs=1e-6)


@pytest.mark.parametrize("row", [0, 3, 7, 11, 17])
def test_several_annotators(row):
    case = GPB["rows"][row]
    raw = np.load(GOLDEN / "gpb_ucm_boundaries.npz")
    name = f"{case['image']}_{case['threshold']}_pred_raw"
    stacked = image(f"pairs/bsds_{case['image']}_annotators.png")
    annotators = np.split(stacked, case["annotators"])
    height, width = annotators[0].shape
    prediction = np.unpackbits(raw[name])[: height * width].reshape(height, width)
    counts = boundaries.count(
        prediction * np.uint8(255),
        [boundaries.label_boundary(annotator) for annotator in annotators],
        replace(boundaries.get("plain", GPB["max_dist"]), thresholds=("0.5",)),
    )
    matlab, exact = case["matlab"], case["exact_min_cost"]
    assert (counts.truth[0], counts.prediction[0]) == (matlab["sumR"], matlab["sumP"])
    assert counts.matched_truth[0] == exact["cntR"]
    assert abs(counts.matched_prediction[0] - matlab["cntP"]) <= max(8, 0.003 * matlab["cntP"])
    assert 0 <= counts.matched_truth[0] - matlab["cntR"] <= 0.0025 * matlab["cntR"]


def test_benchmark_of_bsds500():
    expected = json.loads((GOLDEN / "bsds_bench/expected.json").read_text())
    truths = np.load(GOLDEN / "bsds_bench/gt_boundaries.npz")
    bench = replace(boundaries.get("bsds_bench", expected["max_dist"]), thresholds=equally_spaced(5))
    ids = sorted((path.name.removesuffix("_pred.png") for path in (GOLDEN / "bsds_bench").glob("*_pred.png")), key=int)
    counts = []
    for name in ids:
        shape = tuple(truths[f"{name}_shape"])
        true = np.unpackbits(truths[f"{name}_gt"])[: np.prod(shape)].reshape(shape).astype(bool)
        counts.append(boundaries.count(image(f"bsds_bench/{name}_pred.png"), list(true), bench))
    stacked = BoundaryCounts.stack(counts)
    scores = boundaries.score(stacked, bench)
    curve = np.array(expected["eval_bdry_thr_T_R_P_F"])
    np.testing.assert_allclose(np.array([scores.recall, scores.precision, scores.F]).T, curve[:, 1:], atol=6e-4)
    summary = expected["eval_bdry"]
    got = [scores.ods_threshold, scores.ods_recall, scores.ods_precision, scores.odsF, scores.oisF, scores.AP]
    want = [summary[key] for key in ("bestT", "bestR", "bestP", "bestF", "F_max", "Area_PR")]
    np.testing.assert_allclose(got, want, atol=1e-3)
    images = boundaries.image_scores(stacked, bench)
    np.testing.assert_allclose(images[:, 3], np.array(expected["eval_bdry_img_index_T_R_P_F"])[:, 4], atol=1e-3)


def test_the_nearest_are_not_always_paired():
    """A chain in which taking the nearest pairs first would leave one pixel out."""
    prediction, true = np.zeros((3, 9), bool), np.zeros((3, 9), bool)
    prediction[1, [2, 4]] = True
    true[1, [4, 7]] = True  # 2-4 and 4-7 are both within 3, 4-4 is nearest and would leave 2 alone
    assert count_pairs(prediction, true, 3) == 2
    assert count_pairs(prediction, true, 2) == 1
