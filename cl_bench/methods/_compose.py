"""Four methods in five: gradient of loss + penalty, optimiser, then net transforms."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.optimizers import Optim
from cl_bench.types import (
    Clock,
    Key,
    Learner,
    Method,
    NetTransform,
    Network,
    PyTree,
    Signals,
    StreamSpec,
)

Hook = Callable[..., Learner]


def keep(key: Key, clock: Clock, train: object, learner: Learner) -> Learner:
    """The identity of start_task, end_segment and end_task."""
    del key, clock, train
    return learner


def no_penalty(params: PyTree, learner: Learner) -> Array:
    """Zero, for methods that add nothing to the loss."""
    del params, learner
    return jnp.zeros(())


def predict_with(net: Network) -> Callable:
    """Evaluation-mode prediction: (learner, batch) -> masked logits, activations."""

    def predict(learner, batch):
        logits, acts, _ = net.apply(learner.net, batch.x, train=False, key=None)
        return mask_logits(logits, batch.classes), acts

    return predict


def compose(
    net: Network,
    spec: StreamSpec,
    optim: Optim,
    *,
    penalty: Callable[[PyTree, Learner], Array] = no_penalty,
    perturb_grads: Callable[[Key, Clock, PyTree], PyTree] | None = None,
    transforms: Sequence[NetTransform] = (),
    moment_reset: str = "moments",
    start_task: Hook = keep,
    end_segment: Hook = keep,
    end_task: Hook = keep,
) -> Method:
    """A method from its parts.

    Each step: value and gradient of the weighted mean loss plus `penalty(params,
    learner)`; `perturb_grads`; optimiser; apply; each transform in order; then
    `optim.reset` of what the transforms replaced. Transform i keeps its state in
    `learner.extra['transform_i']`. `Signals.loss` is without the penalty.
    """

    def init(key):
        state = net.init(key)
        extra = {f"transform_{i}": t.init(state) for i, t in enumerate(transforms)}
        return Learner(state, optim.init(state.params), extra)

    def gradient(key, batch, learner):
        def objective(params):
            at = learner.net._replace(params=params)
            logits, acts, stats = net.apply(at, batch.x, train=True, key=key)
            logits = mask_logits(logits, batch.classes)
            loss = weighted_mean(spec.loss.per_example(logits, batch.y), batch.weight)
            return loss + penalty(params, learner), (loss, logits, acts, stats)

        return jax.grad(objective, has_aux=True)(learner.net.params)

    def step(key, clock, batch, learner):
        # fold_in, not split: a key nobody uses is then never computed.
        net_key, grad_key = (jax.random.fold_in(key, i) for i in range(2))
        grads, (loss, logits, acts, stats) = gradient(net_key, batch, learner)
        if perturb_grads is not None:
            grads = perturb_grads(grad_key, clock, grads)
        updates, opt = optim.update(grads, learner.opt, learner.net.params)
        params = jax.tree.map(lambda p, u: p + u, learner.net.params, updates)
        state = learner.net._replace(params=params, stats=stats)
        signals = Signals(loss, logits, acts, grads, updates)
        extra = dict(learner.extra)
        for i, transform in enumerate(transforms):
            name = f"transform_{i}"
            state, extra[name], reset = transform.update(
                jax.random.fold_in(key, 2 + i), clock, signals, state, extra[name]
            )
            if reset is not None:
                opt = optim.reset(opt, reset, moment_reset)
        return Learner(state, opt, extra), signals

    return Method(init, start_task, step, end_segment, end_task, predict_with(net))
