"""Floating-point operations of a traced function, loops times their turns.

XLA's own count takes the body of a loop once, however often it turns.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal
from jax.interpreters import partial_eval

from cl_bench import flop_rules

CALLS = ("jaxpr", "call_jaxpr", "fun_jaxpr", "call")  # they hold what is called


class Count(NamedTuple):
    """Operations, and how far they can be trusted."""

    flops: float = 0.0
    loops_once: int = 0  # loops whose turns follow the data: their bodies count once


def count(function: Callable[..., Any], *shapes: Any) -> Count:
    """Operations of one call of `function` with arguments of these shapes.

    Dead code is left out. A loop counts as often as it turns where that follows from
    numbers which `function` itself fixes, once otherwise; a loop that would not turn
    counts once too, for it stands for a condition. Of a condition the dearest branch
    counts. What single operations count is said in `flop_rules`.
    """
    return of_traced(jax.make_jaxpr(function)(*shapes))


def of_traced(traced: Any) -> Count:
    """`count` of a function that has been traced, from its closed jaxpr."""
    used = [True] * len(traced.jaxpr.outvars)
    live = partial_eval.dce_jaxpr(traced.jaxpr, used, instantiate=True)[0]
    return _of(live, [None] * len(live.invars), traced.consts)[0]


def _of(
    jaxpr: Any, given: Sequence[Any], consts: Sequence[Any] = ()
) -> tuple[Count, list[Any]]:
    """The count of a jaxpr, and its results; None stands for a number not known."""
    consts = consts or getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    known = dict(zip(jaxpr.constvars, consts, strict=False))
    known |= dict(zip(jaxpr.invars, given, strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known.get(atom)

    flops, loops = 0.0, 0
    for eqn in jaxpr.eqns:
        found, results = _of_equation(eqn, [value(atom) for atom in eqn.invars])
        flops, loops = flops + found.flops, loops + found.loops_once
        known |= dict(zip(eqn.outvars, results, strict=True))
    return Count(flops, loops), [value(atom) for atom in jaxpr.outvars]


def _of_equation(eqn: Any, given: list[Any]) -> tuple[Count, list[Any]]:
    name, params = eqn.primitive.name, eqn.params
    unknown = [None] * len(eqn.outvars)
    if name in LOOPS:
        return LOOPS[name](eqn, given), unknown
    if name == "custom_linear_solve":
        solve = params["jaxprs"].solve
        return _of(solve, [None] * len(_variables(solve)))[0], unknown
    called = next((params[key] for key in CALLS if key in params), None)
    if called is not None and not name.startswith("reduce"):
        return _of(called, given)
    return Count(flop_rules.of(eqn)), _results(eqn, given)


def _results(eqn: Any, given: list[Any]) -> list[Any]:
    """Results between single known whole numbers, as the bounds of loops are."""
    whole = all(
        v.aval.shape == ()
        and (v.aval.dtype == bool or jnp.issubdtype(v.aval.dtype, jnp.integer))
        for v in eqn.outvars
    )
    if not whole or not given or any(value is None for value in given):
        return [None] * len(eqn.outvars)
    found = eqn.primitive.bind(*given, **eqn.params)
    return list(found) if eqn.primitive.multiple_results else [found]


def _scan(eqn: Any, given: list[Any]) -> Count:
    body = getattr(eqn.params["jaxpr"], "jaxpr", eqn.params["jaxpr"])

    def same(outer: list[Any], inner: list[Any]) -> int:
        pairs = zip(outer, inner, strict=True)
        return sum(len(o.aval.shape) == len(i.aval.shape) for o, i in pairs)

    # Inputs are what is fixed, what is carried, and slices of what has one more axis.
    # How many are which stands under other names in each version of JAX.
    fixed = same(eqn.invars, body.invars) - same(eqn.outvars, body.outvars)
    unknown = [None] * (len(body.invars) - fixed)
    one = _of(eqn.params["jaxpr"], [*given[:fixed], *unknown])[0]
    return Count(eqn.params["length"] * one.flops, one.loops_once)


def _while(eqn: Any, given: list[Any]) -> Count:
    params = eqn.params
    first = params["cond_nconsts"]
    second = first + params["body_nconsts"]
    carry = given[second:]
    unknown = [None] * len(carry)
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    one = _of(body, [*given[first:second], *unknown])[0]
    asked = _of(test, [*given[:first], *unknown])[0]
    turns = _turns(test, body, given[:first], carry)
    return Count(
        max(turns or 1, 1) * (one.flops + asked.flops),
        one.loops_once + asked.loops_once + (turns is None),
    )


def _turns(test: Any, body: Any, first: list[Any], carry: list[Any]) -> int | None:
    """Turns of a `fori_loop`, whose condition is i < last, i going up by 1."""
    test, body = (getattr(jaxpr, "jaxpr", jaxpr) for jaxpr in (test, body))
    if len(test.eqns) != 1 or test.eqns[0].primitive.name != "lt":
        return None
    known = dict(zip(test.invars, [*first, *carry], strict=True))
    i, last = test.eqns[0].invars
    if isinstance(i, Literal) or i not in test.invars[len(first) :]:
        return None
    place = test.invars.index(i) - len(first)
    before = body.invars[len(body.invars) - len(carry) + place]
    after = next((e for e in body.eqns if body.outvars[place] in e.outvars), None)
    if after is None or after.primitive.name != "add" or after.invars[0] is not before:
        return None
    step = after.invars[1]
    if not isinstance(step, Literal) or step.val != 1:
        return None
    start, end = known[i], last.val if isinstance(last, Literal) else known.get(last)
    return None if start is None or end is None else int(end) - int(start)


def _cond(eqn: Any, given: list[Any]) -> Count:
    found = (_of(branch, given[1:])[0] for branch in eqn.params["branches"])
    return max(found, key=lambda one: one.flops)


def _variables(jaxpr: Any) -> list[Any]:
    return getattr(jaxpr, "jaxpr", jaxpr).invars


LOOPS = {"scan": _scan, "while": _while, "cond": _cond}
