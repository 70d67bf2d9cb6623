"""Files of downloaded sets: read whole, or refused where they are not what they say."""

import gzip
import io
import tarfile
import zipfile

import chex
import numpy as np
import pytest

from cl_bench.datasets import _cache, _download, _raw, _source
from cl_bench.datasets._tfds import DatasetFormatError
from tests import download_setting
from tests.download_setting import idx, mnist_like, nothing_cached, serve

server = download_setting.server  # a fixture


def _tar(members):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


def _cifar_rows(count, label_bytes, seed):
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    labels = (np.arange(count) % 2).astype(np.uint8)
    coarse = np.full((count, label_bytes - 1), 9, np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(count, -1)
    return images, labels, np.hstack([coarse, labels[:, None], planes]).tobytes()


def test_mnist_arrives_whole(server):
    (train_x, train_y, test_x, test_y), files = mnist_like()
    _download.fetch("mnist", files=serve(server, files))
    data = _source.load("mnist")
    chex.assert_trees_all_equal(np.asarray(data.train_x), train_x[..., None])
    chex.assert_trees_all_equal(np.asarray(data.test_x), test_x[..., None])
    assert data.train_y.tolist() == train_y.tolist()
    assert data.test_y.tolist() == test_y.tolist()
    assert not list(_cache.cache_dir().glob(".download-*"))


@pytest.mark.parametrize(("name", "label_bytes"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_arrives_whole(server, name, label_bytes):
    images, labels, first = _cifar_rows(4, label_bytes, 0)
    more_images, more_labels, second = _cifar_rows(3, label_bytes, 1)
    test_images, test_labels, third = _cifar_rows(2, label_bytes, 2)
    members = {
        "data/data_batch_2.bin": second,  # read in the order of their numbers
        "data/data_batch_1.bin": first,
        "data/readme.html": b"words",
        "data/test_batch.bin": third,
    }
    _download.fetch(name, files=serve(server, {"data.tar.gz": _tar(members)}))
    data = _source.load(name)
    chex.assert_trees_all_equal(
        np.asarray(data.train_x), np.concatenate([images, more_images])
    )
    assert data.train_y.tolist() == [*labels, *more_labels]
    chex.assert_trees_all_equal(np.asarray(data.test_x), test_images)
    assert data.test_y.tolist() == test_labels.tolist()


def test_emnist_configuration_is_picked_from_the_archive(server):
    arrays, files = mnist_like()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for part, content in files.items():
            name = part.replace("t10k", "test")
            archive.writestr(f"gzip/emnist-letters-{name}", content)
    table = serve(server, {"gzip.zip": target.getvalue()})
    _download.fetch("emnist/letters", files=table)
    chex.assert_trees_all_equal(
        np.asarray(_source.load("emnist/letters").test_x), arrays[2][..., None]
    )
    with pytest.raises(DatasetFormatError, match="emnist-balanced"):
        _download.fetch("emnist/balanced", files=table)


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        (0, b"plain", "damaged"),
        (0, gzip.compress(b"\0\0\x0d\x03" + bytes(20), mtime=0), "not an IDX file"),
        (0, gzip.compress(b"\0\0", mtime=0), "not an IDX file"),
        (0, idx(np.zeros((6, 5, 4), np.uint8))[:-4], "damaged"),
        (
            1,
            gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1]), mtime=0),
            "holds 1 bytes",
        ),
        (1, idx(np.zeros(5, np.uint8)), "do not match"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(server, part, content, message):
    files = mnist_like()[1]
    files[_raw.MNIST_PARTS[part]] = content
    with pytest.raises(DatasetFormatError, match=message):
        _download.fetch("mnist", files=serve(server, files))
    nothing_cached()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"plain", "damaged"),
        (_tar({"data/notes.txt": b"1"}), "no CIFAR batches"),
        (_tar({"data_batch_1.bin": b"123", "test_batch.bin": b"1"}), "no rows of 3073"),
    ],
)
def test_a_broken_cifar_archive(server, content, message):
    with pytest.raises(DatasetFormatError, match=message):
        _download.fetch("cifar10", files=serve(server, {"data.tar.gz": content}))


@pytest.mark.parametrize(
    ("name", "urls"),
    [
        ("mnist", _raw.MNIST_PARTS),
        ("fashion_mnist", _raw.MNIST_PARTS),
        ("kmnist", _raw.MNIST_PARTS),
        ("cifar10", ["cifar-10-binary.tar.gz"]),
        ("cifar100", ["cifar-100-binary.tar.gz"]),
        ("emnist/letters", ["gzip.zip"]),
    ],
)
def test_tfds_lists_the_files_that_the_readers_need(name, urls):
    table = _download.files_of(name)
    assert sorted(_download._file_name(f) for f in table) == sorted(urls)
    assert all(len(f.sha256) == 64 and f.size > 1000 for f in table)
