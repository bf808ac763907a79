"""Swin Transformers and ConvNeXts against numbers recorded from timm, and against timm live, in float64.

The live tests need timm (`pip install timm`, which needs torchvision).
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mtl_jax import weights
from mtl_jax.backbones import convnext, swin
from mtl_jax.nn import InitialKeys
from parity import report, transformers
from parity.interpreter import interpret
from tests.marks import slow

SWIN = swin.Variant(24, (2, 2, 4, 4), (2, 2, 2, 2), drop_path=0.0)
CONVNEXT = convnext.Variant((24, 48, 96, 192), (2, 2, 2, 2))
BOUND = 1e-9
# {timm's name without what it adds: module with the variants}
PUBLISHED = dict.fromkeys(swin.VARIANTS, swin) | dict.fromkeys(convnext.VARIANTS, convnext)
IMAGE_SIDES = {"window7": 224, "window12": 384}  # which timm adds to the names


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def timm(torch):
    return pytest.importorskip("timm", reason="compares with timm", exc_type=ModuleNotFoundError)


class Twin:
    """Our encoder of a variant, in float64, beside one of timm's that was built for images of a size.

    timm stores the biases of windows that are larger than a map for the offsets that occur; ours has all of them.
    """

    def __init__(self, variant, size):
        self.variant = variant
        if isinstance(variant, swin.Variant):
            self.encoder_type, self.published = swin.SwinTransformer, swin.published
        else:
            self.encoder_type, self.published = convnext.Encoder, convnext.published
        self.grids = [[-(-side // (4 * 2**stage)) for side in size] for stage in range(4)]

    def empty(self):
        graphdef, state = nnx.split(nnx.eval_shape(lambda: self.encoder_type(self.variant, rngs=InitialKeys(0))))
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), state))

    def load(self, arrays):
        encoder = self.empty()
        complete = {key: self._complete(key, array) for key, array in self.published(arrays).items()}
        weights.load_torch(encoder, complete)
        return encoder

    def arrays(self, encoder):
        """{torch key: array} with the tables of timm's sizes; what is left out of them must be 0."""
        found = {}
        for key, array in weights.to_torch(encoder).items():
            found[key] = array
            if key.endswith("bias_table"):
                found[key] = array[self._places(key)]
                assert np.abs(np.delete(array, self._places(key), axis=0)).sum() == 0
        return found

    def _complete(self, key, array):
        if not key.endswith("bias_table"):
            return array
        table = np.zeros(((2 * self.variant.window - 1) ** 2, array.shape[1]))
        table[self._places(key)] = array
        return table

    def _places(self, key):
        """The rows of our table that timm has."""
        window, stage = self.variant.window, int(key.split(".")[1])
        rows, columns = ((window - min(window, side), window + min(window, side) - 1) for side in self.grids[stage])
        numbers = np.arange((2 * window - 1) ** 2).reshape(2 * window - 1, -1)
        return numbers[slice(*rows), slice(*columns)].ravel()


def maps(encoder, images):
    """The map after each stage."""
    transformer = isinstance(encoder, swin.SwinTransformer)
    x = encoder.patch_embed(images) if transformer else encoder.stem(images)
    found = []
    for stage in encoder.layers if transformer else encoder.stages:
        x = stage(x)
        found.append(x)
    return found


def value_and_gradients(encoder, images):
    """The maps, the recorded objective and its gradients."""
    graphdef, state = nnx.split(encoder)

    def run(state):
        found = maps(nnx.merge(graphdef, state), images)
        return sum(jnp.square(x).mean() for x in found) / 2, found

    (value, found), gradients = interpret(jax.value_and_grad(run, has_aux=True))(nnx.as_pure(state))
    return found, float(value), nnx.merge(graphdef, gradients)


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


@pytest.mark.parametrize(("name", "variant"), [("timm_swin_w7_fixed", SWIN), ("timm_convnext", CONVNEXT)])
def test_recorded(name, variant):
    recorded = transformers.recorded(name)
    twin = Twin(variant, (64, 96))
    encoder = twin.load(transformers.state_dict(name))
    images = jnp.asarray(transformers.image(64, 96), jnp.float64)
    found, loss, gradients = value_and_gradients(encoder, images)
    results = {"64x96": found}
    if "eval/71x101/stage0#shape" in recorded:
        images = jnp.asarray(transformers.image(71, 101), jnp.float64)
        graphdef, state = nnx.split(encoder)
        run = interpret(lambda state: maps(nnx.merge(graphdef, state), images))
        results["71x101"] = run(nnx.as_pure(state))
    deviations = []
    for size, of_stages in results.items():
        for stage, x in enumerate(of_stages):
            deviations.append(transformers.sums(f"eval/{size}/stage{stage}", nchw(x), recorded))
        np.testing.assert_allclose(nchw(of_stages[3]), recorded[f"eval/{size}/stage3"], atol=1e-4)  # in float32
    assert max(deviations) < BOUND
    assert abs(loss / recorded["loss_f64"] - 1) < BOUND

    arrays = twin.arrays(gradients)
    rows = zip(recorded["grad/keys"], recorded["grad/l2_f64"], recorded["grad/sum_f64"], strict=True)
    of_gradients = []
    for key, norm, total in rows:
        (ours,) = twin.published({str(key): np.zeros(1)})
        gradient = arrays.pop(ours)
        assert gradient.shape == dict(transformers.keys(name))[key]
        of_gradients += [abs(np.sqrt(np.square(gradient).sum()) - norm) / norm, abs(gradient.sum() - total) / norm]
    assert not arrays
    assert max(of_gradients) < BOUND
    report.record(f"flax float64 {name} / recorded", "eval", max(deviations))
    report.record(f"flax float64 {name} / recorded", "gradients", max(of_gradients))


def of_timm(timm, variant, size):
    """timm's network of a variant for images of a size, which it pads as ours does."""
    if isinstance(variant, convnext.Variant):
        options = {"dims": variant.channels, "depths": variant.blocks}
        return timm.create_model("convnext_tiny", features_only=True, **options)
    options = {
        "embed_dim": variant.width,
        "depths": variant.blocks,
        "num_heads": variant.heads,
        "window_size": variant.window,
        "img_size": [-(-side // 4) * 4 for side in size],
        "strict_img_size": False,
        "embed_layer": partial(timm.layers.PatchEmbed, dynamic_img_pad=True),
        "drop_path_rate": 0.0,
    }
    return timm.create_model("swin_tiny_patch4_window7_224", features_only=True, **options)


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        # 17x25, 9x13, 5x7 and 3x4 tokens: windows with padding, and no larger than the map in one direction or both
        (SWIN, (65, 97)),
        # the last map has one window in one direction and two in the other
        (replace(SWIN, window=3), (65, 97)),
        slow(replace(SWIN, window=2), (33, 150)),
        (CONVNEXT, (65, 97)),
        slow(CONVNEXT, (39, 150)),
    ],
    ids=lambda value: getattr(value, "window", None) and f"swin{value.window}",
)
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_live(variant, size, train, timm, torch, seed):
    torch.manual_seed(seed)
    theirs = of_timm(timm, variant, size).double().train(train)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            scale = 0.5 if parameter.ndim < 2 or "table" in name else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape))
    images = np.random.default_rng(seed).standard_normal((2, *size, 3))
    expected = theirs(torch.from_numpy(np.moveaxis(images, -1, 1).copy()))
    # timm's features of Swin are NHWC.
    expected = [x if isinstance(variant, swin.Variant) else x.permute(0, 2, 3, 1) for x in expected]
    (sum(x.square().mean() for x in expected) / 2).backward()

    twin = Twin(variant, size)
    encoder = twin.load({key: value.numpy() for key, value in theirs.state_dict().items()})
    found, _, gradients = value_and_gradients(encoder, jnp.asarray(images))
    for ours, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, other.detach().numpy(), atol=BOUND)
    arrays = twin.arrays(gradients)
    wanted = twin.published({name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()})
    assert arrays.keys() == wanted.keys()
    for name, gradient in arrays.items():
        np.testing.assert_allclose(gradient, wanted[name], atol=BOUND * np.abs(wanted[name]).max(), err_msg=name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_timm(name, timm, torch):
    side = IMAGE_SIDES.get(name.rpartition("_")[2])
    with torch.device("meta"):
        theirs = timm.create_model(f"{name}_{side}" if side else name)
    arrays = {key: np.broadcast_to(np.float32(0), tuple(x.shape)) for key, x in theirs.state_dict().items()}
    module = PUBLISHED[name]
    encoder = {swin: swin.SwinTransformer, convnext: convnext.Encoder}[module]
    abstract = nnx.eval_shape(lambda: encoder(module.VARIANTS[name], rngs=InitialKeys(0)))
    weights.check_torch(abstract, module.published(arrays))


def test_rates_of_drop_path_are_those_of_timm(timm, torch):
    with torch.device("meta"):
        theirs = timm.create_model("swin_tiny_patch4_window7_224")
    expected = [[getattr(block.drop_path1, "drop_prob", 0.0) for block in stage.blocks] for stage in theirs.layers]
    variant = swin.VARIANTS["swin_tiny_patch4_window7"]
    ours = nnx.eval_shape(lambda: swin.SwinTransformer(variant, rngs=InitialKeys(0)))
    found = [[block.drop_path.rate for block in stage.blocks] for stage in ours.layers]
    for of_ours, of_theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(of_ours, of_theirs, atol=1e-7)  # timm computes them in float32
