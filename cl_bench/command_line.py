"""The command line: what to run, and `--config.section.key=value` on top of it."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cl_bench import config
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError, nearest


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """The flags that say what to run (`--config.a.b=v` is split off before them)."""
    define = functools.partial(flags.DEFINE_list, flag_values=flag_values)
    flags.DEFINE_string(
        "config",
        None,
        "Experiment: a file, a module, or the name of a file in experiments/; then "
        "[:arg]. Any setting can be given on top of it, as --config.section.key=value.",
        flag_values=flag_values,
    )
    define("methods", None, "Only these: their arms, or their defaults without one.")
    define("benchmarks", None, "Run on these experiments' benchmarks instead.")
    flags.mark_flag_as_required("config", flag_values=flag_values)


def split_overrides(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The command line without its `--config.a.b=v`, and those as {'a.b': value}.

    Values are Python literals, else strings; `--config.a.b v`, `--config.a.b` (True)
    and `--noconfig.a.b` (False) are understood too.
    """
    rest, given, waiting = [], [], list(argv)
    while waiting:
        arg = waiting.pop(0)
        if not re.match(r"--?(no)?config\.", arg):
            rest.append(arg)
            continue
        if "=" not in arg and waiting and not waiting[0].startswith("-"):
            arg += "=" + waiting.pop(0)
        _check_path(re.sub(r"^--?(no)?config\.", "", arg).partition("=")[0])
        given.append(arg)
    return rest, _parse(given)


def _parse(given: list[str]) -> dict[str, Any]:
    own, argv = flags.FlagValues(), ["", *given]
    holder = ConfigDict({section: {} for section in config.SECTIONS})
    config_flags.DEFINE_config_dict(
        "config",
        holder,
        flag_values=own,
        lock_config=False,
        accept_new_attributes=True,
        sys_argv=argv,
    )
    own(argv)
    found = config_flags.get_override_values(own["config"])
    return {path: config.plain(value) for path, value in found.items()}


def _check_path(path: str) -> None:
    section, _, key = path.partition(".")
    known = [f.name for f in config.top_fields()]
    if section not in known:
        raise UnknownNameError(
            f"config.{path}: no section {section!r}.{nearest(section, known)}"
        )
    if section in config.SECTIONS and not key:
        raise ConfigError(
            f"config.{section}: set one key, --config.{section}.key=value"
        )
    if "." in key or (key and section not in config.SECTIONS):
        raise UnknownNameError(f"config.{path}: {section!r} has no keys below it.")
