"""Adapters trained over a frozen core, one task after another, and merged into it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cl_bench import optimizers, shapes
from cl_bench.methods import _adapters
from cl_bench.methods._adapters import Adapters
from cl_bench.methods._compose import compose
from cl_bench.types import (
    Clock,
    Key,
    Learner,
    Method,
    NetState,
    Network,
    PyTree,
    StreamSpec,
    TrainBatches,
)


class Parts(NamedTuple):
    """What a method built of merged adapters may change of `sequential`."""

    # (key, clock, training batches, learner, memory) -> the new task's adapters
    start: Callable[[Key, Clock, TrainBatches, Learner, PyTree], Adapters]
    # (adapters, memory) -> (), added to the loss
    penalty: Callable[[Adapters, PyTree], Array] | None = None
    memory: Callable[[NetState], PyTree] = lambda state: ()
    # (clock, training batches, learner at the task's end, memory) -> memory
    remember: Callable[[Clock, TrainBatches, Learner, PyTree], PyTree] | None = None
    train_a: bool = True
    first: int = 1  # tasks that train the core in full


def looking(net: Network, spec: StreamSpec, optim: optimizers.Optim) -> Method:
    """Backprop whose steps give all signals and leave the parameters where they are."""

    def still(grads, state, params):
        del params
        return jax.tree.map(jnp.zeros_like, grads), state

    return compose(net, spec, optim._replace(update=still))


def sequential(
    net: Network, spec: StreamSpec, hyper: Any, names: tuple[str, ...], parts: Parts
) -> Method:
    """Adapters for each task after the first, merged at its end; see `lora.make`.

    `learner.net` holds the effective weights; `extra['lora']` the core's kernels, the
    adapters, their optimiser's state, and what the method remembers of past tasks.
    Raises ValueError for a head that the benchmark resets and nothing trains again.
    """
    if spec.reset_head and not (net.head in names or hyper.train_head):
        raise ValueError(
            "the benchmark sets the head to 0 at every task, and after the first nothing "
            "trains it: train_head=True, layers='all', or reset_head=False on the stream"
        )
    factor = _adapters.scaling(hyper.scaling, hyper.alpha, hyper.rank)
    optim = optimizers.make(hyper)
    own_optim = optimizers.make(
        replace(hyper, step_size=hyper.step_size * hyper.adapter_step_scale)
    )
    base = looking(net, spec, optim)
    trained = _trained(net, hyper)

    def init(key):
        learner = base.init(key)
        core = _adapters.kernels(learner.net.params, names)
        adapters = _adapters.blank(core, hyper.rank)
        memory = parts.memory(learner.net)
        own = {
            "core": core,
            "adapters": adapters,
            "opt": own_optim.init(adapters),
            "memory": memory,
        }
        return learner._replace(extra={"lora": own})

    def start_task(key, clock, train, learner):
        own = learner.extra["lora"]
        adapters = parts.start(key, clock, train, learner, own["memory"])
        core = _adapters.kernels(learner.net.params, names)
        own = {**own, "core": core, "adapters": adapters}
        if hyper.reset_optimizer:
            own["opt"] = own_optim.init(adapters)
            learner = learner._replace(opt=optim.init(learner.net.params))
        return learner._replace(extra={"lora": own})

    def core_step(clock, grads, learner):
        updates, opt = optim.update(grads, learner.opt, learner.net.params)
        updates = jax.tree.map(lambda u: clock.step_scale * u, updates)
        params = jax.tree.map(jnp.add, learner.net.params, updates)
        return learner._replace(net=learner.net._replace(params=params), opt=opt)

    def adapter_step(clock, grads, learner):
        own = learner.extra["lora"]
        chosen = jax.tree.map(lambda t, g: g if t else 0.0 * g, trained, grads)
        moved = core_step(clock, chosen, learner)
        # An optimiser also moves what has no gradient (moments, decay): put it back.
        params = jax.tree.map(
            lambda t, new, old: new if t else old,
            trained, moved.net.params, learner.net.params,
        )  # fmt: skip
        down = _adapters.gradients(grads, own["adapters"], factor)
        if parts.penalty is not None:
            extra = jax.grad(parts.penalty)(own["adapters"], own["memory"])
            down = jax.tree.map(jnp.add, down, extra)
        updates, opt = own_optim.update(down, own["opt"], own["adapters"])
        adapters = jax.tree.map(
            lambda a, u: a + clock.step_scale * u, own["adapters"], updates
        )
        if not parts.train_a:
            adapters = {
                n: {**adapters[n], "a": own["adapters"][n]["a"]} for n in adapters
            }
        state = learner.net._replace(params=params)
        state = _adapters.effective(net, state, own["core"], adapters, factor)
        own = {**own, "adapters": adapters, "opt": opt}
        return Learner(state, moved.opt, {"lora": own})

    def step(key, clock, batch, learner):
        seen, signals = base.step(key, clock, batch, learner)
        moved = jax.lax.cond(
            clock.task < parts.first,
            core_step,
            adapter_step,
            clock,
            signals.grads,
            seen,
        )
        updates = jax.tree.map(jnp.subtract, moved.net.params, learner.net.params)
        return moved, signals._replace(updates=updates)

    def end_task(key, clock, train, learner):
        del key
        own = learner.extra["lora"]
        more = jnp.where(clock.task < parts.first, 0.0, hyper.merge_scale - 1.0)
        params = dict(learner.net.params)
        for name, core in own["core"].items():
            kernel = params[name]["kernel"]
            # In terms of the network that acts: a benchmark may have put back an
            # earlier one (restore_best), and merge_scale = 1 changes no bit.
            merged = kernel + more * (kernel - core)
            params[name] = {**params[name], "kernel": merged}
        learner = learner._replace(net=learner.net._replace(params=params))
        if parts.remember is not None:
            memory = parts.remember(clock, train, learner, own["memory"])
            own = {**own, "memory": memory}
        return learner._replace(extra={"lora": own})

    return base._replace(init=init, start_task=start_task, step=step, end_task=end_task)


def _trained(net: Network, hyper: Any) -> PyTree:
    """Parameters (static bools) that train in full beside the adapters."""
    chosen = {}
    for name, layer in shapes.params(net).items():
        whole = name == net.head and hyper.train_head
        chosen[name] = {
            leaf: whole or (leaf != "kernel" and hyper.train_bias) for leaf in layer
        }
    return chosen
