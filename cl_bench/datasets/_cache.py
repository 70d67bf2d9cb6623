"""Decoded data sets on disk: four .npy files and a manifest that vouches for them."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cl_bench.atomic import StoreError, read_json, replacing, write_json
from cl_bench.types import Dataset

FORMAT = 1  # raised whenever a cache written by older code may not be read
MANIFEST = "manifest.json"


class Description(NamedTuple):
    """The facts of a data set that a stream needs before any image is loaded."""

    image_shape: tuple[int, ...]  # (H, W, C)
    num_classes: int
    num_train: int
    num_test: int


def cache_dir() -> Path:
    """Folder of decoded data sets: CL_BENCH_CACHE, else ~/.cache/cl_bench."""
    named = os.environ.get("CL_BENCH_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "cl_bench"


def entry(name: str, source: str) -> Path:
    """Folder of one data set read from one source (a fingerprint, or 'download')."""
    return cache_dir() / f"{name.replace('/', '__')}-{source[:12]}"


def write(folder: Path, data: Dataset) -> None:
    """Writes uint8 images and labels, relabelled to 0..C-1 in the original order.

    The manifest goes last: a process killed earlier leaves nothing that `read`
    takes for whole, and two processes that write the same set do each other no harm.
    Raises StoreError (disk full, no permission).
    """
    make_folder(folder)
    labels = np.unique(np.concatenate([data.train_y, data.test_y]))
    arrays: dict[str, Any] = data._asdict()
    for part in ("train_y", "test_y"):
        arrays[part] = np.searchsorted(labels, arrays[part]).astype(np.int32)
    files = {k: _write_array(folder, k, v) for k, v in arrays.items()}
    manifest = {"format": FORMAT, "labels": labels.tolist(), "files": files}
    write_json(folder / MANIFEST, manifest)


def read(folder: Path) -> Dataset | None:
    """The memory-mapped arrays, or None where they are absent, cut short or altered."""
    manifest = _manifest(folder)
    if manifest is None or not all(
        _digest(folder / f"{k}.npy") == facts["sha256"]
        for k, facts in manifest["files"].items()
    ):
        return None
    return Dataset(*(_mapped(folder / f"{k}.npy") for k in Dataset._fields))


def describe(folder: Path) -> Description | None:
    """The manifest's facts, or None where the cache is absent or cut short."""
    manifest = _manifest(folder)
    if manifest is None:
        return None
    train, test = (manifest["files"][k]["shape"] for k in ("train_x", "test_x"))
    return Description(tuple(train[1:]), len(manifest["labels"]), train[0], test[0])


def make_folder(folder: Path) -> Path:
    """Makes a folder of the cache; StoreError names CL_BENCH_CACHE where it cannot."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"Cannot make the cache folder {folder}: {error.strerror}. "
            "Point CL_BENCH_CACHE at a folder that can be written."
        ) from error
    return folder


def _write_array(folder: Path, name: str, array: Any) -> dict[str, Any]:
    array = np.ascontiguousarray(array)
    path = folder / f"{name}.npy"
    with replacing(path) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "bytes": path.stat().st_size,
        "sha256": _digest(path),
    }


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest["format"] != FORMAT or set(manifest["files"]) != {*Dataset._fields}:
            return None
        sizes = {k: facts["bytes"] for k, facts in manifest["files"].items()}
        on_disk = {k: (folder / f"{k}.npy").stat().st_size for k in sizes}
    except (StoreError, OSError, KeyError, TypeError):
        return None
    return manifest if sizes == on_disk else None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mapped(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)
