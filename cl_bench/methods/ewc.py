"""Elastic weight consolidation: a pull of the diagonal Fisher's shape, and its online form.

Others' lambda as our settings (b: batch size). What differs is whose label the Fisher
takes, whether gradients are squared before or after the mean over a batch, and the 1/2:

    van de Ven        'exact'                              strength = lambda
    GT-RIPL (mnist)   'predicted'                          strength = 2 lambda
    Avalanche         'batched'                            strength = 2 lambda
    CLArena           'batched', 'separate'                strength = lambda
    GEM repository    'batched', fisher_examples = b       strength = 2 lambda
    Mammoth           no such estimator (true label, gradient times p of it): nearest is
                      'empirical', 'online'; strength = 2 lambda
    GT-RIPL (others), FACIL: squares of batch means with the predicted label; PyCIL: a
    clamped moving average; SequeL: the last task's Fisher alone; HAT: a moving average;
    MEAL: sampled actions. None of these can be had by a setting.

Source: reading those codes, by a secondary description.
"""

import jax
import jax.numpy as jnp
from flax import struct

from cl_bench import optimizers
from cl_bench.methods import _anchors, _fisher
from cl_bench.methods._compose import compose
from cl_bench.types import Learner, Method, Network, PyTree, StreamSpec

REFERENCE = (
    "Kirkpatrick et al., PNAS 114 (2017) 3521-3526 (arXiv 1612.00796), eq. 3; online: "
    "Schwarz et al., ICML 2018 (arXiv 1805.06370); written from secondary descriptions "
    "and the code of van de Ven and Hsu et al."
)
NEEDS = frozenset({"boundaries"})
NEUTRAL = {"strength": 0.0}
NORMALISATIONS = (None, "trace")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """`strength` is van de Ven's for Split MNIST, task-incremental, with Adam.

    His others there: 1e10 domain-, 1e9 class-incremental; 100 on Permuted MNIST. The
    paper names none for supervised tasks. `fisher_examples`: None takes all of a task
    (`_example_gradients.task_mean`).
    """

    strength: float = 1e5  # lambda
    gamma: float = 1.0  # 'online' only: what a past task keeps when one more has ended
    mode: str = struct.field(pytree_node=False, default="separate")
    estimator: str = struct.field(pytree_node=False, default="exact")
    fisher_examples: int | None = struct.field(pytree_node=False, default=None)
    normalise: str | None = struct.field(pytree_node=False, default=None)


def check(hyper: Hyper) -> None:
    """Raise ValueError for a mode, an estimator or a normalisation that does not exist."""
    _anchors.check_mode(hyper.mode)
    _fisher.check(hyper.estimator, hyper.fisher_examples)
    if hyper.normalise not in NORMALISATIONS:
        raise ValueError(
            f"normalise={hyper.normalise!r} is none of "
            f"{', '.join(map(repr, NORMALISATIONS))}"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Loss + the pull of the tasks that have ended, t of them, ended at theta_1 ... theta_t.

    'separate': strength / 2 sum_s F_s (theta - theta_s)^2, in two trees whatever t.
    'online': strength / 2 gamma F~_t (theta - theta_t)^2, F~_t = gamma F~_(t-1) + F_t;
    gamma is in the penalty too, as in the paper and in van de Ven's code.
    F is the diagonal Fisher at a task's end, mean per example; `_fisher.make` says how
    its estimators differ. With normalise='trace' each task's F is divided by its sum, so
    that one strength fits several benchmarks.

    A strength holds the weights only as far as steps can follow the pull: with SGD,
    step_size times strength times the largest sum of F must stay below 2, or the weight
    it belongs to overshoots ever farther and the lane diverges.

    Raises ValueError as `check` does, and for a stream of regressions.
    """
    check(hyper)
    estimate = _fisher.make(net, spec, hyper.estimator, hyper.fisher_examples)
    online = hyper.mode == "online"

    def end_task(key, clock, train, learner: Learner) -> Learner:
        del clock
        fisher = estimate(key, train, learner.net)
        if hyper.normalise == "trace":
            fisher = _by_trace(fisher)
        return _anchors.remember(learner, fisher, hyper.mode, hyper.gamma)

    strength = hyper.strength * hyper.gamma if online else hyper.strength
    return compose(
        net,
        spec,
        optimizers.make(hyper),
        grad_transforms=(_anchors.pull(net, strength),),
        end_task=end_task,
    )


def _by_trace(fisher: PyTree) -> PyTree:
    trace = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(fisher))
    return jax.tree.map(lambda f: f / jnp.where(trace > 0.0, trace, 1.0), fisher)
