"""Four methods in five: gradient of loss + penalty, optimiser, then net transforms."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import units
from cl_bench.losses import mask_logits, weighted_mean
from cl_bench.optimizers import Optim
from cl_bench.types import (
    Batch,
    Clock,
    GradTransform,
    Key,
    Learner,
    Method,
    NetState,
    NetTransform,
    Network,
    PyTree,
    Signals,
    StreamSpec,
)

Hook = Callable[..., Learner]
# (key, clock, params, learner, batch, unmasked logits of the batch) -> ()
ExtraLoss = Callable[[Key, Clock, PyTree, Learner, Batch, Array], Array]
# (key, clock, batch, signals, learner after the update) -> learner
AfterStep = Callable[[Key, Clock, Batch, Signals, Learner], Learner]
# (key, learner, its network with the parameters of the gradient, x) -> as Network.apply
Forward = Callable[[Key, Learner, NetState, Array], tuple[Array, PyTree, PyTree]]
LOSS_KEY, AFTER_KEY = 2**20, 2**20 + 1  # beyond those of the transforms


def keep(key: Key, clock: Clock, train: object, learner: Learner) -> Learner:
    """The identity of start_task, end_segment and end_task."""
    del key, clock, train
    return learner


def no_penalty(params: PyTree, learner: Learner) -> Array:
    """Zero, for methods that add nothing to the loss."""
    del params, learner
    return jnp.zeros(())


def no_extra(state: NetState) -> dict[str, PyTree]:
    """Nothing, for methods that keep nothing beside network and optimiser."""
    del state
    return {}


def first_state(key: Key, net: Network, spec: StreamSpec) -> NetState:
    """The network before its first step, as what a method keeps of it has to have it.

    Its head is 0 where the benchmark starts every task so, the first one too.
    """
    state = net.init(key)
    return units.reset_head(state, net.head) if spec.reset_head else state


def predict_with(net: Network) -> Callable:
    """Evaluation-mode prediction: (learner, batch) -> masked logits, activations."""

    def predict(learner, batch):
        logits, acts, _ = net.apply(learner.net, batch.x, train=False, key=None)
        return mask_logits(logits, batch.classes), acts

    return predict


def gradients(
    spec: StreamSpec,
    batch: Batch,
    state: NetState,
    own: PyTree,
    forward: Callable[[NetState, PyTree], tuple[Array, PyTree, PyTree]],
    added: Callable[[PyTree, PyTree, Array], Array] | None = None,
) -> tuple[PyTree, PyTree, tuple[Array, Array, PyTree, PyTree]]:
    """Of the weighted mean loss, by the parameters and by what a method trains beside.

    `forward(state, own)` is a training-mode `Network.apply`, `added(params, own,
    unmasked logits)` is added to the loss. Returns both gradients, and what was seen:
    loss (without what is added), masked logits, activations, new stats.
    """

    def objective(params, own, backward):
        at = state._replace(params=params, stats={**state.stats, **backward})
        logits, acts, stats = forward(at, own)
        masked = mask_logits(logits, batch.classes)
        loss = weighted_mean(spec.loss.per_example(masked, batch.y), batch.weight)
        total = loss if added is None else loss + added(params, own, logits)
        return total, (loss, masked, acts, stats)

    # What the backward pass itself writes (online normalisation) comes out as the
    # "gradient" with respect to stats['backward'].
    backward = {k: state.stats[k] for k in ("backward",) if k in state.stats}
    found, (loss, logits, acts, stats) = jax.grad(objective, (0, 1, 2), has_aux=True)(
        state.params, own, backward
    )
    return found[0], found[1], (loss, logits, acts, {**stats, **found[2]})


def _in_use(net: Network, state: NetState) -> PyTree:
    """The parameters as an optimiser may decay them: 0 where a unit is not alive.

    Of those the runner keeps scales and slopes neutral, which are not 0: a coupled decay
    would bring them into the moments.
    """
    if not state.alive:
        return state.params
    counted = units.counted(state, net.units)
    return jax.tree.map(lambda p, c: jnp.where(c, p, 0.0), state.params, counted)


def compose(
    net: Network,
    spec: StreamSpec,
    optim: Optim,
    *,
    extra: Callable[[NetState], dict[str, PyTree]] = no_extra,
    penalty: Callable[[PyTree, Learner], Array] = no_penalty,
    extra_loss: ExtraLoss | None = None,
    forward: Forward | None = None,
    grad_transforms: Sequence[GradTransform] = (),
    transforms: Sequence[NetTransform] = (),
    moment_reset: str = "moments",
    after_step: AfterStep | None = None,
    start_task: Hook = keep,
    end_segment: Hook = keep,
    end_task: Hook = keep,
) -> Method:
    """A method from its parts.

    Each step: value and gradient of the weighted mean loss plus `penalty(params,
    learner)` plus `extra_loss`, which also sees the batch (rehearsal, distillation), of
    `forward`, where the method has one of its own with the same values (projections);
    each gradient transform; optimiser, its updates times the benchmark's step-size
    schedule; apply; each transform in order; then `optim.reset` of what the transforms
    replaced; then `after_step` (a memory takes the batch in). `extra(net state)` is the
    method's own start of `learner.extra`, where gradient transform i has
    'grad_transform_i' and transform i 'transform_i'. `Signals.loss` is without the
    added terms, `Signals.grads` with them and before the gradient transforms.
    """

    def init(key):
        state = first_state(key, net, spec)
        own = dict(extra(state))
        own |= {
            f"grad_transform_{i}": t.init(state) for i, t in enumerate(grad_transforms)
        }
        own |= {f"transform_{i}": t.init(state) for i, t in enumerate(transforms)}
        return Learner(state, optim.init(state.params), own)

    def of_batch(key, clock, batch, learner):
        state = learner.net
        net_key, loss_key = (jax.random.fold_in(key, i) for i in (0, LOSS_KEY))

        def seen_by(at, own):
            del own
            if forward is not None:
                return forward(net_key, learner, at, batch.x)
            return net.apply(at, batch.x, train=True, key=net_key)

        def added(params, own, logits):
            del own
            total = penalty(params, learner)
            if extra_loss is not None:
                total += extra_loss(loss_key, clock, params, learner, batch, logits)
            return total

        grads, _, seen = gradients(spec, batch, state, (), seen_by, added)
        return grads, seen

    def step(key, clock, batch, learner):
        # fold_in, not split: a key nobody uses is then never computed.
        grad_key = jax.random.fold_in(key, 1)
        grads, (loss, logits, acts, stats) = of_batch(key, clock, batch, learner)
        own = dict(learner.extra)
        used = grads
        for i, transform in enumerate(grad_transforms):
            name = f"grad_transform_{i}"
            at = grad_key if i == 0 else jax.random.fold_in(grad_key, i)
            used, own[name] = transform.update(at, clock, used, learner.net, own[name])
        updates, opt = optim.update(used, learner.opt, _in_use(net, learner.net))
        if spec.step_schedule:
            updates = jax.tree.map(lambda u: clock.step_scale * u, updates)
        params = jax.tree.map(lambda p, u: p + u, learner.net.params, updates)
        state = learner.net._replace(params=params, stats=stats)
        signals = Signals(loss, logits, acts, grads, updates)
        for i, transform in enumerate(transforms):
            name = f"transform_{i}"
            state, own[name], reset = transform.update(
                jax.random.fold_in(key, 2 + i), clock, signals, state, own[name]
            )
            if reset is not None:
                opt = optim.reset(opt, reset, moment_reset)
        learner = Learner(state, opt, own)
        if after_step is not None:
            at = jax.random.fold_in(key, AFTER_KEY)
            learner = after_step(at, clock, batch, signals, learner)
        return learner, signals

    return Method(init, start_task, step, end_segment, end_task, predict_with(net))
