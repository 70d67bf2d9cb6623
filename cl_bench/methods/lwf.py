"""Learning without forgetting: the old network's answers to the new inputs are kept."""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.losses import squared_error, weighted_mean
from cl_bench.methods._compose import compose
from cl_bench.methods._distillation import distillation, met_outputs, old_outputs
from cl_bench.types import Method, Network, StreamSpec

REFERENCE = (
    "Li and Hoiem, ECCV 2016 (arXiv 1606.09282); weighting 'van_de_ven': van de Ven "
    "and Tolias 2019 (arXiv 1904.07734), released code, GMvandeVen/continual-learning"
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"strength": 0.0}
WEIGHTINGS = ("paper", "van_de_ven")
STUDENTS = ("old", "in_play")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The paper's temperature and lambda_o = 1."""

    strength: float = 1.0
    temperature: float = 2.0
    weighting: str = struct.field(pytree_node=False, default="paper")
    student: str = struct.field(pytree_node=False, default="old")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist."""
    if hyper.weighting not in WEIGHTINGS:
        raise ValueError(
            f"weighting={hyper.weighting!r} is none of {', '.join(WEIGHTINGS)}"
        )
    if hyper.student not in STUDENTS:
        raise ValueError(f"student={hyper.student!r} is none of {', '.join(STUDENTS)}")


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + strength w sum over sets S of old outputs of KD_S; the teacher is the
    network at the end of the task before, the inputs are those of the new task.

    KD_S = -sum_{k in S} q_k log p_k, q = softmax(teacher / temperature) over S,
    p = softmax(student / temperature) over S, averaged over the batch. No factor
    temperature^2. S is

    - scenario 'task': one set for every earlier task, its own outputs (those that were
      in play in it);
    - 'class': all outputs that earlier tasks had labels of;
    - others: all outputs. So with a `single_head`, which all tasks share, and also
      'online' (as an oracle): that stream does not say whose outputs are whose.

    w is 1; with weighting 'van_de_ven' it is the number of earlier tasks where
    tasks share their outputs, or may ('others'). (Over a 'task' stream the sum over
    earlier tasks is already that code's (t - 1) times their mean.) student 'in_play'
    takes p over S and the outputs now in play, as that code does in scenario 'class':
    new outputs have the target 0. Cost: a forward pass of the teacher each step;
    memory: the teacher.

    Departs from the paper: there is no warm-up of the new outputs alone, before all
    weights train; van de Ven and Tolias have none either.

    Raises ValueError for a stream whose targets are not classes.
    """
    check(hyper)
    if spec.loss is squared_error:
        raise ValueError(
            "lwf distils probabilities of classes, and this stream is a regression; "
            "l2_init or a penalty on the weights (ewc) works there"
        )
    own_outputs = spec.scenario == "class" or spec.multi_head

    def extra(state):
        table = jnp.zeros((spec.num_tasks, spec.num_outputs), bool)
        return {"teacher": state, "outputs": table}  # outputs of each task

    def extra_loss(key, clock, params, learner, batch, logits):
        del key, params

        def distil():
            state, outputs = learner.extra["teacher"], learner.extra["outputs"]
            answers, _, _ = net.apply(state, batch.x, train=False, key=None)
            sets = old_outputs(spec, clock, outputs)[:, None, :]  # [sets, 1, K]
            shown = sets | batch.classes if hyper.student == "in_play" else sets
            each = distillation(logits, answers, sets, shown, hyper.temperature)
            weight = 1.0
            if hyper.weighting == "van_de_ven" and not own_outputs:
                weight = clock.task.astype(jnp.float32)
            return weight * weighted_mean(jnp.sum(each, axis=0), batch.weight)

        # The first task has no teacher; the predicate is the same in every lane.
        loss = jax.lax.cond(clock.task > 0, distil, lambda: jnp.zeros(()))
        return hyper.strength * loss

    def after_step(key, clock, batch, signals, learner):
        del key, signals
        outputs = met_outputs(spec, clock, batch, learner.extra["outputs"])
        return learner._replace(extra={**learner.extra, "outputs": outputs})

    def end_task(key, clock, train, learner):
        del key, clock, train
        return learner._replace(extra={**learner.extra, "teacher": learner.net})

    return compose(
        net,
        spec,
        optimizers.make(hyper),
        extra=extra,
        extra_loss=extra_loss,
        after_step=after_step,
        end_task=end_task,
    )
