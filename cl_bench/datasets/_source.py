"""Any image-classification set by name: embedded, prepared by TFDS, or downloaded."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from cl_bench import fields, registry
from cl_bench.datasets import _cache, _tfds
from cl_bench.datasets._cache import Description
from cl_bench.types import Dataset

DOWNLOADED = "download"  # the source of the cache entries of `cl_bench.download`


class MissingDatasetError(FileNotFoundError):
    """A data set that is neither embedded, prepared nor downloaded."""


def load(
    name: str, *, data_dir: str | None = None, download: bool = False, **options: Any
) -> Dataset:
    """A data set by name: uint8 images [N, H, W, C] and int32 labels [N], on the host.

    `name` is a built-in set ('digits', 'synthetic'; `options` are theirs), a dotted
    path to a module of your own with `load(**options) -> Dataset`, or any
    image-classification set of TFDS ('mnist', 'imagenet_resized/32x32'), looked for
    in `data_dir`, else TFDS_DATA_DIR, else ~/tensorflow_datasets. Its images are
    decoded once and memory-mapped from the cache (CL_BENCH_CACHE) afterwards; its
    labels are renumbered 0..C-1 in their original order, so that a subset has no
    gaps. Its test set is 'test', or 'validation' where there is none.

    Raises MissingDatasetError, at once, for a set that is nowhere; `download=True`
    fetches it first (see `cl_bench.download` for which sets can be).
    """
    if _is_module(name):
        return _load_module(name, options)
    data = _cache.read(_ready(name, data_dir, download, options))
    if data is None:  # whole by its sizes, yet altered
        data = _cache.read(_build(name, data_dir, download))
    assert data is not None
    return data


def describe(
    name: str, data_dir: str | None = None, *, download: bool = False, **options: Any
) -> Description:
    """Image shape, classes that occur, and examples: `load`'s facts without its arrays.

    Which labels occur is not in TFDS's metadata, so the first call decodes the set.
    """
    if _is_module(name):
        data = _load_module(name, options)
        labels = np.concatenate([data.train_y, data.test_y])
        sizes = len(data.train_x), len(data.test_x)
        return Description(data.train_x.shape[1:], int(labels.max()) + 1, *sizes)
    facts = _cache.describe(_ready(name, data_dir, download, options))
    assert facts is not None
    return facts


def _is_module(name: str) -> bool:
    return name in registry.names("datasets") or "." in name


def _load_module(name: str, options: dict[str, Any]) -> Dataset:
    function = registry.load("datasets", name).load
    settings = fields.of_options(function)
    where = "config.stream.dataset_options"
    return function(**fields.resolve(where, f"data set {name!r}", settings, options))


def _ready(
    name: str, data_dir: str | None, download: bool, options: dict[str, Any]
) -> Path:
    """The cache entry of a TFDS set, written first where it is absent or cut short."""
    folder = _entry(name, data_dir)
    if _cache.describe(folder) is None:
        folder = _build(name, data_dir, download)
    if options:  # after a missing set, which is the likelier mistake
        raise ValueError(
            f"Data set {name!r} takes no options: leave dataset_options={options} out."
        )
    return folder


def _entry(name: str, data_dir: str | None) -> Path:
    prepared = _tfds.prepared_folder(name, _tfds.data_dir_or_default(data_dir))
    return _cache.entry(name, _tfds.fingerprint(prepared) if prepared else DOWNLOADED)


def _build(name: str, data_dir: str | None, download: bool) -> Path:
    root = _tfds.data_dir_or_default(data_dir)
    if not _tfds.prepared_folder(name, root):
        if not download:
            raise MissingDatasetError(_missing(name, root))
        from cl_bench.datasets import _download

        _download.fetch(
            name, data_dir=data_dir
        )  # writes the cache, or has TFDS prepare
    folder, prepared = _entry(name, data_dir), _tfds.prepared_folder(name, root)
    if prepared:
        _cache.write(folder, _tfds.read(prepared))
    return folder


def _missing(name: str, root: Path) -> str:
    prepared = _tfds.prepared_names(root)
    known = sorted({*registry.names("datasets"), *prepared, *_tfds_names()})
    hint: list[str] = []
    if name not in known:
        hint = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    here = {*registry.names("datasets"), *prepared}
    found = hint[0] if hint and hint[0] not in here else name
    near = [f"{h!r}, which is here" if h in here else repr(h) for h in hint]
    return (
        f"No whole copy of data set {name!r} is here: looked for {root / name} "
        f"(prepared by TFDS) and {_cache.entry(name, DOWNLOADED)} (downloaded)."
        + (f" Did you mean {' or '.join(near)}?" if hint else "")
        + f" Prepared there: {', '.join(prepared) or 'none'}. Get it with "
        f"`python -m cl_bench.download {found}` (or --config.stream.download=True), or "
        "point TFDS_DATA_DIR at a folder that has it prepared. Nothing to download: "
        f"{', '.join(registry.names('datasets'))}."
    )


def _tfds_names() -> list[str]:
    """Names of TFDS's sets, from its folders: importing it takes over a second."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    if spec is None or spec.origin is None:
        return []
    package = Path(spec.origin).parent
    old = (path.stem for path in package.glob("url_checksums/*.txt"))
    new = (path.parent.name for path in package.glob("datasets/*/TAGS.txt"))
    return sorted({*old, *new})
