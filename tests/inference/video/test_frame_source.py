import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_io import FrameSource
from posedy.inference.video_opencv import OpenCVReader


@pytest.fixture(params=[True, False], ids=["pyav", "opencv"], autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read with PyAV, or with OpenCV if it is not installed."""
    if request.param:
        pytest.importorskip("av")
    monkeypatch.setattr("posedy.inference.video_io.has_pyav", lambda: request.param)


def test_frame_source_yields_frames_with_times(make_video) -> None:
    source = FrameSource(make_video([[(10.0 + 3 * step, 20.0)] for step in range(9)]))
    frames = list(source)
    source.close()
    assert (source.rate, source.count, source.damaged) == (30.0, 9, 0)
    assert [frame.number for frame in frames] == list(range(9))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(9) / 30)
    assert frames[0].image.shape == (200, 320, 3)
    assert frames[0].image.max() > 200


def test_frame_source_uses_timestamps_of_variable_rate(make_video, tmp_path: Path) -> None:
    """The frame interval is 0.1 s at first and 0.2 s from the fifth frame."""
    frames = [frame.image for frame in FrameSource(make_video([[(10.0 + 3 * step, 20.0)] for step in range(12)]))]
    path = tmp_path / "made.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 200))
    for frame in frames:
        writer.write(frame)
    writer.release()
    path.write_bytes(slow_down_end(path.read_bytes(), first=4))
    times = [frame.time for frame in FrameSource(path)]
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.3, *(0.4 + 0.2 * np.arange(8))], atol=1e-3)


def slow_down_end(mp4: bytes, first: int) -> bytes:
    """Doubles the duration of all frames but the first few in the time table (stts) of an MP4 file."""

    def rewrite(content: bytes) -> bytes:
        output, at = b"", 0
        while at < len(content):
            size, kind = struct.unpack(">I4s", content[at : at + 8])
            body = content[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = rewrite(body)
            elif kind == b"stts":
                entries, count, delta = struct.unpack(">III", body[4:16])
                assert entries == 1
                body = body[:4] + struct.pack(">IIIII", 2, first, delta, count - first, 2 * delta)
            if kind != b"edts":  # edit lists contain the old duration
                output += struct.pack(">I4s", len(body) + 8, kind) + body
            at += size
        return output

    assert mp4.index(b"mdat") < mp4.index(b"moov")  # so that frame offsets do not change
    return rewrite(mp4)


def test_frame_source_reads_truncated_file_up_to_its_end(make_video, tmp_path: Path) -> None:
    whole = make_video([[(10.0 + 3 * step, 20.0)] for step in range(40)]).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    source = FrameSource(cut)
    num_frames = len(list(source))
    assert 5 < num_frames < 40
    assert source.damaged == 0
    assert source.missing == (0 if source.count is None else source.count - num_frames)


def test_frame_source_rejects_missing_and_invalid_sources(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"absent\.mp4"):
        FrameSource(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ValueError, match=r"text\.mp4"):
        FrameSource(tmp_path / "text.mp4")
    with pytest.raises(OSError, match="camera 99"):
        FrameSource(99)


class FlakyCapture:
    """A capture with reads that fail (False) or return frames of 0 x 0 pixels (None)."""

    def __init__(self, readable: list[bool | None]) -> None:
        self.readable = iter(readable)

    def read(self) -> tuple[bool, np.ndarray | None]:
        readable = next(self.readable, False)
        side = 0 if readable is None else 4
        return readable is not False, None if readable is False else np.zeros((side, side, 3), np.uint8)

    def get(self, name: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("readable", "numbers", "damaged", "missing"),
    [
        ([True, False, True, True], [0, 2, 3], 1, 0),
        ([True, True, False, False], [0, 1], 0, 2),
        ([False, False, True, False], [2], 2, 1),
    ],
)
def test_frame_source_counts_and_numbers_damaged_frames(make_video, readable, numbers, damaged, missing) -> None:
    reader = OpenCVReader(make_video([[(10.0, 20.0)]] * 4))
    reader._capture = FlakyCapture(readable)  # type: ignore[assignment]
    assert [frame.number for frame in reader.frames()] == numbers
    assert (reader.damaged, reader.missing) == (damaged, missing)


@pytest.mark.parametrize(("readable", "numbers"), [([True, True], [0, 1]), ([None, None, True, False, True], [2])])
def test_cameras_may_start_with_empty_frames_and_end_when_disconnected(make_video, readable, numbers) -> None:
    reader = OpenCVReader(make_video([[(10.0, 20.0)]] * 4))
    reader.is_live, reader.count = True, None
    reader._capture = FlakyCapture(readable)  # type: ignore[assignment]
    assert [frame.number for frame in reader.frames()] == numbers
