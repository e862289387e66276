from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_io import FrameSource
from posedy.inference.video_writer import JsonLinesWriter, VideoWriter
from tests.inference.video.clips import av, streams_of, write_clip, write_tone


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posedy.inference.video_writer.has_pyav", lambda: False)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files cannot grow beyond 2000 bytes, which the system reports as it does a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def gray_image(value: int) -> np.ndarray:
    return np.full((64, 64, 3), value, dtype=np.uint8)


def write_frames(writer: VideoWriter, images: list[np.ndarray]) -> None:
    """Writes a video of 10 frames per second."""
    for number, image in enumerate(images):
        writer.write(image, number / 10)
    writer.close()


def brightness_of(path: Path) -> list[int]:
    """Mean brightness of each frame of a video, rounded to a multiple of 40."""
    capture = cv2.VideoCapture(str(path))
    values = []
    while (read := capture.read())[0]:
        values.append(40 * round(float(read[1].mean()) / 40))
    capture.release()
    return values


@pytest.mark.parametrize(("name", "size"), [("a.mp4", (1, 1)), ("a.mp4", (65, 63)), ("a.webm", (65, 63))])
def test_odd_sides_get_a_copy_without_pyav(
    tmp_path: Path, without_pyav: None, name: str, size: tuple[int, int]
) -> None:
    writer = VideoWriter(tmp_path / name, 10)
    write_frames(writer, [np.full((size[1], size[0], 3), 160, np.uint8)] * 3)
    image = cv2.VideoCapture(str(tmp_path / name)).read()[1]
    assert image.shape == (size[1] + 1, size[0] + 1, 3)
    np.testing.assert_allclose(image.astype(int), 160, atol=8)


@pytest.mark.parametrize("name", ["drawn.mp4", "drawn.webm"])
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.1, 0.2, 0.3], [40, 80, 120, 160]),  # constant rate
        ([7.0, 7.3, 7.4], [40, 40, 40, 80, 120]),  # slow camera or damaged frame
        ([0, 12, 12.1], [*120 * [40], 80, 120]),  # a long gap
        ([0, 0.3, 0.31, 0.32, 0.5], [40, 40, 40, 160, 160, 200]),  # faster than the rate in between
        ([0, 0.1, 5000, 5000.1, 5000.05], [40, 80, 120, 160, 200]),  # invalid times
    ],
)
def test_opencv_writer_keeps_playback_speed(
    tmp_path: Path, without_pyav: None, name: str, times: list[float], expected: list[int]
) -> None:
    writer = VideoWriter(tmp_path / name, 10.0)
    for index, time in enumerate(times):
        writer.write(gray_image(40 * (index + 1)), time)
    assert not (tmp_path / name).exists()
    writer.close()
    values = brightness_of(tmp_path / name)
    assert len(values) == len(expected)
    np.testing.assert_allclose(values, expected, atol=40 * 0.5)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_video_writer_keeps_times(tmp_path: Path) -> None:
    """Also those of a slow camera and of a gap; where time goes back, the next frame is one step later."""
    times = [7, 7.1, 7.2, 8.2, 8.25, 48.25, 3, 3.5]
    written = [0, 0.1, 0.2, 1.2, 1.25, 41.25, 41.35, 41.85]
    writer = VideoWriter(tmp_path / "drawn.mp4", 10.0)
    for number, time in enumerate(times):
        writer.write(gray_image(40 * (number % 6)), time)
    writer.close()
    frames = list(FrameSource(tmp_path / "drawn.mp4"))
    np.testing.assert_allclose([frame.time for frame in frames], written, atol=1e-3)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 40 * (np.arange(8) % 6), atol=4)
    assert streams_of(tmp_path / "drawn.mp4") == {"video": ("h264", pytest.approx(41.95, abs=0.01))}


@pytest.mark.parametrize("size", [(97, 63), (96, 63), (97, 64), (1, 1)])
def test_odd_sizes_are_padded_for_players(tmp_path: Path, size: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), (200, 30, 60), np.uint8)
    writer = VideoWriter(tmp_path / "drawn.mp4", 10.0)
    writer.write(image, 0)
    writer.close()
    content = (tmp_path / "drawn.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # browsers play it while it loads
    (frame,) = FrameSource(tmp_path / "drawn.mp4")
    assert frame.image.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    np.testing.assert_allclose(frame.image.reshape(-1, 3), np.full((frame.image.size // 3, 3), (200, 30, 60)), atol=8)


@pytest.mark.parametrize(
    ("name", "codec", "copied"),
    [("a.mp4", "aac", "aac"), ("a.ts", "aac", "aac"), ("a.webm", "libopus", "opus"), ("a.mkv", "pcm_s16le", None)],
)
def test_sound_is_copied(tmp_path: Path, name: str, codec: str, copied: str | None) -> None:
    """Up to the last frame that was written, here from the fourth to the twelfth."""
    video = "libvpx" if name == "a.webm" else "libx264"
    path = write_clip(tmp_path / name, video, num_frames=24, audio=codec)
    source = FrameSource(path, start=0.25, end=1.0)
    writer = VideoWriter(tmp_path / "drawn.mp4", source.rate, path)
    for frame in source:
        writer.write(frame.image, frame.time)
    writer.close()
    streams = streams_of(tmp_path / "drawn.mp4")
    assert streams["video"] == ("h264", pytest.approx(0.75, abs=0.01))
    if copied is None:
        assert streams.keys() == {"video"}
        assert codec in writer.notes[0]
    else:
        assert streams["audio"] == (copied, pytest.approx(0.75, abs=0.05))
        assert writer.notes == []


def write_tracks(path: Path, codecs: list[str]) -> Path:
    """Writes a video from 0.5 to 1.5 s with several tracks of sound from 0 s on."""
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        tracks = [output.add_stream(codec, rate=48_000, layout="mono") for codec in codecs]
        output.start_encoding()
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(gray_image(20 * number), format="bgr24")
            frame.pts, frame.time_base = 5 + number, Fraction(1, 10)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for track in tracks:
            write_tone(output, track, 1.5)
    return path


@pytest.mark.parametrize(
    ("codecs", "copied", "note"),
    [(["pcm_s16le", "aac"], "aac", "1 other track"), (["aac", "aac", "flac"], "aac", "2 other tracks")],
)
def test_the_first_track_of_sound_that_mp4_takes_is_copied(
    tmp_path: Path, codecs: list[str], copied: str, note: str
) -> None:
    path = write_tracks(tmp_path / "a.mkv", codecs)
    source = FrameSource(path)
    writer = VideoWriter(tmp_path / "drawn.mp4", source.rate, path)
    for frame in source:
        writer.write(frame.image, frame.time)
    writer.close()
    source.close()
    assert streams_of(tmp_path / "drawn.mp4")["audio"] == (copied, pytest.approx(1.0, abs=0.05))
    assert len(writer.notes) == 1
    assert note in writer.notes[0]


@pytest.mark.parametrize("has_pyav", [True, False])
def test_full_disk_is_an_error_and_keeps_the_earlier_file(
    tmp_path, monkeypatch, has_pyav: bool, full_disk: None
) -> None:
    monkeypatch.setattr("posedy.inference.video_writer.has_pyav", lambda: has_pyav)
    (tmp_path / "drawn.mp4").write_bytes(b"earlier")
    writer = VideoWriter(tmp_path / "drawn.mp4", 10.0)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(OSError, match=r"drawn\.mp4"):
        write_frames(writer, [noise] * 20)
    writer.discard()
    assert (tmp_path / "drawn.mp4").read_bytes() == b"earlier"
    lines = JsonLinesWriter(tmp_path / "drawn.jsonl")
    with pytest.raises(OSError, match=r"drawn\.jsonl"):
        lines.write({"text": "x" * 3000})
    lines.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["drawn.mp4"]


def test_video_writer_resizes_frames_to_the_first(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "drawn.mp4", 10.0)
    writer.write(gray_image(80), 0)
    writer.write(np.full((128, 32, 3), 160, dtype=np.uint8), 0.1)
    writer.close()
    assert brightness_of(tmp_path / "drawn.mp4") == [80, 160]


def test_video_writer_rejects_other_suffixes_and_leaves_no_empty_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"drawn\.avi"):
        VideoWriter(tmp_path / "drawn.avi", 10.0)
    VideoWriter(tmp_path / "drawn.mp4", 10.0).close()
    assert not list(tmp_path.iterdir())
