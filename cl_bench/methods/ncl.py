"""Natural continual learning: a pull to past tasks, and steps that go round them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _anchors, _example_gradients, _fisher, _kronecker
from cl_bench.methods._compose import compose
from cl_bench.types import (
    GradTransform,
    Learner,
    Method,
    NetState,
    Network,
    PyTree,
    StreamSpec,
)

REFERENCE = (
    "Kao, Jensen, van de Ven, Bernacchia and Hennequin, NeurIPS 2021 (arXiv 2106.08085); "
    "written from its summary and from reading the released code (for recurrent "
    "networks) and van de Ven's (for feedforward ones)"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"strength": 0.0, "precondition": False}
ESTIMATORS = tuple(e for e in _fisher.ESTIMATORS if e != "batched")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`data_size` is van de Ven's for Split MNIST; 60,000 for Permuted MNIST.

    `fisher_examples`: None takes all of a task (`_example_gradients.task_mean`).
    """

    optimizer: str = struct.field(pytree_node=False, default="momentum")
    step_size: float = 0.01
    strength: float = 1.0  # lambda
    data_size: float = 12_000.0  # n: the prior's precision is 1 / n an example
    damping: float = 1e-10
    precondition: bool = struct.field(pytree_node=False, default=True)
    estimator: str = struct.field(pytree_node=False, default="exact")
    fisher_examples: int | None = struct.field(pytree_node=False, default=None)


class Posterior(NamedTuple):
    """What the tasks that have ended say of the parameters: a normal distribution."""

    precision: _kronecker.Factors  # Lambda, of one example
    inverse: _kronecker.Factors | None  # None without preconditioning
    centre: PyTree  # mu


def check(hyper: Hyper) -> None:
    """Raise ValueError for an estimator or a number of examples that cannot be."""
    if hyper.estimator not in ESTIMATORS:
        raise ValueError(
            f"estimator={hyper.estimator!r} is none of {', '.join(ESTIMATORS)}"
        )
    _example_gradients.check_examples(hyper.fisher_examples, "fisher_examples")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """theta <- theta - step_size / n Lambda^-1 (g + strength Lambda (theta - mu)).

    g is the gradient of the mean loss, Lambda = A (x) G a layer's precision for one
    example (`_kronecker`), through the optimiser in place of g. Until a task has ended
    Lambda = I / n and mu = 0, which makes it the optimiser's own step with a decay of
    strength / n. At a task's end Lambda gains the task's Fisher information, mu becomes
    theta, and momentum starts anew: directions in which past tasks are curved are
    followed slowly ('the journey') and led back to mu ('the destination'). `damping` is
    added to the factors before they are inverted.

    The paper's controls: strength=0 keeps the journey alone (projection),
    precondition=False the destination alone, a Laplace approximation (Ritter et al.,
    NeurIPS 2018, with a prior). Adam divides by the size of the preconditioned gradient,
    which undoes most of it.

    Raises ValueError for a network of other layers than dense ones, a stream of
    regressions, and options that do not exist.
    """
    # Departs from the paper: sums of Kronecker products are van de Ven's (those of least
    # trace) and not of least divergence; momentum is emptied at a task's end where the
    # released code carries unprojected gradients over; damping as in van de Ven's code.
    check(hyper)
    _fisher.require_classes(spec)
    _kronecker.require_dense(net, spec, "ncl")
    estimate = _kronecker.fisher(net, spec, hyper.estimator, hyper.fisher_examples)
    optim = optimizers.make(hyper)

    def end_task(key, clock, train, learner: Learner) -> Learner:
        del clock
        found = estimate(key, train, learner.net)
        precision = _kronecker.add(of(learner).precision, found)
        new = _posterior(precision, learner.net.params, hyper)
        opt = learner.opt
        if hyper.precondition:  # momentum from before is not of these directions
            every = jax.tree.map(lambda p: jnp.ones_like(p, bool), learner.net.params)
            opt = optim.reset(opt, every, "moments")
        extra = {**learner.extra, _anchors.PLACE: new}
        return learner._replace(opt=opt, extra=extra)

    return compose(
        net, spec, optim, grad_transforms=(_natural(net, hyper),), end_task=end_task
    )


def of(learner: Learner) -> Posterior:
    """What a learner knows of the tasks that have ended."""
    posterior: Any = learner.extra[_anchors.PLACE]
    return posterior


def _posterior(
    precision: _kronecker.Factors, centre: PyTree, hyper: Hyper
) -> Posterior:
    if not hyper.precondition:
        return Posterior(precision, None, centre)
    damping = _kronecker.scaled_identity(centre, hyper.damping)
    inverse = _kronecker.inverse(_kronecker.add(precision, damping))
    return Posterior(precision, inverse, centre)


def _natural(net: Network, hyper: Hyper) -> GradTransform:
    """Lambda^-1 (g + strength Lambda (theta - mu)) / n, 0 where weights are not in use."""

    def init(state: NetState) -> Posterior:
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        prior = _kronecker.scaled_identity(zeros, jnp.asarray(hyper.data_size) ** -0.5)
        return _posterior(prior, zeros, hyper)

    def update(key, clock, grads, state, own):
        del key, clock
        moved = jax.tree.map(jnp.subtract, state.params, own.centre)
        pull = _kronecker.apply(own.precision, _anchors.in_use(net, state, moved))
        total = jax.tree.map(lambda g, p: g + hyper.strength * p, grads, pull)
        total = _anchors.in_use(net, state, total)
        if not hyper.precondition:
            return total, own
        natural = _kronecker.apply(own.inverse, total)
        scaled = jax.tree.map(lambda d: d / hyper.data_size, natural)
        return _anchors.in_use(net, state, scaled), own

    return GradTransform(init, update)
