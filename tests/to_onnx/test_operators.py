"""Every operation of the table, compared with ONNX Runtime, for any batch size and for one."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export
from jax import lax

from mtl_jax.nn import resize

onnx = pytest.importorskip("onnx", reason="conversion to ONNX needs onnx", exc_type=ModuleNotFoundError)
onnxruntime = pytest.importorskip("onnxruntime", reason="running ONNX models needs onnxruntime")
to_onnx = importlib.import_module("mtl_jax.to_onnx")  # imports onnx

CALLS = dict.fromkeys(resize.BILINEAR, to_onnx.resize_linear) | {resize.ALIGNED: to_onnx.resize_aligned}
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 3, 4, 6)).astype(np.float32)
MATRIX = RNG.normal(size=(4, 5)).astype(np.float32)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(x, kernel=KERNEL, stride=(1, 1), padding=((1, 1), (1, 1)), **options):
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=LAYOUT, **options)


def spatial(x):
    """A map whose tensor has the order of a convolution's result, `[B, C, H, W]`."""
    return convolve(x, KERNEL[..., :4])


# {name: function of a map [B, 6, 8, 4] in float32 that holds positive and negative numbers}
FUNCTIONS = {
    "arithmetic": lambda x: (x + 1.5) * x - x / (2 + x * x),
    "minimum and maximum": lambda x: jnp.minimum(jnp.maximum(x, -0.5), x * 0.5),
    "ReLU": lambda x: jax.nn.relu(x) + jax.nn.relu(spatial(x)),
    "maximum of a whole number": lambda x: jnp.maximum(x.astype(jnp.int32), 0),
    "exponential functions": lambda x: jnp.exp(x) + jnp.log(1 + x * x) + jnp.tanh(x) + jax.nn.sigmoid(x),
    "roots and powers": lambda x: jnp.sqrt(x * x) + lax.rsqrt(1 + x * x) + x**3 + jnp.square(x) + (1 + x * x) ** 0.3,
    "trigonometric functions": lambda x: jnp.sin(x) + jnp.cos(x),
    "error function": lambda x: lax.erf(x) + jax.nn.gelu(x, approximate=False),
    "rounding": lambda x: jnp.floor(x) + jnp.ceil(x) + jnp.sign(x) + jnp.abs(x) - (-x),
    "comparison": lambda x: jnp.where((x > 0) & (x < 1), x, jnp.where((x <= -1) | (x >= 2), -x, x == x)),
    "logic": lambda x: jnp.where(~(x > 0) | (x != -x), lax.rem(x, jnp.float32(0.75)), 1),
    "remainder of whole numbers": lambda x: lax.rem(x.astype(jnp.int32), 3),
    "clamp": lambda x: lax.clamp(-0.5, x, jnp.float32(0.5)),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "types": lambda x: (x * 10).astype(jnp.int32).astype(jnp.float32),
    "bias of channels": lambda x: spatial(x) + np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4),
    "sum of two orders": lambda x: spatial(x) + x,
    "gate of channels": lambda x: spatial(x) * jax.nn.sigmoid(x.mean((1, 2)))[:, None, None, :],
    "product of channels": lambda x: jnp.einsum("bhwi,io->bhwo", spatial(x), MATRIX),
    "product of matrices": lambda x: x.mean((1, 2)) @ MATRIX,
    "product over height and width": lambda x: jnp.einsum("bhwc,bhwd->bcd", x, spatial(x)),
    "product with a batch axis": lambda x: jnp.einsum("bhwc,bvwc->bwhv", x, x),
    "product of weights on the left": lambda x: jnp.einsum("io,bhwi->obhw", MATRIX, x),
    "reductions": lambda x: (x.sum(1), spatial(x).max((1, 2)), x.min(-1), (x / 2).prod(2)),
    "sum of repeated elements": lambda x: jnp.broadcast_to(x.mean(3, keepdims=True), x.shape).sum((1, 3)),
    "largest element": lambda x: (jnp.argmax(x, -1), jnp.argmin(spatial(x), 1).astype(jnp.int32)),
    "transposition": lambda x: spatial(x).transpose(2, 0, 3, 1) + 1,
    "mean of the images": lambda x: x - x.mean(0, keepdims=True),
    "reshaping": lambda x: spatial(x).reshape(x.shape[0], 48, 4) * 2,
    "squeezing": lambda x: jnp.squeeze(spatial(x)[:, :, 2:3], 2) + jnp.squeeze(x[:, :, :1], 2),
    "repetition": lambda x: jnp.broadcast_to(x[:, :1, :1], x.shape),
    "repeated constant": lambda x: jnp.concatenate([x, jnp.full(x.shape, 2.5)], axis=1),
    "concatenation": lambda x: jnp.concatenate([x, spatial(x), jnp.zeros_like(x)], axis=-1),
    "stack": lambda x: jnp.stack([x, spatial(x)], axis=2),
    "slices": lambda x: spatial(x)[:, 1:5, ::2] + x[:, :4, 4:, :],
    "elements at known places": lambda x: spatial(x)[:, jnp.array([[4, 1], [0, 0]]), :, 2],
    "one row": lambda x: x[:, 3] + spatial(x)[:, -1],
    "slice of repeated elements": lambda x: jnp.broadcast_to(x[:, :1], x.shape)[:, 2:4],
    "split": lambda x: jnp.split(spatial(x), 2, axis=-1)[1] * jnp.split(x, [1, 3], axis=3)[1],
    "reversal": lambda x: spatial(x)[:, ::-1, ::-1],
    "padding": lambda x: lax.pad(spatial(x), np.float32(-7), [(0, 0, 0), (1, 2, 0), (0, 3, 0), (0, 0, 0)]),
    "convolution": lambda x: convolve(x, stride=(2, 2)),
    "dilated convolution": lambda x: convolve(x, padding=((2, 2), (1, 3)), rhs_dilation=(2, 2)),
    "depthwise convolution": lambda x: convolve(x, KERNEL[:, :, :1, :4], feature_group_count=4),
    "kernel that depends on the images": lambda x: convolve(x, x[:1, :3, :3].transpose(1, 2, 3, 0)),
    "maximum in windows": lambda x: jax.lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), [(0, 0), (1, 1), (1, 1), (0, 0)]
    ),
    "maximum in windows over the width": lambda x: lax.reduce_window(
        spatial(x), -jnp.inf, lax.max, (1, 1, 3, 1), (1, 1, 1, 1), [(0, 0), (0, 0), (1, 1), (0, 0)]
    ),
    "mean in windows": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4,
    "enlarging by whole factors": lambda x: resize.resize_bilinear(x, (12, 24)),
    "resizing by other factors": lambda x: resize.resize_bilinear(spatial(x), (9, 5)),
    "doubling with corners": lambda x: resize.double_aligned(spatial(x)),
    "interpolation without its operator": lambda x: jax.image.resize(x, (x.shape[0], 9, 11, 4), "cubic"),
    "operations on constants alone": lambda x: x + jnp.cumsum(jnp.arange(4, dtype=jnp.float32))[None, None, None],
    "recomputation": lambda x: jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x),
    "identities": lambda x: lax.optimization_barrier(lax.stop_gradient(jnp.copy(x))) * 2,
    "input itself": lambda x: x,
}


def named(function):
    """The function from bytes to {name: array}."""

    def call(images):
        results = function(images.astype(jnp.float32) / 64 - 2)
        return {f"out{i}": each for i, each in enumerate(jax.tree.leaves(results))}

    return call


def convert(function, shape="batch, 6, 8, 4"):
    call = named(function)
    images = jax.ShapeDtypeStruct(jax_export.symbolic_shape(shape), jnp.uint8)
    names = list(jax.eval_shape(call, images))
    model = to_onnx.to_model(call, images, names, name="images", calls=CALLS)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, images):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, {"images": images}), strict=True))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_onnx_runtime_computes_the_same(name):
    for batch, model in ((1, convert(FUNCTIONS[name])), (2, convert(FUNCTIONS[name], "2, 6, 8, 4"))):
        images = np.random.default_rng(batch).integers(0, 256, (batch, 6, 8, 4), np.uint8)
        results, wanted = run(model, images), named(FUNCTIONS[name])(jnp.asarray(images))
        assert results.keys() == wanted.keys()
        for key, array in wanted.items():
            assert results[key].dtype == array.dtype
            assert results[key].shape == array.shape
            # Sums of 36 and fewer products in float32, added up in another order.
            np.testing.assert_allclose(results[key], array, rtol=1e-5, atol=2e-5)


def test_every_operation_is_tested():
    """In some function above; an operation on constants alone does not count, as it is computed at once."""
    used = set()

    def watched(name, converter):
        return lambda *args: used.add(name) or converter(*args)

    with pytest.MonkeyPatch.context() as patch:
        for name, converter in list(to_onnx.OPERATORS.items()):
            patch.setitem(to_onnx.OPERATORS, name, watched(name, converter))
        for function in FUNCTIONS.values():
            convert(function)
            convert(function, "2, 6, 8, 4")
    assert set(to_onnx.OPERATORS) - used == set()


def test_images_are_transposed_once_and_predictions_once():
    """Whatever lies between: convolutions, sums, concatenations, slices, interpolation and pooling keep the order."""

    def network(x):
        x = jax.nn.relu(spatial(x) + np.ones((1, 1, 1, 4), np.float32))
        x = jnp.concatenate([x[:, 1:5], spatial(x)[:, 1:5] + x[:, :4]], axis=-1)
        return resize.resize_bilinear(x, (12, 16)) * 2

    model = convert(network)
    assert [node.op_type for node in model.graph.node].count("Transpose") == 2
    assert [node.op_type for node in model.graph.node].count("Relu") == 1


def test_sizes_and_versions():
    model = convert(lambda x: x)
    assert (model.opset_import[0].version, model.ir_version) == (to_onnx.OPSET, to_onnx.IR_VERSION)
    (images,) = model.graph.input
    sides = images.type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 6, 8, 4]
    (images,) = convert(lambda x: x, "5, 6, 8, 4").graph.input
    assert [side.dim_value for side in images.type.tensor_type.shape.dim] == [5, 6, 8, 4]


UNKNOWN = {
    "'cumsum' of float32.*, which the ONNX export does not know": lambda x: jnp.cumsum(x, axis=1),
    "'sort' of float32": lambda x: jnp.sort(x, axis=1),
    "'scan' of": lambda x: lax.scan(lambda carry, _: (carry * 2, None), x, length=3)[0],
    "'conv_general_dilated' of .* that is a transposed convolution": lambda x: convolve(x, lhs_dilation=(2, 2)),
    "'conv_general_dilated' of .* that pads by a negative": lambda x: convolve(x, padding=((-1, 1), (1, 1))),
    "'pad' of .* that pads between elements": lambda x: lax.pad(x, np.float32(0), [(0, 0, 0)] * 3 + [(0, 0, 1)]),
    "'pad' of .* that pads by a negative": lambda x: lax.pad(x, np.float32(0), [(0, 0, 0)] * 3 + [(-1, 0, 0)]),
    "'gather' of .* places that depend on the images": lambda x: x[:, x[0, :, 0, 0].astype(jnp.int32)],
    "'and' of .* that works on bits": lambda x: x.astype(jnp.int32) & 3,
    "'gather' of .* that gathers several windows": lambda x: jax.vmap(
        lambda i: lax.dynamic_slice_in_dim(x, i, 3, axis=1), out_axes=1
    )(jnp.arange(2)),
    "'select_n' of .* that chooses among more than two": lambda x: lax.select_n(
        x.astype(jnp.int32) % 3, x, x + 1, x + 2
    ),
    "'reduce_window_max' of .* windows that are not over height": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (1, 2, 2, 2), (1, 1, 1, 1), "VALID"
    ),
}


@pytest.mark.parametrize("message", UNKNOWN)
def test_an_operation_that_onnx_lacks_is_an_error_that_names_it(message):
    with pytest.raises(to_onnx.UnsupportedError, match=message):
        convert(UNKNOWN[message], "2, 6, 8, 4")


def test_a_batch_that_changes_its_size_is_an_error_that_says_what_to_do():
    with pytest.raises(
        to_onnx.UnsupportedError, match=r"'concatenate' of the model makes an array of 2\*batch elements"
    ):
        convert(lambda x: jnp.concatenate([x, x], axis=0))
    assert convert(lambda x: jnp.concatenate([x, x], axis=0), "2, 6, 8, 4").graph.output[0].type.tensor_type


def test_two_free_sides_are_an_error():
    with pytest.raises(to_onnx.UnsupportedError, match=r"only one side of an ONNX model may be free"):
        convert(lambda x: x, "batch, height, 8, 4")


def test_an_operation_can_be_added(monkeypatch):
    def cumulate(graph, eqn, operands):
        axis = graph.integers([eqn.params["axis"]])
        return [graph.add("CumSum", [graph.plain(operands[0]), axis], operands[0])]

    monkeypatch.setitem(to_onnx.OPERATORS, "cumsum", cumulate)
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 4), np.uint8)
    (result,) = run(convert(lambda x: jnp.cumsum(x, axis=1)), images).values()
    np.testing.assert_allclose(result, np.cumsum(images.astype(np.float32) / 64 - 2, axis=1), rtol=1e-5)


def test_equal_arrays_share_an_initialiser_whose_content_is_kept_once():
    graph = importlib.import_module("mtl_jax.to_onnx.graph").Graph()
    weights = RNG.normal(size=(100, 100))
    assert graph.array(weights) == graph.array(weights.copy()) != graph.array(weights + 1)
    assert graph.array(weights) != graph.array(weights.astype(np.float32)) != graph.array(weights.reshape(50, 200))
    assert len(graph.initializers) == 4
    assert max(len(part) for key in graph._names for part in key) <= 32  # a key holds no weights
