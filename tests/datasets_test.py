"""Data sets: embedded, generated, prepared by TFDS."""

import os
import subprocess
import sys
from pathlib import Path

import chex
import numpy as np
import pytest

from cl_bench.datasets import _cache, _source, _tfds, digits, synthetic
from cl_bench.fields import ConfigError
from cl_bench.registry import UnknownNameError
from tests import prepared_set
from tests.prepared_set import images, prepare, prepared

own_folders = prepared_set.own_folders  # for every test of this file


@pytest.mark.parametrize(
    ("name", "shape", "test_split"),
    [
        ("cifar100", (6, 6, 3), "test"),
        ("imagenet_resized/8x8", (6, 6, 1), "validation"),
    ],
)
def test_prepared_set_is_read_exactly_and_labels_become_contiguous(
    tmp_path, name, shape, test_split
):
    splits = {"train": images(9, shape), test_split: images(4, shape, seed=1)}
    prepare(tmp_path / "data", name, splits, shape)
    data = _source.load(name)
    chex.assert_trees_all_equal(
        np.asarray(data.train_x), np.stack([x for x, _ in splits["train"]])
    )
    chex.assert_trees_all_equal(
        np.asarray(data.test_x), np.stack([x for x, _ in splits[test_split]])
    )
    assert data.train_y.tolist() == [0, 1, 2] * 3
    assert data.train_y.dtype == np.int32 and data.train_x.dtype == np.uint8
    assert _source.describe(name) == (shape, 3, 9, 4)


def test_jpeg_colours_are_red_green_blue(tmp_path):
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    splits = {"train": [(red, 0), (red, 1)], "test": [(red, 0)]}
    prepare(tmp_path / "data", "cifar10", splits, red.shape, "jpg")
    mean = np.asarray(_source.load("cifar10").train_x).mean((0, 1, 2))
    np.testing.assert_allclose(mean, [250, 0, 0], atol=3)


def test_the_newest_version_is_taken(tmp_path):
    for version in ("1.9.0", "1.10.0", "incomplete.1"):
        folder = tmp_path / "set" / version
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    found = _tfds.prepared_folder("set", tmp_path)
    assert found is not None and found.name == "1.10.0"


def test_a_missing_set_is_an_error_at_once(tmp_path, monkeypatch):
    prepared(tmp_path)
    for slow in ("tensorflow", "tensorflow_datasets"):  # seconds each to import
        monkeypatch.setitem(sys.modules, slow, None)
    with pytest.raises(_source.MissingDatasetError) as error:
        _source.load("mnits")
    message = str(error.value)
    for part in (
        "'mnits'",
        str(tmp_path / "data" / "mnits"),
        "mnist",
        "kmnist",
        "python -m cl_bench.download mnits",  # kmnist is here
        "stream.download=True",
        "TFDS_DATA_DIR",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("splits", "file_format", "message"),
    [
        ({"train": images(4)}, "array_record", "'validation'"),
        ({"train": images(4), "test": images(2)}, "tfrecord", "--file_format=array"),
        (
            {"train": images(2) + images(2, (5, 5, 3)), "test": images(2)},
            "array_record",
            "image 2 is",
        ),
        ({"train": [], "test": images(2)}, "array_record", r"splits \['test'\]"),
    ],
)
def test_a_set_of_another_kind_says_what_is_wrong(
    tmp_path, splits, file_format, message
):
    prepare(tmp_path / "data", "cifar10", splits, (6, 6, 3), file_format=file_format)
    with pytest.raises(_tfds.DatasetFormatError, match=message):
        _source.load("cifar10")


def test_images_of_many_sizes_are_refused_before_decoding(tmp_path):
    splits = {"train": images(2), "test": images(2)}
    prepare(tmp_path / "data", "cifar10", splits, (-1, -1, 3))
    with pytest.raises(_tfds.DatasetFormatError, match=r"\(None, None, 3\)"):
        _source.load("cifar10")


def test_a_damaged_image_is_named():
    with pytest.raises(_tfds.DatasetFormatError, match="train, image 3 is damaged"):
        _tfds._decode(b"not an image", 3, "train, image 3")


def test_importing_the_package_does_not_import_tfds():
    code = (
        "import sys, cl_bench.datasets._source as s; s.load('digits');"
        "sys.exit(any(m in sys.modules for m in "
        "('tensorflow_datasets', 'cv2', 'sklearn', 'tensorflow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digits_are_the_real_ones():
    sklearn = pytest.importorskip("sklearn.datasets")
    original = sklearn.load_digits()
    data = digits.load(test_fraction=0)
    assert len(data.train_x) == 1797 and len(data.test_x) == 0
    pixels = np.asarray(data.train_x)[..., 0]
    np.testing.assert_allclose(pixels / 255, original.images / 16, atol=0.002)
    chex.assert_trees_all_equal(data.train_y, original.target.astype(np.int32))


@pytest.mark.parametrize("fraction", [1 / 6, 0.5, 0.1])
def test_digits_split_is_stratified_and_complete(fraction):
    whole, data = digits.load(0.0), digits.load(fraction)
    of_all = np.bincount(whole.train_y)
    in_test = np.bincount(data.test_y)
    assert np.all(np.abs(in_test - of_all * fraction) < 1)
    both = np.concatenate([data.train_x, data.test_x]).reshape(1797, -1)
    ours = sorted(map(bytes, both))
    assert ours == sorted(map(bytes, np.asarray(whole.train_x).reshape(1797, -1)))
    assert _source.describe("digits", test_fraction=0.0) == ((8, 8, 1), 10, 1797, 0)


def test_synthetic_classes_are_balanced_repeatable_and_learnable():
    data = synthetic.load(size=4, channels=3, classes=3, train=90, test=30, seed=5)
    chex.assert_trees_all_equal(
        data, synthetic.load(size=4, channels=3, classes=3, train=90, test=30, seed=5)
    )
    other = synthetic.load(size=4, channels=3, classes=3, train=90, test=30, seed=6)
    assert not np.array_equal(data.train_x, other.train_x)
    assert data.train_x.shape == (90, 4, 4, 3) and data.train_x.dtype == np.uint8
    assert np.bincount(data.train_y).tolist() == [30, 30, 30]
    means = np.stack([data.train_x[data.train_y == c].mean(0) for c in range(3)])
    distance = np.square(data.test_x[:, None] - means[None]).sum((2, 3, 4))
    assert np.mean(distance.argmin(1) == data.test_y) > 0.9


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: digits.load(1.5), ValueError, "test_fraction is 1.5"),
        (lambda: synthetic.load(classes=1), ValueError, "classes is 1"),
        (lambda: synthetic.load(size=0), ValueError, "size=0"),
        (lambda: _source.load("digits", size=3), UnknownNameError, "no setting 'size'"),
        (
            lambda: _source.load("synthetic", size="a"),
            ConfigError,
            "dataset_options.size = 'a': expected a whole number .default 8",
        ),
        (lambda: _source.load("synthetic", train=30.5), ConfigError, "train = 30.5"),
    ],
)
def test_bad_options(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_prepared_set_takes_no_options(tmp_path):
    prepared(tmp_path)
    with pytest.raises(ValueError, match=r"no options: leave .*'size'"):
        _source.load("kmnist", size=3)


REAL = os.environ.get("TFDS_DATA_DIR")


@pytest.mark.parametrize(
    ("name", "facts", "mean"),
    [
        ("mnist", ((28, 28, 1), 10, 60000, 10000), 0.1307),
        ("fashion_mnist", ((28, 28, 1), 10, 60000, 10000), 0.2860),
        ("cifar10", ((32, 32, 3), 10, 50000, 10000), 0.4734),
        ("imagenet_resized/32x32", ((32, 32, 3), 100, 50000, 5000), 0.4472),
    ],
)
def test_real_sets(name, facts, mean):
    if REAL is None or _tfds.prepared_folder(name, Path(REAL)) is None:
        pytest.skip(f"{name} is not prepared in TFDS_DATA_DIR ({REAL})")
    data = _source.load(name, data_dir=REAL)
    assert _source.describe(name, REAL) == facts
    assert abs(np.asarray(data.train_x).mean() / 255 - mean) < 1e-3
    assert len(np.unique(data.train_y)) == facts[1]
    assert _cache.describe(_source._entry(name, REAL)) == facts
