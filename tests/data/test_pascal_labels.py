"""Human parts, edges and trusted normals from the annotations of PASCAL-Part and PASCAL-Context."""

import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from skimage.morphology import thin

from mtl_jax.data import pascal_labels

H, W = 6, 8
SAMPLES = Path(__file__).parents[2].parent / "shared" / "data" / "pascal_samples"
GROUPS = {  # group: the names in PASCAL-Part
    1: ["head", "leye", "reye", "lear", "rear", "lebrow", "rebrow", "nose", "mouth", "hair"],
    2: ["torso", "neck"],
    3: ["luarm", "ruarm"],
    4: ["llarm", "lhand", "rlarm", "rhand"],
    5: ["luleg", "ruleg"],
    6: ["llleg", "lfoot", "rlleg", "rfoot"],
}


def box(top, bottom, left, right, shape=(H, W)):
    mask = np.zeros(shape, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def struct(rows, fields, empty=(0, 0)):
    out = np.empty((1, len(rows)) if rows else empty, [(field, object) for field in fields])
    for i, row in enumerate(rows):
        out[0, i] = row
    return out


def thing(class_ind, *parts, mask=None, empty=(0, 0)):
    mask = np.ones((H, W), np.uint8) if mask is None else mask
    return "thing", np.uint8(class_ind), mask, struct(parts, ("part_name", "mask"), empty)


def anno(*things, empty=(0, 0), squeeze=False):
    """As it comes out of a file."""
    file = io.BytesIO()
    objects = struct(things, ("class", "class_ind", "mask", "parts"), empty)
    scipy.io.savemat(file, {"anno": struct([("name", objects)], ("imname", "objects"))})
    return scipy.io.loadmat(io.BytesIO(file.getvalue()), squeeze_me=squeeze)["anno"]


def parts(*things, **kwargs):
    return pascal_labels.human_parts(anno(*things, **kwargs), (3, 4))


def test_all_24_names():
    names = [(group, name) for group, names in GROUPS.items() for name in names]
    assert len(names) == 24
    for group, name in names:
        np.testing.assert_array_equal(parts(thing(15, (name, box(1, 3, 2, 5)))), group * box(1, 3, 2, 5))


@pytest.mark.parametrize("squeeze", [False, True])
def test_later_over_earlier(squeeze):
    """Torso over head in one person, another person's leg over both, and no trace of the horse's head."""
    got = parts(
        thing(15, ("head", box(0, 3, 0, 4)), ("torso", box(2, 5, 0, 4))),
        thing(15, ("luleg", box(1, 4, 3, 6))),
        thing(13, ("head", box(0, 6, 0, 8))),
        thing(15),
        squeeze=squeeze,
    )
    want = np.array(
        [
            [1, 1, 1, 1, 0, 0, 0, 0],
            [1, 1, 1, 5, 5, 5, 0, 0],
            [2, 2, 2, 5, 5, 5, 0, 0],
            [2, 2, 2, 5, 5, 5, 0, 0],
            [2, 2, 2, 2, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
        ]
    )
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize("empty", [(0, 0), (1, 0), (0, 1)])
def test_nobody(squeeze, empty):
    for things in ([thing(12, ("tail", box(0, 3, 0, 4)))], [thing(9, empty=empty)], [thing(15, empty=empty)]):
        got = parts(*things, squeeze=squeeze)
        assert got.shape == (H, W)
        assert not got.any()
    got = parts(empty=empty, squeeze=squeeze)
    assert got.shape == (3, 4)  # of the image: there is no mask
    assert not got.any()


def test_one_person_squeezed():
    got = parts(thing(15, ("hair", box(0, 2, 0, 2))), squeeze=True)
    np.testing.assert_array_equal(got, box(0, 2, 0, 2))


def test_matrix_instead_of_empty_struct():
    """MATLAB's [] is a matrix of numbers."""
    person = ("person", np.uint8(15), np.ones((H, W), np.uint8), np.zeros((0, 0)))
    assert not parts(person).any()


def test_masks_of_other_types():
    for dtype in (bool, np.float64, np.int32):
        got = parts(thing(15, ("nose", box(1, 3, 2, 5).astype(dtype) * dtype(1))))
        np.testing.assert_array_equal(got, box(1, 3, 2, 5))


@pytest.mark.parametrize(
    ("things", "message"),
    [
        (
            [thing(15, ("wing", box(0, 1, 0, 1)), ("tail", box(0, 1, 0, 1)))],
            "unknown parts of a person: 'tail', 'wing'; the parts are hair, head",
        ),
        (
            [thing(15, ("nose", box(0, 1, 0, 1, (H, W + 1))))],
            r"the mask of object 1, part 'nose' has shape \(6, 9\), the first mask \(6, 8\)",
        ),
        (
            [thing(3), thing(3, mask=box(0, 1, 0, 1, (2, 2)))],
            r"the mask of object 2 has shape \(2, 2\), the first mask \(6, 8\)",
        ),
        ([thing(15, ("nose", "none"))], r"the mask of object 1, part 'nose' has shape \(1,\) and type <U4"),
        ([thing(15, (7.0, box(0, 1, 0, 1)))], "part_name of object 1 is .*, expected a text"),
        ([("person", "fifteen", box(0, 1, 0, 1), [])], "class_ind of object 1 is .*, expected a number"),
        (
            [("person", 15, box(0, 1, 0, 1), np.ones((1, 2)))],
            r"parts of object 1 is no struct but 2 value\(s\) of type",
        ),
    ],
)
def test_faulty_annotations(things, message):
    with pytest.raises(ValueError, match=message):
        parts(*things)


def test_no_annotation():
    with pytest.raises(ValueError, match=r"anno is no struct but 4 value\(s\) of type float64"):
        pascal_labels.human_parts(np.ones((2, 2)), (H, W))
    with pytest.raises(ValueError, match="anno has no field 'objects'; it has imname"):
        pascal_labels.human_parts(struct([("name",)], ("imname",)), (H, W))
    objects = struct([("person", 15)], ("class", "class_ind"))
    with pytest.raises(ValueError, match="object 1 has no field 'mask'; it has class, class_ind"):
        pascal_labels.human_parts(struct([("name", objects)], ("imname", "objects")), (H, W))


@pytest.mark.parametrize(
    "key", ["2008_000008", "2008_000652", "2008_000726", "2008_003228", "2010_005243", "2008_000019"]
)
def test_real_annotations(key):
    """Against a painting from the last part to the first, on MATLAB structs opened another way."""
    file = SAMPLES / "pascal_part" / f"{key}.mat"
    if not file.is_file():
        pytest.skip("no real samples beside the checkout (shared/data/pascal_samples)")
    got = pascal_labels.human_parts(scipy.io.loadmat(file)["anno"], (1, 1))
    things = np.atleast_1d(scipy.io.loadmat(file, struct_as_record=False, squeeze_me=True)["anno"].objects)
    want = np.zeros(things[0].mask.shape, int)
    group_of = {name: group for group, names in GROUPS.items() for name in names}
    for one in things[::-1]:
        for part in np.atleast_1d(one.parts)[::-1] if one.class_ind == 15 else []:
            want += (want == 0) * part.mask.astype(int) * group_of[part.part_name]
    np.testing.assert_array_equal(got, want)
    assert got.any() == (key != "2008_000019")  # three dogs


def laplacian(labels):
    """Sum over the four neighbours of the difference to the pixel; beyond the border the row before it."""
    x = np.pad(labels.astype(int), 1, mode="reflect")
    return x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]


@pytest.mark.parametrize("classes", [2, 5, 460])
def test_edges(classes):
    rng = np.random.default_rng(classes)
    labels = np.kron(rng.integers(0, classes, (5, 7)), np.ones((6, 5), int)).astype(np.uint16)
    got = pascal_labels.edges(labels)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, thin(laplacian(labels) != 0))
    assert 0 < got.sum() < (laplacian(labels) != 0).sum()


def test_edges_are_thin():
    """Both sides of a boundary differ from their neighbours; one of them remains."""
    labels = np.full((9, 12), 3, np.uint16)
    labels[:, 5:] = 400
    got = pascal_labels.edges(labels)
    assert (got[1:-1].sum(axis=1) == 1).all()
    assert not got[:, :4].any()
    assert not got[:, 6:].any()
    assert not pascal_labels.edges(np.full((9, 12), 7, np.uint16)).any()


def test_edges_depend_on_the_numbers():
    """As in the reference: a stripe one pixel wide is no edge where its number is the mean of its neighbours'."""
    labels = np.repeat(np.array([1, 1, 1, 2, 3, 3, 3], np.uint16)[None], 5, axis=0)
    np.testing.assert_array_equal(laplacian(labels)[2], [0, 0, 1, 0, -1, 0, 0])
    np.testing.assert_array_equal(pascal_labels.edges(labels)[2], [0, 0, 1, 0, 1, 0, 0])


def test_normals_mask():
    labels = np.array([[0, 284, 440, 158], [360, 187, 207, 397]], np.uint16)  # sky, grass and horse do not count
    np.testing.assert_array_equal(pascal_labels.normals_mask(labels), [[0, 1, 1, 1], [0, 0, 0, 1]])
    assert pascal_labels.normals_mask(np.arange(460)).sum() == 170


def test_label_map():
    labels = np.arange(0, 460).reshape(20, 23)
    for dtype in (np.uint16, np.int32, np.float64):
        got = pascal_labels.label_map(labels.astype(dtype))
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(got, labels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((2, 3), 460), "class ids from 460 to 460, expected 0 to 459"),
        (np.full((2, 3), -1), "class ids from -1 to -1, expected 0 to 459"),
        (np.array([[0.5, 1, np.nan]]), "2 values are no whole numbers, the first is 0.5"),
        (np.array([[np.inf, 1]]), "class ids from 1 to inf, expected 0 to 459"),
        (np.array([["a"]]), "values of type <U1, expected numbers"),
        (np.zeros((2, 3, 3)), r"shape \(2, 3, 3\), expected \[H, W\]"),
        (np.zeros((0, 3)), r"shape \(0, 3\), expected \[H, W\]"),
    ],
)
def test_faulty_label_maps(value, message):
    with pytest.raises(ValueError, match=message):
        pascal_labels.label_map(value)
