"""Pollution: what the weights that one task protects add to the neurons of another."""

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import shapes
from cl_bench.methods import _fisher
from cl_bench.metrics import _held_out, _pollution
from cl_bench.metrics._parts import metric
from cl_bench.types import Learner, Metric, Network, Probe, StreamSpec


def make(
    net: Network,
    spec: StreamSpec,
    *,
    rule: str = "magnitude",
    fraction: float = 0.2,
    kinds: tuple[str, ...] = (*_pollution.KINDS, "causal"),
    minibatches: int = 5,
    layers: bool = False,
) -> Metric:
    """`pollution_<kind>/<i>_by_<j>` at the end of each task, of all tasks i, j so far.

    P^{i -> j} of eq. 4, read on at most `minibatches` test minibatches of task i with
    the network of that moment. What task j protects is fixed at its end, a `fraction`
    of every kernel's weights by a `rule`: the largest |w| ('magnitude'), the largest
    |change| over the task ('change'), or the largest empirical Fisher information on
    the task's training examples ('fisher'). The kinds are those of `_pollution`:
    'literal' as printed, with the share of terms that are undefined as
    `pollution_undefined/<i>_by_<j>`, 'variance_ratio', 'absolute_share', and 'causal',
    accuracy on task i minus that without the weights of task j. `layers=True` adds each
    layer's mean as `pollution_<kind>/<i>_by_<j>/<layer>`. NaN for tasks to come.

    Memory: one bool a weight and task. Dense networks only. Raises ValueError for a
    rule, a kind, a fraction or a number of minibatches that cannot be, and for a kernel
    that is not [in, out].
    """
    kernels = shapes.kernels(net)
    shapes.require_dense(kernels, "pollution")
    _check(rule, fraction, kinds, minibatches)
    _held_out.check(spec, minibatches)
    tasks, pairs = spec.num_tasks, tuple(k for k in kinds if k != "causal")
    fisher = None
    if rule == "fisher":
        fisher = _fisher.make(net, spec, "empirical", None)

    def init():
        moved = {name: jnp.zeros(k.shape) for name, k in kernels.items()}
        masks = {n: jnp.zeros((tasks, *k.shape), bool) for n, k in kernels.items()}
        return {"masks": masks, "moved": moved}

    def update(state, clock, batch, learner, signals):
        del clock, batch, learner
        if rule != "change":
            return state
        moved = {n: m + signals.updates[n]["kernel"] for n, m in state["moved"].items()}
        return {**state, "moved": moved}

    def with_this_task(state, probe: Probe):
        params = probe.learner.net.params
        weights = {name: params[name]["kernel"] for name in kernels}
        found, start = None, None
        if fisher is not None:
            diagonal = fisher(jax.random.key(0), probe.train, probe.learner.net)
            found = {name: diagonal[name]["kernel"] for name in kernels}
        if rule == "change":
            start = {name: w - state["moved"][name] for name, w in weights.items()}
        own = _pollution.protected(
            rule, fraction, weights=weights, fisher=found, start=start
        )
        task = probe.clock.task
        return {n: masks.at[task].set(own[n]) for n, masks in state["masks"].items()}

    def of_task(probe: Probe, masks, i: Array) -> dict[str, Array]:
        """Name -> [T], over the tasks j."""
        found = {}
        params = probe.learner.net.params
        weights = {name: params[name]["kernel"] for name in kernels}
        inputs = _inputs(net, probe, weights, i, minibatches)
        for kind in pairs:
            row = _pollution.row(kind, weights, inputs, masks, i)
            found[kind] = row.network
            if kind == "literal":
                found["undefined"] = row.undefined
            if layers:
                found |= {f"{kind}:{n}": value for n, value in row.layers.items()}
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
            kind, _, layer = name.partition(":")
            values, end = jnp.where(both, values, jnp.nan), f"/{layer}" if layer else ""
            named |= {
                f"pollution_{kind}/{i}_by_{j}{end}": values[i, j]
                for i in range(tasks)
                for j in range(tasks)
            }
        return named

    def end_task(state, probe):
        return {**init(), "masks": with_this_task(state, probe)}

    return metric(init=init, update=update, read=read, end_task=end_task)


def _inputs(net: Network, probe: Probe, weights, task: Array, minibatches: int):
    """Module -> its inputs [n, in] on the first test examples of a task."""

    def acts(i):
        batch = probe.held_out(task, "test", i)
        learner: Learner = probe.learner
        return {**probe.predict(learner, batch)[1], "x": batch.x}, batch.weight

    stacked, weight = jax.vmap(acts)(jnp.arange(minibatches, dtype=jnp.int32))
    joined = {n: a.reshape(-1, *a.shape[2:]) for n, a in stacked.items()}
    inputs = _pollution.dense_inputs(net.units, weights, joined)
    # Padding comes last; examples from the start again take its place.
    count = jnp.sum(weight > 0.0).astype(jnp.int32)
    rows = jnp.arange(weight.size) % jnp.maximum(count, 1)
    return {name: a[rows] for name, a in inputs.items()}


def _check(rule, fraction, kinds, minibatches) -> None:
    if rule not in _pollution.RULES:
        raise ValueError(f"rule={rule!r} is none of {', '.join(_pollution.RULES)}")
    if not 0.0 < fraction <= 1.0 or minibatches < 1:
        raise ValueError(
            f"fraction={fraction} must be above 0 and at most 1, and minibatches="
            f"{minibatches} at least 1"
        )
    known = (*_pollution.KINDS, "causal")
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"kind {kind!r} is none of {', '.join(known)}")
