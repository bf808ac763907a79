"""The interface of the balancing methods, the gradients of several losses, and the Gramian of these gradients."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.interpreters.ad import Zero

State = Any  # pytree of arrays that a method keeps from step to step
Tree = Any  # pytree of arrays: parameters, features, or gradients with respect to them


class Signals(NamedTuple):
    """The input of a method at one step, for T tasks in a fixed order.

    Attributes:
        losses: Losses of the tasks, `[T]`, float32 or float64.
        key: Random key of the step.
        gramian: Inner products `[T, T]` of the tasks' gradients with respect to the shared parameters. None if
            `Balancer.needs` is "losses".
        jacobian: The tasks' gradients with respect to the shared parameters, each leaf `[T, ...]`. None unless
            `Balancer.needs` is "jacobian".
    """

    losses: jax.Array
    key: jax.Array
    gramian: Any = None
    jacobian: Any = None


class Decision(NamedTuple):
    """The output of a method at one step.

    Attributes:
        weights: Weights `[T]` of the tasks. The shared parameters follow the weighted sum of the tasks' gradients.
            If `Balancer.needs` is "losses", all other parameters follow the weighted sum, too.
        gradient: Combined gradient with respect to the shared parameters, for a method whose combination is no
            weighted sum of the gradients. None means the weighted sum.
        specific: Weights `[T]` of the gradients with respect to the other parameters. None means weights of 1.
    """

    weights: jax.Array
    gradient: Any = None
    specific: Any = None


class Balancer(NamedTuple):
    """A balancing method as pure functions, like `optax.GradientTransformation`.

    Attributes:
        init: Function (number of tasks, shared parameters) -> state. It reads only the shapes of the parameters, and
            only if the method keeps gradients in its state.
        update: Function (state, signals) -> (decision, state).
        needs: Input that `update` reads. "losses" costs one backward pass for the weighted sum. "gramian" and
            "jacobian" cost one backward pass for each task, and memory for T gradients with respect to the shared
            parameters.
        observe: Function (state, losses before, losses after) -> state, for a method that learns from the change of
            the losses of one batch over the optimiser's step. It costs one more forward pass. None if the method does
            not learn from it.
        features: True if the method balances gradients with respect to shared features instead of shared parameters;
            `value_and_grad` then needs its argument `encode`.
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
        shared: Combined gradient with respect to the shared parameters.
        specific: Gradient with respect to the other parameters. It is that of the weighted sum of the losses if the
            method reads the losses alone. Otherwise it is that of their plain sum, because parameters of a single task
            have no conflict to settle, unless `Decision.specific` says otherwise.
        weights: {task: weight of the task's gradient}.
        cosines: Cosines `[T, T]` of the angles between the tasks' gradients with respect to the shared parameters.
            None if the method reads the losses alone.
        state: The next state of the method.
        aux: The second return value of the loss function.
    """

    losses: dict[str, jax.Array]
    shared: Tree
    specific: Tree
    weights: dict[str, jax.Array]
    cosines: jax.Array | None
    state: State
    aux: Any


def check_values(name: str, values: Sequence[float] | None, num_tasks: int) -> None:
    """Raises ValueError unless the parameter `name` is None or has one value for each task."""
    if values is not None and len(values) != num_tasks:
        raise ValueError(f"{name} = {tuple(values)} for {num_tasks} tasks; give one value a task")


def value_and_grad(
    loss_fn: Callable[..., tuple[Mapping[str, jax.Array], Any]],
    balancer: Balancer,
    tasks: Sequence[str],
    *,
    encode: Callable[..., tuple[Tree, Any]] | None = None,
) -> Callable[..., Balanced]:
    """Creates a function like that of `jax.value_and_grad` for several losses, whose gradients a method balances.

    Args:
        loss_fn: Function (shared parameters, specific parameters, *args) -> ({task: loss}, aux). Both kinds of
            parameters are pytrees of floating-point arrays. The shared ones are those whose gradients are balanced;
            several losses depend on them. The specific ones may be () if all parameters are shared.
        balancer: Balancing method.
        tasks: Names of the tasks, in the order of the method's arrays.
        encode: Function (shared parameters, *args) -> (features, aux), for balancing the gradients with respect to
            the features instead of the parameters. The features are a pytree of floating-point arrays, which `loss_fn`
            takes in place of the shared parameters. The backward pass of each task then ends at the features, and a
            single one continues with the combined gradient through the encoder. `Balanced.aux` is then the pair (aux
            of the encoder, aux of the loss function). A method that keeps gradients must be initialised with features
            instead of parameters.

    Returns:
        A function (state, key, shared, specific, *args) -> `Balanced`, to be called under jit. The first `state` is
        `balancer.init(len(tasks), shared)`. The random `key` must differ from step to step.

    Raises:
        ValueError: a task is named twice, or the method balances gradients of features and `encode` is missing. The
            returned function raises it if the losses are not those of the tasks, if a loss is no scalar, or if the
            state does not belong to this method, these tasks and these parameters.
    """
    if balancer.features and encode is None:
        raise ValueError("the method balances gradients of shared features; give the encode that computes them")
    ordered = in_order(loss_fn, tasks)

    def balanced(state: State, key: jax.Array, shared: Tree, specific: Tree, *args: Any) -> Balanced:
        point, encoder = shared, None  # the point with respect to which gradients are balanced
        if encode is not None:
            point, encoder, encoded = jax.vjp(lambda shared: encode(shared, *args), shared, has_aux=True)
        check_state(balancer, len(tasks), state, point)
        each, backward, aux = jax.vjp(
            lambda point, specific: ordered(point, specific, *args), point, specific, has_aux=True
        )
        losses = stacked(each)
        if balancer.needs == "losses":
            decision, state = balancer.update(state, Signals(losses, key))
            cosines, (shared_grad, specific_grad) = None, backward(cotangents(each, decision.weights))
        else:
            decision, state, cosines, shared_grad, specific_grad = decide(
                balancer, state, losses, key, *each_gradient(each, backward)
            )
        if encoder is not None:
            (shared_grad,), aux = encoder(shared_grad), (encoded, aux)
        weights = dict(zip(tasks, decision.weights, strict=True))
        return Balanced(dict(zip(tasks, losses, strict=True)), shared_grad, specific_grad, weights, cosines, state, aux)

    return balanced


def in_order(
    loss_fn: Callable[..., tuple[Mapping[str, jax.Array], Any]], tasks: Sequence[str]
) -> Callable[..., tuple[tuple[jax.Array, ...], Any]]:
    """Returns a loss function whose losses are a tuple in the order of the tasks.

    Raises:
        ValueError: A task is named twice. The returned function raises it if the losses are not those of the tasks, or
            if a loss is no scalar.
    """
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"a task is named twice in {', '.join(tasks)}")

    def ordered(*args: Any) -> tuple[tuple[jax.Array, ...], Any]:
        losses, aux = loss_fn(*args)
        if missing := set(tasks) ^ set(losses):
            raise ValueError(f"the losses are {sorted(losses)}, the tasks {sorted(tasks)}; {sorted(missing)} differ")
        if shapes := {task: jnp.shape(loss) for task, loss in losses.items() if jnp.shape(loss)}:
            raise ValueError(f"the losses must be scalars; the shapes are {shapes}")
        return tuple(jnp.asarray(losses[task]) for task in tasks), aux

    return ordered


def cotangents(losses: Sequence[jax.Array], weights: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the weights in the dtypes of the losses, for the backward pass of the weighted sum."""
    return tuple(weight.astype(loss.dtype) for weight, loss in zip(weights, losses, strict=True))


def each_gradient(losses: Sequence[jax.Array], backward: Callable[..., Any]) -> tuple[Tree, tuple[Tree, ...]]:
    """Computes the gradient of every loss, one backward pass for each.

    Args:
        losses: The losses.
        backward: Function of `jax.vjp` from cotangents of the losses to gradients (shared, specific).

    Returns:
        (gradients with respect to the shared parameters, each leaf `[T, ...]`, those with respect to the specific ones
        task by task). The latter are not stacked, because most leaves are zero: a head has a gradient from its own task
        only.
    """
    rows = [backward(_alone(losses, position)) for position in range(len(losses))]
    return stack([row[0] for row in rows]), tuple(row[1] for row in rows)


def decide(
    balancer: Balancer, state: State, losses: jax.Array, key: jax.Array, jacobian: Tree, specific: Sequence[Tree]
) -> tuple[Decision, State, jax.Array, Tree, Tree]:
    """Lets a method that reads gradients decide.

    Args:
        balancer: Balancing method.
        state: State of the method.
        losses: Losses `[T]`.
        key: Random key of the step.
        jacobian: Gradients with respect to the shared parameters, each leaf `[T, ...]`.
        specific: Gradients with respect to the other parameters, task by task.

    Returns:
        (decision, next state, cosines `[T, T]`, combined gradient with respect to the shared parameters, and to the
        other ones).
    """
    if not jax.tree.leaves(jacobian):
        raise ValueError("there are no shared parameters; the method needs some, to balance their gradients")
    products = gramian(jacobian)
    signals = Signals(losses, key, products, jacobian if balancer.needs == "jacobian" else None)
    decision, state = balancer.update(state, signals)
    gradient = decision.gradient if decision.gradient is not None else combine(jacobian, decision.weights)
    factors = jnp.ones(len(specific)) if decision.specific is None else decision.specific
    return decision, state, cosine_matrix(products), gradient, _weighted_sum(specific, factors)


def observe(
    balancer: Balancer,
    tasks: Sequence[str],
    state: State,
    before: Mapping[str, jax.Array],
    after: Callable[[], Mapping[str, jax.Array]],
) -> State:
    """Updates the state of a method that compares the losses before and after the optimiser's step.

    Args:
        balancer: Balancing method. Most methods have no `Balancer.observe`; their state is returned as it is.
        tasks: Names of the tasks, in the order of the method's arrays.
        state: State of the method after the step, `Balanced.state`.
        before: Losses before the step, {task: loss}, `Balanced.losses`.
        after: Function that computes the losses of the same batch at the new parameters. It is called only if the
            method has `Balancer.observe`.

    Returns:
        The next state.
    """
    if balancer.observe is None:
        return state
    return balancer.observe(state, *(stacked([losses[task] for task in tasks]) for losses in (before, after())))


def stacked(losses: Sequence[jax.Array]) -> jax.Array:
    """Returns the losses as an array `[T]`, which is at least float32."""
    return jnp.stack([loss.astype(jnp.promote_types(loss.dtype, jnp.float32)) for loss in losses])


def check_state(balancer: Balancer, num_tasks: int, state: State, point: Tree) -> None:
    """Raises ValueError unless a state belongs to a method, the tasks and the shared parameters (or features)."""
    fresh = jax.eval_shape(functools.partial(balancer.init, num_tasks), point)
    given, expected = (
        [(jax.tree_util.keystr(path), jnp.shape(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
        for tree in (state, fresh)
    )
    if given != expected:
        raise ValueError(
            f"the method's state has {sorted(set(given) - set(expected))} in place of "
            f"{sorted(set(expected) - set(given))}; begin with balancer.init(number of tasks, shared parameters)"
        )


def _alone(losses: Sequence[jax.Array], position: int) -> tuple[Any, ...]:
    """Returns the cotangent that selects one of the losses.

    The zeros of the other losses are symbolic, so the backward pass skips what only these depend on, such as the heads
    of the other tasks.
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
    """Computes the Gramian G = J Jᵀ `[T, T]` of a pytree of gradients, each leaf `[T, ...]`.

    The result is float64 if a leaf is float64, and float32 otherwise.
    """

    def products(leaf: jax.Array) -> jax.Array:
        rows = leaf.reshape(leaf.shape[0], -1)
        rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
        return jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)

    return functools.reduce(jnp.add, map(products, jax.tree.leaves(jacobian)))


def combine(jacobian: Tree, weights: jax.Array) -> Tree:
    """Computes Jᵀ w, the weighted sum of the gradients: each leaf `[T, ...] -> [...]`, in the dtype of the leaf."""

    def weighted(leaf: jax.Array) -> jax.Array:  # full precision, because rounding can turn descent into ascent
        wide = jnp.promote_types(leaf.dtype, jnp.float32)
        combined = jnp.tensordot(weights.astype(wide), leaf.astype(wide), axes=1, precision=jax.lax.Precision.HIGHEST)
        return combined.astype(leaf.dtype)

    return jax.tree.map(weighted, jacobian)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stacks T pytrees of one structure into one pytree with leaves `[T, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def cosine_matrix(products: jax.Array) -> jax.Array:
    """Computes the cosines `[T, T]` between the gradients of a Gramian `[T, T]`; 0 where a gradient is zero."""
    norms = jnp.sqrt(jnp.diagonal(products))
    scale = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    return products * scale[:, None] * scale[None, :]
