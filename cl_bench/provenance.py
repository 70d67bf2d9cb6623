"""What made a study: its configuration, versions, device and times.

DIR/config.json        the resolved configuration, fixed for the workdir's life
DIR/provenance.json    `collect()` of the first process, and under "resumed" of each
                       later one, so that a figure can be traced to all of them
"""

import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax

from cl_bench.atomic import StoreError, canonical_json, jsonable, read_json, write_json

_log = logging.getLogger(__name__)
_ABSENT = object()
PACKAGES = (
    "cl_bench",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "chex",
    "numpy",
    "orbax-checkpoint",
    "pyarrow",
)
# Where two processes differ in one of these, their numbers may differ in a bit.
IDENTITY = ("versions", "device", "xla_flags", "jax_config", "git")
_CONFIG = (
    "jax_default_matmul_precision",
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
)


class ConfigChangedError(StoreError):
    """The workdir belongs to a study with another configuration."""


def collect() -> dict[str, Any]:
    """Everything about this process that a number may depend on, as JSON data.

    Starts JAX's backend (it asks for the devices). Never fails for what is absent:
    it is None.
    """
    config = {name: getattr(jax.config, name, None) for name in _CONFIG}
    return {
        "versions": _versions(),
        "device": _device(),
        "platform": platform.platform(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "matmul_precision": config["jax_default_matmul_precision"] or "default",
        "jax_config": config,
        "git": git_state(Path(__file__).resolve().parent),
        "command_line": list(sys.argv),
        "start_time": _now(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def _device() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "kind": device.device_kind,
        "platform": device.platform,
        "count": jax.device_count(),
        "backend": str(getattr(device.client, "platform_version", "")),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name, or the machine type where the system does not tell."""
    try:
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def git_state(package: Path) -> dict[str, Any] | None:
    """Commit of the checkout that `package` is the top folder of, and whether dirty.

    None without git, or where an installed package merely lies inside some
    repository (a virtual environment in the user's own project).
    """
    root = _git(package, "rev-parse", "--show-toplevel")
    if root is None or Path(root).resolve() != package.parent.resolve():
        return None
    changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    commit = _git(package, "rev-parse", "--verify", "--quiet", "HEAD")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def lock_config(workdir: str | Path, config: Mapping[str, Any], **notes: Any) -> bool:
    """Writes config.json {"config": ..., **notes}, or checks it; True = resuming.

    Only `config` is compared (as canonical JSON). Raises ConfigChangedError listing
    the keys that differ.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        write_json(path, {"config": config, **notes})
        return False
    content = read_json(path)
    old = content.get("config") if isinstance(content, dict) else None
    if canonical_json(old) == canonical_json(config):
        return True
    lines = "\n".join(f"  {line}" for line in differences(old, jsonable(config)))
    raise ConfigChangedError(
        f"{workdir} holds a study with another configuration:\n{lines}\nChoose another "
        "workdir for this one, or give the same configuration again to resume it."
    )


def differences(old: Any, new: Any, limit: int = 20) -> list[str]:
    """One line per dotted key whose value differs: `key: old -> new`.

    What only one side has is one line, however much it holds.
    """
    lines = list(_differing("", old, new))
    more = [f"... and {len(lines) - limit} more"] if len(lines) > limit else []
    return lines[:limit] + more


def _differing(key: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{key}.{name}" if key else str(name)
            yield from _differing(inner, old.get(name, _ABSENT), new.get(name, _ABSENT))
    elif _shown(old) != _shown(new):
        yield f"{key or 'config'}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    return "present" if isinstance(value, dict) and value else canonical_json(value)


def record_start(workdir: str | Path, **facts: Any) -> dict[str, Any]:
    """Writes or extends provenance.json with this process; returns its entry.

    Where versions, device or flags differ from the first process's, a warning is
    logged: what follows need not be bit-identical to an uninterrupted run.
    """
    path = Path(workdir) / "provenance.json"
    entry = jsonable(collect() | facts)
    if not path.exists():
        write_json(path, entry | {"resumed": []})
        return entry
    first = read_json(path)
    old, new = ({k: d.get(k) for k in IDENTITY} for d in (first, entry))
    if changed := differences(old, new):
        _log.warning(
            "%s was started under other conditions (%s). It goes on, but its records "
            "need not be bit-identical to those of an uninterrupted run.",
            workdir,
            "; ".join(changed),
        )
    write_json(path, first | {"resumed": [*first.get("resumed", []), entry]})
    return entry


def record_end(workdir: str | Path, started: float, **facts: Any) -> None:
    """Adds the end to this process's entry; `started` is a `time.monotonic()`."""
    path = Path(workdir) / "provenance.json"
    content = read_json(path)
    entry = content["resumed"][-1] if content.get("resumed") else content
    entry |= {"end_time": _now(), "wall_seconds": time.monotonic() - started} | facts
    write_json(path, content)
