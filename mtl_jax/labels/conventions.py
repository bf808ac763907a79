"""Conventions of data sets for their labels."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Conventions:
    """How a family of data sets stores its labels, and what its published code does with them.

    The defaults suit data of one's own: no pixel gets a label that nobody gave it.

    Attributes:
        resize_labels: Labels of another size than the image are resized to the image; otherwise they are an error.
        normals_dtype: Floating-point type in which the transforms compute normals.
        normals_void: In normals of 8 bits the code (0, 0, 0) marks pixels without a label.
        empty_is_unlabelled: Tasks of which a label of nothing but class 0 means that the image has no label, as
            PASCAL's human parts have it for images without people.
        interpolates_holes: Pixels without a label take part in interpolation with their 0, as in the published code.
            Otherwise only labelled pixels take part, and a pixel with too few of them has no label.
        border: Labels outside of a rotated image where the configuration does not say: "zero" or "ignore", see
            `mtl_jax.data.transforms.scale_and_rotate`.
        axes: Axes of vectors, a name or letters of `mtl_jax.labels.axes`. "" means that nobody says it; flips and
            rotations then assume those of OpenCV, as the published code does.
    """

    resize_labels: bool = False
    normals_dtype: str = "float32"
    normals_void: bool = False
    empty_is_unlabelled: tuple[str, ...] = ()
    interpolates_holes: bool = False
    border: Literal["zero", "ignore"] = "ignore"
    axes: str = ""
