"""Independent networks: one for each task, chosen by the task's name."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.losses import mask_logits
from cl_bench.methods._compose import compose
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "'Separate networks' of van de Ven, Tuytelaars and Tolias, Nature Machine "
    "Intelligence 4 (2022) 1185-1197, released code, GMvandeVen/continual-learning"
)
NEEDS = frozenset({"boundaries", "task_id"})
NEUTRAL: dict[str, float] | None = None  # a new network for every task


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """Those of the optimiser."""


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Each task trains a network and an optimiser of its own; nothing is shared.

    Nothing is forgotten and nothing is transferred. A prediction takes the network of
    the task of the batch's first example: batches of several tasks at once are not told
    apart. A task that has not been trained is answered by its initial network.
    `learner.net` is the network of the current task; that of the first task starts as
    any method's.

    All T networks have the size of `net`, T times the parameters of one: the version
    with as many parameters as one network is an arm of smaller widths (van de Ven: 100
    for 400 units on Split MNIST). Memory: T networks; cost: that of backprop.
    """
    optim = optimizers.make(hyper)
    base = compose(net, spec, optim)

    def kept(state):
        return {"params": state.params, "stats": state.stats}

    def init(key):
        learner = base.init(key)
        own = kept(learner.net)
        tasks = jnp.arange(1, spec.num_tasks)
        keys = jax.vmap(lambda task: jax.random.fold_in(key, task))(tasks)
        others = kept(jax.vmap(net.init)(keys))
        table = jax.tree.map(
            lambda first, rest: jnp.concatenate([first[None], rest]), own, others
        )
        extra = {"independent": {"table": table, "task": jnp.int32(0)}}
        return learner._replace(extra=extra)

    def start_task(key, clock, train, learner):
        del key, train
        own = learner.extra["independent"]
        # The first network stays as it is: the benchmark may have reset its head.
        state = learner.net._replace(
            **jax.tree.map(
                lambda table, now: jnp.where(clock.task > 0, table[clock.task], now),
                own["table"], kept(learner.net),
            )
        )  # fmt: skip
        own = {**own, "task": clock.task}
        opt = optim.init(state.params)
        return learner._replace(net=state, opt=opt, extra={"independent": own})

    def end_task(key, clock, train, learner):
        del key, train
        own = learner.extra["independent"]
        table = jax.tree.map(
            lambda table, now: table.at[clock.task].set(now),
            own["table"], kept(learner.net),
        )  # fmt: skip
        return learner._replace(extra={"independent": {**own, "table": table}})

    def predict(learner, batch):
        own, task = learner.extra["independent"], batch.task[0]
        chosen = jax.tree.map(
            lambda table, now: jnp.where(own["task"] == task, now, table[task]),
            own["table"], kept(learner.net),
        )  # fmt: skip
        state = learner.net._replace(**chosen)
        logits, acts, _ = net.apply(state, batch.x, train=False, key=None)
        return mask_logits(logits, batch.classes), acts

    return base._replace(
        init=init, start_task=start_task, end_task=end_task, predict=predict
    )
