"""First downloads without TensorFlow: TFDS's URLs and checksums, our own readers."""

import hashlib
import http.client
import importlib.util
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from absl import logging

from cl_bench.datasets import _cache, _raw, _tfds
from cl_bench.datasets._source import MissingDatasetError
from cl_bench.registry import nearest
from cl_bench.types import Dataset

ATTEMPTS = 3
PAUSE = 0.5  # seconds before the second attempt, doubled before the third
TIMEOUT = 20.0  # seconds without a byte
BLOCK = 1 << 20

EMNIST = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
READERS: dict[str, Callable[[Mapping[str, Path]], Dataset]] = {
    **dict.fromkeys(("mnist", "fashion_mnist", "kmnist"), _raw.read_idx),
    "cifar10": partial(_raw.read_cifar, label_bytes=1),
    "cifar100": partial(_raw.read_cifar, label_bytes=2),
    **{f"emnist/{c}": partial(_raw.read_emnist, config=c) for c in EMNIST},
}


class DownloadError(MissingDatasetError):
    """A data set that could not be fetched; the message says which file and why."""


class File(NamedTuple):
    """What TFDS knows of a file to download."""

    url: str
    size: int  # bytes
    sha256: str


def fetch(
    name: str, *, files: list[File] | None = None, data_dir: str | None = None
) -> None:
    """Downloads a data set, verifies it, and writes the decoded cache.

    `files` replaces TFDS's own table of URLs (a mirror). A set without a reader here
    is prepared in `data_dir` by TFDS itself where TensorFlow is installed. Raises
    DownloadError (no network, cut connection, wrong checksum, unknown set),
    DatasetFormatError (a file that is not what its name says) or StoreError (disk).
    """
    if name not in READERS:
        _prepare_with_tensorflow(name, data_dir)
        return
    root = _cache.make_folder(
        _cache.cache_dir()
    )  # room for 560 MB, which /tmp may lack
    with TemporaryDirectory(prefix=".download-", dir=root) as folder:
        table = files_of(name) if files is None else files
        paths = {_file_name(f): _fetch_file(f, Path(folder)) for f in table}
        data = READERS[name](paths)
    _cache.write(_cache.entry(name, "download"), data)


def files_of(name: str) -> list[File]:
    """URLs, sizes and SHA-256 of a set's files, from the installed TFDS."""
    import tensorflow_datasets as tfds  # slow, so only when something is fetched

    infos = tfds.builder_cls(name.partition("/")[0]).url_infos or {}
    return [File(url, int(i.size), i.checksum) for url, i in infos.items()]


def _file_name(file: File) -> str:
    return Path(urllib.parse.urlsplit(file.url).path).name


def _fetch_file(file: File, folder: Path) -> Path:
    """One verified file; a broken connection is tried again, a wrong file is not."""
    path, reason = folder / _file_name(file), ""
    logging.info("Fetching %s (%.1f MB)", file.url, file.size / 1e6)
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            received, digest = _stream(file, path)
        except urllib.error.HTTPError as error:
            raise DownloadError(
                f"{file.url}: the server answered {error.code} {error.reason}."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = f"no connection ({getattr(error, 'reason', error)})"
            continue
        if received >= file.size:
            _verify(file, received, digest)
            return path
        reason = f"the connection was cut after {received} of {file.size} bytes"
    raise DownloadError(
        f"{file.url}: {reason}, {ATTEMPTS} attempts. Check the network and run the "
        "same command again, or point TFDS_DATA_DIR at a folder with the set prepared."
    )


def _stream(file: File, path: Path) -> tuple[int, str]:
    """Bytes received and their SHA-256; reads at most one block more than expected."""
    if urllib.parse.urlsplit(file.url).scheme not in ("http", "https"):
        raise DownloadError(f"{file.url}: only http and https are fetched.")
    digest, received = hashlib.sha256(), 0
    request = urllib.request.urlopen(file.url, timeout=TIMEOUT)
    with request as response, open(path, "wb") as target:
        while received <= file.size and (block := response.read(BLOCK)):
            target.write(block)
            digest.update(block)
            received += len(block)
    return received, digest.hexdigest()


def _verify(file: File, received: int, digest: str) -> None:
    if received > file.size or digest != file.sha256:
        raise DownloadError(
            f"{file.url}: wrong checksum. Expected {file.size} bytes with SHA-256 "
            f"{file.sha256}, got {received} or more with {digest}. The file has "
            "changed at its source or on the way; nothing was kept."
        )


def _prepare_with_tensorflow(name: str, data_dir: str | None) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise DownloadError(
            f"Data set {name!r} cannot be fetched without TensorFlow."
            f"{nearest(name, list(READERS))} Install tensorflow for the other "
            "sets, or point TFDS_DATA_DIR at a folder that has it prepared."
        )
    import tensorflow_datasets as tfds

    folder = str(_tfds.data_dir_or_default(data_dir))
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
