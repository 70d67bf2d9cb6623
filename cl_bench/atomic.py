"""Files that are either whole or absent, and canonical JSON."""

import json
import math
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np


class StoreError(RuntimeError):
    """Something on disk cannot be written, read or trusted; the message says what."""


@contextmanager
def replacing(path: Path, intact: str = "") -> Generator[IO[bytes], None, None]:
    """A binary file that takes the place of `path` only once it is whole on disk.

    `intact` ends the error message: what earlier work the reader still has.
    Raises StoreError (disk full, no permission); the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"Cannot write {path}: {error.strerror or error}. "
            f"{intact or 'What was there before is intact.'} "
            "Free some space or fix the permissions, then run the same command again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable: the name lives in the folder, not in the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Removes what a killed process left half-written in `folder`."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def jsonable(value: Any, where: str = "value") -> Any:
    """`value` as plain JSON data; NaN and infinities become 'nan', 'inf', '-inf'.

    Takes mappings, sequences, sets, numpy and jax arrays, paths and objects with
    `to_dict` (ConfigDict). Raises TypeError naming the place of anything else.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): jsonable(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((jsonable(v, where) for v in value), key=str)
    if isinstance(value, (list, tuple)):
        return [jsonable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if hasattr(value, "to_dict"):
        return jsonable(value.to_dict(), where)
    if isinstance(value, (np.ndarray, np.generic)) or hasattr(value, "__array__"):
        return jsonable(np.asarray(value).tolist(), where)
    raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot hold.")


def canonical_json(value: Any) -> str:
    """One text for equal data: sorted keys, no spaces."""
    return json.dumps(
        jsonable(value), sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def write_json(path: Path, value: Any) -> None:
    """Writes `value` (see `jsonable`) whole or not at all, keys sorted, indented."""
    text = json.dumps(jsonable(value), sort_keys=True, indent=1, allow_nan=False)
    with replacing(path) as file:
        file.write(text.encode() + b"\n")


def read_json(path: Path) -> Any:
    """The data of a JSON file; StoreError naming the file where it is damaged."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise StoreError(f"{path} is damaged ({error}).") from error
