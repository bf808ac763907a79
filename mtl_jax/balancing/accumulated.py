"""The gradients of several losses of a batch that comes in parts, balanced as those of the whole batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from mtl_jax.balancing.core import (
    Balanced,
    Balancer,
    Signals,
    State,
    Tree,
    check_state,
    cotangents,
    decide,
    each_gradient,
    in_order,
    stacked,
)


def accumulated_value_and_grad(
    loss_fn: Callable[..., tuple[Mapping[str, jax.Array], tuple[Any, Any]]], balancer: Balancer, tasks: Sequence[str]
) -> Callable[..., Balanced]:
    """Creates the function of `value_and_grad` for a batch in parts, which it takes one after the other.

    The method sees the losses and gradients of the whole batch, which are the sums over the parts, and decides once. If
    the method reads the losses alone, and its weights depend on those of the batch, they cost one more forward pass:
    the losses of all parts come before the gradient of their weighted sum. Any other method costs one backward pass for
    each task and part, and memory for T gradients with respect to all parameters.

    Args:
        loss_fn: Function (shared parameters, specific parameters, carry, part) -> ({task: loss}, (carry, aux)). The
            losses of the parts add up to those of the batch. The carry, such as running statistics, goes from part to
            part.
        balancer: Balancing method, which does not balance gradients of features.
        tasks: Names of the tasks, in the order of the method's arrays.

    Returns:
        A function (state, key, shared, specific, carry, parts) -> `Balanced`. The arrays of `parts` have a leading axis
        over the parts. `Balanced.aux` is the pair (last carry, sum of aux over the parts).

    Raises:
        ValueError: The method balances gradients of features, or a task is named twice. The returned function raises
            what that of `value_and_grad` raises.
    """
    if balancer.features:
        raise ValueError("the method balances gradients of features, and a batch in parts does not keep its features")
    ordered = in_order(loss_fn, tasks)

    def balanced(state: State, key: jax.Array, shared: Tree, specific: Tree, carry: Any, parts: Tree) -> Balanced:
        check_state(balancer, len(tasks), state, shared)

        def losses_of(carry: Any, part: Tree) -> tuple[Any, jax.Array]:
            each, (carry, _) = ordered(shared, specific, carry, part)
            return carry, stacked(each)

        def accumulate(zeros: Tree, pull: Callable[..., Tree]) -> tuple[Tree, jax.Array, tuple[Any, Any]]:
            """Returns sums over the parts: what `pull` returns of losses and their backward pass, losses, and aux."""

            def add(so_far: tuple[Any, Tree], part: Tree) -> tuple[tuple[Any, Tree], tuple[jax.Array, Any]]:
                carry, total = so_far
                each, backward, (carry, aux) = jax.vjp(
                    lambda shared, specific: ordered(shared, specific, carry, part), shared, specific, has_aux=True
                )
                return (carry, jax.tree.map(jnp.add, total, pull(each, backward))), (stacked(each), aux)

            (last, total), (losses, aux) = jax.lax.scan(add, (carry, zeros), parts)
            return total, losses.sum(0), (last, jax.tree.map(lambda x: x.sum(0), aux))

        if balancer.needs == "losses":
            # The compiler removes these losses where the weights do not depend on them. The state takes the losses of
            # the second pass, so that it does not depend on them either.
            losses = jax.lax.scan(losses_of, carry, parts)[1].sum(0)
            decision, _ = balancer.update(state, Signals(losses, key))
            zeros = jax.tree.map(jnp.zeros_like, (shared, specific))
            (shared_grad, specific_grad), losses, aux = accumulate(
                zeros, lambda each, backward: backward(cotangents(each, decision.weights))
            )
            _, state = balancer.update(state, Signals(losses, key))
            cosines = None
        else:
            jacobian = jax.tree.map(lambda x: jnp.zeros((len(tasks), *x.shape), x.dtype), shared)
            rows = tuple(jax.tree.map(jnp.zeros_like, specific) for _ in tasks)
            gradients, losses, aux = accumulate((jacobian, rows), each_gradient)
            decision, state, cosines, shared_grad, specific_grad = decide(balancer, state, losses, key, *gradients)
        weights = dict(zip(tasks, decision.weights, strict=True))
        return Balanced(dict(zip(tasks, losses, strict=True)), shared_grad, specific_grad, weights, cosines, state, aux)

    return balanced
