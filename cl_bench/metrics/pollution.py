"""Pollution: what the weights that one task protects add to the neurons of another."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import shapes
from cl_bench.methods import _fisher
from cl_bench.metrics import _held_out, _pollution
from cl_bench.metrics._parts import metric
from cl_bench.types import Batch, Learner, Method, Metric, Network, Probe, StreamSpec

FREEZING = ("hat", "packnet")  # methods with `task_weights`, for the message
QUANTILES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}


def make(
    net: Network,
    spec: StreamSpec,
    *,
    rule: str = "magnitude",
    fraction: float = 0.2,
    kinds: tuple[str, ...] = (*_pollution.KINDS, "causal"),
    minibatches: int = 5,
    layers: bool = False,
    neurons: bool = False,
) -> Metric:
    """`pollution_<kind>/<i>_by_<j>` at the end of each task, of all tasks i, j so far.

    P^{i -> j} of eq. 4, read on at most `minibatches` test minibatches of task i with
    the network of that moment. What task j protects is fixed at its end, by a `rule`: a
    `fraction` of every kernel's weights, the largest |w| ('magnitude'), the largest
    |change| over the task ('change') or the largest empirical Fisher information on
    the task's training examples ('fisher'); or the weights that the method itself
    freezes at that task's end ('frozen', whatever the fraction). Of a method that
    answers each task with some of the weights only, the others add nothing to it.

    The kinds are those of `_pollution`: 'literal' as printed, with the share of terms
    that are undefined as `pollution_undefined/<i>_by_<j>`, 'variance_ratio',
    'absolute_share', and 'causal', accuracy on task i minus that without the weights of
    task j. `layers=True` adds each layer's mean as
    `pollution_<kind>/<i>_by_<j>/<layer>`. `neurons=True` adds, at the end of the last
    task alone, where 5, 50 and 95 % of a layer's neurons lie: the quantiles of p over
    its defined neurons, `.../<layer>/q05`, `q50` and `q95` (p of each neuron would be
    tasks^2 columns a neuron and kind). NaN for tasks to come.

    Memory: one bool a weight and task. Dense networks only. Raises ValueError for a
    rule, a kind, a fraction or a number of minibatches that cannot be, and for a kernel
    that is not [in, out]. Refused are methods that answer with other weights than
    `learner.net`'s, and, with 'frozen', those that freeze none.
    """
    kernels = shapes.kernels(net)
    shapes.require_dense(kernels, "pollution")
    _check(rule, fraction, kinds)
    _held_out.check(spec, minibatches)
    tasks, pairs = spec.num_tasks, tuple(k for k in kinds if k != "causal")
    fisher = None
    if rule == "fisher":
        fisher = _fisher.make(net, spec, "empirical", None)

    def init():
        start = {name: jnp.zeros(k.shape) for name, k in kernels.items()}
        masks = {n: jnp.zeros((tasks, *k.shape), bool) for n, k in kernels.items()}
        return {"masks": masks, "start": start}

    def update(state, clock, batch, learner, signals):
        del batch
        if rule != "change":
            return state
        # The task's first weights, and not the sum of its updates: pruning, or putting
        # back an earlier network, is no update.
        first, params = clock.step_in_task == 0, learner.net.params
        start = {
            n: jnp.where(first, params[n]["kernel"] - signals.updates[n]["kernel"], old)
            for n, old in state["start"].items()
        }
        return {**state, "start": start}

    def with_this_task(state, probe: Probe):
        params = probe.learner.net.params
        weights = {name: params[name]["kernel"] for name in kernels}
        found, start, frozen = None, None, None
        if fisher is not None:
            diagonal = fisher(jax.random.key(0), probe.train, probe.learner.net)
            found = {name: diagonal[name]["kernel"] for name in kernels}
        if rule == "change":
            start = state["start"]
        if rule == "frozen" and probe.task_weights is not None:
            used = probe.task_weights(probe.learner, _of_this_task(probe))
            # What a task shares with earlier ones is theirs.
            frozen = {n: used[n] & ~jnp.any(state["masks"][n], axis=0) for n in kernels}
        own = _pollution.protected(
            rule, fraction, weights=weights, fisher=found, start=start, frozen=frozen
        )
        task = probe.clock.task
        return {n: masks.at[task].set(own[n]) for n, masks in state["masks"].items()}

    def of_task(probe: Probe, masks, i: Array) -> dict[str, Array]:
        """Name -> [T], over the tasks j; parts of the network after a '/'."""
        found = {}
        params = probe.learner.net.params
        weights = {name: params[name]["kernel"] for name in kernels}
        inputs = _inputs(net, probe, weights, i, minibatches)
        if probe.task_weights is not None:
            first = probe.held_out(i, "test", jnp.int32(0))
            used = probe.task_weights(probe.learner, first)
            weights = {n: jnp.where(used[n], w, 0.0) for n, w in weights.items()}
        for kind in pairs:
            row = _pollution.row(kind, weights, inputs, masks, i)
            found[kind] = row.network
            if kind == "literal":
                found["undefined"] = row.undefined
            if layers:
                found |= {f"{kind}/{n}": value for n, value in row.layers.items()}
            if neurons:
                found |= _quantiles(kind, row.neurons, probe.clock.task == tasks - 1)
        if "causal" in kinds:

            def accuracy(params):
                state = probe.learner.net._replace(params=params)
                at = probe._replace(learner=probe.learner._replace(net=state))
                return _held_out.scores(spec, at, i, minibatches)[0]

            def without(of_j):
                return _pollution.causal(accuracy, params, of_j)

            found["causal"] = jax.lax.map(without, masks)
        return found

    def read(state, probe):
        masks = state["masks"]
        every = jnp.arange(tasks, dtype=jnp.int32)
        found = jax.lax.map(lambda i: of_task(probe, masks, i), every)
        known = every <= probe.clock.task
        both = known[:, None] & known
        named = {}
        for name, values in found.items():
            kind, slash, part = name.partition("/")
            values = jnp.where(both, values, jnp.nan)
            named |= {
                f"pollution_{kind}/{i}_by_{j}{slash}{part}": values[i, j]
                for i in range(tasks)
                for j in range(tasks)
            }
        return named

    def end_task(state, probe):
        return {**init(), "masks": with_this_task(state, probe)}

    def check(method: Method) -> None:
        _check_method(method, rule)

    return metric(init=init, update=update, read=read, end_task=end_task, check=check)


def _inputs(net: Network, probe: Probe, weights, task: Array, minibatches: int):
    """Module -> its inputs [n, in] on the first test examples of a task."""

    def acts(i):
        batch = probe.held_out(task, "test", i)
        learner: Learner = probe.learner
        return probe.predict(learner, batch)[1], batch.weight

    stacked, weight = jax.vmap(acts)(jnp.arange(minibatches, dtype=jnp.int32))
    joined = {n: a.reshape(-1, *a.shape[2:]) for n, a in stacked.items()}
    inputs = _pollution.dense_inputs(net.units, weights, joined)
    # Padding comes last; examples from the start again take its place.
    count = jnp.sum(weight > 0.0).astype(jnp.int32)
    rows = jnp.arange(weight.size) % jnp.maximum(count, 1)
    return {name: a[rows] for name, a in inputs.items()}


def _of_this_task(probe: Probe) -> Batch:
    """Test examples: a training batch of joint training may be of any task."""
    return probe.held_out(probe.clock.task, "test", jnp.int32(0))


def _quantiles(kind: str, neurons: dict[str, Array], last: Array) -> dict[str, Array]:
    """'<kind>/<layer>/q05' ... -> [T], of p [T, out]; NaN unless `last`."""
    return {
        f"{kind}/{layer}/{name}": jnp.where(
            last, jnp.nanquantile(p, share, axis=-1), jnp.nan
        )
        for layer, p in neurons.items()
        for name, share in QUANTILES.items()
    }


def _check(rule, fraction, kinds) -> None:
    if rule not in _pollution.RULES:
        raise ValueError(f"rule={rule!r} is none of {', '.join(_pollution.RULES)}")
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"fraction={fraction} must be above 0 and at most 1")
    known = (*_pollution.KINDS, "causal")
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"kind {kind!r} is none of {', '.join(known)}")


def _check_method(method: Method, rule: str) -> None:
    if not method.answers_by_net:
        raise ValueError(
            "the metric pollution compares weights within one network, and this method "
            "answers with others than the network that trains: give the arms of other "
            "methods the metric, add(..., metrics=...), and not this one"
        )
    if rule == "frozen" and method.task_weights is None:
        raise ValueError(
            "the metric pollution has rule='frozen', and this method freezes no weights "
            f"task by task: take {' or '.join(FREEZING)}, or another rule "
            f"({', '.join(_pollution.RULES[:-1])})"
        )
