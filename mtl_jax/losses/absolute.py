"""The absolute value with the gradient of torch."""

import jax
import jax.numpy as jnp


@jax.custom_jvp
def absolute(x: jax.Array) -> jax.Array:
    """Computes |x|. The gradient at 0 is 0, as in torch; that of `jnp.abs` is 1."""
    return jnp.abs(x)


@absolute.defjvp
def _derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return absolute(x), jnp.sign(x) * tangent
