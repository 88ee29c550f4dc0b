"""Errors of data sets that need more than one damaged file to come up."""

from __future__ import annotations

import hashlib
import socketserver
import threading
from pathlib import Path

import numpy as np
import pytest
from test_data import Python2Pickle, cifar_set
from torchvision import datasets

from lthbench.data import cifar, loading, prepare
from lthbench.data.commands import download_data
from lthbench.data.error import DataError
from lthbench.data.image_folder import read_class_list
from lthbench.data.spec import DataSpec


@pytest.mark.parametrize("fault", [OSError("no route to host"), RuntimeError("File not found or corrupted.")])
def test_a_download_that_fails_is_reported_with_its_reason(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(root: str, **options: bool) -> None:
        raise fault

    monkeypatch.setattr(datasets, "MNIST", fetch)
    with pytest.raises(DataError, match=rf"mnist: torchvision could not download it to {tmp_path} \({fault}\)"):
        download_data("mnist", tmp_path)


ANSWERS = {
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "cut off": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
    "cut off between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nab",
    "for ever elsewhere": b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
    "another file": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "no HTTP": b"\xff\xfe\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_download_that_the_server_breaks_off_is_reported_in_one_line_and_leaves_nothing(
    answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(answer)

    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "of another.gz").write_text("stays")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_address[1]}/"])
        with pytest.raises(DataError, match="mnist: torchvision could not download it") as raised:
            download_data("mnist", tmp_path)
        server.shutdown()
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["of another.gz"]


def test_a_cifar_batch_of_another_shape_is_named_even_with_the_right_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cifar_set(tmp_path, monkeypatch) / "train"
    raw = Python2Pickle.batch(np.zeros((99, 3072), np.uint8), list(range(100)), "fine_labels")
    file.write_bytes(raw)
    monkeypatch.setitem(cifar._MD5["cifar100"], "train", hashlib.md5(raw).hexdigest())
    loading._load.cache_clear()
    with pytest.raises(DataError, match=r"train holds an array \(99, 3072\), expected \(100, 3072\)"):
        loading.load(DataSpec(name="cifar100"), tmp_path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00n0"])
def test_a_class_list_that_cannot_be_read_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{path}: the list (cannot be read|is not text in UTF-8)"):
        read_class_list(path, 100)


def test_only_imagenet100_has_a_choice_of_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tinyimagenet: has no choice of classes; leave out the class list"):
        prepare.prepare("tinyimagenet", tmp_path, class_list=tmp_path / "mine.txt")
