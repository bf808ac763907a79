"""Export of a run: what all formats have in common, and the format "jax"."""

import json
import zipfile
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from jax import export as jax_export

from mtl_jax import experiment, models
from mtl_jax.config import Config, Data, Model
from mtl_jax.data import catalogue
from mtl_jax.inference import export, jax_format
from mtl_jax.inference import program as programs
from mtl_jax.labels import ClassIds
from mtl_jax.nn import DepthwiseConv, InitialKeys
from mtl_jax.train import history
from tests import exported_runs, scripts, tiny


@pytest.fixture(autouse=True)
def _tiny_backbones(monkeypatch):
    tiny.register_backbones(monkeypatch)


@pytest.fixture
def workdir(tmp_path):
    return exported_runs.create(tmp_path)


def test_one_batch_size_one_platform(workdir, tmp_path):
    out = tmp_path / "new" / "x.zip"
    config = experiment.load_config(workdir)
    description = export.export_run(config, workdir, "0", out, batch_size=2, platforms=["cpu"])
    with zipfile.ZipFile(out) as file:
        assert json.loads(file.read("description.json")) == description
        program = jax_export.deserialize(bytearray(file.read("program.jaxexport")))
    assert description["platforms"] == ["cpu"]
    assert description["input"]["shape"] == [2, 64, 64, 3]
    assert description["outputs"]["semseg"]["shape"] == [2, 64, 64]
    assert [array.dtype for array in program.in_avals] == [np.uint8]
    with pytest.raises(ValueError, match="shape"):
        jax.jit(program.call)(exported_runs.images(3))


def test_description(workdir, tmp_path):
    config = experiment.load_config(workdir)
    config.data.dataset = "folder"
    config.data.class_names = {"semseg": tuple(f"class {i}" for i in range(40))}
    description = export.export_run(config, workdir, "latest", tmp_path / "x.zip", license="CC BY 4.0")
    assert description["input"] == {
        "name": "images",
        "shape": ["batch", 64, 64, 3],
        "dtype": "uint8",
        "meaning": "RGB images, resized to this height and width",
        "normalisation": "none: the program takes bytes from 0 to 255 and normalises them itself",
        "resize": "cubic, without antialiasing, as in evaluation",
    }
    outputs = description["outputs"]
    assert list(outputs) == ["semseg", "normals", "edge", "depth"]
    assert {task: (output["shape"], output["dtype"]) for task, output in outputs.items()} == {
        "semseg": (["batch", 64, 64], "int32"),
        "normals": (["batch", 64, 64, 3], "float32"),
        "edge": (["batch", 64, 64, 1], "float32"),
        "depth": (["batch", 64, 64, 1], "float32"),
    }
    assert {task: (output["unit"], output["range"], output["resize"]) for task, output in outputs.items()} == {
        "semseg": ("", [0, 39], "nearest"),
        "normals": ("", [0, 255], "linear"),
        "edge": ("", [0, 255], "linear"),
        "depth": ("m", None, "linear"),
    }
    assert outputs["semseg"]["classes"] == 40
    assert outputs["semseg"]["class_names"][39] == "class 39"
    assert outputs["semseg"]["class_colors"] == ClassIds().palette(40).tolist()
    assert (description["model"], description["backbone"], description["dtype"], description["step"]) == (
        "baseline",
        "tiny_resnet",
        "float32",
        0,
    )
    assert description["license"] == "CC BY 4.0"
    assert description["origin"]["data"] == "rendered_scenes/nyud_tiny"
    assert description["origin"]["initial_weights"] == "converted weights"
    assert description["lifetime"]["jax"] == jax.__version__
    assert (description["lifetime"]["months_newer"], description["lifetime"]["weeks_older"]) == (6, 3)
    assert (
        description["lifetime"]["calling_convention_version"] >= jax_export.minimum_supported_calling_convention_version
    )
    assert f"Written by jax {jax.__version__}" in description["lifetime"]["words"]


def test_the_description_names_the_classes_of_public_data_sets_and_no_folder_of_this_machine(tmp_path):
    model = Model("baseline", "tiny_resnet", pretrained="/home/someone/weights.npz")
    config = Config(Data("pascal", ("semseg", "human_parts"), image_size=(64, 64)), model)
    run = experiment.make(config)
    program = programs.make(models.build(config), run.main_tasks, (64, 64), batch_size=1)
    made = history.of_run(run, nnx.eval_shape(lambda: models.build(config)), tmp_path, 7)
    description = export.describe(run, made, program)
    assert description["outputs"]["semseg"]["class_names"][:2] == ["background", "aeroplane"]
    assert description["outputs"]["human_parts"]["class_names"] == [
        "background",
        "head",
        "torso",
        "upper arm",
        "lower arm",
        "upper leg",
        "lower leg",
    ]
    assert description["origin"]["initial_weights"] == "weights.npz"
    assert "not stated" in description["license"]
    assert "/home" not in json.dumps(description)


def test_every_class_of_a_data_set_has_a_name_of_its_own():
    for name, numbers in {"nyud": {"semseg": 40}, "pascal": {"semseg": 21, "human_parts": 7}}.items():
        names = catalogue.get(name).class_names
        assert {task: len(set(listed)) for task, listed in names.items()} == numbers


def test_errors_come_first(workdir, tmp_path, monkeypatch):
    config = experiment.load_config(workdir)
    out = tmp_path / "new" / "x.zip"

    def write(name="new/x.zip", **options):
        return export.export_run(config, workdir, "latest", tmp_path / name, **options)

    with monkeypatch.context() as patch:
        patch.setattr(export.restore, "load", None)  # nothing is read before
        for platforms in (["gpu"], []):
            with pytest.raises(ValueError, match=r"cannot export for .*; there are cpu, cuda, rocm, tpu"):
                write(platforms=platforms)
        with pytest.raises(ValueError, match=r"unknown export format 'torch'; the export formats are jax, onnx"):
            write(format="torch")
        with pytest.raises(ValueError, match=r"'jax' end in \.zip: name it x\.zip; or give format 'onnx', whose files"):
            write("new/x.onnx")
        with pytest.raises(ValueError, match=r"'onnx' end in \.onnx: name it x\.onnx; or give format 'jax', whose"):
            write(format="onnx")
        with pytest.raises(ValueError, match=r"new/x, but files of the format 'jax' end in \.zip: name it x\.zip$"):
            write("new/x")
        with pytest.raises(ValueError, match=r"'onnx' are the same for all platforms; leave the platforms out"):
            write("new/x.onnx", format="onnx", platforms=["cuda"])
        with pytest.raises(ValueError, match=r"batch_size is -1"):
            write(batch_size=-1)
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ValueError, match=r"needs the package onnx, .* pip install .mtl-jax\[onnx\]"):
            write("new/x.onnx", format="onnx")
        assert not out.parent.exists()
        (tmp_path / "old.zip").touch()
        with pytest.raises(FileExistsError, match=r"old\.zip exists already"):
            write("old.zip")
    with pytest.raises(FileNotFoundError, match="has no step 3; it has 0"):
        export.export_run(config, workdir, "3", out)
    assert not out.exists()


def test_the_command_exports_the_format_it_is_told(workdir, tmp_path):
    result = scripts.run("export", "--workdir", workdir, "--step=latest", "--out", tmp_path / "x.zip")
    assert "step 0, semseg, normals, edge, depth, for cpu and cuda" in result.stdout
    assert zipfile.is_zipfile(tmp_path / "x.zip")
    result = scripts.run("export", "--workdir", workdir, "--out", tmp_path / "y.zip", "--format", "onnx")
    assert result.returncode == 1
    assert "files of the format 'onnx' end in .onnx: name it y.onnx" in result.stderr


CASES = [(*network, "float32") for network in tiny.NETWORKS]
CASES += [("baseline", "mobilenetv3_small", "float32"), ("baseline", "efficientnet_lite0", "bfloat16")]
CASES += [("baseline", "hrnet_w18", "bfloat16"), ("baseline", "resnet18_dilated", "bfloat16")]


def build(name, backbone, dtype):
    main = ("depth",) if name == "single_task" else ("semseg", "depth")
    config = Config(Data("nyud", main), Model(name, backbone, dtype=dtype))
    model = tiny.randomise_batch_norms(models.build(config))
    return experiment.make(config), programs.make(model, main, (64, 96), batch_size=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backbone", "dtype"), CASES)
def test_every_model_exports_for_any_number_of_images(name, backbone, dtype):
    run, program = build(name, backbone, dtype)
    described = export.describe(run, history.UNKNOWN, program)["outputs"]
    assert described["depth"]["shape"] == ["batch", 64, 96, 1]
    assert described["depth"]["dtype"] == "float32"
    exported = jax_format.export_program(program, jax_format.JaxFormat.platforms)
    assert "inlineable" not in exported.mlir_module()  # what only programs for CPUs keep apart
    again = jax_export.deserialize(exported.serialize())
    assert str((again.in_avals, again.out_avals)) == str((exported.in_avals, exported.out_avals))


@pytest.mark.parametrize(("platforms", "groups"), [(("cpu", "cuda"), False), (("cuda",), True)])
def test_programs_for_cpus_have_no_convolutions_with_groups(platforms, groups):
    """XLA computes them slowly there."""
    conv = DepthwiseConv(3, 3, stride=2, rngs=InitialKeys(0))
    images = jax.ShapeDtypeStruct((*jax_export.symbolic_shape("batch"), 6, 8, 3), np.float32)
    program = SimpleNamespace(predict=jax.jit(lambda images: conv(images)), images=images)
    module = jax_format.export_program(program, platforms).mlir_module()
    assert ("feature_group_count = 3" in module) == groups
    assert ("stablehlo.convolution" in module) == groups
