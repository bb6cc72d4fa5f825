"""Fetching VGG weights from a server of this test's, and taking them from a file: checked, whole or not at all."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from CTStyleGenCore import weights
from CTStyleGenCore.errors import InputError
from safetensors.torch import save_file

BYTES = bytes(range(256)) * 20_000  # 5 MB
NAME = f"vgg19-{hashlib.sha256(BYTES).hexdigest()[:8]}.pth"


class Publisher(http.server.BaseHTTPRequestHandler):
    """Answers for the published file, whole or as the test wants."""

    sent = BYTES
    told = len(BYTES)

    def do_GET(self) -> None:
        if self.path != f"/models/{NAME}":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.told))
        self.end_headers()
        self.wfile.write(self.sent)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Publisher]]:
    kind = type("Publisher", (Publisher,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(weights, "_PUBLISHER", f"http://127.0.0.1:{server.server_port}/models")
    monkeypatch.setitem(weights.PUBLISHED, "vgg19", NAME)
    yield kind
    server.shutdown()
    server.server_close()


def silent(event: dict) -> None:
    pass


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_download(publisher: type[Publisher], tmp_path: Path) -> None:
    events: list[dict] = []
    path = weights.download_weights("vgg19", tmp_path / "weights", events.append)
    assert path == tmp_path / "weights" / NAME and path.read_bytes() == BYTES
    assert events[-1] == {"event": "progress", "done": len(BYTES), "total": len(BYTES), "unit": "B"}
    assert [event["done"] for event in events] == sorted(event["done"] for event in events) and len(events) > 3


def test_download_that_ends_early(publisher: type[Publisher], tmp_path: Path) -> None:
    publisher.sent = BYTES[:100_000]
    with pytest.raises(InputError, match=r"can't be downloaded \(.*100000.*\): fetch it elsewhere and give the file"):
        weights.download_weights("vgg19", tmp_path, silent)
    assert left_in(tmp_path) == []


def test_download_of_something_else(publisher: type[Publisher], tmp_path: Path) -> None:
    publisher.sent = BYTES[:-1] + b"x"  # what a proxy's page, or an attack, would be
    with pytest.raises(InputError, match="is not the published file"):
        weights.download_weights("vgg19", tmp_path, silent)
    assert left_in(tmp_path) == []


def test_download_that_is_not_there(publisher: type[Publisher], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"vgg16-397923af.pth can't be downloaded \(HTTP Error 404: Not Found\)"):
        weights.download_weights("vgg16", tmp_path, silent)
    assert left_in(tmp_path) == []


def test_download_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(weights, "_PUBLISHER", "http://127.0.0.1:9/models")  # a port that nobody answers at
    with pytest.raises(InputError, match="can't be downloaded"):
        weights.download_weights("vgg19", tmp_path, silent)
    assert left_in(tmp_path) == []


def test_copy_of_a_file(tmp_path: Path) -> None:
    source = tmp_path / "mine.safetensors"
    save_file({"features.0.weight": torch.ones(64, 3, 3, 3), "features.0.bias": torch.ones(64)}, source)
    path = weights.copy_weights("vgg19", source, tmp_path / "weights")
    assert path == tmp_path / "weights" / "mine.safetensors" and path.read_bytes() == source.read_bytes()
    assert weights.copy_weights("vgg19", path, tmp_path / "weights") == path  # it is there already


def test_copy_of_another_network_or_of_nonsense(tmp_path: Path) -> None:
    source = tmp_path / "mine.safetensors"
    save_file({"features.0.weight": torch.ones(8, 3, 3, 3)}, source)
    with pytest.raises(InputError, match="does not hold the convolutions of vgg19"):
        weights.copy_weights("vgg19", source, tmp_path / "weights")
    (tmp_path / "mine.pth").write_text("no weights")
    with pytest.raises(InputError, match="can't be read as PyTorch weights"):
        weights.copy_weights("vgg19", tmp_path / "mine.pth", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
