"""Hard attention to the task: learnt gates for each task, and what they used is kept."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers, units
from cl_bench.losses import mask_logits
from cl_bench.methods import _freeze
from cl_bench.methods._compose import compose, gradients
from cl_bench.types import Learner, Method, Network, PyTree, Signals, StreamSpec

REFERENCE = (
    "Serra, Suris, Miron and Karatzoglou, ICML 2018 (arXiv 1801.01423), read in the "
    "released code, joansj/hat"
)
NEEDS = frozenset({"boundaries", "task_id"})
NEUTRAL: dict[str, float] | None = None  # a gate is a sigmoid: it is never 1
HEADS = ("auto", "own", "protect")
COSH_LIMIT, EMBEDDING_LIMIT = 50.0, 6.0

Layers = dict[str, Array]  # unit name -> [U], or [T, U]


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The paper's, with plain SGD."""

    step_size: float = 0.05
    sparsity: float = 0.75  # c
    max_sharpness: float = 400.0  # s_max
    head: str = struct.field(pytree_node=False, default="auto")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist."""
    if hyper.head not in HEADS:
        raise ValueError(f"head={hyper.head!r} is none of {', '.join(HEADS)}")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + c sum a (1 - a') / sum(1 - a'), over all units of all hidden layers.

    a = sigmoid(s e_t) [U] gates a layer's outputs in task t, e_t is learnt; a' [U] is
    the largest gate that an earlier task ended with, at s = s_max. In an epoch s grows
    linearly from 1/s_max at its first step to s_max at its last, and a prediction takes
    s_max. The gradient of a weight from unit j to unit i is multiplied by
    1 - min(a'_i, a'_j), of a bias by 1 - a'_i; inputs, and outputs, have a' = 1 after
    the first task. Of e it is multiplied by
    s_max (cosh(s e) + 1) / (s (cosh(e) + 1)), in the first cosh |s e| <= 50, and e is
    kept in [-6, 6].

    `head`: 'own' leaves the weights and biases of the outputs in play free, which
    supposes that each task has outputs of its own; 'protect' treats the head as any
    layer; 'auto' is 'own' in scenario 'task' without `single_head`. Both optimisers
    start anew with each task. Statistics of a normalisation are not protected. The
    multiplier acts on gradients: Adam divides all but its zeros away again.
    `learner.net` is the network without gates. Memory: one number a unit and task.

    Raises ValueError for options that do not exist, for a network without hidden
    layers, and for a benchmark that resets the head or puts back an earlier network.
    """
    # Departs from the paper: the code's limit of the gradient's norm (10,000), its
    # step sizes by validation, and its s, which ends one step short of s_max, are not
    # taken; weights whose multiplier is 0 do not move by momentum or decay either. An
    # epoch is that of the stream's smallest task: where a task is no whole number of
    # them, s ends below s_max.
    check(hyper)
    _freeze.require_hidden(net, "hat")
    _freeze.require_kept(spec, "hat", "lwf or ewc")
    own_head = _freeze.head_is(spec, hyper.head, "own")
    optim, s_max = optimizers.make(hyper), hyper.max_sharpness
    base = compose(net, spec, optim)
    steps_of_epoch = max(spec.examples_per_task // spec.batch_size, 1)

    def init(key):
        learner = base.init(key)
        embedding = {}
        for i, unit in enumerate(net.units):
            at = jax.random.fold_in(key, 1 + i)
            shape = (spec.num_tasks, unit.size)
            embedding[unit.name] = jax.random.normal(at, shape)
        used = {unit.name: jnp.zeros(unit.size) for unit in net.units}
        opt = optim.init(used)
        own = {"embedding": embedding, "used": used, "opt": opt}
        return learner._replace(extra={"hat": own})

    def start_task(key, clock, train, learner):
        del key, clock, train
        own = learner.extra["hat"]
        own = {**own, "opt": optim.init(own["used"])}
        opt = optim.init(learner.net.params)
        return learner._replace(opt=opt, extra={"hat": own})

    def of_batch(key, batch, learner, open_):
        """Gradients of the parameters and of the gates, and what was seen."""
        state, used = learner.net, learner.extra["hat"]["used"]

        def forward(at, open_):
            return net.apply(at, batch.x, train=True, key=key, gates=open_)

        def added(params, open_, logits):
            del params, logits
            return hyper.sparsity * crowding(open_, used, state.alive)

        return gradients(spec, batch, state, open_, forward, added)

    def multipliers(clock, batch, learner):
        later = (clock.task > 0).astype(jnp.float32)
        used = learner.extra["hat"]["used"]
        factor = protection(net, learner.net.params, used, later)
        if own_head:
            in_play = jnp.any(batch.classes, axis=0).astype(jnp.float32)
            factor[net.head] = dict.fromkeys(factor[net.head], in_play)
        return factor

    def step(key, clock, batch, learner):
        own, state = learner.extra["hat"], learner.net
        s = sharpness(clock.step_in_task % steps_of_epoch, steps_of_epoch, s_max)
        e = {name: table[clock.task] for name, table in own["embedding"].items()}
        at = jax.random.fold_in(key, 0)
        grads, by_gate, seen = of_batch(at, batch, learner, gates(e, s))
        loss, logits, acts, stats = seen
        factor = multipliers(clock, batch, learner)
        kept = jax.tree.map(jnp.multiply, grads, factor)
        updates, opt = optim.update(kept, learner.opt, state.params)
        updates = jax.tree.map(lambda u: clock.step_scale * u, updates)
        by_e = jax.tree.map(lambda g, e: g * slope(e, s, s_max), by_gate, e)
        moves, own_opt = optim.update(by_e, own["opt"], e)
        e = jax.tree.map(lambda e, u: limited(e + clock.step_scale * u), e, moves)
        embedding = {
            name: table.at[clock.task].set(e[name])
            for name, table in own["embedding"].items()
        }
        params = jax.tree.map(jnp.add, state.params, updates)
        own = {**own, "embedding": embedding, "opt": own_opt}
        after = Learner(state._replace(params=params, stats=stats), opt, {"hat": own})
        signals = Signals(loss, logits, acts, grads, updates)
        # Not `> 0`: a lane that has diverged must stay so.
        free = jax.tree.map(lambda f: ~(f == 0.0), factor)
        return _freeze.hold(free, learner, after, signals)

    def end_task(key, clock, train, learner):
        del key, train
        own = learner.extra["hat"]
        e = {name: table[clock.task] for name, table in own["embedding"].items()}
        used = jax.tree.map(jnp.maximum, own["used"], gates(e, s_max))
        return learner._replace(extra={"hat": {**own, "used": used}})

    def predict(learner, batch):
        table = learner.extra["hat"]["embedding"]
        e = {name: rows[batch.task] for name, rows in table.items()}  # [B, U]
        logits, acts, _ = net.apply(
            learner.net, batch.x, train=False, key=None, gates=gates(e, s_max)
        )
        return mask_logits(logits, batch.classes), acts

    def task_weights(learner, batch):
        """Those between gates above 1/2: s_max leaves few elsewhere than at 0 or 1."""
        table = learner.extra["hat"]["embedding"]
        open_ = gates({n: rows[batch.task[0]] for n, rows in table.items()}, s_max)
        factor = protection(net, learner.net.params, open_, jnp.ones(()))
        found = {name: layer["kernel"] < 0.5 for name, layer in factor.items()}
        return _freeze.of_outputs_in_play(found, net, batch) if own_head else found

    return base._replace(
        init=init, start_task=start_task, step=step, end_task=end_task,
        predict=predict, task_weights=task_weights,
    )  # fmt: skip


def gates(e: Layers, s: Array | float) -> Layers:
    """sigmoid(s e)."""
    return {name: jax.nn.sigmoid(s * values) for name, values in e.items()}


def sharpness(i: Array, steps: int, s_max: Array | float) -> Array | float:
    """s at step i of an epoch: 1/s_max + (s_max - 1/s_max) i / (steps - 1)."""
    if steps == 1:
        return s_max
    return 1.0 / s_max + (s_max - 1.0 / s_max) * i / (steps - 1)


def crowding(open_: Layers, used: Layers, alive: Mapping[str, Array]) -> Array:
    """sum a (1 - a') / sum(1 - a') over the units that are alive; 0 if none is left."""
    room = {n: (1.0 - u) * alive.get(n, jnp.ones(())) for n, u in used.items()}
    taken = sum(jnp.sum(open_[name] * free) for name, free in room.items())
    total = sum(jnp.sum(free) for free in room.values())
    return taken / jnp.maximum(total, 1e-12)


def slope(e: Array, s: Array | float, s_max: Array | float) -> Array:
    """The slope of sigmoid(s e) in e, compensated.

    s sigmoid'(s e) times s_max (cosh(clip(s e)) + 1) / (s (cosh(e) + 1)) is
    s_max sigmoid'(e), as sigmoid'(x) = 1 / (2 cosh(x) + 2), and less beyond the clip.
    Written so because float32 has no slope of sigmoid(s e) left from s e = 17 on.
    """
    beyond = jnp.maximum(jnp.abs(s * e) - COSH_LIMIT, 0.0)
    return s_max * jnp.exp(-beyond) / (2.0 * jnp.cosh(e) + 2.0)


def limited(e: Array) -> Array:
    """e in [-6, 6]."""
    return jnp.clip(e, -EMBEDDING_LIMIT, EMBEDDING_LIMIT)


def protection(net: Network, params: PyTree, used: Layers, later: Array) -> PyTree:
    """1 - min(a'_i, a'_j), broadcastable over the parameters.

    `later` () is a' of the inputs and of the outputs: 0 in the first task, then 1.
    """
    written = {m: used[unit.name] for unit in net.units for m in unit.incoming}
    read = {
        m: units.mask_outgoing(params[m]["kernel"], unit, used[unit.name])
        for unit in net.units
        for m in unit.outgoing
    }
    factor = {}
    for name, layer in params.items():
        to, of = written.get(name, later), read.get(name, later)
        factor[name] = {
            leaf: 1.0 - (jnp.minimum(to, of) if leaf == "kernel" else to)
            for leaf in layer
        }
    return factor
