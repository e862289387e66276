"""URLs of images, on a local server."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posedy import urls
from posedy.cli.main import main
from posedy.inference.estimator import PoseEstimator
from posedy.models.factory import create_model
from posedy.urls import is_url, read_url

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "png")
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves an image, redirects, and invalid answers."""

    redirects: dict[str, str]

    def do_GET(self) -> None:
        """Answers a request."""
        if self.path == "/image.png":
            self._send(png())
        elif self.path == "/text":
            self._send(b"not an image")
        elif self.path == "/truncated.png":
            self._send(png()[:200])
        elif self.path == "/ends-early.png":
            self.send_response(200)
            self.send_header("Content-Length", str(len(png()) + 10))
            self.end_headers()
            self.wfile.write(png())
        elif self.path == "/garbage":
            self.wfile.write(b"this is not HTTP\r\n\r\n")
        elif self.path in self.redirects:
            self.send_response(302)
            self.send_header("Location", self.redirects[self.path])
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Logs nothing."""

    def _send(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a local server."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    Image.fromarray(PIXELS).save(tmp_path / "local.png")
    Handler.redirects = {
        "/to-image": "/image.png",
        "/to-file": (tmp_path / "local.png").as_uri(),
        "/to-ftp": "ftp://127.0.0.1/image.png",
        "/loop": "/loop",
    }
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["image.png", "to-image"])
def test_read_url_returns_the_content(server: str, path: str) -> None:
    assert read_url(f"{server}/{path}") == png()


@pytest.mark.parametrize("path", ["to-file", "to-ftp", "loop", "absent.png", "garbage"])
def test_invalid_answers_raise_oserror_with_the_url(server: str, path: str) -> None:
    with pytest.raises(OSError, match=f"{server}/{path}") as caught:
        read_url(f"{server}/{path}")
    expected = {"to-file": "file:", "to-ftp": "ftp:", "absent.png": "404"}.get(path, "")
    assert expected in str(caught.value)


def test_large_answers_are_rejected(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_MAX_BYTES", 1000)
    with pytest.raises(OSError, match=r"image\.png.*0\.001 MB"):
        read_url(f"{server}/image.png")


def test_slow_answers_are_rejected(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(urls, "_TIMEOUT", 0.1)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/image.png"
        with pytest.raises(OSError, match=url):
            read_url(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/image.png", "http://[bad", "http://host:port/a.png", "http://a b/c"]
)
def test_urls_that_cannot_be_opened_raise_oserror(url: str) -> None:
    with pytest.raises(OSError, match="cannot be read"):
        read_url(url)


def test_only_http_and_https_are_urls() -> None:
    for url in ("http://a/b.jpg", "https://a/b.jpg", "HTTPS://a/b.jpg", "http://[2001:db8::1]/image.jpg"):
        assert is_url(url)
    for value in (
        "image.jpg",
        "file:///a.jpg",
        "ftp://a/b.jpg",
        "C:\\a.jpg",
        "//[a",
        "",
        None,
        Path("http://a/b.jpg"),
        3,
    ):
        assert not is_url(value)


@pytest.fixture(scope="module")
def estimator() -> PoseEstimator:
    net = create_model("mobilenetv2_035-bneck", input_size=(32, 32))
    return PoseEstimator(net, device="cpu", detector="full-image", flip=False)


def test_the_estimator_reads_urls(server: str, estimator: PoseEstimator) -> None:
    expected = estimator(PIXELS, channels="rgb")
    for poses in (estimator(f"{server}/image.png"), *estimator([f"{server}/to-image", PIXELS[..., ::-1]])):
        np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)
        assert poses.boxes.tolist() == [[0, 0, 60, 40]]


def test_a_download_that_ends_early_is_an_error(server: str) -> None:
    with pytest.raises(OSError, match=r"ends-early\.png cannot be read: the connection ended 10 bytes early"):
        read_url(f"{server}/ends-early.png")


@pytest.mark.parametrize("path", ["text", "truncated.png", "absent.png", "to-file"])
def test_the_estimator_names_urls_that_are_no_image(server: str, estimator: PoseEstimator, path: str) -> None:
    with pytest.raises(OSError, match=f"{server}/{path}"):
        estimator(f"{server}/{path}")
    with pytest.raises(OSError, match=f"image 1 of 2.*{server}/{path}"):
        estimator([PIXELS, f"{server}/{path}"])


def test_the_command_line_downloads_urls(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: PoseEstimator
) -> None:
    monkeypatch.setattr("posedy.inference.predict.PoseEstimator", lambda *_, **__: estimator)
    arguments = ["predict", "--full-image", "--out", str(tmp_path)]
    assert main([*arguments, f"{server}/image.png", f"{server}/image.png"]) == 0
    records = json.loads((tmp_path / "keypoints.json").read_text())
    files = [tmp_path / "downloads/image.png", tmp_path / "downloads/image-2.png"]
    assert [record["file"] for record in records] == [str(file) for file in files]
    assert all(file.read_bytes() == png() for file in files)
    assert main([*arguments, f"{server}/absent.png"]) == 1
    assert main([*arguments, "ftp://host/image.png"]) == 1
