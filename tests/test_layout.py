"""The folders of the package import each other in one direction only."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mtl_jax"
# From the bottom to the top: a part imports parts that stand in rows above its own. Parts of one row do not import each
# other. A folder is a part; so is a module that lies directly in the package.
LAYERS = (
    ("registry", "field_values", "folders"),
    ("notation", "options"),
    ("runtime", "codecs", "images", "nn", "outputs", "to_onnx"),
    ("labels", "balancing", "loggers"),
    ("tasks",),
    ("boundaries", "backbones", "heads", "losses", "metrics", "weights"),
    ("protocol", "optim"),
    ("data",),
    ("config",),
    ("config_overrides", "recipes", "models"),
    ("config_help",),
    ("experiment",),
    ("evaluation",),
    ("drawing",),
    ("train",),
    ("inference",),
    ("reports", "app"),
    ("cli",),
    ("commands",),
    ("__main__",),
)
HEIGHT = {part: height for height, layer in enumerate(LAYERS) for part in layer}


def imported(path: Path) -> set[str]:
    """The modules that a file imports, inside functions and for type checking included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_part_has_its_layer():
    assert {part_of(path) for path in FILES} - {"__init__"} == set(HEIGHT)


@pytest.mark.parametrize("part", HEIGHT)
def test_imports_point_down(part):
    upward = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in FILES
        if part_of(path) == part
        for name in imported(path)
        if name.startswith("mtl_jax.")
        for other in [name.split(".")[1]]
        if other in HEIGHT and other != part and HEIGHT[other] >= HEIGHT[part]
    ]
    assert not upward


def test_the_package_imports_neither_torch_nor_what_is_not_installed_with_it():
    foreign = ("torch", "torchvision", "parity", "benchmarks", "scripts", "tests", "configs")
    lines = [f"{path.relative_to(PACKAGE)} imports {name}" for path in FILES for name in imported(path)]
    taken = [line for line in lines if line.split()[-1].split(".")[0] in foreign]
    assert taken == ["commands/convert.py imports torch"]  # writes torch files where torch is installed
