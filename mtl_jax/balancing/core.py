"""What all methods of task balancing share: their interface, gradients of several losses, and their Gramian."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters.ad import Zero

State = Any  # a pytree of arrays: what a method remembers from step to step
Tree = Any  # a pytree of arrays: parameters, their gradients


class Signals(NamedTuple):
    """What a method is told at a step; T tasks in an order of their own.

    Attributes:
        losses: `[T]`, float32 or float64.
        key: random key of the step.
        gramian: `[T, T]` inner products of the losses' gradients to the shared parameters, for methods that need it.
        jacobian: those gradients themselves, each leaf `[T, ...]`, for methods that need more than that.
    """

    losses: jax.Array
    key: jax.Array
    gramian: Any = None
    jacobian: Any = None


class Decision(NamedTuple):
    """What a method makes of it.

    Attributes:
        weights: `[T]`; the shared parameters move along the sum of w_t times the gradient of loss t, and where no
            gradients were asked for, so do all others.
        gradient: to the shared parameters, where it is no such sum.
        specific: `[T]`, where the other parameters move along another sum than the plain one.
    """

    weights: jax.Array
    gradient: Any = None
    specific: Any = None


class Balancer(NamedTuple):
    """A method: a pair of pure functions, as in optax.

    Attributes:
        init: (number of tasks, shared parameters) -> state. Only shapes are taken from the parameters, and only by
            methods that keep gradients.
        update: (state, signals) -> (decision, state).
        needs: what `update` reads: "losses" costs no more than a plain backward pass, "gramian" and "jacobian" one
            backward pass a task, and memory for the shared parameters' gradients of all.
        features: what is balanced are gradients to the shared representation, see `value_and_grad`'s `encode`.
        observe: (state, losses before, losses after) -> state; the losses of the same batch before and after the
            optimiser's step, for methods that learn from the difference. It costs one more forward pass.
    """

    init: Callable[[int, Tree], State]
    update: Callable[[State, Signals], tuple[Decision, State]]
    needs: Literal["losses", "gramian", "jacobian"] = "losses"
    observe: Callable[[State, jax.Array, jax.Array], State] | None = None
    features: bool = False


class Balanced(NamedTuple):
    """The result of `value_and_grad`.

    Attributes:
        losses: {task: loss}.
        shared: gradient to the shared parameters, as the method combines it.
        specific: gradient to the other parameters: of the weighted sum of the losses where the method needs losses
            alone, otherwise of their plain sum, as what belongs to a single task has no conflict to settle, or as the
            method's paper has it.
        weights: {task: weight of the task's gradient}.
        cosines: `[T, T]` cosines between the tasks' gradients to the shared parameters, where these were computed.
        state: the method's next state.
        aux: what the loss function returned beside the losses.
    """

    losses: dict[str, jax.Array]
    shared: Tree
    specific: Tree
    weights: dict[str, jax.Array]
    cosines: jax.Array | None
    state: State
    aux: Any


def check_values(name: str, values: Sequence[float] | None, num_tasks: int) -> None:
    """Raises ValueError unless `values` of the parameter `name`, where given, are one a task."""
    if values is not None and len(values) != num_tasks:
        raise ValueError(f"{name} = {tuple(values)} for {num_tasks} tasks; give one value a task")


def value_and_grad(
    loss_fn: Callable[..., tuple[Mapping[str, jax.Array], Any]],
    balancer: Balancer,
    tasks: Sequence[str],
    *,
    encode: Callable[..., tuple[Tree, Any]] | None = None,
) -> Callable[..., Balanced]:
    """As `jax.value_and_grad`, for several losses that a method balances.

    Args:
        loss_fn: (shared parameters, specific parameters, *args) -> ({task: loss}, anything else). Parameters are any
            pytrees of floating arrays. Shared are those that several tasks' losses depend on and whose gradients are
            balanced; with all of them there, the specific ones may be ().
        tasks: order of the tasks in the method's arrays.
        encode: (shared parameters, *args) -> (features, anything else). The gradients to these features, any pytree of
            floating arrays, are then balanced in place of those to the parameters: `loss_fn` takes the features in
            their place, its backward passes go through the heads alone, and one of the combined gradient goes on
            through the encoder. `aux` is then a pair, the encoder's first. A method that keeps gradients is to be
            initialised with features.

    Returns:
        A function (state, key, shared, specific, *args) -> `Balanced`, to be called under jit; `state` is
        `balancer.init(len(tasks), shared)` at first, `key` a random key that differs from step to step.

    Raises:
        ValueError: tasks named twice; a method of features without `encode`; from the function, losses of other tasks,
            or that are no scalars, or a state that is not this method's, for these tasks and parameters.
    """
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"a task is named twice in {', '.join(tasks)}")
    if balancer.features and encode is None:
        raise ValueError("the method balances gradients to a shared representation; give the encode that computes it")

    def balanced(state: State, key: jax.Array, shared: Tree, specific: Tree, *args: Any) -> Balanced:
        def ordered(point: Tree, specific: Tree) -> tuple[tuple[jax.Array, ...], Any]:
            losses, aux = loss_fn(point, specific, *args)
            if missing := set(tasks) ^ set(losses):
                raise ValueError(
                    f"the losses are {sorted(losses)}, the tasks {sorted(tasks)}; {sorted(missing)} differ"
                )
            if shapes := {task: jnp.shape(loss) for task, loss in losses.items() if jnp.shape(loss)}:
                raise ValueError(f"the losses must be scalars; the shapes are {shapes}")
            return tuple(jnp.asarray(losses[task]) for task in tasks), aux

        point, encoder = shared, None  # where gradients are balanced
        if encode is not None:
            point, encoder, encoded = jax.vjp(lambda shared: encode(shared, *args), shared, has_aux=True)
        _check_state(state, jax.eval_shape(functools.partial(balancer.init, len(tasks)), point))
        each, backward, aux = jax.vjp(ordered, point, specific, has_aux=True)
        losses = _stacked(each)
        cosines = None
        if balancer.needs == "losses":
            decision, state = balancer.update(state, Signals(losses, key))
            shared_grad, specific_grad = backward(
                tuple(weight.astype(loss.dtype) for weight, loss in zip(decision.weights, each, strict=True))
            )
        else:
            if not jax.tree.leaves(point):
                raise ValueError("there are no shared parameters, whose gradients the method could balance")
            rows = [backward(_alone(each, position)) for position in range(len(tasks))]
            jacobian = stack([row[0] for row in rows])
            products = gramian(jacobian)
            cosines = cosine_matrix(products)
            decision, state = balancer.update(
                state, Signals(losses, key, products, jacobian if balancer.needs == "jacobian" else None)
            )
            shared_grad = decision.gradient if decision.gradient is not None else combine(jacobian, decision.weights)
            factors = jnp.ones(len(tasks)) if decision.specific is None else decision.specific
            # Not stacked: most are zero, each head having its own task's gradient alone.
            specific_grad = _weighted_sum([row[1] for row in rows], factors)
        if encoder is not None:
            (shared_grad,), aux = encoder(shared_grad), (encoded, aux)
        return Balanced(
            dict(zip(tasks, losses, strict=True)),
            shared_grad,
            specific_grad,
            dict(zip(tasks, decision.weights, strict=True)),
            cosines,
            state,
            aux,
        )

    return balanced


def observe(
    balancer: Balancer,
    tasks: Sequence[str],
    state: State,
    before: Mapping[str, jax.Array],
    after: Callable[[], Mapping[str, jax.Array]],
) -> State:
    """The state once the optimiser has made its step, which most methods do not look at.

    Args:
        before: {task: loss}, `Balanced.losses`.
        after: computes the losses of the same batch at the new parameters; called for methods that ask for them.
    """
    if balancer.observe is None:
        return state
    return balancer.observe(state, *(_stacked([losses[task] for task in tasks]) for losses in (before, after())))


def _stacked(losses: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([loss.astype(jnp.promote_types(loss.dtype, jnp.float32)) for loss in losses])


def _check_state(state: State, fresh: State) -> None:
    found, expected = (
        [(jax.tree_util.keystr(path), jnp.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
        for tree in (state, fresh)
    )
    if found != expected:
        raise ValueError(
            f"the method's state has {sorted(set(found) - set(expected))} in place of "
            f"{sorted(set(expected) - set(found))}; begin with balancer.init(number of tasks, shared parameters)"
        )


def _alone(losses: Sequence[jax.Array], position: int) -> tuple[Any, ...]:
    """The cotangent that differentiates one of the losses.

    The other zeros are symbolic: nothing is computed where they alone would arrive, as in the other tasks' heads.
    """
    return tuple(
        jnp.ones_like(loss) if i == position else Zero(jax.typeof(loss).to_tangent_aval())
        for i, loss in enumerate(losses)
    )


def _weighted_sum(trees: Sequence[Tree], factors: jax.Array) -> Tree:
    def weighted(*leaves: jax.Array) -> jax.Array:
        wide = jnp.promote_types(leaves[0].dtype, jnp.float32)
        terms = [factor.astype(wide) * leaf.astype(wide) for factor, leaf in zip(factors, leaves, strict=True)]
        return functools.reduce(jnp.add, terms).astype(leaves[0].dtype)

    return jax.tree.map(weighted, *trees)


def gramian(jacobian: Tree) -> jax.Array:
    """G = J Jᵀ `[T, T]` of a pytree of gradients, each leaf `[T, ...]`; in float32, or float64 where they are."""

    def products(leaf: jax.Array) -> jax.Array:
        rows = leaf.reshape(leaf.shape[0], -1)
        rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
        return jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)

    return functools.reduce(jnp.add, map(products, jax.tree.leaves(jacobian)))


def combine(jacobian: Tree, weights: jax.Array) -> Tree:
    """Jᵀ w: the weighted sum of the gradients, each leaf `[T, ...] -> [...]`, in the leaf's dtype."""

    def weighted(leaf: jax.Array) -> jax.Array:  # in full precision: a rounded direction may not be one of descent
        wide = jnp.promote_types(leaf.dtype, jnp.float32)
        combined = jnp.tensordot(weights.astype(wide), leaf.astype(wide), axes=1, precision=jax.lax.Precision.HIGHEST)
        return combined.astype(leaf.dtype)

    return jax.tree.map(weighted, jacobian)


def stack(trees: Sequence[Tree]) -> Tree:
    """T pytrees of the same structure as one, each leaf `[T, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def cosine_matrix(products: jax.Array) -> jax.Array:
    """Cosines `[T, T]` from a Gramian; 0 where a gradient is zero."""
    norms = jnp.sqrt(jnp.diagonal(products))
    scale = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    return products * scale[:, None] * scale[None, :]
