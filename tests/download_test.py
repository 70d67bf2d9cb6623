"""First downloads, from a server on this machine."""

import gzip
import hashlib
import http.server
import importlib.util
import io
import tarfile
import threading
import zipfile

import chex
import numpy as np
import pytest

from cl_bench import download
from cl_bench.datasets import _cache, _download, _raw, _source
from cl_bench.datasets._tfds import DatasetFormatError

CUT = "cut"  # a path that starts with this breaks off half-way


class Server(http.server.ThreadingHTTPServer):
    """Gives `files` by name, and breaks off the first `cuts` answers under `CUT`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cuts = 10**9


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server  # pyrefly: ignore

    def do_GET(self):
        self.server.asked.append(self.path)
        name = self.path.lstrip("/")
        content = self.server.files.get(name.removeprefix(f"{CUT}/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        cut = name.startswith(CUT) and len(self.server.asked) <= self.server.cuts
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("CL_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(_download, "PAUSE", 0.0)
    monkeypatch.setattr(_download, "TIMEOUT", 5.0)
    web = Server()
    thread = threading.Thread(target=web.serve_forever, args=(0.01,))
    thread.start()
    yield web
    web.shutdown()
    thread.join()
    web.server_close()


def _serve(web, files, under=""):
    """Puts files on the server and gives the table that TFDS would."""
    web.files.update(files)
    root = f"http://127.0.0.1:{web.server_address[1]}/{under}"
    return [
        _download.File(f"{root}{name}", len(c), hashlib.sha256(c).hexdigest())
        for name, c in files.items()
    ]


def _idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def _mnist_like(train=6, test=3):
    random = np.random.RandomState(0)
    arrays = []
    for count in (train, test):
        arrays.append(random.randint(0, 256, (count, 5, 4)).astype(np.uint8))
        arrays.append((np.arange(count) % 3).astype(np.uint8))
    return arrays, dict(zip(_raw.MNIST_PARTS, map(_idx, arrays), strict=True))


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
    (train_x, train_y, test_x, test_y), files = _mnist_like()
    _download.fetch("mnist", files=_serve(server, files))
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
    _download.fetch(name, files=_serve(server, {"data.tar.gz": _tar(members)}))
    data = _source.load(name)
    chex.assert_trees_all_equal(
        np.asarray(data.train_x), np.concatenate([images, more_images])
    )
    assert data.train_y.tolist() == [*labels, *more_labels]
    chex.assert_trees_all_equal(np.asarray(data.test_x), test_images)
    assert data.test_y.tolist() == test_labels.tolist()


def test_emnist_configuration_is_picked_from_the_archive(server):
    arrays, files = _mnist_like()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for part, content in files.items():
            name = part.replace("t10k", "test")
            archive.writestr(f"gzip/emnist-letters-{name}", content)
    table = _serve(server, {"gzip.zip": target.getvalue()})
    _download.fetch("emnist/letters", files=table)
    chex.assert_trees_all_equal(
        np.asarray(_source.load("emnist/letters").test_x), arrays[2][..., None]
    )
    with pytest.raises(DatasetFormatError, match="emnist-balanced"):
        _download.fetch("emnist/balanced", files=table)


def _nothing_cached():
    with pytest.raises(_source.MissingDatasetError):
        _source.load("mnist")


def test_a_wrong_checksum_is_refused_at_once(server):
    table = _serve(server, _mnist_like()[1])
    table[1] = table[1]._replace(sha256="0" * 64)
    with pytest.raises(_download.DownloadError, match="labels-idx1.*wrong checksum"):
        _download.fetch("mnist", files=table)
    assert len(server.asked) == 2  # no retry
    _nothing_cached()


def test_a_longer_file_is_refused(server):
    table = _serve(server, _mnist_like()[1])
    table[0] = table[0]._replace(size=table[0].size - 1)
    with pytest.raises(_download.DownloadError, match="wrong checksum"):
        _download.fetch("mnist", files=table)


def test_a_cut_connection_is_tried_again_then_reported(server):
    table = _serve(server, _mnist_like()[1], f"{CUT}/")
    with pytest.raises(_download.DownloadError, match=r"cut after \d+ of \d+ bytes"):
        _download.fetch("mnist", files=table)
    assert len(server.asked) == _download.ATTEMPTS
    _nothing_cached()


def test_a_cut_connection_that_recovers_is_fine(server):
    server.cuts = 2
    arrays, files = _mnist_like()
    _download.fetch("mnist", files=_serve(server, files, f"{CUT}/"))
    chex.assert_trees_all_equal(
        np.asarray(_source.load("mnist").train_x), arrays[0][..., None]
    )


def test_an_absent_file_is_reported_without_retry(server):
    table = _serve(server, _mnist_like()[1])
    server.files.clear()
    with pytest.raises(_download.DownloadError, match="answered 404"):
        _download.fetch("mnist", files=table)
    assert len(server.asked) == 1


def test_no_network_is_reported(server):
    closed = _download.File("http://127.0.0.1:1/x-idx3-ubyte.gz", 1, "0")
    with pytest.raises(_download.DownloadError, match="no connection .*3 attempts"):
        _download.fetch("mnist", files=[closed])


def test_only_the_web_is_fetched(server):
    local = _download.File("file:///etc/hostname", 1, "0")
    with pytest.raises(_download.DownloadError, match="only http"):
        _download.fetch("mnist", files=[local])


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        (0, b"plain", "damaged"),
        (0, gzip.compress(b"\0\0\x0d\x03" + bytes(20), mtime=0), "not an IDX file"),
        (0, gzip.compress(b"\0\0", mtime=0), "not an IDX file"),
        (0, _idx(np.zeros((6, 5, 4), np.uint8))[:-4], "damaged"),
        (
            1,
            gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, 1]), mtime=0),
            "holds 1 bytes",
        ),
        (1, _idx(np.zeros(5, np.uint8)), "do not match"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(server, part, content, message):
    files = _mnist_like()[1]
    files[_raw.MNIST_PARTS[part]] = content
    with pytest.raises(DatasetFormatError, match=message):
        _download.fetch("mnist", files=_serve(server, files))
    _nothing_cached()


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
        _download.fetch("cifar10", files=_serve(server, {"data.tar.gz": content}))


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


def test_load_with_download_fetches_once(server, monkeypatch):
    table = _serve(server, _mnist_like()[1])
    monkeypatch.setattr(_download, "files_of", lambda name: table)
    assert _source.load("mnist", download=True).train_x.shape == (6, 5, 4, 1)
    assert _source.load("mnist", download=True).train_x.shape == (6, 5, 4, 1)
    assert len(server.asked) == 4


def test_a_set_without_a_reader_needs_tensorflow(monkeypatch, server):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorflow" else real(name, *a),
    )
    with pytest.raises(_download.DownloadError, match="without TensorFlow.*'mnist'"):
        _source.load("mnits", download=True)


def test_the_command_reports_each_set(server, monkeypatch, capsys):
    table = _serve(server, _mnist_like()[1])
    monkeypatch.setattr(_download, "files_of", lambda name: table)
    assert download.fetch_and_report("mnist")
    assert capsys.readouterr().out == (
        "mnist: 6 train and 3 test images of 5x4x1, 3 classes.\n"
    )
    server.files.clear()
    assert not download.fetch_and_report("kmnist")
    assert "kmnist: http://127.0.0.1" in capsys.readouterr().err


def test_the_command_without_a_name_lists_them():
    with pytest.raises(SystemExit, match="cifar100"):
        download.main(["download"])
