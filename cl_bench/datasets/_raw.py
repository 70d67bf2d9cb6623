"""Readers of the original IDX and CIFAR binary files. Nothing is ever unpickled."""

import gzip
import io
import math
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.datasets._tfds import DatasetFormatError
from cl_bench.types import Dataset

MNIST_PARTS = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
CIFAR_SIDE = 32
CIFAR_TRAIN = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "train.bin")
CIFAR_TEST = ("test_batch.bin", "test.bin")


def read_idx(files: Mapping[str, Path]) -> Dataset:
    """The four gzipped IDX files of an MNIST-like set, by file name.

    Raises DatasetFormatError for a missing file, a wrong header or a wrong length.
    """
    absent = [part for part in MNIST_PARTS if part not in files]
    if absent:
        raise DatasetFormatError(f"Missing among the files: {', '.join(absent)}.")
    return _assemble({p: files[p].read_bytes() for p in MNIST_PARTS}, MNIST_PARTS)


def read_emnist(files: Mapping[str, Path], config: str) -> Dataset:
    """One configuration ('balanced', 'letters', ...) of EMNIST's gzip.zip of IDX files.

    Images are as in the original files: mirrored and turned by 90 degrees.
    """
    parts = [
        f"gzip/emnist-{config}-{split}-{kind}-ubyte.gz"
        for split in ("train", "test")
        for kind in ("images-idx3", "labels-idx1")
    ]
    try:
        with zipfile.ZipFile(files["gzip.zip"]) as archive:
            return _assemble({p: archive.read(p) for p in parts}, parts)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DatasetFormatError(f"Not EMNIST's gzip.zip: {error}.") from error


def read_cifar(files: Mapping[str, Path], label_bytes: int) -> Dataset:
    """CIFAR's binary archive: per image the labels (the finest last), then 3x32x32.

    Raises DatasetFormatError for a damaged archive, a missing file, a wrong length.
    """
    (path,) = files.values()
    try:
        with tarfile.open(path, "r:gz") as archive:
            members = {Path(m.name).name: m for m in archive if m.isfile()}
            train = [_member(archive, members[n]) for n in CIFAR_TRAIN if n in members]
            test = [_member(archive, members[n]) for n in CIFAR_TEST if n in members]
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DatasetFormatError(f"{path.name} is damaged: {error}.") from error
    if not train or not test:
        raise DatasetFormatError(f"{path.name} has no CIFAR batches: {[*members]}.")
    return Dataset(*_cifar(train, label_bytes), *_cifar(test, label_bytes))


def _assemble(content: Mapping[str, bytes], parts: Any) -> Dataset:
    arrays: list[Any] = [_idx(content[part], part) for part in parts]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DatasetFormatError(
                f"Images {images.shape} and labels {labels.shape} do not match."
            )
    return Dataset(arrays[0][..., None], arrays[1], arrays[2][..., None], arrays[3])


def _idx(compressed: bytes, name: str) -> np.ndarray:
    """A gzipped IDX file: 0, 0, type 8 (uint8), rank, big-endian sizes, then bytes."""
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(compressed)).read()
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetFormatError(f"{name} is damaged: {error}.") from error
    if content[:3] != b"\0\0\x08" or len(content) < 4 * (1 + content[3]):
        raise DatasetFormatError(f"{name} is not an IDX file of uint8.")
    start = 4 * (1 + content[3])
    shape = [int(n) for n in np.frombuffer(content[4:start], ">u4")]
    if len(content) - start != math.prod(shape):
        raise DatasetFormatError(
            f"{name} says {shape} and holds {len(content) - start} bytes."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> np.ndarray:
    file = archive.extractfile(member)  # into memory: no path of the archive is used
    assert file is not None
    return np.frombuffer(file.read(), np.uint8)


def _cifar(batches: list[np.ndarray], label_bytes: int) -> tuple[Any, Any]:
    content = np.concatenate(batches)
    row = label_bytes + 3 * CIFAR_SIDE**2
    if not len(content) or len(content) % row:
        raise DatasetFormatError(f"{len(content)} bytes are no rows of {row}.")
    rows = content.reshape(-1, row)
    images = rows[:, label_bytes:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
    return images.transpose(0, 2, 3, 1), rows[:, label_bytes - 1]
