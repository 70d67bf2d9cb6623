"""Independent networks: one for each task, chosen by the task's name."""

import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.losses import mask_logits
from cl_bench.methods import _per_task
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

    def init(key):
        learner = base.init(key)
        table = _per_task.networks(net, key, spec.num_tasks, learner.net)
        extra = {"independent": {"table": table, "task": jnp.int32(0)}}
        return learner._replace(extra=extra)

    def start_task(key, clock, train, learner):
        del key, train
        own = learner.extra["independent"]
        state = _per_task.begun(own["table"], clock.task, learner.net)
        own = {**own, "task": clock.task}
        opt = optim.init(state.params)
        return learner._replace(net=state, opt=opt, extra={"independent": own})

    def end_task(key, clock, train, learner):
        del key, train
        own = learner.extra["independent"]
        ended = _per_task.kept(learner.net)
        table = _per_task.put(own["table"], clock.task, ended)
        return learner._replace(extra={"independent": {**own, "table": table}})

    def predict(learner, batch):
        own, task = learner.extra["independent"], batch.task[0]
        state = _per_task.answering(own["table"], own["task"], task, learner.net)
        logits, acts, _ = net.apply(state, batch.x, train=False, key=None)
        return mask_logits(logits, batch.classes), acts

    return base._replace(
        init=init, start_task=start_task, end_task=end_task, predict=predict,
        answers_by_net=False,
    )  # fmt: skip
