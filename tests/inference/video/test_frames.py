import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from posedy.inference.video_io import FrameSource


def test_frames_come_with_their_times(make_video) -> None:
    source = FrameSource(make_video([[(10.0 + 3 * step, 20.0)] for step in range(9)]))
    frames = list(source)
    source.close()
    assert (source.rate, source.count, source.damaged) == (30.0, 9, 0)
    assert [frame.number for frame in frames] == list(range(9))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(9) / 30)
    assert frames[0].image.shape == (200, 320, 3)
    assert frames[0].image.max() > 200


def test_a_rate_that_varies_gives_the_times_of_the_file(make_video, tmp_path: Path) -> None:
    """Frames a tenth of a second apart, from the fifth on a fifth."""
    frames = [frame.image for frame in FrameSource(make_video([[(10.0 + 3 * step, 20.0)] for step in range(12)]))]
    path = tmp_path / "made.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (320, 200))
    for frame in frames:
        writer.write(frame)
    writer.release()
    path.write_bytes(with_slower_end(path.read_bytes(), first=4))
    times = [frame.time for frame in FrameSource(path)]
    np.testing.assert_allclose(times, [0, 0.1, 0.2, 0.3, *(0.4 + 0.2 * np.arange(8))], atol=1e-3)


def with_slower_end(mp4: bytes, first: int) -> bytes:
    """An MP4 file whose frames after the first few last twice as long: another table of times (stts)."""

    def rewritten(content: bytes) -> bytes:
        found, at = b"", 0
        while at < len(content):
            size, kind = struct.unpack(">I4s", content[at : at + 8])
            body = content[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
                body = rewritten(body)
            elif kind == b"stts":
                entries, count, delta = struct.unpack(">III", body[4:16])
                assert entries == 1
                body = body[:4] + struct.pack(">IIIII", 2, first, delta, count - first, 2 * delta)
            if kind != b"edts":  # which says when the film ends
                found += struct.pack(">I4s", len(body) + 8, kind) + body
            at += size
        return found

    assert mp4.index(b"mdat") < mp4.index(b"moov")  # so that frames stay where they are
    return rewritten(mp4)


def test_a_file_cut_short_ends_where_it_ends(make_video, tmp_path: Path) -> None:
    whole = make_video([[(10.0 + 3 * step, 20.0)] for step in range(40)]).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    source = FrameSource(cut)
    read = len(list(source))
    assert 5 < read < 40
    assert source.damaged == 0
    assert source.missing == (0 if source.count is None else source.count - read)


def test_what_is_no_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no video at .*absent\.mp4"):
        FrameSource(tmp_path / "absent.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(ValueError, match=r"text\.mp4 is no video"):
        FrameSource(tmp_path / "text.mp4")
    with pytest.raises(OSError, match="camera 99 cannot be opened"):
        FrameSource(99)


class Flawed:
    """A capture whose reads fail now and then."""

    def __init__(self, good: list[bool]) -> None:
        self.good = iter(good)

    def read(self) -> tuple[bool, np.ndarray | None]:
        good = next(self.good, False)
        return good, np.zeros((4, 4, 3), np.uint8) if good else None

    def get(self, name: int) -> float:
        return 0.0

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    ("good", "numbers", "damaged", "missing"),
    [
        ([True, False, True, True], [0, 2, 3], 1, 0),
        ([True, True, False, False], [0, 1], 0, 2),
        ([False, False, True, False], [2], 2, 1),
    ],
)
def test_damaged_frames_are_counted_and_keep_their_place(make_video, good, numbers, damaged, missing) -> None:
    source = FrameSource(make_video([[(10.0, 20.0)]] * 4))
    source._capture = Flawed(good)  # type: ignore[assignment]
    assert [frame.number for frame in source] == numbers
    assert (source.damaged, source.missing) == (damaged, missing)


def test_a_camera_that_goes_away_ends(make_video) -> None:
    source = FrameSource(make_video([[(10.0, 20.0)]] * 4))
    source.is_camera, source.count = True, None
    source._capture = Flawed([True, True])  # type: ignore[assignment]
    assert len(list(source)) == 2
