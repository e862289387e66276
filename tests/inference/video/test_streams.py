"""Videos from URLs."""

import functools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from posedy.inference.video_io import FrameSource
from posedy.inference.video_pipeline import run_video
from posedy.poses import Poses
from posedy.skeleton import numbered_skeleton
from tests.inference.video.clips import RATE, SIZE, av, corners_image, write_clip

SDP = (
    b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    b"m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:0\r\n"
)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of a server of the files in `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(QuietHandler, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def silent_address() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_video_is_read_from_its_url(tmp_path: Path, server: str) -> None:
    write_clip(tmp_path / "clip.mp4")
    source = FrameSource(f"{server}/clip.mp4")
    assert (source.path, source.count, source.is_live) == (None, 8, False)
    assert [frame.time for frame in source] == pytest.approx([number / RATE for number in range(8)])
    source.close()


@pytest.mark.parametrize("audio", ["aac", None])
def test_sound_of_a_url_is_left_out_with_a_note(tmp_path: Path, server: str, audio: str | None) -> None:
    write_clip(tmp_path / "clip.mp4", audio=audio)
    keypoints = np.zeros((0, 1, 2), np.float32)
    nobody = Poses(keypoints, keypoints[..., 0], np.zeros((0, 4)), np.zeros(0), numbered_skeleton(1))
    result = run_video(FrameSource(f"{server}/clip.mp4"), lambda frame: nobody, tmp_path / "drawn.mp4")
    assert [("sound" in note, "URL" in note) for note in result.notes] == ([(True, True)] if audio else [])


@pytest.fixture
def plain_server() -> Iterator[Callable[[bytes, bytes], str]]:
    """`plain_server(content, headers)` returns the address of a server that sends it once more for each request."""
    listeners = []

    def serve(content: bytes, headers: bytes = b"", stall: float = 0) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def send() -> None:
            with suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    client.recv(4096)
                    client.sendall(b"HTTP/1.0 200 OK\r\n" + headers + b"\r\n" + content)
                    time.sleep(stall)
                    client.close()

        threading.Thread(target=send, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for listener in listeners:
        listener.close()


def test_videos_of_unknown_duration_over_http_keep_all_frames(plain_server, tmp_path: Path) -> None:
    """An MPEG transport stream whose length the server does not know: the server waits, so no frame has to be late."""
    content = write_clip(tmp_path / "clip.ts").read_bytes()
    source = FrameSource(f"{plain_server(content)}/clip.ts")
    assert not source.is_live
    assert source.count is None
    assert len(list(source)) == 8
    source.close()


def test_playlists_are_live_if_they_have_no_end(server: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.ts", num_frames=60)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.7,\nclip.ts\n"
    (tmp_path / "live.m3u8").write_text(playlist)
    (tmp_path / "whole.m3u8").write_text(playlist + "#EXT-X-ENDLIST\n")
    for name, is_live in (("live.m3u8", True), ("whole.m3u8", False)):
        source = FrameSource(f"{server}/{name}", timeout=1)
        assert source.is_live is is_live
        source.close()


def test_a_server_that_stalls_is_named(plain_server, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = write_clip(tmp_path / "clip.ts", num_frames=60).read_bytes()
    url = plain_server(content[: len(content) // 2], b"Content-Length: %d\r\n" % len(content), stall=3)
    source = FrameSource(f"{url}/clip.ts", timeout=0.3)
    assert len(list(source)) > 8
    source.close()
    assert "no data for 0.3 seconds" in caplog.text


def test_an_mp4_whose_server_has_no_byte_ranges_should_be_downloaded(plain_server, tmp_path: Path) -> None:
    content = write_clip(tmp_path / "clip.mp4").read_bytes()
    index = content.index(b"moov") - 4
    free = 2**20  # bytes between frames and index, more than FFmpeg keeps
    content = content[:index] + free.to_bytes(4, "big") + b"free" + bytes(free - 8) + content[index:]
    url = plain_server(content, b"Content-Length: %d\r\n" % len(content))
    with pytest.raises(ValueError, match=r"clip\.mp4 .*byte ranges.*download"):
        FrameSource(f"{url}/clip.mp4")


def make_rtp_packets(num_frames: int) -> list[bytes]:
    """RTP packets of an H.264 stream, received from FFmpeg."""
    packets = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        url = f"rtp://127.0.0.1:{receiver.getsockname()[1]}"
        with av.open(url, "w", format="rtp") as output:
            stream = output.add_stream("libx264", rate=RATE, options={"tune": "zerolatency", "g": "4"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            stream.codec_context.flags &= ~av.codec.context.Flags.global_header  # parameters are in the stream
            for number in range(num_frames):
                frame = av.VideoFrame.from_ndarray(corners_image(), format="bgr24")
                frame.pts = number
                output.mux(stream.encode(frame))
                time.sleep(0.005)
                with suppress(BlockingIOError):
                    while True:
                        packets.append(receiver.recv(2000))
    return [packet for packet in packets if packet[1] & 127 == 96]


def serve_camera(listener: socket.socket, packets: list[bytes]) -> None:
    """Answers an RTSP client, sends it the packets over the same connection, and disconnects."""
    answers = {
        "OPTIONS": b"Public: DESCRIBE, SETUP, PLAY\r\n\r\n",
        "DESCRIBE": b"Content-Type: application/sdp\r\nContent-Length: %d\r\n\r\n" % len(SDP) + SDP,
        "SETUP": b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
        "PLAY": b"Session: 1\r\n\r\n",
    }
    client = listener.accept()[0]
    with client, client.makefile("rwb") as file:
        method = ""
        while method != "PLAY":
            lines = list(iter(lambda: file.readline().strip(), b""))
            method = lines[0].split()[0].decode()
            number = next(line for line in lines if line.startswith(b"CSeq"))
            file.write(b"RTSP/1.0 200 OK\r\n" + number + b"\r\n" + answers[method])
            file.flush()
        for packet in packets:
            file.write(b"$\0" + len(packet).to_bytes(2, "big") + packet)
            file.flush()


def test_a_network_camera_is_read_until_it_disconnects() -> None:
    packets = make_rtp_packets(20)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve_camera, args=(listener, packets), daemon=True).start()
        source = FrameSource(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live", timeout=5)
        frames = list(source)
        source.close()
    assert source.is_live
    assert len(frames) >= 15
    assert [frame.time for frame in frames] == pytest.approx([number / RATE for number in range(len(frames))], abs=1e-3)
    np.testing.assert_allclose(frames[-1].image[16, 24].astype(int), corners_image()[16, 24], atol=25)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_silent_server_is_an_error_after_the_timeout(silent_address: str, scheme: str) -> None:
    began = time.monotonic()
    with pytest.raises(OSError, match=silent_address):
        FrameSource(f"{scheme}://{silent_address}/clip.mp4", timeout=0.3)
    assert time.monotonic() - began < 5


def test_absent_videos_and_other_schemes_are_rejected(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"absent\.mp4"):
        FrameSource(f"{server}/absent.mp4")
    for url in ("file:///clip.mp4", "concat://a|b", "udp://camera:1"):
        with pytest.raises(ValueError, match=url.split("|")[0]):
            FrameSource(url)
    monkeypatch.setattr("posedy.inference.video_io.has_pyav", lambda: False)
    with pytest.raises(ValueError, match=r"posedy\[video\]"):
        FrameSource(f"{server}/clip.mp4")
