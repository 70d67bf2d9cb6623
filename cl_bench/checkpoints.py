"""Checkpoints of one group of lanes, written by Orbax and proved by our own manifest.

    checkpoints/step-00000012/       what Orbax writes
    checkpoints/step-00000012.json   manifest, written last: a step without one is void

A step is named by the run's next segment. Any pytree can be saved: it is stored as a
flat list of leaves and takes its structure from the program that restores it.
"""

import hashlib
import itertools
import logging
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from cl_bench.atomic import StoreError, canonical_json, read_json, write_json
from cl_bench.types import PyTree

KEEP = 2
_OVERHEAD = 100_000  # bytes that Orbax writes beside the arrays, and then some
_SCHEMA_VERSION = 1


class CheckpointMismatchError(StoreError):
    """A sound checkpoint of a state that is not the one this program has."""


class Step(NamedTuple):
    """The place in the run and in the records where a checkpoint was taken."""

    next_segment: int
    num_parts: int


def folder(group_dir: Path) -> Path:
    """Where the checkpoints of a group lie."""
    return Path(group_dir) / "checkpoints"


def _step_dir(group_dir: Path, next_segment: int) -> Path:
    return folder(group_dir) / f"step-{next_segment:08d}"


@cache
def _checkpointer() -> Any:
    """Orbax, imported at first use (0.7 s) and kept from narrating every save.

    Its errors come as exceptions too: logged, they would bury the message to the user.
    """
    import orbax.checkpoint as ocp

    def audible(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logging.getLogger("absl").addFilter(audible)
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def _as_array(leaf: Any) -> Any:
    described = isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct))
    return leaf if described else jnp.asarray(leaf)


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Path and array of every leaf; {} and None have none and cost nothing."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path), _as_array(leaf)) for path, leaf in flat]


def _describe(leaves: list[tuple[str, Any]]) -> list[list[Any]]:
    return [[path, list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves]


def _stored(leaves: list[tuple[str, Any]]) -> dict[str, Any]:
    # Orbax refuses arrays without elements; their shape in the manifest is enough.
    return {f"{i:04d}": leaf for i, (_, leaf) in enumerate(leaves) if leaf.size}


def save(group_dir: Path, next_segment: int, num_parts: int, tree: PyTree) -> None:
    """Saves `tree` as the state before `next_segment`, after `num_parts` parts.

    Synchronous. Keeps the newest two. Raises StoreError (disk full) with the earlier
    checkpoints intact.
    """
    leaves = _leaves(tree)
    remove(group_dir, next_segment)
    target = _step_dir(group_dir, next_segment)
    target.parent.mkdir(parents=True, exist_ok=True)
    _check_space(target, leaves)
    counters = {"next_segment": next_segment, "num_parts": num_parts}
    content = {"leaves": _stored(leaves)} | {
        name: np.asarray(value, np.int64) for name, value in counters.items()
    }
    try:
        _checkpointer().save(target.absolute(), content)
        files = _fingerprint(target)
    except Exception as error:  # Orbax raises many kinds; the disk is behind most
        remove(group_dir, next_segment)
        raise StoreError(
            f"Cannot write the checkpoint {target}: {error}. Earlier checkpoints and "
            "all parts are intact. Free some space, then run the same command again."
        ) from error
    facts = {"version": _SCHEMA_VERSION, "files": files, "leaves": _describe(leaves)}
    manifest: dict[str, Any] = counters | facts
    write_json(target.with_suffix(".json"), manifest | {"sha256": _digest(manifest)})
    for old in saved(group_dir)[:-KEEP]:
        remove(group_dir, old)


def _check_space(target: Path, leaves: list[tuple[str, Any]]) -> None:
    """StoreError where the disk is full: Orbax would print pages of tracebacks first."""
    needed = _OVERHEAD + sum(leaf.nbytes for _, leaf in leaves)
    if (free := shutil.disk_usage(target.parent).free) < needed:
        raise StoreError(
            f"Cannot write the checkpoint {target}: No space left on device ({free:,} "
            f"bytes are free, {needed:,} needed). Earlier checkpoints and all parts are "
            "intact. Free some space, then run the same command again."
        )


def _digest(manifest: dict[str, Any]) -> str:
    rest = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def _fingerprint(target: Path) -> dict[str, list[Any]]:
    """Relative name -> [size, SHA-256] of every file of a checkpoint."""
    found = {}
    for path in sorted(p for p in target.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[path.relative_to(target).as_posix()] = [path.stat().st_size, digest]
    return found


def saved(group_dir: Path) -> list[int]:
    """Next segments of the steps that have a manifest, oldest first, unverified."""
    names = (
        p.stem.removeprefix("step-") for p in folder(group_dir).glob("step-*.json")
    )
    return sorted(int(name) for name in names if name.isdigit())


def verify(group_dir: Path, next_segment: int) -> Step:
    """The step's counters. StoreError where any of its files is damaged or missing."""
    target = _step_dir(group_dir, next_segment)
    path = target.with_suffix(".json")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("sha256") != _digest(manifest):
        raise StoreError(f"{path} does not match its checksum.")
    if manifest["version"] != _SCHEMA_VERSION:
        raise StoreError(f"{path} has the unknown version {manifest['version']}.")
    found = _fingerprint(target)
    for name, expected in manifest["files"].items():
        if found.get(name) != expected:
            raise StoreError(f"{target / name} is damaged or missing.")
    return Step(manifest["next_segment"], manifest["num_parts"])


def remove(group_dir: Path, next_segment: int) -> None:
    """Removes a step: the manifest first, so that a kill in between leaves it void."""
    target = _step_dir(group_dir, next_segment)
    target.with_suffix(".json").unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    for path in target.parent.glob(f"{target.name}.orbax*"):  # its temporaries
        shutil.rmtree(path, ignore_errors=True)


def remove_unfinished(group_dir: Path) -> None:
    """Removes what a killed process left: step folders without a manifest."""
    whole = {_step_dir(group_dir, n).name for n in saved(group_dir)}
    for path in folder(group_dir).glob("*"):
        if path.is_dir() and path.name not in whole:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)


def restore(group_dir: Path, next_segment: int, abstract: PyTree) -> PyTree:
    """The saved state, with the structure and the shardings of `abstract`.

    Leaves of `abstract` are arrays or `jax.ShapeDtypeStruct`s; one without a sharding
    comes back uncommitted. Raises CheckpointMismatchError where names, shapes or types
    differ; StoreError where Orbax cannot read the step.
    """
    target = _step_dir(group_dir, next_segment)
    leaves = _leaves(abstract)
    step = verify(group_dir, next_segment)
    _check_leaves(read_json(target.with_suffix(".json"))["leaves"], leaves, target)
    arrays = {name: _request(leaf) for name, leaf in _stored(leaves).items()}
    wanted = {"leaves": arrays} | {
        name: np.zeros((), np.int64) for name in Step._fields
    }
    try:
        content = _checkpointer().restore(target.absolute(), wanted)
    except Exception as error:  # Orbax raises many kinds
        raise StoreError(f"Cannot read the checkpoint {target}: {error}") from error
    if any(int(content[name]) != value for name, value in step._asdict().items()):
        raise StoreError(f"{target} and its manifest disagree on {step}.")
    restored = [
        _place(content["leaves"].get(f"{i:04d}"), leaf)
        for i, (_, leaf) in enumerate(leaves)
    ]
    return jax.tree.unflatten(jax.tree.structure(abstract), restored)


def _check_leaves(
    written: list[list[Any]], leaves: list[tuple[str, Any]], target: Path
) -> None:
    expected = _describe(leaves)
    for old, new in itertools.zip_longest(written, expected):
        if old != new:
            raise CheckpointMismatchError(
                f"The checkpoint {target} holds {_name(old)} where this program has "
                f"{_name(new)}. It was written by other code: choose another workdir, "
                "or go back to the cl_bench that wrote it (see provenance.json)."
            )


def _name(leaf: list[Any] | None) -> str:
    return f"{leaf[2]}{leaf[1]} at {leaf[0] or 'the root'}" if leaf else "no leaf"


def _sharding(leaf: Any) -> Any:
    committed = not isinstance(leaf, jax.Array) or leaf.committed
    return leaf.sharding if committed else None


def _request(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = _sharding(leaf) or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _place(array: Any, leaf: Any) -> jax.Array:
    """Where `leaf` is. Orbax commits all it reads, which jit refuses to mix."""
    if array is None:  # no elements, so never stored
        return jax.device_put(jnp.zeros(leaf.shape, leaf.dtype), _sharding(leaf))
    if _sharding(leaf) is not None:
        return array
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.asarray(np.asarray(array))
    data = jnp.asarray(np.asarray(jax.random.key_data(array)))
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
