"""PackNet: each task trains what earlier ones left, prunes it, and freezes the rest."""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from cl_bench import optimizers, units
from cl_bench.losses import mask_logits
from cl_bench.methods import _freeze
from cl_bench.methods._compose import compose
from cl_bench.types import Method, NetState, Network, PyTree, StreamSpec

REFERENCE = (
    "Mallya and Lazebnik, CVPR 2018 (arXiv 1711.05769), read in the released code, "
    "arunmallya/packnet"
)
NEEDS = frozenset({"boundaries", "task_id"})
# What a task has trained is frozen after it: no value of a setting gives backprop.
NEUTRAL: dict[str, float] | None = None
SPLITS = ("fixed", "even")
HEADS = ("auto", "own", "pack")


@struct.dataclass
class Hyper(optimizers.OptimHyper):
    """The paper prunes 0.5 to 0.75 and retrains for half the epochs of training."""

    prune_fraction: float = 0.75  # of a task's free weights; split 'fixed' only
    split: str = struct.field(pytree_node=False, default="fixed")
    dense_share: float = struct.field(pytree_node=False, default=2 / 3)  # of a task
    head: str = struct.field(pytree_node=False, default="auto")


def check(hyper: Hyper) -> None:
    """Raise ValueError for an option that does not exist or a share outside (0, 1)."""
    if hyper.split not in SPLITS:
        raise ValueError(f"split={hyper.split!r} is none of {', '.join(SPLITS)}")
    if hyper.head not in HEADS:
        raise ValueError(f"head={hyper.head!r} is none of {', '.join(HEADS)}")
    if not 0.0 < hyper.dense_share < 1.0:
        raise ValueError(
            f"dense_share={hyper.dense_share}: the share of a task's steps before its "
            "pruning, above 0 and below 1"
        )


def make(net: Network, spec: StreamSpec, hyper: Hyper) -> Method:
    """Two phases a task: train the free weights; prune, and retrain the survivors.

    `owner[module]` [..., in, out] int32 says which task has each weight of a kernel,
    T = none. After `dense_share` of a task's steps the smallest |w| of each kernel's
    free weights become 0 and stay free; the others are the task's, train on, and never
    move afterwards. Pruned is `prune_fraction`; split 'even' prunes 1 - 1/(T - t) at
    task t = 0, 1, ..., so that all tasks have equally many. Biases, scales, shifts and
    statistics of a normalisation are frozen after the first task. The optimiser starts
    anew in each phase. A prediction for task t uses the weights of tasks <= t (and,
    until they are divided, the free weights that train for it), t that of the batch's
    first example: batches of several tasks at once are not told apart.

    `head`: 'own' leaves the head unpruned and gives each output, with its weights and
    bias, to the first task that has it in play; 'pack' treats it as any layer; 'auto'
    is 'own' in scenario 'task' without `single_head`. `learner.net` is the network of
    the current task. Memory: one integer a weight; cost: a sort of each kernel once a
    task.

    Raises ValueError as `check` does, and for a benchmark that resets the head or puts
    back an earlier network.
    """
    # Departs from the paper: batch normalisation goes on normalising training batches
    # by their own statistics after the first task, but keeps none of them.
    check(hyper)
    _freeze.require_kept(spec, "packnet", "lwf or ewc")
    optim = optimizers.make(hyper)
    base = compose(net, spec, optim)
    none = spec.num_tasks
    own_head = _freeze.head_is(spec, hyper.head, "own")
    lengths = spec.steps_per_task
    lengths = (lengths,) * none if isinstance(lengths, int) else lengths
    prune_at = tuple(min(round(hyper.dense_share * n), n - 1) for n in lengths)

    def blank_owner(state: NetState) -> dict[str, Array]:
        shapes = {name: layer["kernel"].shape for name, layer in state.params.items()}
        if own_head:  # one owner an output
            shapes[net.head] = shapes[net.head][-1:]
        return {name: jnp.full(s, none, jnp.int32) for name, s in shapes.items()}

    def init(key):
        learner = base.init(key)
        own = {
            "owner": blank_owner(learner.net),
            "task": jnp.int32(0),
            "divided": jnp.zeros((), bool),
        }
        return learner._replace(extra={"packnet": own})

    def start_task(key, clock, train, learner):
        del key, train
        own = learner.extra["packnet"]
        own = {**own, "task": clock.task, "divided": jnp.zeros((), bool)}
        opt = optim.init(learner.net.params)
        return learner._replace(opt=opt, extra={"packnet": own})

    def claim(clock, batch, learner):
        """Outputs that are in play and nobody's are now this task's."""
        own = learner.extra["packnet"]
        head = own["owner"][net.head]
        new = jnp.any(batch.classes, axis=0) & (head == none)
        owner = {**own["owner"], net.head: jnp.where(new, clock.task, head)}
        return learner._replace(extra={"packnet": {**own, "owner": owner}})

    def divide(clock, learner):
        """Prune the free weights and give the survivors to the task."""
        own, fraction = learner.extra["packnet"], hyper.prune_fraction
        if hyper.split == "even":
            fraction = 1.0 - 1.0 / (none - clock.task)
        owner, params = dict(own["owner"]), dict(learner.net.params)
        used = units.counted(learner.net, net.units)
        for name in packed(params):
            kernel = params[name]["kernel"]
            free = (owner[name] == none) & used[name]["kernel"]
            small = smallest(kernel, free, fraction)
            owner[name] = jnp.where(free & ~small, clock.task, owner[name])
            kernel = jnp.where(small, 0.0, kernel)
            params[name] = {**params[name], "kernel": kernel}
        own = {**own, "owner": owner, "divided": jnp.ones((), bool)}
        state = learner.net._replace(params=params)
        return learner._replace(
            net=state, opt=optim.init(params), extra={"packnet": own}
        )

    def packed(params: PyTree) -> tuple[str, ...]:
        return tuple(n for n in params if not (own_head and n == net.head))

    def trained(clock, learner) -> PyTree:
        """Bools that broadcast over the parameters: what moves at this step."""
        own, first = learner.extra["packnet"], clock.task == 0

        def of_layer(name, layer):
            owner = own["owner"][name]
            mine = owner == clock.task
            if own_head and name == net.head:
                return dict.fromkeys(layer, mine)
            mine = jnp.where(own["divided"], mine, owner == none)
            return {leaf: mine if leaf == "kernel" else first for leaf in layer}

        return {n: of_layer(n, layer) for n, layer in learner.net.params.items()}

    def step(key, clock, batch, learner):
        if own_head:
            learner = claim(clock, batch, learner)
        # The predicate is the same in every lane.
        due = clock.step_in_task == jnp.asarray(prune_at, jnp.int32)[clock.task]
        learner = jax.lax.cond(due, divide, lambda clock, held: held, clock, learner)
        after, signals = base.step(key, clock, batch, learner)
        after = _freeze.hold_statistics(clock.task > 0, learner, after)
        return _freeze.hold(trained(clock, learner), learner, after, signals)

    def predict(learner, batch):
        own, task = learner.extra["packnet"], batch.task[0]
        training = ~own["divided"] & (own["task"] <= task)
        params = dict(learner.net.params)
        for name in packed(params):
            owner, kernel = own["owner"][name], params[name]["kernel"]
            acts = (owner <= task) | ((owner == none) & training)
            params[name] = {**params[name], "kernel": jnp.where(acts, kernel, 0.0)}
        state = learner.net._replace(params=params)
        logits, acts, _ = net.apply(state, batch.x, train=False, key=None)
        return mask_logits(logits, batch.classes), acts

    def task_weights(learner, batch):
        owner = learner.extra["packnet"]["owner"]
        found = {name: of <= batch.task[0] for name, of in owner.items()}
        return _freeze.of_outputs_in_play(found, net, batch) if own_head else found

    return base._replace(
        init=init, start_task=start_task, step=step, predict=predict,
        task_weights=task_weights,
    )  # fmt: skip


def smallest(kernel: Array, free: Array, fraction: Array | float) -> Array:
    """The `fraction` of the free weights with the smallest |w|, as a mask.

    The number is rounded; weights as small as the largest of them go too.
    """
    size = jnp.abs(kernel)
    count = jnp.round(fraction * jnp.sum(free)).astype(jnp.int32)
    ordered = jnp.sort(jnp.where(free, size, jnp.inf).ravel())
    cutoff = ordered[jnp.maximum(count - 1, 0)]
    return free & (count > 0) & (size <= cutoff)
