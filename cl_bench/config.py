"""The configuration of a study: its keys, its checks, and the file it comes from."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from cl_bench import components, fields
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError, importable, nearest

Overrides = Mapping[
    str, Any
]  # 'method.step_size' -> value, as given on the command line
Sweep = Callable[[Callable[..., None], ConfigDict], None]
MOST_SEEDS, MOST_DEVICES = 1_000_000, 1_024  # more would only fill the memory
SECTIONS = ("stream", "network", "method", "execution")


class Experiment(NamedTuple):
    """A loaded experiment file."""

    spec: str  # as it was asked for: path, module or bare name, then [:arg]
    config: ConfigDict
    sweep: Sweep | None


def study(
    *,
    name: str,
    stream: dict[str, Any],
    network: dict[str, Any],
    method: dict[str, Any],
    metrics: tuple[Any, ...] = ("online_accuracy",),
    seeds: int | tuple[int, ...] = 3,
    benchmark: str = "",
    oracle: bool = False,
    score: str = "",
    execution: dict[str, Any] | None = None,
) -> ConfigDict:
    """The configuration of one study; it holds what was set and nothing else.

    A section is the component's `name` and any of its settings; what is not set takes
    the component's own default when the study is expanded. `metrics` are names, or
    dicts of a name and settings. `seeds` is a count or the seeds themselves.
    `benchmark` names stream x network x budget x metrics (default: the study's name;
    another data set on the command line is added to it); an arm of the sweep may name
    its own.
    `oracle=True` allows methods that need more than the stream offers; those runs are
    marked. `score` is the metric that the report ranks by (default: the first of the
    report's `SCORES` that was recorded); like `execution`, settings of `execution`, it
    changes no result's identity.
    """
    config = ConfigDict(type_safe=False)
    config.study, config.benchmark = name, benchmark or name
    config.stream, config.network = dict(stream), dict(network)
    config.method, config.metrics = dict(method), tuple(metrics)
    config.seeds, config.oracle, config.score = seeds, oracle, score
    config.execution = dict(execution or {})
    config.lock()  # a mistyped top-level key in a config file fails where it stands
    for section in SECTIONS:
        config[section].unlock()
    return config


def execution(
    *,
    lanes: Literal["auto", "vmap", "map"] = "auto",
    devices: int = 0,
    lane_width: int = 0,
    chunk_seconds: float = 2.0,
    checkpoint_seconds: float = 30.0,
    matmul_precision: Literal["default", "high", "highest"] = "highest",
    compilation_cache: bool = True,
) -> dict[str, Any]:
    """How a study is run: `devices=0` takes all, `lane_width=0` chooses the width."""
    return dict(locals())


def settings(config: ConfigDict, overrides: Overrides | None = None) -> dict[str, Any]:
    """The checked configuration as plain Python, with the overrides applied.

    Sections keep what was set (components fill in their defaults later); `execution` is
    complete and `seeds` a tuple. Raises UnknownNameError or ConfigError.
    """
    given, overrides = plain(config), overrides or {}
    for path, value in overrides.items():
        section, _, key = path.partition(".")
        if not key:
            given[section] = plain(value)
    if isinstance(given.get("metrics"), str):  # --config.metrics=a,b
        names = map(str.strip, given["metrics"].split(","))
        given["metrics"] = tuple(name for name in names if name)
    known = top_fields()
    values = fields.resolve("config", "a study", known, given)
    values["benchmark"] = values["benchmark"] or values["study"]
    dataset = overrides.get("stream.dataset")
    if "benchmark" not in overrides and dataset not in (None, _dataset(config)):
        values["benchmark"] += f"-{dataset}"  # another set is another benchmark
    values["seeds"] = _seeds(values["seeds"])
    names = [m if isinstance(m, str) else m.get("name", "") for m in values["metrics"]]
    if "metrics" in overrides and "score" not in overrides:  # the file's may be gone
        values["score"] = values["score"] if values["score"] in names else ""
    _check_score(values["score"], names)
    for section in ("stream", "network", "method"):
        values[section] = components.override(section, values[section], overrides)
    chosen = (values["execution"] or {}) | _under("execution", overrides)
    values["execution"] = _execution(chosen)
    return values


def mode(arg: str, known: Sequence[str], default: str) -> str:
    """The mode an experiment's `get_config(arg)` was asked for, or UnknownNameError."""
    if arg and arg not in known:
        raise UnknownNameError(f"No mode {arg!r}.{nearest(arg, tuple(known))}")
    return arg or default


def load(spec: str) -> Experiment:
    """The experiment `file.py[:arg]`, `dotted.module[:arg]` or `name[:arg]`.

    A bare name is a file of the folder `experiments/`. What the file itself raises is
    not caught: its own traceback is the clearest message.
    """
    place, _, arg = spec.partition(":")
    module = _load_module(place)
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(f"{place} has no function get_config(arg='').")
    config = module.get_config(arg) if arg else module.get_config()
    if isinstance(config, dict):
        config = ConfigDict(config, type_safe=False)
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"get_config of {place} returned {config!r}, not a ConfigDict."
        )
    return Experiment(spec, config, getattr(module, "sweep", None))


def top_fields() -> tuple[fields.Field, ...]:
    """The keys of a configuration."""
    found = fields.of_function(study)
    return tuple(f._replace(name="study") if f.name == "name" else f for f in found)


def _execution(given: dict[str, Any]) -> dict[str, Any]:
    known = fields.of_function(execution)
    values = fields.resolve("config.execution", "execution", known, given)
    for key, value in values.items():
        if isinstance(value, int | float) and value < 0:
            raise ConfigError(f"config.execution.{key} = {value}: expected 0 or more.")
    if values["devices"] > MOST_DEVICES:
        raise ConfigError(
            f"config.execution.devices = {values['devices']}: at most {MOST_DEVICES}."
        )
    return values


def _seeds(value: int | tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(value, int) and value > MOST_SEEDS:
        raise ConfigError(f"config.seeds = {value}: a count of at most {MOST_SEEDS}.")
    seeds = tuple(range(value)) if isinstance(value, int) else value
    bad = not seeds or len(set(seeds)) < len(seeds)
    if bad or not all(0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(
            f"config.seeds = {value!r}: expected a count of at least 1, or a tuple of "
            "distinct seeds from 0 to 2**31 - 1."
        )
    return seeds


def _dataset(config: ConfigDict) -> Any:
    return plain(config).get("stream", {}).get("dataset")


def _check_score(score: str, metrics: list[str]) -> None:
    if score and score not in metrics:
        hint = nearest(score, metrics)
        raise UnknownNameError(f"config.score = {score!r} is not measured.{hint}")


def _under(section: str, overrides: Overrides) -> dict[str, Any]:
    start = section + "."
    return {k[len(start) :]: v for k, v in overrides.items() if k.startswith(start)}


def plain(value: Any) -> Any:
    """ConfigDicts as dicts, all the way down."""
    if isinstance(value, ConfigDict | Mapping):
        return {key: plain(value[key]) for key in value}
    if isinstance(value, list | tuple):
        return type(value)(plain(v) for v in value)
    return value


def _load_module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py":
        if path.is_file():
            return _run_file(path)
        near = {str(p) for p in path.parent.glob("*.py")}
    else:
        folders = (Path("experiments"), Path(__file__).parent.parent / "experiments")
        for folder in folders:
            if (folder / f"{place}.py").is_file():
                return _run_file(folder / f"{place}.py")
        if importable(place):
            return importlib.import_module(place)
        near = {p.stem for folder in folders for p in folder.glob("*.py")}
    raise UnknownNameError(f"No experiment {place!r}.{nearest(place, tuple(near))}")


def _run_file(path: Path) -> ModuleType:
    name = f"cl_bench_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
