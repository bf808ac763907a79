"""Export of a run in the format "onnx", compared with evaluation by means of ONNX Runtime."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from mtl_jax import backbones, experiment, models
from mtl_jax.backbones import vit_variants
from mtl_jax.backbones.vit import build_vit
from mtl_jax.config import Config, Data, Model
from mtl_jax.inference import export
from mtl_jax.inference import program as programs
from mtl_jax.train import history
from tests import exported_runs, tiny
from tests.marks import slow

onnx = pytest.importorskip("onnx", reason="export to ONNX needs onnx", exc_type=ModuleNotFoundError)
onnxruntime = pytest.importorskip("onnxruntime", reason="running ONNX models needs onnxruntime")


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)
    monkeypatch.setitem(
        backbones.BACKBONES, "tiny4", lambda name, *, image_size, rngs: tiny.TinyBackbone(scales=4, rngs=rngs)
    )


def run(content, images):
    session = onnxruntime.InferenceSession(content)
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images}), strict=True))


@pytest.mark.parametrize("backbone", ["tiny_resnet", slow("tiny_resnet_dilated")])
def test_onnx_runtime_predicts_what_evaluation_does(tmp_path, backbone):
    workdir = exported_runs.create(tmp_path, backbone)
    out = tmp_path / "new" / "model.onnx"
    description = export.export_run(experiment.load_config(workdir), workdir, "latest", out, format="onnx")
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert {each.key: json.loads(each.value) for each in model.metadata_props} == {"description": description}
    assert (description["lifetime"]["opset"], description["lifetime"]["ir_version"]) == (18, 8)
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    assert [each.name for each in model.graph.output] == list(description["outputs"])
    images = exported_runs.images(3)
    wanted = exported_runs.expected(workdir, images)
    for number in (1, 3):
        exported_runs.assert_close(
            run(str(out), images[:number]), {task: maps[:number] for task, maps in wanted.items()}
        )


@pytest.mark.parametrize("name", [slow("mti_net"), slow("invpt"), "cross_stitch"])
def test_models_that_exchange_features(name):
    tasks = ("semseg", "depth")
    aux = (*tasks, "normals") if name == "mti_net" else ()
    backbone = {"cross_stitch": "tiny_resnet", "mti_net": "tiny4", "invpt": "tiny_vit"}[name]
    options = {"features": 8, "extra": 8} if name == "invpt" else {}
    config = Config(Data("nyud", tasks, aux, image_size=(32, 64)), Model(name, backbone, options=options))
    model = tiny.randomise_batch_norms(models.build(config))
    program = programs.make(model, tasks, (32, 64), batch_size=0)
    content, _ = export.FORMATS["onnx"].encode(
        program, export.describe(experiment.make(config), history.UNKNOWN, program), ()
    )
    images = exported_runs.images(2)[:, :32]
    wanted = jax.tree.map(np.asarray, program.predict(images))
    assert np.ptp(wanted["depth"]) > 0.1  # a hundred times the tolerance
    exported_runs.assert_close(run(content, images), {task: wanted[task] for task in tasks})


def differences(model, size):
    """{task: largest difference between ONNX Runtime and JAX} of the predictions for random images."""
    tasks = model.tasks
    config = Config(Data("nyud", tasks, image_size=size), Model("baseline"))
    program = programs.make(model, tasks, size, batch_size=0)
    content, _ = export.FORMATS["onnx"].encode(
        program, export.describe(experiment.make(config), history.UNKNOWN, program), ()
    )
    images = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
    wanted, maps = jax.tree.map(np.asarray, program.predict(images)), run(content, images)
    assert all(np.ptp(wanted[task]) > 0.01 for task in tasks)
    exported_runs.assert_close(maps, {task: wanted[task] for task in tasks})
    return {task: float(np.abs(maps[task] - wanted[task]).max()) for task in tasks if task != "semseg"}


@pytest.mark.parametrize("head", ["dpt:features=8", slow("linear")])
def test_heads_that_read_tokens(monkeypatch, head):
    variant = replace(
        vit_variants.VARIANTS["dinov2_small"], width=16, heads=2, outputs=(1, 2, 3, 4), patch=8, grid=3, hidden=1
    )
    monkeypatch.setitem(vit_variants.VARIANTS, "tiny_vit", variant)
    monkeypatch.setitem(backbones.BACKBONES, "tiny_vit", build_vit)
    regression = {"depth": "relu:high=5" if head.startswith("dpt") else "bins:number=8"}
    heads = {"semseg": "bn_linear"}
    config = Config(
        Data("nyud", ("semseg", "depth"), image_size=(40, 56)),
        Model("baseline", "tiny_vit", head, heads=heads, regression=regression),
    )
    assert differences(models.build(config), (40, 56))["depth"] < 1e-4


@pytest.mark.slow
def test_dinov2_small_with_dpt_heads():
    config = Config(
        Data("nyud", ("semseg", "normals", "depth"), image_size=(224, 280)),
        Model("baseline", "dinov2_small", "dpt", regression={"depth": "relu"}),
    )
    assert differences(models.build(config), (224, 280))["depth"] < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone"), tiny.NETWORKS)
def test_every_model_converts_for_any_number_of_images(name, backbone):
    main = ("depth",) if name == "single_task" else ("semseg", "depth")
    config = Config(Data("nyud", main, image_size=(64, 96)), Model(name, backbone))
    program = programs.make(tiny.randomise_batch_norms(models.build(config)), main, (64, 96), batch_size=0)
    content, _ = export.FORMATS["onnx"].encode(
        program, export.describe(experiment.make(config), history.UNKNOWN, program), ()
    )
    maps = run(content, np.zeros((2, 64, 96, 3), np.uint8))
    assert {task: each.shape for task, each in maps.items()} == {
        task: (2, 64, 96) if task == "semseg" else (2, 64, 96, 1) for task in main
    }
    assert np.isfinite(maps["depth"]).all()


def test_one_batch_size(tmp_path):
    workdir = exported_runs.create(tmp_path)
    out = tmp_path / "model.onnx"
    config = experiment.load_config(workdir)
    description = export.export_run(config, workdir, "latest", out, format="onnx", batch_size=2)
    assert description["input"]["shape"] == [2, 64, 64, 3]
    assert run(str(out), exported_runs.images(2))["depth"].shape == (2, 64, 64, 1)
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match="images"):
        run(str(out), exported_runs.images(3))


def test_a_run_in_bfloat16_is_exported_in_float32_and_says_so(tmp_path, caplog):
    workdir = exported_runs.create(tmp_path, dtype="bfloat16")
    config = experiment.load_config(workdir)
    out = tmp_path / "model.onnx"
    description = export.export_run(config, workdir, "latest", out, format="onnx")
    assert description["dtype"] == "float32"
    assert "the run computes in bfloat16; its file of the format onnx computes in float32" in caplog.text
    config.model.dtype = "float32"
    other = tmp_path / "float32.onnx"
    export.export_run(config, workdir, "latest", other, format="onnx")
    images = exported_runs.images(2)
    exported_runs.assert_close(run(str(out), images), run(str(other), images))
