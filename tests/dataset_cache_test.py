"""The cache of decoded data sets: mapped, rebuilt after damage, never out of date."""

import chex
import numpy as np
import pytest

from cl_bench.atomic import StoreError
from cl_bench.datasets import _source, _tfds
from tests import prepared_set
from tests.prepared_set import images, prepare, prepared

own_folders = prepared_set.own_folders  # for every test of this file


def _cache_folder(tmp_path):
    (folder,) = (tmp_path / "cache").iterdir()
    return folder


@pytest.mark.parametrize("damage", ["cut", "altered", "absent", "manifest", "killed"])
def test_a_damaged_cache_is_rebuilt(tmp_path, damage):
    prepared(tmp_path)
    whole = np.array(_source.load("kmnist").train_x)
    folder = _cache_folder(tmp_path)
    target, content = folder / "train_x.npy", (folder / "train_x.npy").read_bytes()
    match damage:
        case "cut":
            target.write_bytes(content[:-7])
        case "altered":
            target.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "absent":
            target.unlink()
        case "manifest":
            (folder / "manifest.json").write_text('{"format": 1')
        case "killed":
            (folder / "manifest.json").unlink()
    chex.assert_trees_all_equal(np.asarray(_source.load("kmnist").train_x), whole)
    assert target.read_bytes() == content


def test_a_second_load_only_maps_the_cache(tmp_path, monkeypatch):
    prepared(tmp_path)
    _source.load("kmnist")
    monkeypatch.setattr(_tfds, "read", lambda folder: pytest.fail("decoded again"))
    data = _source.load("kmnist")
    assert isinstance(data.train_x, np.memmap)
    assert not list(_cache_folder(tmp_path).glob(".*"))  # no temporary file is left


def test_a_changed_source_is_not_read_from_the_old_cache(tmp_path):
    folder = prepared(tmp_path)
    _source.load("kmnist")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    splits = {"train": images(8), "test": images(3, seed=1)}
    prepare(tmp_path / "data", "kmnist", splits, (6, 6, 3))
    assert len(_source.load("kmnist").train_x) == 8


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    prepared(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CL_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StoreError, match="CL_BENCH_CACHE"):
        _source.load("kmnist")
