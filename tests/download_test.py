"""First downloads, from a server on this machine."""

import importlib.util

import chex
import numpy as np
import pytest

from cl_bench import download
from cl_bench.datasets import _download, _source
from tests import download_setting
from tests.download_setting import CUT, mnist_like, nothing_cached, serve

server = download_setting.server  # a fixture


def test_a_wrong_checksum_is_refused_at_once(server):
    table = serve(server, mnist_like()[1])
    table[1] = table[1]._replace(sha256="0" * 64)
    with pytest.raises(_download.DownloadError, match="labels-idx1.*wrong checksum"):
        _download.fetch("mnist", files=table)
    assert len(server.asked) == 2  # no retry
    nothing_cached()


def test_a_longer_file_is_refused(server):
    table = serve(server, mnist_like()[1])
    table[0] = table[0]._replace(size=table[0].size - 1)
    with pytest.raises(_download.DownloadError, match="wrong checksum"):
        _download.fetch("mnist", files=table)


def test_a_cut_connection_is_tried_again_then_reported(server):
    table = serve(server, mnist_like()[1], f"{CUT}/")
    with pytest.raises(_download.DownloadError, match=r"cut after \d+ of \d+ bytes"):
        _download.fetch("mnist", files=table)
    assert len(server.asked) == _download.ATTEMPTS
    nothing_cached()


def test_a_cut_connection_that_recovers_is_fine(server):
    server.cuts = 2
    arrays, files = mnist_like()
    _download.fetch("mnist", files=serve(server, files, f"{CUT}/"))
    chex.assert_trees_all_equal(
        np.asarray(_source.load("mnist").train_x), arrays[0][..., None]
    )


def test_an_absent_file_is_reported_without_retry(server):
    table = serve(server, mnist_like()[1])
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


def test_load_with_download_fetches_once(server, monkeypatch):
    table = serve(server, mnist_like()[1])
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
    table = serve(server, mnist_like()[1])
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
