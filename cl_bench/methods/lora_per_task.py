"""One low-rank adapter a task over a shared core, chosen by the task's name."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.losses import mask_logits
from cl_bench.methods import _adapters, _freeze, _lora
from cl_bench.types import Learner, Method, Network, StreamSpec

REFERENCE = (
    "Hu et al., LoRA, ICLR 2022 (arXiv 2106.09685): an adapter a task, not merged; the "
    "control for Algorithm 1 of Reymond, project report (April 2024), section 2.1"
)
NEEDS = frozenset({"boundaries", "task_id"})
# Adapters always restrict the later tasks: no value of a setting gives backprop.
NEUTRAL: dict[str, float] | None = None


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """As `lora`'s, without what merging and a shared head would need."""

    alpha: float = 1.0
    init_std: float = 0.02  # of A
    adapter_step_scale: float = 1.0  # times step_size, for A and B
    rank: int = struct.field(pytree_node=False, default=4)
    scaling: str = struct.field(pytree_node=False, default="absolute")
    layers: str | tuple[str, ...] = struct.field(pytree_node=False, default="all")


def check(hyper: Hyper) -> None:
    """Raise ValueError for a rank or a scaling that cannot be."""
    _adapters.scaling(hyper.scaling, 1.0, 1)
    if hyper.rank < 1:
        raise ValueError(f"rank={hyper.rank}: at least 1")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Task 1 trains the core phi; task t > 1 trains A_t, B_t of W = phi + s B_t A_t.

    Nothing is merged and nothing else moves, so no task is forgotten (statistics of
    normalisation do move). A prediction takes the adapter of the task of the batch's
    first example: batches of several tasks at once are not told apart. A task that has
    not been trained has B = 0 and is answered by the core. `learner.net` is the network
    of the current task. Memory: the adapters of all tasks, [T, rank, fan in] and
    [T, out, rank] a layer.

    Raises ValueError for a rank or a layer as `lora` does, and for a benchmark that
    resets the head, or puts an earlier network back at a task's end (`restore_best`).
    """
    check(hyper)
    _freeze.require_kept(spec, "lora_per_task", "lora")
    names = _adapters.adapted(net, hyper.layers, hyper.rank)
    factor = _adapters.scaling(hyper.scaling, hyper.alpha, hyper.rank)
    optim = optimizers.make(hyper)
    own_optim = optimizers.make(
        replace(hyper, step_size=hyper.step_size * hyper.adapter_step_scale)
    )
    base = _lora.looking(net, spec, optim)

    def init(key):
        learner = base.init(key)
        core = _adapters.kernels(learner.net.params, names)
        adapters = _adapters.blank(core, hyper.rank)
        table = jax.tree.map(
            lambda leaf: jnp.zeros((spec.num_tasks, *leaf.shape)), adapters
        )
        opt = own_optim.init(adapters)
        own = {"core": core, "table": table, "opt": opt, "now": jnp.int32(0)}
        return learner._replace(extra={"lora": own})

    def start_task(key, clock, train, learner):
        del train
        own = learner.extra["lora"]
        ended = _adapters.kernels(learner.net.params, names)
        core = jax.tree.map(  # frozen when the first task ends
            lambda new, old: jnp.where(clock.task <= 1, new, old), ended, own["core"]
        )
        fresh = _adapters.draw(key, core, hyper.rank, hyper.init_std)
        adapters = jax.tree.map(
            lambda a: jnp.where(clock.task > 0, a, jnp.zeros_like(a)), fresh
        )
        table = jax.tree.map(
            lambda all_tasks, a: all_tasks.at[clock.task].set(a), own["table"], adapters
        )
        state = _adapters.effective(net, learner.net, core, adapters, factor)
        own = {
            "core": core,
            "table": table,
            "opt": own_optim.init(adapters),
            "now": clock.task,
        }
        return learner._replace(net=state, extra={"lora": own})

    def core_step(clock, grads, learner):
        updates, opt = optim.update(grads, learner.opt, learner.net.params)
        params = jax.tree.map(
            lambda p, u: p + clock.step_scale * u, learner.net.params, updates
        )
        return learner._replace(net=learner.net._replace(params=params), opt=opt)

    def adapter_step(clock, grads, learner):
        own = learner.extra["lora"]
        adapters = jax.tree.map(lambda leaf: leaf[clock.task], own["table"])
        down = _adapters.gradients(grads, adapters, factor)
        updates, opt = own_optim.update(down, own["opt"], adapters)
        adapters = jax.tree.map(
            lambda a, u: a + clock.step_scale * u, adapters, updates
        )
        table = jax.tree.map(
            lambda all_tasks, a: all_tasks.at[clock.task].set(a), own["table"], adapters
        )
        state = _adapters.effective(net, learner.net, own["core"], adapters, factor)
        own = {**own, "table": table, "opt": opt}
        return Learner(state, learner.opt, {"lora": own})

    def step(key, clock, batch, learner):
        seen, signals = base.step(key, clock, batch, learner)
        moved = jax.lax.cond(
            clock.task < 1, core_step, adapter_step, clock, signals.grads, seen
        )
        updates = jax.tree.map(jnp.subtract, moved.net.params, learner.net.params)
        return moved, signals._replace(updates=updates)

    def predict(learner, batch):
        own, task = learner.extra["lora"], batch.task[0]
        adapters = jax.tree.map(lambda leaf: leaf[task], own["table"])
        other = _adapters.effective(net, learner.net, own["core"], adapters, factor)
        # While the first task trains, the core is what acts, whatever the task.
        current = (own["now"] == 0) | (own["now"] == task)
        params = jax.tree.map(
            lambda here, there: jnp.where(current, here, there),
            learner.net.params, other.params,
        )  # fmt: skip
        state = learner.net._replace(params=params)
        logits, acts, _ = net.apply(state, batch.x, train=False, key=None)
        return mask_logits(logits, batch.classes), acts

    return base._replace(
        init=init, start_task=start_task, step=step, predict=predict,
        answers_by_net=False,
    )  # fmt: skip
