"""What evaluation leaves behind, and single-task results found among it."""

import json
import math

import pytest

from mtl_jax import protocol
from mtl_jax.evaluation import result_files

RULES = {"data": "nyud_mt/survey", "depth": "image", "saliency": "mIoU", "edge": "nms, maxDist 0.011, all images"}
SURVEY = protocol.get("survey")
DEPTH = SURVEY.criteria(("depth",), final=True)
BOTH = SURVEY.criteria(("semseg", "depth"), final=True)
SINGLE = {"semseg": {"mIoU": 0.2}, "depth": {"rmse": 0.4}}


def write(folder, results, *, checkpoint="best", protocol=RULES, name=None):
    folder.mkdir(exist_ok=True)
    content = result_files.make(results, None, BOTH, checkpoint=checkpoint, step=1, protocol=protocol)
    return result_files.write(content, folder / (name or result_files.file_name(checkpoint or "best")))


@pytest.fixture
def runs(tmp_path):
    for task, scores in SINGLE.items():
        write(tmp_path / task, {task: scores})
    return tmp_path


def test_with_and_without_single_task_results(runs):
    results = {"semseg": {"mIoU": 0.3}, "depth": {"rmse": 0.5}}
    alone = result_files.make(results, None, BOTH, checkpoint="best", step=3, protocol=RULES)
    assert alone["delta_m"] is None
    assert "no single-task results were given (--single_task DIR)" in result_files.readable(alone)
    reference = result_files.read_single_task([runs], BOTH, RULES)
    assert reference == SINGLE
    content = result_files.make(results, reference, BOTH, checkpoint="best", step=3, protocol=RULES)
    assert content["delta_m"] == pytest.approx((0.5 - 0.25) / 2)
    assert "+12.50 %" in result_files.readable(content)


def test_missing_single_task_results(runs):
    with pytest.raises(FileNotFoundError, match=r"no single-task results\.json for edge"):
        result_files.read_single_task([runs], SURVEY.criteria(("edge",), final=True), RULES)


def test_unusable_single_task_results(runs):
    path = write(runs / "again", {"depth": {"rmse": 0.4}})
    with pytest.raises(ValueError, match="are results of depth; name one"):
        result_files.read_single_task([runs], BOTH, RULES)
    write(runs / "again", {"depth": {"rmse": 0.0}})
    with pytest.raises(ValueError, match="rmse is 0 or undefined"):
        result_files.read_single_task([runs / "again"], DEPTH, RULES)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"again/results\.json is not a report"):
        result_files.read_single_task([runs], BOTH, RULES)


def test_another_protocol_is_refused_unless_the_right_one_is_there_too(runs):
    pixel = RULES | {"depth": "pixel"}
    with pytest.raises(ValueError, match=r"obtained under the protocol .* different protocols are not comparable"):
        result_files.read_single_task([runs], BOTH, pixel)
    for task in SINGLE:
        write(runs / task, {task: dict.fromkeys(SINGLE[task], 0.5)}, protocol=pixel, name="results_astmt.json")
    assert result_files.read_single_task([runs], BOTH, pixel) == {"semseg": {"mIoU": 0.5}, "depth": {"rmse": 0.5}}
    assert result_files.read_single_task([runs], BOTH, RULES) == SINGLE


def test_other_checkpoints_and_scores_of_files_are_no_single_task_results(runs):
    write(runs / "depth", {"depth": {"rmse": 0.1}}, checkpoint="latest")
    other = result_files.checkpoint_name("best", "trained")
    write(runs / "depth", {"depth": {"rmse": 0.2}}, checkpoint=other, name=result_files.file_name("best", "trained"))
    write(runs / "files", {"depth": {"rmse": 0.1}}, checkpoint=None)  # perhaps one task of several
    assert result_files.read_single_task([runs], BOTH, RULES) == SINGLE
    assert result_files.read_single_task([runs / "files"], DEPTH, RULES) == {"depth": {"rmse": 0.1}}


def test_names():
    names = {
        (): "results.json",
        ("latest",): "results_latest.json",
        ("17",): "results_17.json",
        ("best", "", "astmt"): "results_astmt.json",
        ("latest", "", "invpt"): "results_latest_invpt.json",
        ("best", "trained"): "results_trained.json",
        ("17", "ema", "invpt", "train"): "results_17_ema_invpt.train.json",
    }
    assert {which: result_files.file_name(*which) for which in names} == names


def test_only_reports_are_found(tmp_path):
    names = ["results.json", "results_17_survey.json", "results_17_trained_survey.json", "results_ema.json"]
    for name in (*names, "results_of_mine.json", "results.partial"):
        (tmp_path / name).write_text("")
    assert [path.name for path in result_files.find([tmp_path])] == names


def test_directories_may_overlap(runs, monkeypatch):
    monkeypatch.chdir(runs)
    assert result_files.read_single_task([".", runs / "depth"], BOTH, RULES) == SINGLE


def test_what_is_read_is_readable(tmp_path):
    content = result_files.make({"depth": {"rmse": math.nan}}, None, DEPTH, checkpoint="best", step=1, protocol=RULES)
    content |= {"intervals": {"depth": {"rmse": (math.nan, math.nan)}}, "constant": {"depth": {"rmse": math.nan}}}
    path = result_files.write(content, tmp_path / "results.json")
    assert result_files.readable(result_files.read(path)) == result_files.readable(content)


def test_undefined_scores_are_null_in_the_file(tmp_path):
    path = write(tmp_path, {"semseg": {"mIoU": math.nan, "per_class_IoU": [math.nan, 0.5]}})
    strict = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert strict["results"]["semseg"] == {"mIoU": None, "per_class_IoU": [None, 0.5]}
    scores = result_files.read(path)["results"]["semseg"]
    assert math.isnan(scores["mIoU"])
    assert math.isnan(scores["per_class_IoU"][0])


@pytest.mark.parametrize("content", [b"", bytes(200), b"[]", b"\xff"])
def test_a_damaged_report_names_its_file_and_the_remedy(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"/results\.json is not a report of `mtl evaluate` .*; evaluate again"):
        result_files.read(tmp_path / "results.json")
