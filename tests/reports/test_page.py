"""The report as a page: what goes into it, and that texts of files stay texts."""

import base64
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from mtl_jax.reports import gallery, page, run_table
from mtl_jax.reports.data_uris import DataUris
from tests import scripts
from tests.stored_runs import SINGLE, counted_once, write

NO_IMAGES = page.Options(gallery=0)


@pytest.fixture(scope="module", autouse=True)
def _counted_once():
    with counted_once():
        yield


def embedded(html: str, name: str):
    """What the page's script reads."""
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.S)[1])


@pytest.fixture
def stored(tmp_path):
    for task, scores in SINGLE.items():
        write(tmp_path / "runs" / f"single_{task}", (task,), {task: scores})
    for seed, (miou, rmse) in enumerate([(0.44, 0.8), (0.48, 0.72)]):
        scores = {"semseg": {"mIoU": miou, "per_class_IoU": [0.3, float("nan")]}, "depth": {"rmse": rmse}}
        write(tmp_path / "runs" / f"mti_{seed}", ("semseg", "depth"), scores, seed=seed)
    return tmp_path / "runs"


def test_the_command_says_where_the_page_is(stored, tmp_path, monkeypatch):
    """Predictions for the page take their programs from the cache."""
    asked = []
    monkeypatch.setattr("mtl_jax.cli.enable_compilation_cache", lambda: asked.append(1))
    done = scripts.run("report", stored, "--html", tmp_path / "report.html", "--gallery", 0)
    assert done.stdout.endswith(f"the page is in {tmp_path / 'report.html'}\n"), done.stderr
    assert len(asked) == 1


def test_tables_curves_and_classes(stored, tmp_path):
    path = page.write(run_table.find_runs([stored]), tmp_path / "new" / "report.html", NO_IMAGES)
    data = embedded(path.read_text(encoding="utf-8"), "data")
    assert [run["name"] for run in data["runs"]] == ["mti_0", "mti_1", "single_depth", "single_semseg"]
    assert data["runs"][1]["description"] == "mti_net, hrnet_w18, seed 1"
    (table,) = data["tables"]
    assert table["protocol"].startswith("data nyud_mt/astmt, depth image, saliency mIoU, edge ")
    assert table["columns"] == [
        {"task": "semseg", "metric": "mIoU", "higher_is_better": True},
        {"task": "depth", "metric": "rmse", "higher_is_better": False},
    ]
    (row,) = (row for row in table["rows"] if row["model"] == "mti_net")
    assert (row["runs"], row["seeds"], row["steps"]) == ([0, 1], [0, 1], [30, 30])
    np.testing.assert_allclose(row["scores"]["semseg"]["mean"], 0.46)
    np.testing.assert_allclose(row["delta_m"]["values"], [(0.1 + 0) / 2, (0.2 + 0.1) / 2])
    losses = [chart for chart in data["charts"] if chart["group"] == "losses"]
    assert [chart["name"] for chart in losses] == ["loss/total"]
    assert [curve["run"] for curve in losses[0]["curves"]] == [0, 1, 2, 3]
    assert losses[0]["curves"][0] == {"run": 0, "steps": [1, 2, 3, 4, 5], "values": [3, 1.5, 1, 0.75, 0.6]}
    (classes,) = data["classes"]
    assert (classes["task"], classes["names"]) == ("semseg", ["wall", "floor"])
    assert {bar["run"]: bar["values"] for bar in classes["bars"]} == {0: [0.3, None], 1: [0.3, None], 3: [0.2, 0.6]}
    assert all(bar["protocol"] == table["protocol"] for bar in classes["bars"])
    assert data["galleries"] == []


def test_the_page_needs_nothing_else(stored, tmp_path):
    html = page.write(run_table.find_runs([stored]), tmp_path / "report.html", NO_IMAGES).read_text(encoding="utf-8")
    assert "default-src 'none'; img-src data:;" in html
    assert not re.search(r"""<(link|iframe|script src|img src)|(src|href)\s*=\s*["']?(https?:)?//""", html)
    assert "uPlot" in html
    assert len(html) < 300_000


def test_texts_from_files_are_no_markup(tmp_path):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[31m\u202e\u2028"
    folder = tmp_path / "runs" / "a<script>alert(2)<&\u202e"
    write(folder, ("semseg",), SINGLE)
    write(tmp_path / "runs" / "b", ("semseg",), SINGLE, seed=1)
    path = folder / "results.json"
    content = json.loads(path.read_text())
    content["checkpoint"] = content["protocol"][hostile] = hostile
    path.write_text(json.dumps(content))
    line = {"step": 1, "kind": "train", f"loss/{hostile}": 1.0}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
    html = page.write(run_table.find_runs([tmp_path]), tmp_path / "report.html", NO_IMAGES).read_text(encoding="utf-8")
    assert html.count("<script") == html.count("</script>") == 3
    assert "alert(1)" in html  # the text is there, and no element begins with it
    assert not re.search(r"<(script|img|/script)[^>]*>\s*alert|<img", html)
    assert not set("\x1b\u202e\u2028") & set(html)
    data = embedded(html, "data")
    assert data["runs"][0]["name"] == r"a<script>alert(2)<&\u202e"
    assert r"<img src=x onerror=alert(1)>\x1b[31m\u202e\u2028" in data["tables"][0]["protocol"]
    assert any(chart["name"].startswith("loss/</script><script>alert(1)") for chart in data["charts"])


def test_gallery(trained, tmp_path):
    runs = run_table.find_runs([trained])
    html = page.write(runs, tmp_path / "report.html", page.Options(gallery=5, scored=0)).read_text(encoding="utf-8")
    data, pictures = embedded(html, "data"), embedded(html, "pictures")
    (shown,) = data["galleries"]
    assert (shown["problem"], shown["step"], shown["scored"], shown["total"]) == ("", 0, 5, 5)
    assert [(score["task"], score["metric"], score["stands_for"]) for score in shown["scores"]] == [
        ("semseg", "mIoU_present", "mIoU"),
        ("depth", "rmse", "rmse"),
    ]
    images = shown["images"]
    assert len({image["id"] for image in images}) == len(images) == 5
    semseg, depth = zip(*(image["tasks"] for image in images), strict=True)
    # The protocol of the run reports the mean over the images of each image's RMSE.
    expected = runs[0].reports[0]["results"]["depth"]["rmse"]
    np.testing.assert_allclose(np.mean([each["score"] for each in depth]), expected)
    by_semseg = [each["score"] for each in semseg]
    assert by_semseg[0] == min(by_semseg)  # the first images are the worst of each task, the next ones the best
    for task in (*semseg, *depth):
        for name in ("prediction", "truth", "error"):
            data_uri = pictures[task[name]]
            form, encoded = re.fullmatch("data:image/(png|jpeg);base64,(.*)", data_uri).groups()
            decoded = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
            assert max(decoded.shape) <= 320
            assert form in ("png", "jpeg")
    assert semseg[0]["key"]["form"] == "swatches"
    entries = semseg[0]["key"]["entries"]
    assert {entry["name"] for entry in entries} <= {*runs[0].experiment.class_names["semseg"], "unlabelled", "no label"}
    assert any(re.fullmatch("#[0-9a-f]{6}", entry["color"] or "") for entry in entries)
    assert (depth[0]["key"]["form"], depth[0]["key"]["unit"], len(depth[0]["key"]["stops"])) == ("bar", "m", 16)
    assert depth[0]["error_key"]["form"] == "bar"
    assert depth[0]["error_text"]


def test_a_gallery_stops_at_its_size(trained, tmp_path):
    runs = run_table.find_runs([trained])
    data = page.content(runs, DataUris(), page.Options(gallery=4, scored=3, pictures_bytes=1))
    (shown,) = data["galleries"]
    assert (len(shown["images"]), shown["wanted"], shown["scored"], shown["total"]) == (1, 4, 3, 5)


@pytest.mark.parametrize(
    ("remove", "reason"),
    [("checkpoints", "checkpoint"), ("data", r"the data set rendered_scenes/nyud_tiny is not built in .*/nothing")],
)
def test_what_is_missing_is_said_in_the_place_of_the_gallery(trained, tmp_path, remove, reason):
    copy = shutil.copytree(trained, tmp_path / "runs" / "copy")
    if remove == "checkpoints":
        shutil.rmtree(copy / "checkpoints")
    else:
        config = json.loads((copy / "config.json").read_text())
        config["data"]["data_dir"] = str(tmp_path / "nothing")
        del config["sha256"]
        (copy / "config.json").write_text(json.dumps(config))
    data = page.content(run_table.find_runs([copy]), DataUris(), page.Options())
    (shown,) = data["galleries"]
    assert re.search(reason, shown["problem"])
    assert "images" not in shown
    assert data["tables"][0]["rows"][0]["scores"]["depth"]["mean"] > 0
    assert not (tmp_path / "nothing").exists()


def test_seeds_of_one_experiment_share_a_gallery(stored):
    data = page.content(run_table.find_runs([stored]), DataUris(), page.Options())
    assert [entry["run"] for entry in data["galleries"]] == [0, 2, 3]
    assert all("checkpoint" in entry["problem"] for entry in data["galleries"])


def test_rankings_are_taken_in_turns():
    assert list(gallery.in_turns([[1, 2, 3], [2, 1, 3], [3, 2, 1]])) == [1, 2, 3]
    assert list(gallery.in_turns([[5, 6], [], [6, 5, 7]])) == [5, 6, 7]
    assert list(gallery.in_turns([])) == []


def test_equal_pictures_are_kept_once():
    pictures = DataUris()
    black, noise = np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert [pictures.add(black), pictures.add(noise), pictures.add(black.copy())] == [0, 1, 0]
    assert [uri.split(";")[0] for uri in pictures.uris] == ["data:image/png", "data:image/jpeg"]
    assert pictures.size == sum(map(len, pictures.uris))


def test_command(stored, tmp_path):
    path = tmp_path / "report.html"
    done = scripts.run("report", stored, "--html", path, "--gallery", "0")
    assert done.returncode == 0, done.stderr
    assert embedded(path.read_text(encoding="utf-8"), "data")["galleries"] == []


def test_options_are_checked():
    with pytest.raises(ValueError, match="gallery of the page is -1, expected 0 or more"):
        page.Options(gallery=-1)
