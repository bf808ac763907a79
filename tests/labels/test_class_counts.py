import numpy as np
import pytest

from mtl_jax.labels import ClassIds, Foreground, RealValues


def test_pixels_of_class_ids():
    label = np.array([0, 2, 2, 255], np.uint8).reshape(2, 2, 1)
    np.testing.assert_array_equal(ClassIds().count_classes(label, 4), [1, 0, 2, 0])
    with pytest.raises(ValueError, match="a label has the class id 2, expected 0 to 1"):
        ClassIds().count_classes(label, 2)


def test_background_and_foreground():
    label = np.array([0, 0.4, 0.5, 1, 255], np.float32).reshape(1, 5, 1)
    np.testing.assert_array_equal(Foreground(binary=False).count_classes(label, 1), [2, 2])


def test_other_labels_have_no_classes():
    with pytest.raises(NotImplementedError, match="labels of RealValues have no classes"):
        RealValues().count_classes(np.zeros((1, 1, 1)), 1)
