"""Prepared TFDS folders (array_record), read without TensorFlow."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench.types import Dataset

CHUNK = 4096  # records a read: one by one is far slower


class DatasetFormatError(ValueError):
    """A data set that is there but is not of a kind that can be read."""


def data_dir_or_default(data_dir: str | None) -> Path:
    """`data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    named = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(named).expanduser()


def prepared_folder(name: str, data_dir: Path) -> Path | None:
    """The newest `name/[config/]version` folder with a dataset_info.json, or None.

    Only looks at the disk: TFDS itself takes minutes to say that a set is missing.
    """
    found = [
        (tuple(map(int, path.parent.name.split("."))), path.parent)
        for path in (data_dir / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]
    return max(found)[1] if found else None


def prepared_names(data_dir: Path) -> list[str]:
    """Names of the sets prepared under a folder: 'mnist', 'imagenet_resized/32x32'."""
    found = {
        path.parent.parent.relative_to(data_dir).as_posix()
        for depth in ("*/*", "*/*/*")
        for path in data_dir.glob(f"{depth}/dataset_info.json")
    }
    return sorted(found)


def fingerprint(folder: Path) -> str:
    """SHA-256 of a prepared folder's metadata and of its shards' names and sizes."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        if path.suffix == ".json":
            digest.update(path.read_bytes())
    return digest.hexdigest()


def read(folder: Path) -> Dataset:
    """All images of a prepared folder as uint8 [N, H, W, C], with its own labels.

    The test split is 'test', or 'validation' where there is none. Raises
    DatasetFormatError for another file format, images of several sizes, a set
    without image and label, or without a train and a test split.
    """
    splits = _splits(folder)
    _check_format(folder)
    import tensorflow_datasets as tfds  # slow, so only when a set is really decoded

    builder = tfds.builder_from_directory(str(folder))
    keys = builder.info.supervised_keys
    if not keys or not isinstance(builder.info.features[keys[0]], tfds.features.Image):
        raise DatasetFormatError(f"{folder} is not a set of images with one label each")
    decoders: Any = {keys[0]: tfds.decode.SkipDecoding()}
    shape = builder.info.features[keys[0]].shape
    if None in shape:
        raise DatasetFormatError(
            f"The images of {folder} have the shape {shape}: only sets whose images "
            "share one size can be read."
        )
    parts = []
    for split in splits:
        source = builder.as_data_source(split=split, decoders=decoders)
        parts += _decode_split(source, keys[0], keys[1], shape, f"{folder} {split}")
    return Dataset(*parts)


def _splits(folder: Path) -> tuple[str, str]:
    """Names of the two splits to read, of those that hold examples."""
    info = json.loads((folder / "dataset_info.json").read_text())
    names = [s["name"] for s in info["splits"] if sum(map(int, s["shardLengths"]))]
    test = next((n for n in ("test", "validation") if n in names), None)
    if "train" not in names or test is None:
        raise DatasetFormatError(
            f"{folder} has examples in the splits {names}; needed are 'train' and "
            "'test' (or 'validation')."
        )
    return "train", test


def _check_format(folder: Path) -> None:
    info = json.loads((folder / "dataset_info.json").read_text())
    if info.get("fileFormat") != "array_record":
        raise DatasetFormatError(
            f"{folder} was prepared as {info.get('fileFormat', 'tfrecord')}, which "
            "only TensorFlow reads. Prepare it again with "
            "`tfds build NAME --file_format=array_record`."
        )


def _decode_split(
    source: Any, image_key: str, label_key: str, shape: tuple[int, ...], where: str
) -> tuple[Any, Any]:
    images = np.empty((len(source), *shape), np.uint8)
    labels = np.empty(len(source), np.int64)
    for i, example in enumerate(_examples(source)):
        image = _decode(example[image_key], shape[-1], f"{where}, image {i}")
        if image.shape != shape:
            raise DatasetFormatError(
                f"{where}: image {i} is {image.shape}, not {shape}"
            )
        images[i], labels[i] = image, example[label_key]
    return images, labels


def _examples(source: Any) -> Iterator[dict[str, Any]]:
    for start in range(0, len(source), CHUNK):
        stop = min(start + CHUNK, len(source))
        yield from source.__getitems__(list(range(start, stop)))


def _decode(encoded: bytes, channels: int, where: str) -> np.ndarray:
    import cv2  # here, so that the embedded sets need no image library

    color = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    flags = color | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if image is None:
        raise DatasetFormatError(f"{where} is damaged: not a PNG or JPEG image.")
    return image[..., None] if channels == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
