"""Progressive networks: a column for each task, which reads the frozen earlier ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.losses import mask_logits
from cl_bench.methods import _freeze, _laterals, _per_task
from cl_bench.methods._compose import compose, gradients
from cl_bench.methods._memory import MOST_FLOATS
from cl_bench.types import Learner, Method, Network, Signals, StreamSpec

REFERENCE = (
    "Rusu et al. 2016 (arXiv 1606.04671), equations 1 and 2; not readable itself, taken "
    "from D. Stutz's summary and from ContinualAI/avalanche, models/pnn.py (secondary)"
)
NEEDS = frozenset({"boundaries", "task_id"})
NEUTRAL: dict[str, float] | None = None  # a new column for every task


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """'linear' is the paper's equation 1; its experiments have 'adapter', equation 2."""

    lateral_init_scale: float = 1.0  # of U
    lateral_step_scale: float = 1.0  # times step_size, for the lateral connections
    alpha_std: float = 0.1  # of alpha at the start; 'adapter' only
    laterals: str = struct.field(pytree_node=False, default="linear")


def check(hyper: Hyper) -> None:
    """Raise ValueError for lateral connections that do not exist."""
    if hyper.laterals not in _laterals.KINDS:
        known = ", ".join(_laterals.KINDS)
        raise ValueError(f"laterals={hyper.laterals!r} is none of {known}")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Column k: h_i^k = f(W_i^k h_{i-1}^k + sum_{j<k} U_i^kj h_{i-1}^j), i > 1.

    A column is the whole network and, from its second layer to its outputs, connections
    from the layer below in every earlier column. Task k trains the column's network and
    its connections, both with a new optimiser; nothing moves after its task, so nothing
    is forgotten. `laterals`: 'linear' as above; 'adapter' takes, instead of the sum,
    U_i^k relu(V_i^k [alpha_i^kj h_{i-1}^j]_{j<k} + b_i^k), alpha a number a column and
    layer, V [n_{i-1} (k - 1), n_{i-1}]. The layers' biases are the network's.

    Earlier columns act in evaluation mode. A prediction takes the column of the task of
    the batch's first example: batches of several tasks at once are not told apart. A
    task that has not been trained is answered by its initial column without connections.
    `learner.net` is the current column; its first parameters are those of `independent`.

    Memory: T columns and T (T - 1) / 2 sets of U ('adapter': of V, and T of U). Cost of
    a step of task k: backprop, k - 1 columns forward with their (k - 1)(k - 2) / 2 sets,
    and T - 1 sets forward and backward, the k - 1 in use padded with zeros: O(T^2) a
    step, O(T^3) a stream; task 1 costs what backprop does. The cost record is of the
    last task. The program grows with T.

    Raises ValueError for a kind of connection that does not exist, a network that is
    not hidden dense layers one after another, more than 8 GiB of weights, and a
    benchmark that puts an earlier network back at a task's end (`restore_best`).
    """
    # Not said in the paper: how U and V start (here as the layer they feed, over the
    # root of the number of earlier columns, so that no column starts larger than the
    # one before), what 'small' is for alpha (here N(0, 0.1^2)), and whether alpha is
    # one number a layer or one an earlier column (here the latter, as in Avalanche).
    # The width of V is n_{i-1}, as the paper's equation has it; its text has n_i.
    check(hyper)
    _check_setting(net, spec, hyper.laterals)
    optim = optimizers.make(hyper)
    own_optim = optimizers.make(
        replace(hyper, step_size=hyper.step_size * hyper.lateral_step_scale)
    )
    base = compose(net, spec, optim)
    tasks, kind = spec.num_tasks, hyper.laterals

    def moving(row):
        return {"laterals": row, "opt": own_optim.init(row)}

    def init(key):
        learner = base.init(key)
        own = {
            "columns": _per_task.networks(net, key, tasks, learner.net),
            "laterals": _laterals.blank_table(net, kind, tasks),
            "moving": moving(_laterals.blank(net, kind, tasks)),
            "task": jnp.int32(0),
        }
        return learner._replace(extra={"progressive": own})

    def start_task(key, clock, train, learner):
        del train
        own = learner.extra["progressive"]
        state = _per_task.begun(own["columns"], clock.task, learner.net)
        row = _laterals.draw(
            key, net, _laterals.blank(net, kind, tasks), clock.task,
            hyper.lateral_init_scale, hyper.alpha_std,
        )  # fmt: skip
        own = {**own, "moving": moving(row), "task": clock.task}
        return Learner(state, optim.init(state.params), {"progressive": own})

    def later_step(own, key, clock, batch, learner):
        """A step of a column that has earlier ones; `learner.extra` is what moves."""
        state, row = learner.net, learner.extra["laterals"]
        inputs = _laterals.earlier(
            net, own["columns"], own["laterals"], clock.task, state, batch.x
        )
        net_key = jax.random.fold_in(key, 0)

        def forward(at, row):
            taps = _laterals.taps(net, row, inputs)
            return net.apply(at, batch.x, train=True, key=net_key, taps=taps)

        grads, by_row, seen = gradients(spec, batch, state, row, forward)
        loss, logits, acts, stats = seen
        updates, opt = optim.update(grads, learner.opt, state.params)
        moves, own_opt = own_optim.update(by_row, learner.extra["opt"], row)
        updates, moves = jax.tree.map(lambda u: clock.step_scale * u, (updates, moves))
        params = jax.tree.map(jnp.add, state.params, updates)
        extra = {"laterals": jax.tree.map(jnp.add, row, moves), "opt": own_opt}
        after = Learner(state._replace(params=params, stats=stats), opt, extra)
        return after, Signals(loss, logits, acts, grads, updates)

    def step(key, clock, batch, learner):
        own = learner.extra["progressive"]

        def later(key, clock, batch, learner):
            return later_step(own, key, clock, batch, learner)

        # The tables stay outside of the branches, which would copy them.
        after, signals = jax.lax.cond(
            clock.task > 0, later, base.step,
            key, clock, batch, learner._replace(extra=own["moving"]),
        )  # fmt: skip
        own = {**own, "moving": after.extra}
        return after._replace(extra={"progressive": own}), signals

    def end_task(key, clock, train, learner):
        del key, train
        own = learner.extra["progressive"]
        ended, row = _per_task.kept(learner.net), own["moving"]["laterals"]
        own = {
            **own,
            "columns": _per_task.put(own["columns"], clock.task, ended),
            "laterals": _laterals.put(own["laterals"], clock.task, row),
        }
        return learner._replace(extra={"progressive": own})

    def predict(learner, batch):
        own, task = learner.extra["progressive"], batch.task[0]
        state = _per_task.answering(own["columns"], own["task"], task, learner.net)
        row = _laterals.take(own["laterals"], task, _laterals.places(tasks))
        row = _per_task.either(own["task"] == task, own["moving"]["laterals"], row)
        inputs = _laterals.earlier(
            net, own["columns"], own["laterals"], task, state, batch.x
        )
        logits, acts, _ = net.apply(
            state, batch.x, train=False, key=None, taps=_laterals.taps(net, row, inputs)
        )
        return mask_logits(logits, batch.classes), acts

    return base._replace(
        init=init, start_task=start_task, step=step, end_task=end_task,
        predict=predict, answers_by_net=False,
    )  # fmt: skip


def _check_setting(net: Network, spec: StreamSpec, kind: str) -> None:
    """Raise ValueError for a network, a benchmark or a size that `make` does not take."""
    _freeze.require_hidden(net, "progressive")
    # A benchmark that resets the head does no harm: each column starts with its own.
    _freeze.require_kept(spec._replace(reset_head=False), "progressive", "independent")
    _laterals.check(net)
    stored = _laterals.stored(net, kind)
    size = stored(spec.num_tasks)
    if size > MOST_FLOATS:
        fits = sum(stored(tasks) <= MOST_FLOATS for tasks in range(1, spec.num_tasks))
        raise ValueError(
            f"progressive networks of {spec.num_tasks} tasks hold {size} numbers, "
            f"{size * 4 / 2**30:.1f} GiB, and 8 GiB is the most: at most {fits} tasks "
            "of this network, smaller widths, or the method independent"
        )
