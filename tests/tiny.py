"""A small problem for the tests that step methods: data, a spec, and a compiled run."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cl_bench.losses import softmax_cross_entropy
from cl_bench.types import Batch, Clock, Key, Learner, Method, Signals, StreamSpec

INPUTS, OUTPUTS, BATCH = 12, 4, 4
KEY = jax.random.key(7, impl="threefry2x32")

# For programs that run once: half the time goes without LLVM's optimisations.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SPEC = StreamSpec(
    input_shape=(INPUTS,),
    num_outputs=OUTPUTS,
    num_tasks=2,
    steps_per_task=100,
    steps_per_segment=100,
    batch_size=BATCH,
    examples_per_task=400,
    scenario="domain",
    offers=frozenset({"boundaries"}),
    loss=softmax_cross_entropy,
    reset_head=False,
)


def batches(steps: int, seed: int = 0, size: int = BATCH) -> Batch:
    """Random examples, one minibatch a step: leaves are [steps, size, ...] numpy."""
    rng = np.random.default_rng(seed)
    return Batch(
        x=rng.normal(size=(steps, size, INPUTS)).astype(np.float32),
        y=rng.integers(0, OUTPUTS, (steps, size)).astype(np.int32),
        weight=np.ones((steps, size), np.float32),
        classes=np.ones((steps, size, OUTPUTS), bool),
        task=np.zeros((steps, size), np.int32),
    )


def at(data: Any, i: int) -> Any:
    """Entry i of the leading axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[i], data)


def step_key(i: Any) -> Key:
    """The key that `run` hands to the method at step i."""
    return jax.random.fold_in(KEY, i)


def clock(i: Any) -> Clock:
    """The clock of step i, as a method that knows no boundaries sees it."""
    i = jnp.asarray(i, jnp.int32)
    return Clock(i, jnp.zeros_like(i), i)


def run(method: Method, data: Batch) -> tuple[Learner, Learner, Signals]:
    """All steps of `data` in one program, quickly compiled.

    Returns the first learner, and the learner after and the signals of every step,
    stacked on a leading axis.
    """

    def body(learner, inputs):
        i, batch = inputs
        learner, signals = method.step(step_key(i), clock(i), batch, learner)
        return learner, (learner, signals)

    first = method.init(KEY)
    steps = jnp.arange(len(data.y), dtype=jnp.int32), jax.tree.map(jnp.asarray, data)
    scan = quick_jit(lambda c, xs: jax.lax.scan(body, c, xs))
    _, (learners, signals) = scan(first, steps)
    return jax.tree.map(np.asarray, (first, learners, signals))


def moments(opt: Any) -> dict[str, Any]:
    """Moments and counts of a JAX optimiser state, as the oracle names them."""
    found = {}
    for state in jax.tree.leaves(opt, is_leaf=lambda s: hasattr(s, "_fields")):
        if isinstance(state, optax.TraceState):
            found["m"] = state.trace
        elif hasattr(state, "mu"):
            found |= {"m": state.mu, "v": state.nu, "count": state.count}
    return jax.tree.map(lambda leaf: leaf.astype(np.float32), found)
