"""Self-attention of a sequence of tokens."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mtl_jax.nn import isolate
from mtl_jax.nn.conv import Linear
from mtl_jax.nn.init import trunc_normal
from mtl_jax.nn.per_channel import per_channel
from mtl_jax.nn.rotary import rotate

Biases = Literal["qkv", "q_and_v", "none"]
_CUDNN_FEATURES = 128  # largest head of cuDNN's attention on every GPU that has it; heads are multiples of 8


class SelfAttention(nnx.Module):
    """Multi-head self-attention (arXiv 1706.03762): `[B, N, C] -> [B, N, C]`, for sequences of any length.

    Args:
        features: Number of channels C.
        heads: Number of heads, which divides C.
        biases: Biases of the projections: "qkv" has them all, "q_and_v" those of queries and values as parameters of
            their own (`q_bias`, `v_bias`), "none" has none.
        rngs: Source of the initial weights.

    Raises:
        ValueError: The number of heads does not divide the number of channels.
    """

    def __init__(self, features: int, heads: int, *, biases: Biases, rngs: nnx.Rngs):
        if features % heads:
            raise ValueError(f"{heads} heads do not divide {features} channels")
        self.heads = heads
        self.qkv = Linear(features, 3 * features, use_bias=biases == "qkv", kernel_init=trunc_normal, rngs=rngs)
        self.q_bias = nnx.Param(jnp.zeros((features,))) if biases == "q_and_v" else None
        self.v_bias = nnx.Param(jnp.zeros((features,))) if biases == "q_and_v" else None
        self.proj = Linear(features, features, kernel_init=trunc_normal, rngs=rngs)

    def __call__(self, x: jax.Array, angles: np.ndarray | jax.Array | None = None) -> jax.Array:
        """Attends.

        Args:
            x: `[B, N, C]` tokens.
            angles: `[M, C / heads]` angles of the rotary embedding of the last M tokens, or None without one.

        Returns:
            `[B, N, C]`
        """
        q, k, v = jnp.split(self.qkv(x), 3, axis=-1)
        if self.q_bias is not None and self.v_bias is not None:
            q, v = q + per_channel(self.q_bias[...], q), v + per_channel(self.v_bias[...], v)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return self.proj(attend(q, k, v).reshape(x.shape))


def attend(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """Computes softmax(q kᵀ / √D + bias) v.

    On a GPU, in 16 bits, cuDNN computes it without storing the N x N scores, unless there is a bias.

    Args:
        q: `[B, N, heads, D]` queries.
        k: `[B, N, heads, D]` keys.
        v: `[B, N, heads, D]` values.
        bias: `[B, heads, N, N]`, or sides of 1 in place of B and heads; None = 0.

    Returns:
        `[B, N, heads, D]`
    """
    if q.dtype == jnp.float64:  # jax.nn.dot_product_attention has its softmax in float32
        scores = jnp.einsum("bnhd,bmhd->bhnm", q, k) / q.shape[-1] ** 0.5
        if bias is not None:
            scores = scores + bias
        return jnp.einsum("bhnm,bmhd->bnhd", jax.nn.softmax(scores), v)
    if bias is None and not isolate.fuses() and _cudnn_suits(q):
        return attend_by_cudnn(q, k, v)
    return jax.nn.dot_product_attention(q, k, v, bias, implementation="xla")


def _cudnn_suits(q: jax.Array) -> bool:
    return implementation(q, jax.default_backend()) == "cudnn" and _has_cudnn_attention()


def _has_cudnn_attention() -> bool:
    """Returns True on NVIDIA GPUs whose compute capability is at least 8.0 (Ampere), which cuDNN's attention needs."""
    capability = getattr(jax.local_devices()[0], "compute_capability", "")  # "gfx90a" for example on an AMD GPU
    major = str(capability).partition(".")[0]
    return major.isdecimal() and int(major) >= 8


def attend_by_cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Computes `attend` with cuDNN, which takes sequences of even length: an odd one gets a token that is masked."""
    batch, length = q.shape[:2]
    if length % 2 == 0:
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    q, k, v = (jnp.pad(x, [(0, 0), (0, 1), (0, 0), (0, 0)]) for x in (q, k, v))
    lengths = jnp.full((batch,), length, jnp.int32)
    attended = jax.nn.dot_product_attention(
        q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths, implementation="cudnn"
    )
    return attended[:, :length]


def implementation(q: jax.Array | jax.ShapeDtypeStruct, backend: str) -> Literal["xla", "cudnn"]:
    """Returns which implementation of `jax.nn.dot_product_attention` is the fast one for queries of a kind.

    Args:
        q: `[B, N, heads, D]` queries.
        backend: Kind of the devices, `jax.default_backend()`.
    """
    features = q.shape[-1]
    suits = q.dtype in (jnp.bfloat16, jnp.float16) and features % 8 == 0 and features <= _CUDNN_FEATURES
    return "cudnn" if backend == "gpu" and suits else "xla"
