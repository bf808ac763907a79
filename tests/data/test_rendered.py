"""The rendered data set: geometry of the ray caster, content of the labels, and the way through tfds."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mtl_jax.data.rendered import RenderedConfig, RenderedScenes, builder, draw, people, rooms
from mtl_jax.data.rendered.raycast import MISS, Camera, Scene, Shape, along, boundaries, render, yaw
from mtl_jax.data.rendered.textures import PATTERNS, Material, albedo
from mtl_jax.runtime import workers

KINDS = {"nyud": (96, 128), "pascal": (96, 96)}
CHANNELS = {
    "nyud": {"image": 3, "semseg": 1, "depth": 1, "normals": 3, "edge": 1},
    "pascal": {"image": 3, "semseg": 1, "human_parts": 1, "sal": 1, "normals": 3, "edge": 1},
}
FLOATS = {"depth", "normals"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    tfds.disable_progress_bar()
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def drawn():
    return {kind: [draw(kind, *size, 0, "train", i) for i in range(8)] for kind, size in KINDS.items()}


def one_shape(kind, center, half, rotation=None, angle=0.0, pitch=0.0):
    rotation = np.eye(3, dtype=np.float32) if rotation is None else rotation
    shape = Shape(
        kind,
        np.float32(center),
        np.float32(half),
        Material((0.5, 0.5, 0.5)),
        1,
        1,
        rotation=rotation,
        casts_shadow=False,
    )
    camera = Camera.looking((0, 0, 0), angle, pitch, 0, 0.8)
    return Scene([shape], camera, np.float32([0, 0, 5]), np.ones(3, np.float32), np.ones(3, np.float32))


def test_ball_and_cylinder_are_where_they_should_be():
    ball = render(one_shape("ball", (0, 5, 0), (1, 1, 1)), 65, 65)
    np.testing.assert_allclose(ball.depth[32, 32], 4, rtol=1e-5)
    np.testing.assert_allclose(ball.normals[32, 32], (0, -1, 0), atol=1e-5)
    assert ball.depth[0, 0] == 0
    assert ball.index[0, 0] == MISS
    # A ball of radius r at distance d is seen under asin(r / d).
    radius = np.tan(np.arcsin(1 / 5)) * 0.8 * 65
    assert abs((ball.index[32] != MISS).sum() - 2 * radius) <= 1
    lying = render(one_shape("cylinder", (0, 5, 0), (0.5, 0.5, 2), along((1, 0, 0))), 65, 65)
    np.testing.assert_allclose(lying.depth[32, 32], 4.5, rtol=1e-5)
    assert (lying.index[32] != MISS).sum() > 3 * (lying.index[:, 32] != MISS).sum()
    end = render(one_shape("cylinder", (0, 5, 0), (0.5, 0.5, 2), along((0, 1, 0))), 65, 65)
    np.testing.assert_allclose(end.depth[32, 32], 3, rtol=1e-5)
    np.testing.assert_allclose(end.normals[32, 32], (0, -1, 0), atol=1e-5)


def test_depth_is_measured_along_the_optical_axis_and_normals_in_camera_axes():
    wall = render(one_shape("box", (0, 4.5, 0), (9, 0.5, 9)), 48, 64)
    np.testing.assert_allclose(wall.depth, 4, rtol=1e-5)  # a wall that faces the camera has one depth
    np.testing.assert_allclose(wall.normals, np.broadcast_to((0, -1, 0), wall.normals.shape), atol=1e-6)
    floor = render(one_shape("box", (0, 0, -2), (50, 50, 0.5)), 48, 64)
    np.testing.assert_allclose(floor.normals[-1, 0], (0, 0, 1), atol=1e-6)
    left = render(one_shape("box", (-2, 0, 0), (0.5, 50, 50)), 48, 64)
    np.testing.assert_allclose(left.normals[0, 0], (1, 0, 0), atol=1e-6)


def numerical_normals(depth, focal):
    """Normals from differences of the back-projected points, [H - 1, W - 1, 3]; the focal length in pixels."""
    height, width = depth.shape
    x = (np.arange(width) + 0.5 - width / 2) / focal * depth
    z = (height / 2 - np.arange(height)[:, None] - 0.5) / focal * depth
    points = np.stack([x, depth, z], axis=-1).astype(np.float64)
    right, up = points[:-1, 1:] - points[:-1, :-1], points[:-1, :-1] - points[1:, :-1]
    n = np.cross(right, up)
    return n / np.linalg.norm(n, axis=-1, keepdims=True)


def test_normals_agree_with_depth_on_a_tilted_plane():
    out = render(one_shape("box", (0.3, 6, 0.2), (9, 0.5, 9), yaw(0.6), angle=0.2, pitch=-0.3), 48, 64)
    assert (out.index == 0).all()
    # float32 depths of a few metres differ by centimetres between neighbours: the noise is about 1e-4.
    np.testing.assert_allclose(numerical_normals(out.depth, 0.8 * 64), out.normals[:-1, :-1], atol=2e-3)


def test_normals_agree_with_depth_in_rooms():
    rng = np.random.default_rng(3)
    scene = rooms.furnish(rng)
    out = render(scene, 96, 128)
    expected = numerical_normals(out.depth, scene.camera.focal * 128)
    cosine = (expected * out.normals[:-1, :-1]).sum(-1)
    assert np.median(cosine) > 0.9999
    assert (cosine > 0.99).mean() > 0.8  # the rest are outlines, where differences mean nothing


def test_nearer_shapes_hide_farther_ones_and_light_is_blocked():
    grey, red = Material((0.5, 0.5, 0.5)), Material((1, 0, 0))
    floor = Shape("box", np.float32([0, 5, -1.5]), np.float32([20, 20, 0.5]), grey, 1, 1, casts_shadow=False)
    block = Shape("box", np.float32([0, 4, 0]), np.float32([0.4, 0.4, 0.4]), red, 2, 2)
    light = np.float32([0, 4, 4])
    camera = Camera.looking((0, 0, 0.5), 0, -0.2, 0, 0.8)
    ones = np.ones(3, np.float32)
    both = render(Scene([floor, block], camera, light, ones, 0.2 * ones), 64, 64)
    alone = render(Scene([floor], camera, light, ones, 0.2 * ones), 64, 64)
    assert set(np.unique(both.index)) == {MISS, 0, 1}
    on_floor = both.index == 0
    darker = both.color[on_floor].sum(-1) < 0.5 * alone.color[on_floor].sum(-1)
    assert 0.02 < darker.mean() < 0.5
    np.testing.assert_array_equal(both.depth[on_floor], alone.depth[on_floor])


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
@pytest.mark.parametrize("kind", ["box", "ball", "cylinder"])
def test_textures_are_colours(pattern, kind):
    points = np.random.default_rng(0).uniform(-1, 1, (3, 50)).astype(np.float32)
    normals = np.zeros_like(points)
    normals[np.arange(50) % 3, np.arange(50)] = 1
    material = Material((0.8, 0.3, 0.2), (0.1, 0.2, 0.9), pattern, 0.2, seed=5)
    color = albedo(material, kind, points, normals, np.ones(3, np.float32))
    assert color.shape == (3, 50)
    assert color.dtype == np.float32
    assert color.min() >= 0
    assert color.max() <= 1


def test_boundaries_separate_neighbours():
    regions = np.array([[1, 1, 2], [1, 1, 2], [3, 3, 3]])
    np.testing.assert_array_equal(boundaries(regions), [[0, 1, 0], [1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_types_and_ranges(drawn, kind):
    for example in drawn[kind]:
        assert {k: v.shape for k, v in example.items()} == {k: (*KINDS[kind], c) for k, c in CHANNELS[kind].items()}
        assert {k: v.dtype for k, v in example.items()} == {
            k: np.dtype(np.float32 if k in FLOATS else np.uint8) for k in example
        }
        classes = (rooms if kind == "nyud" else people).CLASSES
        assert set(np.unique(example["semseg"])) <= set(classes.values())
        assert set(np.unique(example["edge"])) <= {0, 255}
        assert example["image"].std() > 15
        norm = np.linalg.norm(example["normals"], axis=-1)
        assert (np.isclose(norm, 1, atol=1e-4) | (norm == 0)).all()
        assert example["normals"][norm > 0][:, 1].mean() < 0  # surfaces face the camera
        if kind == "nyud":
            depth = example["depth"][..., 0]
            np.testing.assert_array_equal(depth > 0, norm > 0)
            assert depth.max() <= 10
            assert 0.8 < (depth > 0).mean() < 1
            assert depth[depth > 0].min() > 0.3
        else:
            assert set(np.unique(example["human_parts"])) <= set(people.PARTS.values())
            assert set(np.unique(example["sal"])) <= {0, 255}
            semseg = example["semseg"]
            assert np.isin(semseg[example["human_parts"] > 0], (people.CLASSES["person"], 255)).all()


def test_the_set_as_a_whole(drawn):
    seen = set(np.unique([e["semseg"] for e in drawn["nyud"]]))
    assert len(seen) >= 12
    assert {0, 1, 21, 255} <= seen
    assert len(np.unique([e["human_parts"] for e in drawn["pascal"]])) == 7
    has_person = [e["human_parts"].any() for e in drawn["pascal"]]
    assert any(has_person)
    assert not all(has_person)
    assert all(0 < (e["sal"] > 0).mean() < 0.7 for e in drawn["pascal"])
    depths = np.array([np.median(e["depth"][e["depth"] > 0]) for e in drawn["nyud"]])
    assert depths.std() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_classes_change_only_at_edges_and_edges_are_thin(drawn, kind):
    for example in drawn[kind]:
        semseg, edge = example["semseg"][..., 0].astype(int), example["edge"][..., 0] > 0
        for axis in (0, 1):
            a, b = (np.delete(semseg, i, axis) for i in (-1, 0))
            marked = np.delete(edge, -1, axis)
            assert marked[(a != b) & (a != 255) & (b != 255)].all()
        assert 0.005 < edge.mean() < 0.25


def test_images_depend_on_seed_split_and_index_alone():
    key = ("nyud", 48, 64)
    first = draw(*key, 7, "train", 3)
    again = draw(*key, 7, "train", 3)
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    for other in ((7, "train", 4), (7, "val", 3), (8, "train", 3)):
        assert (draw(*key, *other)["image"] != first["image"]).any()


@pytest.mark.parametrize("kind", KINDS)
def test_through_tfds(data_dir, drawn, kind):
    name = f"{kind}_tiny"
    scenes = tfds.builder(f"rendered_scenes/{name}", data_dir=data_dir)
    scenes.download_and_prepare()
    assert scenes.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    train, val = (scenes.as_data_source(split) for split in ("train", "val"))
    assert (len(train), len(val)) == (12, 5)
    ids = [e["id"] for e in train] + [e["id"] for e in val]
    assert len(set(ids)) == 17
    for i, expected in enumerate(drawn[kind]):
        found = train[i]
        assert found["id"] == f"train_{i:05d}".encode()
        assert set(found) == {"id", *expected}
        for key, value in expected.items():
            assert found[key].dtype == value.dtype
            if key == "image":  # JPEG loses a little
                assert np.abs(found[key].astype(int) - value).mean() < 8
                np.testing.assert_allclose(found[key].mean((0, 1)), value.mean((0, 1)), atol=1.5)
            else:
                np.testing.assert_array_equal(found[key], value)
    assert all((val[i]["image"] != train[i]["image"]).any() for i in range(5))
    assert len(RenderedScenes(config=name, data_dir=data_dir).as_data_source("val")) == 5


def test_own_configuration(data_dir):
    config = RenderedConfig(name="own", kind="pascal", height=40, width=56, num_train=2, num_val=1, seed=3)
    own = RenderedScenes(config=config, data_dir=data_dir)
    own.download_and_prepare()
    example = own.as_data_source("train")[1]
    assert example["image"].shape == (40, 56, 3)
    np.testing.assert_array_equal(example["sal"], draw("pascal", 40, 56, 3, "train", 1)["sal"])
    other = RenderedConfig(name="own", kind="pascal", height=40, width=56, num_train=2, num_val=1, seed=4)
    with pytest.raises(ValueError, match="use another name"):
        RenderedScenes(config=other, data_dir=data_dir).download_and_prepare()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("kind", "kitti", "'nyud', 'pascal'"),
        ("height", 31, "at least 32"),
        ("width", 64.0, "integer"),
        ("num_train", 0, "at least 1"),
        ("num_val", True, "integer"),
        ("seed", -1, "at least 0"),
    ],
)
def test_wrong_settings_are_named(field, value, allowed):
    with pytest.raises(ValueError, match=f"{field} is {value!r}.*{allowed}"):
        RenderedConfig(name="wrong", **{field: value})


def test_several_processes_draw_the_same_in_order():
    job = builder.partial(builder._encoded, "nyud", 32, 32, 0, "train")
    alone = [job(i) for i in range(6)]
    together = list(workers.map_ordered(job, range(6), num_workers=2))
    assert [e["id"] for e in together] == [f"train_{i:05d}" for i in range(6)]
    for a, b in zip(alone, together, strict=True):
        assert a["image"] == b["image"]
        np.testing.assert_array_equal(a["depth"], b["depth"])


def test_tensorflow_stays_out(tmp_path):
    code = (
        "import sys; from mtl_jax.data.rendered import RenderedConfig, RenderedScenes\n"
        "config = RenderedConfig(name='few', height=32, width=32, num_train=2, num_val=1)\n"
        "scenes = RenderedScenes(config=config, data_dir=sys.argv[1]); scenes.download_and_prepare()\n"
        "assert scenes.as_data_source('train')[0]['depth'].shape == (32, 32, 1)\n"
        "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True, timeout=60)
