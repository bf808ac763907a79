"""Steps of the optimisers, against torch, optax and formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mtl_jax import optim

STEPS = 5
SHAPES = {"kernel": (3, 3, 2, 4), "linear": (4, 3), "bias": (4,), "scale": (2,)}


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


WEIGHTS, GRADIENTS = random_tree(0), [random_tree(1 + step) for step in range(STEPS)]


def halving(step):
    """A learning rate that differs at every step."""
    return 0.01 * 0.5 ** jnp.asarray(step, jnp.float64)


def trained(tx, gradients=GRADIENTS):
    """The weights after every step."""
    weights = jax.tree.map(jnp.asarray, WEIGHTS)
    state, history = tx.init(weights), []
    for gradient in gradients:
        updates, state = jax.jit(tx.update)(gradient, state, weights)
        weights = optax.apply_updates(weights, updates)
        history.append(weights)
    return history


def assert_same(found, expected, rtol=1e-12):
    assert len(found) == len(expected) == STEPS
    for one, other in zip(found, expected, strict=True):
        for name in SHAPES:
            np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-14, err_msg=name)


def trained_in_torch(make, clip_norm=None, rate=halving):
    """The weights after every step of an optimiser of torch: make(torch.optim, parameters)."""
    torch = pytest.importorskip("torch")
    weights = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in WEIGHTS.items()}
    optimizer, history = make(torch.optim, weights), []
    for step, gradient in enumerate(GRADIENTS):
        for group in optimizer.param_groups:
            group["lr"] = float(rate(step)) * group.get("factor", 1)
        for name, weight in weights.items():
            weight.grad = torch.tensor(gradient[name])
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(weights.values(), clip_norm)
        optimizer.step()
        history.append({name: weight.detach().numpy().copy() for name, weight in weights.items()})
    return history


def groups(weights, decay):
    """Parameter groups of torch in which only kernels decay."""
    kernels = [weights["kernel"], weights["linear"]]
    others = [weights["bias"], weights["scale"]]
    return [{"params": kernels, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def test_adamw_is_torchs_and_the_rate_of_the_schedule_scales_the_decay():
    options = {"b1": 0.8, "b2": 0.95, "eps": 1e-6}
    tx = optim.make_optimizer("adamw", halving, weight_decay=0.3, options=options)
    expected = trained_in_torch(lambda o, w: o.AdamW(groups(w, 0.3), betas=(0.8, 0.95), eps=1e-6))
    assert_same(trained(tx), expected)


def test_adamw_decays_every_parameter_where_asked():
    tx = optim.make_optimizer("adamw", halving, weight_decay=0.3, weight_decay_on="all")
    assert_same(trained(tx), trained_in_torch(lambda o, w: o.AdamW(w.values(), weight_decay=0.3)))


def test_adam_couples_the_decay_of_every_parameter_as_torch_does():
    tx = optim.make_optimizer("adam", halving, weight_decay=0.3)
    assert_same(trained(tx), trained_in_torch(lambda o, w: o.Adam(w.values(), weight_decay=0.3)))


def test_coupled_decay_of_kernels_alone():
    tx = optim.make_optimizer("sgd", halving, weight_decay=0.3, weight_decay_on="kernels")
    assert_same(trained(tx), trained_in_torch(lambda o, w: o.SGD(groups(w, 0.3), momentum=0.9)))


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_torchs(nesterov):
    tx = optim.make_optimizer("sgd", halving, weight_decay=0.3, momentum=0.7, options={"nesterov": nesterov})
    settings = {"momentum": 0.7, "weight_decay": 0.3, "nesterov": nesterov}
    assert_same(trained(tx), trained_in_torch(lambda o, w: o.SGD(w.values(), lr=1, **settings)))


@pytest.mark.parametrize("clip_norm", [0.5, 1e3])
def test_the_gradient_is_clipped_before_the_coupled_decay(clip_norm):
    """Norms are about 9.5: the first bound clips every gradient, the second none."""
    assert all(1 < np.sqrt(sum((x**2).sum() for x in gradient.values())) < 1e3 for gradient in GRADIENTS)
    tx = optim.make_optimizer("sgd", halving, weight_decay=0.3, clip_norm=clip_norm)
    settings = {"momentum": 0.9, "weight_decay": 0.3}
    assert_same(trained(tx), trained_in_torch(lambda o, w: o.SGD(w.values(), lr=1, **settings), clip_norm))


def test_multipliers_are_rates_of_torchs_groups():
    """The factor scales the decay, too. The longest path counts."""

    def make(o, weights):
        return o.AdamW([{"params": [weights["kernel"]], "factor": 10.0}, {"params": [weights["linear"]]}])

    torch_weights = trained_in_torch(make)
    tx = optim.make_optimizer("adamw", halving, weight_decay=0.01, multipliers={"a": 3.0, "a.kernel": 10.0, "b": 7.0})
    weights = {"a": {"kernel": jnp.asarray(WEIGHTS["kernel"])}, "c": {"linear": jnp.asarray(WEIGHTS["linear"])}}
    state = tx.init(weights)
    for gradient, expected in zip(GRADIENTS, torch_weights, strict=True):
        nested = {"a": {"kernel": gradient["kernel"]}, "c": {"linear": gradient["linear"]}}
        updates, state = tx.update(nested, state, weights)
        weights = optax.apply_updates(weights, updates)
        np.testing.assert_allclose(weights["a"]["kernel"], expected["kernel"], rtol=1e-12)
        np.testing.assert_allclose(weights["c"]["linear"], expected["linear"], rtol=1e-12)


def kernels(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("lamb", {"b1": 0.8, "b2": 0.95}, lambda rate, **kw: optax.lamb(rate, 0.8, 0.95, **kw)),
        ("lion", {"b1": 0.8, "b2": 0.95}, lambda rate, **kw: optax.lion(rate, 0.8, 0.95, **kw)),
        ("adan", {"b1": 0.9, "b3": 0.95}, lambda rate, **kw: optax.adan(rate, b1=0.9, b3=0.95, eps_root=0.0, **kw)),
        ("adamw", {"nesterov": True}, lambda rate, **kw: optax.nadamw(rate, **kw)),
    ],
)
def test_decoupled_optimisers_are_those_of_optax(name, options, reference):
    tx = optim.make_optimizer(name, halving, weight_decay=0.3, options=options)
    expected = reference(halving, weight_decay=0.3, mask=kernels)
    assert_same(trained(tx), trained(expected))


def test_lion_by_its_formula():
    """Algorithm 2 of arXiv 2302.06675."""
    found = trained(optim.make_optimizer("lion", 0.01, weight_decay=0.3, options={"b1": 0.8, "b2": 0.95}))
    for name, start in WEIGHTS.items():
        weight, mean = start, np.zeros_like(start)
        for step, gradient in enumerate(GRADIENTS):
            direction = np.sign(0.8 * mean + 0.2 * gradient[name])
            weight = weight - 0.01 * (direction + (0.3 * weight if weight.ndim > 1 else 0))
            mean = 0.95 * mean + 0.05 * gradient[name]
            np.testing.assert_allclose(found[step][name], weight, rtol=1e-12)


def test_lamb_by_its_formula():
    """Algorithm 2 of arXiv 1904.00962."""
    found = trained(optim.make_optimizer("lamb", 0.01, weight_decay=0.3))
    for name, start in WEIGHTS.items():
        weight, mean, square = start, np.zeros_like(start), np.zeros_like(start)
        for step, gradient in enumerate(GRADIENTS):
            mean = 0.9 * mean + 0.1 * gradient[name]
            square = 0.999 * square + 0.001 * gradient[name] ** 2
            ratio = mean / (1 - 0.9 ** (step + 1)) / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-6)
            direction = ratio + (0.3 * weight if weight.ndim > 1 else 0)
            weight = weight - 0.01 * np.linalg.norm(weight) / np.linalg.norm(direction) * direction
            np.testing.assert_allclose(found[step][name], weight, rtol=1e-10)


def orthogonalised(matrix):
    """Five Newton-Schulz iterations of the quintic polynomial."""
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("consistent_rms", [0.2, 0.0])
def test_muon_by_its_formula(consistent_rms):
    """Kernels of convolutions are matrices; other parameters follow Adam without decay."""
    tx = optim.make_optimizer("muon", halving, weight_decay=0.3, options={"consistent_rms": consistent_rms})
    found = trained(tx)
    for name in ("kernel", "linear"):
        weight = WEIGHTS[name].reshape(-1, SHAPES[name][-1])
        inputs, outputs = weight.shape
        scale = consistent_rms * np.sqrt(max(inputs, outputs)) or np.sqrt(max(1, outputs / inputs))
        mean = np.zeros_like(weight)
        for step, gradients in enumerate(GRADIENTS):
            gradient = gradients[name].reshape(weight.shape)
            mean = 0.95 * mean + 0.05 * gradient
            corrected = mean / (1 - 0.95 ** (step + 2))
            momentum = 0.95 * corrected + 0.05 * gradient / (1 - 0.95 ** (step + 1))
            update = orthogonalised(momentum.T).T * scale
            weight = weight - 0.01 * 0.5**step * (update + 0.3 * weight)
            np.testing.assert_allclose(found[step][name].reshape(weight.shape), weight, rtol=1e-6, atol=1e-9)
    adam = trained(optim.make_optimizer("adam", halving, options={"nesterov": True}))
    for one, other in zip(found, adam, strict=True):
        for name in ("bias", "scale"):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-12)


def test_exempt_parameters_are_no_kernels():
    for name in ("adamw", "muon"):
        weights = {"embedding": {"table": jnp.ones((3, 4))}, "layer": {"kernel": jnp.ones((3, 4))}}
        zeros = jax.tree.map(jnp.zeros_like, weights)
        tx = optim.make_optimizer(name, 0.1, weight_decay=0.5, exempt={"embedding.table"})
        updates, _ = tx.update(zeros, tx.init(weights), weights)
        np.testing.assert_array_equal(updates["embedding"]["table"], 0)
        np.testing.assert_allclose(updates["layer"]["kernel"], -0.05)


@pytest.mark.parametrize(
    ("name", "decayed", "expected"),
    [("sgd", "", False), ("adam", "all", False), ("adam", "kernels", True), ("adamw", "", True), ("muon", "all", True)],
)
def test_optimisers_that_distinguish_kernels(name, decayed, expected):
    assert optim.distinguishes_kernels(name, decayed) == expected


def test_the_places_of_arrays_in_checkpoints_are_those_of_older_versions():
    def paths(name):
        state = optim.make_optimizer(name, lambda step: 0.1).init(WEIGHTS)
        return {jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in jax.tree.leaves_with_path(state)}

    each = [f"1.0.{moment}.{name}" for moment in ("mu", "nu") for name in SHAPES]
    assert paths("adam") == {"1.0.count", "1.1.count", *each}
    assert paths("sgd") == {"1.1.count", *(f"1.0.trace.{name}" for name in SHAPES)}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("adan2", {}, r"unknown optimiser 'adan2'; the optimisers are sgd, adam, adamw, .*Did you mean adan"),
        ("adamw", {"beta1": 0.9}, r"optim\.options\.beta1 is 0\.9, but the options of optimiser adamw are b1, b2, eps"),
        ("adamw", {"epz": 1}, r"Did you mean eps\?"),
        ("adamw", {"b1": 1}, r"optim\.options\.b1 is 1\.0; it must be at least 0 and below 1"),
        ("adamw", {"b1": "high"}, r"optim\.options\.b1 is 'high'; give a value of type float"),
        ("lion", {"eps": 1e-8}, r"optim\.options\.eps is 1e-08, but the options of optimiser lion are b1, b2"),
        ("sgd", {"momentum": 0.5}, r"optim\.options\.momentum is 0\.5; set optim\.momentum"),
        ("muon", {"ns_steps": 0}, r"optim\.options\.ns_steps is 0; it must be at least 1"),
    ],
)
def test_impossible_optimisers_are_refused(name, given, message):
    with pytest.raises(ValueError, match=message):
        optim.make_optimizer(name, 0.1, options=given)


def test_nesterov_needs_momentum_and_the_decay_a_known_choice():
    with pytest.raises(ValueError, match=r"nesterov needs a momentum above 0; optim\.momentum is 0\.0"):
        optim.make_optimizer("sgd", 0.1, momentum=0.0, options={"nesterov": True})
    with pytest.raises(ValueError, match="weight_decay_on is 'matrices'; it may be 'all' or 'kernels'"):
        optim.make_optimizer("sgd", 0.1, weight_decay_on="matrices")


def test_an_optimiser_of_ones_own():
    try:

        @optim.register_optimizer("signs")
        def signs(parts, options):
            return optax.chain(optax.scale_by_sign(), parts.decay)

        tx = optim.make_optimizer("signs", 0.1, weight_decay=0.5)
        weights = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full(1, 2.0)}
        updates, _ = tx.update({"kernel": jnp.ones((1, 1)), "bias": -jnp.ones(1)}, tx.init(weights), weights)
        np.testing.assert_allclose(updates["kernel"], -0.1 * (1 + 0.5 * 2))
        np.testing.assert_allclose(updates["bias"], 0.1)
        with pytest.raises(ValueError, match=r"optim\.options\.b1 is 0\.9, but optimiser signs has no options"):
            optim.make_optimizer("signs", 0.1, options={"b1": 0.9})
    finally:
        del optim.OPTIMIZERS["signs"]
