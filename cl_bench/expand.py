"""Config and sweep -> runs: arms, products, overrides, and what a method may know."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from cl_bench import components, sweeps
from cl_bench.canonical import digest, identity
from cl_bench.config import Overrides, Sweep, load, settings
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError, nearest
from cl_bench.sweeps import Arm

_log = logging.getLogger(__name__)


class RunSpec(NamedTuple):
    """One run: every setting of every component, and the seed."""

    run_id: str  # hash of all that determines the result; not of study, labels
    study: str
    benchmark: str
    arm: str  # display label
    seed: int
    stream: dict[str, Any]  # {'name': ..., every setting}
    network: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    method: str
    hyper: dict[str, Any]  # every field of the method's Hyper
    oracle: bool  # was given what the stream does not offer
    num_tasks: int  # that its stream has, also where no setting says so
    score: str  # the metric its benchmark is ranked by, '' = the report's choice


def expand(
    config: ConfigDict,
    sweep: Sweep | None = None,
    methods: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    overrides: Overrides | None = None,
) -> tuple[RunSpec, ...]:
    """Every run of a study, in order: benchmark, arm, seed.

    Defaults of the components < config < arm < overrides. `methods` replaces the arms
    (an arm of the sweep with that method is kept); `benchmarks` replaces stream,
    network, metrics and seeds by those of other experiments. Everything is checked:
    raises UnknownNameError or ConfigError before anything is compiled.
    """
    overrides = dict(overrides or {})
    own = settings(config, overrides)
    arms = sweeps.collect(own, sweep)
    if "method.name" in overrides and methods:
        raise ConfigError("Give --methods or --config.method.name, not both.")
    if "benchmark" in overrides and benchmarks:
        raise ConfigError("Give --benchmarks or --config.benchmark, not both.")
    if "method.name" in overrides:
        name = own["method"]["name"]
        arms = sweeps.unique(sweeps.replace_method(arm, name) for arm in arms)
    if methods:
        arms = sweeps.choose_methods(arms, own["method"], methods)
    bases = [own]
    if benchmarks:
        arms = sweeps.unique(sweeps.method_only(arm) for arm in arms)
        bases = [_on_benchmark(own, name, overrides) for name in benchmarks]
    _check_benchmarks(bases)
    _check_overrides(overrides, [_merged(b, a, overrides) for b in bases for a in arms])
    runs = [
        run
        for base in bases
        for label, merged in _labelled(base, arms, overrides)
        for run in _runs(base, label, merged)
    ]
    return _merge_duplicates(runs)


def _on_benchmark(
    own: dict[str, Any], name: str, overrides: Overrides
) -> dict[str, Any]:
    """The study's methods on another experiment's benchmark."""
    named = {k: v for k, v in overrides.items() if k not in ("study", "benchmark")}
    other = settings(load(name).config, named)
    return {**other, **{k: own[k] for k in ("study", "method", "oracle", "execution")}}


def _check_benchmarks(bases: list[dict[str, Any]]) -> None:
    """One name, one benchmark: the records and the report know them by their names."""
    known: dict[str, Any] = {}
    for base in bases:
        parts = [base[key] for key in ("stream", "network", "metrics")]
        if known.setdefault(base["benchmark"], parts) != parts:
            raise ConfigError(
                f"Two benchmarks are called {base['benchmark']!r} and differ: run one of "
                "them in a study of its own, or name it in its experiment (benchmark=...)."
            )


def _merged(base: dict[str, Any], arm: Arm, overrides: Overrides) -> dict[str, Any]:
    """The sections of an arm, overrides on top; lists still stand for products."""
    merged: dict[str, Any] = {}
    for part in sweeps.PARTS:
        section = components.merge(part, base[part], arm.sections.get(part, {}))
        merged[part] = components.override(part, section, overrides)
    for key in ("metrics", "oracle", "benchmark"):
        own = {} if key in overrides else arm.sections
        merged[key] = own.get(key, base[key])
    return merged


def _labelled(
    base: dict[str, Any], arms: list[Arm], overrides: Overrides
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arms multiplied out over their lists, each with a label of its own there."""
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for arm in arms:
        for suffix, merged in sweeps.product(_merged(base, arm, overrides)):
            label = arm.label + suffix
            if seen.setdefault((merged["benchmark"], label), merged) != merged:
                raise ConfigError(f"Two arms with different settings: {label!r}.")
            yield label, merged


def _runs(
    base: dict[str, Any], label: str, merged: dict[str, Any]
) -> Iterator[RunSpec]:
    stream = components.resolve("stream", merged["stream"])
    network = components.resolve("network", merged["network"])
    metrics = components.resolve_metrics(merged["metrics"])
    hyper = components.resolve("method", merged["method"])
    method = hyper["name"]
    parts = components.make(stream, network, metrics, method)
    components.make_method(parts, hyper)
    oracle = _needs_oracle(parts, merged, label)
    del hyper["name"]
    result = (network, metrics, method, hyper, oracle)
    for seed in base["seeds"]:
        yield RunSpec(
            digest((identity(stream), *result, seed)),
            base["study"],
            merged["benchmark"],
            label,
            seed,
            stream,
            *result,
            parts.stream.spec.num_tasks,
            base["score"],
        )


def _needs_oracle(parts: components.Parts, merged: dict[str, Any], label: str) -> bool:
    """Whether the method needs more than the stream offers; refused if not allowed."""
    lacking = parts.method.NEEDS - parts.stream.spec.offers
    if lacking and not merged["oracle"]:
        raise ConfigError(
            f"Arm {label!r}: method {merged['method']['name']!r} needs "
            f"{', '.join(sorted(lacking))}, which stream {merged['stream']['name']!r} "
            f"does not offer (it offers: {_offers(parts)}). Choose another stream, or "
            "set config.oracle=True to run it marked as an oracle."
        )
    return bool(lacking)


def _offers(parts: components.Parts) -> str:
    return ", ".join(sorted(parts.stream.spec.offers)) or "nothing"


def _check_overrides(overrides: Overrides, arms: list[dict[str, Any]]) -> None:
    """Every overridden key belongs to some arm's component."""
    for path in overrides:
        part, _, key = path.partition(".")
        if part not in sweeps.PARTS or key == "name":
            continue
        owners = sorted({arm[part]["name"] for arm in arms})
        known = {f.name for name in owners for f in components.fields_of(part, name)}
        if key not in known:
            raise UnknownNameError(
                f"config.{path}: no {part} of this study ({', '.join(owners)}) has the "
                f"setting {key!r}.{nearest(key, tuple(known))}"
            )


def _merge_duplicates(runs: list[RunSpec]) -> tuple[RunSpec, ...]:
    unique: dict[str, RunSpec] = {}
    for run in runs:
        first = unique.setdefault(run.run_id, run)
        if first is not run:
            _log.warning(
                "The same run twice: %s %r, seed %d, is also %s %r; it is done once.",
                *(run.benchmark, run.arm, run.seed, first.benchmark, first.arm),
            )
    return tuple(unique.values())
