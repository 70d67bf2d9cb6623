"""The contract of a method: what it may change, and what may change it."""

from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cl_bench import lane as lanes
from cl_bench.losses import MASKED
from cl_bench.methods import backprop
from cl_bench.testing import _hyper, _lanes
from cl_bench.testing._compare import (
    ConformanceError,
    require,
    require_equal,
    require_same_structure,
)
from cl_bench.testing._tiny import tiny_network, tiny_stream
from cl_bench.types import Clock, Learner, Method, Network, Stream

PHASES = ("start_task", "step", "end_segment", "end_task")
EAGER_TASKS, EAGER_STEPS = 2, 3  # together an epoch of `tiny_stream`


class Case(NamedTuple):
    """What is checked, on what."""

    name: str
    module: ModuleType
    net: Network
    stream: Stream
    hyper: Any


def check_method(
    module: ModuleType,
    net: Network | None = None,
    stream: Stream | None = None,
    hyper: Any = None,
) -> None:
    """Raise ConformanceError where a method module breaks the contract of methods.

    Declarations; trees, shapes and dtypes that no phase changes; every traced setting
    traced, and one compiled program for all their values; masked logits from step and
    predict; equal results for equal seeds, whatever the chunks; no callback and no
    transfer inside a run; a lane of NaNs that stays alone; dead units and forbidden
    edges that stay zero in every NetState; and, where the module has a NEUTRAL,
    backpropagation at it: bitwise op by op, 1e-6 compiled.

    Args:
      module: the method's, with REFERENCE, NEEDS, Hyper, make and perhaps NEUTRAL.
      net: None takes mlps of 7 and 5 units, one of them with dead units and forbidden
        edges; a given one must fit the stream's spec.
      stream: None takes 4 tasks of 50 steps that offer what NEEDS names.
      hyper: None takes `Hyper()`. Give one at which the method does something.
    """
    _hyper.check_declarations(module)
    stream = stream or tiny_stream(frozenset(module.NEEDS))
    lacking = sorted(module.NEEDS - stream.spec.offers)
    require(not lacking, f"NEEDS {lacking}, which the stream does not offer.")
    hyper = module.Hyper() if hyper is None else hyper
    plain = net or tiny_network(stream.spec)
    case = Case(module.__name__, module, plain, stream, hyper)
    check_structure(case)
    check_op_by_op(case)
    _lanes.check_lanes(
        case.name,
        module,
        net or tiny_network(stream.spec, constrained=True),
        stream,
        hyper,
    )


# ---- trees


def check_structure(case: Case) -> None:
    """Every phase returns the tree that `init` made, also under each traced setting."""
    values = _hyper.traced_values(case.hyper)
    _shapes(case, case.hyper, {})
    for field, value in values.items():
        traced = {field: jax.ShapeDtypeStruct(value.shape, value.dtype)}
        try:
            _shapes(case, case.hyper, traced)
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.TracerArrayConversionError,
        ) as error:
            raise ConformanceError(
                f"{case.name}: Hyper.{field} is traced, but make uses its value in "
                "Python (an `if`, a shape, float(), a library that wants a number). "
                "Use jnp.where or lax.cond, or declare it static with "
                "struct.field(pytree_node=False, default=...)."
            ) from error


def _shapes(case: Case, hyper: Any, traced: dict[str, Any]) -> None:
    """Abstract evaluation of every phase; only the `traced` settings are tracers."""
    spec = case.stream.spec

    def phases(data, traced):
        method = case.module.make(case.net, spec, hyper.replace(**traced))
        learner = method.init(lanes.run_key(0))
        task_state = case.stream.start(data, lanes.run_key(1), jnp.int32(0))
        train = partial(case.stream.batch, data, task_state)
        return learner, _each_phase(method, learner, train), train(jnp.int32(0))

    learner, after, batch = jax.eval_shape(phases, case.stream.load(), traced)
    require(isinstance(learner, Learner), f"{case.name}: init must return a Learner.")
    for phase in PHASES:
        found = after[phase][0] if phase == "step" else after[phase]
        require_same_structure(
            learner, found, f"{case.name}: {phase} changed a learner"
        )
    _check_signals(case, learner, after["step"][1], batch)
    logits, acts = after["predict"]
    _check_outputs(case, "predict", logits, acts, batch)


def _each_phase(method: Method, learner: Learner, train: Any) -> dict[str, Any]:
    key, batch = lanes.run_key(2), train(jnp.int32(0))
    clock = Clock(jnp.int32(0), jnp.int32(0), jnp.int32(0))
    return {
        "start_task": method.start_task(key, clock, train, learner),
        "step": method.step(key, clock, batch, learner),
        "end_segment": method.end_segment(key, clock, train, learner),
        "end_task": method.end_task(key, clock, train, learner),
        "predict": method.predict(learner, batch),
    }


def _check_signals(case: Case, learner: Learner, signals: Any, batch: Any) -> None:
    require(
        signals.loss.shape == () and signals.loss.dtype == jnp.float32,
        f"{case.name}: Signals.loss must be one float32, not "
        f"{signals.loss.dtype}{list(signals.loss.shape)}.",
    )
    _check_outputs(case, "step", signals.logits, signals.acts, batch)
    what = f"{case.name}: Signals.grads against the parameters"
    require_same_structure(learner.net.params, signals.grads, what)


def _check_outputs(case: Case, phase: str, logits: Any, acts: Any, batch: Any) -> None:
    require(
        logits.shape == batch.classes.shape,
        f"{case.name}: {phase} must return logits of its batch, "
        f"{list(batch.classes.shape)}, not {list(logits.shape)}. A method that adds "
        "examples of its own (replay) returns those of the batch it was given.",
    )
    missing = sorted({"x", *(u.name for u in case.net.units)} - acts.keys())
    require(not missing, f"{case.name}: {phase} returns no activations of {missing}.")


# ---- op by op


def check_op_by_op(case: Case) -> None:
    """Masked logits; and at the neutral setting exactly backprop's numbers."""
    spec = case.stream.spec
    walk = _walk(case, case.module.make(case.net, spec, case.hyper))
    for phase, logits, classes in walk["logits"]:
        require(
            np.all(logits[~classes] <= MASKED),
            f"{case.name}: {phase} must return masked logits: "
            "mask_logits(logits, batch.classes) of cl_bench.losses.",
        )
    neutral = _hyper.neutral(case.module, case.hyper)
    if neutral is None:
        return
    found = _walk(case, case.module.make(case.net, spec, neutral))
    plain = backprop.make(case.net, spec, as_backprop(neutral))
    require_equal(
        _walk(case, plain)["nets"],
        found["nets"],
        f"{case.name} at NEUTRAL = {case.module.NEUTRAL} is not backprop op by op",
    )


def as_backprop(hyper: Any) -> Any:
    """Backprop with the optimiser of another method."""
    shared = vars(backprop.Hyper()).keys() & vars(hyper).keys()
    return backprop.Hyper(**{name: getattr(hyper, name) for name in shared})


def _walk(case: Case, method: Method) -> dict[str, Any]:
    """A few steps of a few tasks, op by op, as the runner orders them."""
    needs, data = case.module.NEEDS, jax.tree.map(jnp.asarray, case.stream.load())
    key, count = lanes.run_key(0), 0
    learner = method.init(jax.random.fold_in(key, lanes.INIT))
    nets, logits = [learner.net], []
    for task in range(EAGER_TASKS):
        state = case.stream.start(data, key, jnp.int32(task))
        train = partial(case.stream.batch, data, state)
        for i in range(EAGER_STEPS):
            clock = _visible(needs, count, task, i)
            if i == 0 and "boundaries" in needs:
                learner = method.start_task(key, clock, train, learner)
            batch = train(jnp.int32(i))
            if "task_id" not in needs:
                batch = batch._replace(task=jnp.zeros_like(batch.task))
            step_key = jax.random.fold_in(key, count)
            learner, signals = method.step(step_key, clock, batch, learner)
            classes = np.asarray(batch.classes)
            predicted = method.predict(learner, batch)[0]
            logits.append(("step", np.asarray(signals.logits), classes))
            logits.append(("predict", np.asarray(predicted), classes))
            nets.append(learner.net)
            count += 1
        clock = _visible(needs, count, task, EAGER_STEPS)
        learner = method.end_segment(key, clock, train, learner)
        if "boundaries" in needs:
            learner = method.end_task(key, clock, train, learner)
        nets.append(learner.net)
    return {"nets": nets, "logits": logits}


def _visible(needs: frozenset[str], step: int, task: int, step_in_task: int) -> Clock:
    known = (step, task, step_in_task) if "boundaries" in needs else (step, 0, step)
    return Clock(*map(jnp.int32, known))
