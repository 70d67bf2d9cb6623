"""Bayesian gradient descent: each weight has a mean and a spread, which is its step size."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import noise, optimizers, shapes
from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.methods._compose import first_state, keep, predict_with
from cl_bench.types import (
    Batch,
    Key,
    Learner,
    Method,
    Network,
    PyTree,
    Signals,
    StreamSpec,
)

REFERENCE = (
    "Zeno et al., 2018 (arXiv 1803.10123), Algorithm 1, from a secondary description; "
    "released code (igolan/bgd)"
)
NEEDS: frozenset[str] = frozenset()
# The spread follows the data: a step of backprop is a limit (sigma_init to 0 with
# step_size = a / sigma_init^2), which no finite setting reaches.
NEUTRAL = None
GRADIENTS = ("sum", "mean")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The released command for ten permutations of MNIST, 10 epochs each.

    `step_size` is the paper's eta. Its other `sigma_init`: 0.06 for 20 or 300 epochs
    of a permutation, 0.017 for Split MNIST with 4.
    """

    step_size: float = 1.0
    sigma_init: float = 0.02
    monte_carlo: int = struct.field(pytree_node=False, default=10)
    gradients: str = struct.field(pytree_node=False, default="sum")
    noise: str = struct.field(pytree_node=False, default="exact")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist, or another optimiser."""
    if hyper.gradients not in GRADIENTS:
        raise ValueError(
            f"gradients={hyper.gradients!r} is none of {', '.join(GRADIENTS)}"
        )
    if hyper.noise not in noise.KINDS:
        raise ValueError(f"noise={hyper.noise!r} is none of {', '.join(noise.KINDS)}")
    if hyper.monte_carlo < 1:
        raise ValueError(f"monte_carlo={hyper.monte_carlo}: at least 1 sample")
    if hyper.optimizer != "sgd":
        raise ValueError(
            f"bgd is an optimiser itself, optimizer={hyper.optimizer!r} cannot be "
            "another: leave 'sgd'"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Weights theta = mu + sigma eps, eps ~ N(0, 1); with g = dL/dtheta at theta and E
    the mean over `monte_carlo` draws of eps,

    mu <- mu - eta sigma^2 E[g]; sigma <- sigma (sqrt(1 + a^2) - a), a = sigma E[g eps] / 2.

    gradients 'sum' takes L as the sum over the batch, as the derivation and the released
    code do, 'mean' as its mean. `learner.net` holds mu, from the network's own
    initialiser, and predicts; `extra['sigma']` is shaped like it. `Signals` are those of
    mu, with grads E[g]. A benchmark that resets the head resets its mu only.

    Cost: `monte_carlo` gradients a step. noise 'pooled' makes the draws cheap, see
    `cl_bench.noise`. Raises ValueError as `check` does, and for a network whose backward
    pass keeps statistics (norm 'online').

    # Departs from the released code where the network has batch normalisation: running
    # statistics are those of mu, which predicts, and not of the first draw.
    """
    check(hyper)
    if "backward" in shapes.state(net).stats:
        raise ValueError(
            "bgd takes several gradients a step, and this network's norm keeps "
            "statistics of its one backward pass; norm 'layer' or 'batch' works"
        )
    expected_gradients = _expected_gradients(net, spec, hyper)

    def init(key: Key) -> Learner:
        state = first_state(key, net, spec)
        sigma = jax.tree.map(lambda p: jnp.full_like(p, hyper.sigma_init), state.params)
        return Learner(state, (), {"sigma": sigma})

    def step(key, clock, batch, learner):
        state, sigma = learner.net, learner.extra["sigma"]
        at_mean, draws = (jax.random.fold_in(key, i) for i in range(2))
        logits, acts, stats = net.apply(state, batch.x, train=True, key=at_mean)
        masked = mask_logits(logits, batch.classes)
        loss = weighted_mean(spec.loss.per_example(masked, batch.y), batch.weight)
        grads, with_noise = expected_gradients(draws, batch, learner)
        rate = hyper.step_size
        if spec.step_schedule:
            rate = clock.step_scale * rate
        updates = jax.tree.map(lambda s, g: -rate * s * s * g, sigma, grads)
        params = jax.tree.map(lambda p, u: p + u, state.params, updates)
        learner = learner._replace(
            net=state._replace(params=params, stats=stats),
            extra={"sigma": jax.tree.map(new_sigma, sigma, with_noise)},
        )
        return learner, Signals(loss, masked, acts, grads, updates)

    return Method(init, keep, step, keep, keep, predict_with(net))


def new_sigma(sigma: Array, with_noise: Array) -> Array:
    """sigma (sqrt(1 + a^2) - a), a = sigma E[g eps] / 2; positive for every finite a."""
    a = 0.5 * sigma * with_noise
    root = jnp.sqrt(1.0 + a * a)
    # The difference of two large numbers is 0 in float32, and a spread of 0 stays 0.
    return sigma * jnp.where(a > 0, 1.0 / (root + jnp.abs(a)), root - a)


def _expected_gradients(net: Network, spec: StreamSpec, hyper: Hyper):
    """(key, batch, learner) -> E[g], E[g eps], one draw after the other."""

    def of_batch(params: PyTree, key: Key, batch: Batch, learner: Learner) -> Array:
        state = learner.net._replace(params=params)
        logits = net.apply(state, batch.x, train=True, key=key)[0]
        masked = mask_logits(logits, batch.classes)
        each = spec.loss.per_example(masked, batch.y)
        if hyper.gradients == "sum":
            return jnp.sum(each * batch.weight)
        return weighted_mean(each, batch.weight)

    def expected(key: Key, batch: Batch, learner: Learner) -> tuple[PyTree, PyTree]:
        mu, sigma = learner.net.params, learner.extra["sigma"]

        def add_draw(sums, key):
            eps_key, net_key = jax.random.split(key)
            eps = noise.normal_like(eps_key, mu, hyper.noise)
            theta = jax.tree.map(lambda m, s, e: m + s * e, mu, sigma, eps)
            g = jax.grad(of_batch)(theta, net_key, batch, learner)
            return (
                jax.tree.map(jnp.add, sums[0], g),
                jax.tree.map(lambda total, g, e: total + g * e, sums[1], g, eps),
            ), None

        zeros = jax.tree.map(jnp.zeros_like, mu)
        keys = jax.random.split(key, hyper.monte_carlo)
        sums, _ = jax.lax.scan(add_draw, (zeros, zeros), keys)
        return jax.tree.map(lambda total: total / hyper.monte_carlo, sums)

    return expected
