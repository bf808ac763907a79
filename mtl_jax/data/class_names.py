"""Names of the classes of public data sets."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


# {family of data sets: {task: names}}; a folder of one's own names its classes itself.
CLASS_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "nyud": {
        "semseg": _names(
            "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds, desk, "
            "shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refrigerator, television, "
            "paper, towel, shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp, bathtub, bag, "
            "other structure, other furniture, other prop"
        )
    },
    "pascal": {
        "semseg": _names(
            "background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
            "motorbike, person, potted plant, sheep, sofa, train, tv monitor"
        ),
        "human_parts": _names("background, head, torso, upper arm, lower arm, upper leg, lower leg"),
    },
}
