"""Videos in many formats, read with PyAV."""

import os
import struct
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from posedy.inference.video_frame import Clock
from posedy.inference.video_io import FrameSource, is_video_file
from posedy.inference.video_opencv import OpenCVReader
from posedy.inference.video_pyav import _LostFrames
from tests.inference.video.clips import (
    RATE,
    SIZE,
    av,
    corners_image,
    set_display_matrix,
    write_clip,
    write_sound,
    zero_middle,
)


def read(path: Path | str, **options) -> tuple[FrameSource, list]:
    source = FrameSource(path, **options)
    frames = list(source)
    source.close()
    return source, frames


def assert_colors(image: np.ndarray, expected: np.ndarray) -> None:
    """Compares the middle of each quarter."""
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    for row in (1, 3):
        for column in (1, 3):
            at = row * image.shape[0] // 4, column * image.shape[1] // 4
            np.testing.assert_allclose(image[at].astype(int), expected[at], atol=25)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.MOV", {"container": "mov"}),
        ("a.m4v", {"container": "mp4"}),
        ("a.mkv", {}),
        ("a.ts", {}),
        ("a.mts", {"container": "mpegts"}),
        ("a.m2ts", {"container": "mpegts"}),
        ("a.h264", {"container": "h264"}),
        ("no_suffix", {"container": "mp4"}),
        ("wrong.jpg", {"container": "matroska"}),
        ("a.avi", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.flv", {"codec": "flv"}),
        ("a.wmv", {"codec": "wmv2", "container": "asf"}),
        ("a.3gp", {"codec": "h263", "size": (176, 144)}),
        ("a.mpg", {"codec": "mpeg2video", "rate": 25}),
        ("a.mpeg", {"codec": "mpeg1video", "rate": 25}),
        ("odd.mkv", {"codec": "ffv1", "pixel_format": "yuv444p", "size": (97, 63)}),
        ("ten_bit.mp4", {"codec": "libx265", "pixel_format": "yuv420p10le"}),
        ("av1.mp4", {"codec": "libsvtav1"}),
    ],
)
def test_formats_are_read_with_times_and_colors(tmp_path: Path, name: str, options: dict) -> None:
    path = write_clip(tmp_path / name, **options)
    source, frames = read(path)
    rate = options.get("rate", RATE)
    assert [frame.number for frame in frames] == list(range(8))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(8) / rate, atol=2e-3)
    assert source.rate == pytest.approx(rate, rel=0.01)
    assert source.count in (8, None)
    assert (source.damaged, source.missing) == (0, 0)
    size = (192, 144) if name == "a.3gp" else options.get("size", SIZE)  # H.263 has pixels of 12:11
    for frame in (frames[0], frames[-1]):
        assert_colors(frame.image, corners_image(size))
        assert frame.image.flags.c_contiguous
    assert is_video_file(path)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),  # portrait: clockwise
        ((0, -1, 1, 0), lambda image: np.rot90(image)),
        ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
        ((-1, 0, 0, 1), lambda image: image[:, ::-1]),  # some front cameras
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    ],
)
def test_frames_are_upright(tmp_path: Path, matrix, expected) -> None:
    path = write_clip(tmp_path / "phone.mp4", num_frames=2)
    path.write_bytes(set_display_matrix(path.read_bytes(), matrix))
    _, frames = read(path)
    assert_colors(frames[-1].image, expected(corners_image()))


@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(4, 3), (128, 64)), (Fraction(8, 9), (96, 72)), (Fraction(160, 159), SIZE), (None, SIZE)],
)
def test_pixels_are_square(tmp_path: Path, aspect: Fraction | None, size: tuple[int, int]) -> None:
    _, frames = read(write_clip(tmp_path / "clip.mp4", aspect=aspect))
    assert [frame.image.shape[1::-1] for frame in frames] == [size] * 8
    assert_colors(frames[0].image, corners_image(size))


def test_times_of_variable_rate_start_at_zero(tmp_path: Path) -> None:
    times = [0, 0.1, 0.2, 1.2, 1.25, 5, 5.05, 9]
    _, frames = read(write_clip(tmp_path / "screen.mp4", times=times))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)
    _, frames = read(write_clip(tmp_path / "late.ts", times=[time + 3 for time in times]))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)


@pytest.mark.parametrize(("codec", "b_frames"), [("libx264", 0), ("libx264", 2), ("mpeg4", 2)])
def test_times_of_avi_are_in_order_and_start_at_zero(tmp_path: Path, codec: str, b_frames: int) -> None:
    """AVI stores no times of frames, only their order of decoding."""
    with av.open(str(tmp_path / "clip.avi"), "w") as output:
        stream = output.add_stream(codec, rate=RATE, options={"bf": str(b_frames), "b-adapt": "0", "g": "8"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.max_b_frames = b_frames
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((*SIZE[::-1], 3), 10 * number, np.uint8), format="bgr24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    source, frames = read(tmp_path / "clip.avi")
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(20) / RATE, atol=1e-6)
    np.testing.assert_allclose([frame.image.mean() for frame in frames], 10 * np.arange(20), atol=8)
    assert (source.damaged, source.missing) == (0, 0)


def test_times_that_nearly_repeat_differ_in_files() -> None:
    clock = Clock(25.0)
    times = [clock.tick(number, timestamp) for number, timestamp in enumerate([0.0, 0.04, 0.04001, 0.12, 0.1203])]
    assert times == pytest.approx([0, 0.04, 0.08, 0.12, 0.1203])


def test_rate_of_browsers_recordings_is_that_of_timestamps(tmp_path: Path) -> None:
    """MediaRecorder writes no rate, and FFmpeg takes 1000 frames per second for it."""
    times = [0, 0.083, 0.177, 0.256, 0.341, 0.42, 0.502, 0.585]
    source, frames = read(write_clip(tmp_path / "clip.webm", "libvpx", rate=1000, times=times))
    assert source.rate == pytest.approx(12, abs=0.5)
    assert (source.count, source.missing) == (None, 0)
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=2e-3)


def test_damaged_middles_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", "mpeg4", num_frames=40)
    path.write_bytes(zero_middle(path.read_bytes(), 0.4, 0.5))
    source, frames = read(path)
    assert 20 < len(frames) < 40
    assert source.damaged == 40 - len(frames)
    assert source.missing == 0
    assert (frames[-1].number, frames[-1].time) == (39, pytest.approx(39 / RATE))


def test_frames_that_the_decoder_drops_count_in_the_numbers(tmp_path: Path) -> None:
    """Frames that refer to damaged ones are dropped without an error, or come late and out of order."""
    path = write_clip(tmp_path / "clip.mp4", num_frames=60)
    path.write_bytes(zero_middle(path.read_bytes(), 0.3, 0.4))
    source, frames = read(path)
    assert 30 < len(frames) < 50
    assert source.damaged == 60 - len(frames)
    assert [frame.number for frame in frames] == [round(frame.time * RATE) for frame in frames]


@pytest.mark.parametrize(
    ("packets", "numbers"),
    [
        ([(0, 0), (1, 1), (2, None), (3, None), (4, 4)], [0, 1, 4]),  # one error, two lost frames
        ([(0, 0), (1, 1), (2, None), (None, None), (4, 4)], [0, 1, 3]),  # without a timestamp only the error counts
        ([(0, 0), (1, -1), (2, 2), (3, None), (4, -1), (5, 5)], [0, 1, 3]),  # 1 and 4 are no frames, as altrefs of VP8
        ([(0, 0), (2, 2), (1, 1), (3, 3)], [0, 1, 2, 3]),  # out of order, as B-frames in AVI
    ],
)
def test_lost_frames_are_counted_by_timestamps_where_these_are_regular(packets, numbers) -> None:
    """Packets with the timestamp of each one's frame, or None for the first error and frames lost after it."""
    lost, counted, has_error, found = _LostFrames(), 0, False, []
    for pts, frame in packets:
        lost.add(SimpleNamespace(pts=pts, is_discard=False, is_corrupt=False))
        if frame is None and not has_error:
            lost.add_error()
            has_error = True
        if frame is not None and frame >= 0:
            counted += lost.before(SimpleNamespace(pts=frame, is_corrupt=False))
            found.append(len(found) + counted)
    assert found == numbers


def test_videos_that_begin_late_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The duration of Matroska begins at 0, also if the first frame is at 5 s."""
    path = write_clip(tmp_path / "late.mkv", num_frames=12, times=[5 + number / RATE for number in range(12)])
    for has_pyav in (True, False):
        monkeypatch.setattr("posedy.inference.video_io.has_pyav", lambda value=has_pyav: value)
        source, frames = read(path)
        assert (len(frames), source.missing, source.damaged) == (12, 0, 0)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"), [("a.avi", "mjpeg", "yuvj420p"), ("a.webm", "libvpx", "yuv420p")]
)
def test_cut_files_are_read_up_to_their_end(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    path = write_clip(tmp_path / name, codec, pixel_format, num_frames=40)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    source, frames = read(path)
    assert 3 < len(frames) < 37
    assert source.damaged == 0
    assert source.missing == 40 - len(frames)


def test_trimmed_phone_videos_are_whole(tmp_path: Path) -> None:
    """Phones trim videos by an edit list: the trimmed frames are in the file and in its header."""
    path = write_clip(tmp_path / "phone.mp4", num_frames=24)
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    duration, start = struct.unpack(">Ii", content[at : at + 8])
    content[at : at + 8] = struct.pack(">Ii", duration // 2, start + 6 * 1024)  # of 12288 ticks per second
    path.write_bytes(content)
    source, frames = read(path)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / RATE)
    assert (source.damaged, source.missing) == (0, 0)


def test_repeated_frames_of_avi_are_not_missing(tmp_path: Path) -> None:
    """A delay of the sound shifts the video by a frame, which AVI stores as a repeated one."""
    source, frames = read(write_clip(tmp_path / "clip.avi", "mpeg4", num_frames=24, audio="libmp3lame"))
    assert len(frames) == 24
    assert (source.damaged, source.missing) == (0, 0)


def test_files_that_are_no_videos_are_rejected(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[:-300])
    (tmp_path / "notes.txt").write_text("not a video\n" * 100)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "names.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nclip.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "names.ffconcat").write_text("ffconcat version 1.0\nfile clip.mp4\n")
    cv2.imwrite(str(tmp_path / "image.png"), corners_image())
    (tmp_path / "image.png").rename(tmp_path / "image.mp4")
    write_clip(tmp_path / "zero.mp4", num_frames=0)
    write_clip(tmp_path / "zero.mkv", num_frames=0)
    write_sound(tmp_path / "sound.mp4")
    names = (
        "sound.mp4",
        "cut.mp4",
        "notes.txt",
        "empty.mp4",
        "names.m3u8",
        "names.ffconcat",
        "image.mp4",
        "zero.mp4",
        "zero.mkv",
    )
    for name in ("names.m3u8", "names.ffconcat"):
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            OpenCVReader(tmp_path / name)
    for name in names:
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            FrameSource(tmp_path / name)
        assert not is_video_file(tmp_path / name)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize("name", [b"10:30 cam:1.mp4", b"caf\xe9.mp4", b"-i %d #?.mp4", b"http:x.mp4"])
def test_names_may_have_any_character(tmp_path: Path, name: bytes, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4").rename(os.fsdecode(name))
    assert len(read(Path(os.fsdecode(name)))[1]) == 8


@pytest.mark.parametrize("has_pyav", [True, False])
def test_a_range_and_a_stride_select_frames(tmp_path: Path, monkeypatch, has_pyav: bool) -> None:
    monkeypatch.setattr("posedy.inference.video_io.has_pyav", lambda: has_pyav)
    path = write_clip(tmp_path / "clip.mp4", "mpeg4", num_frames=24)
    source, frames = read(path, start=0.5, end=1.5, stride=4)
    assert [frame.number for frame in frames] == [6, 10, 14]
    assert (source.rate, source.count) == (RATE / 4, None)
    assert len(read(path, stride=5)[1]) == 5
    with pytest.raises(ValueError, match=r"clip\.mp4 .*9 s"):
        read(path, start=9)
    with pytest.raises(ValueError, match=r"clip\.mp4 has no frame from 0\.51 s to 0\.53 s"):
        read(path, start=0.51, end=0.53)
    for wrong in ({"start": -1}, {"start": 2, "end": 1}, {"stride": 0}, {"end": float("nan")}):
        with pytest.raises(ValueError, match="expected"):
            FrameSource(path, **wrong)
