"""Copied sound is in sync with the frames."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from posedy.inference.video_io import FrameSource
from posedy.inference.video_writer import VideoWriter
from tests.inference.video.clips import RATE, SIZE, av, corners_image

SAMPLE_RATE = 48_000
PACKET = 1024  # samples


def write_click(path: Path, time: float, seconds: float) -> Path:
    """Writes a video whose sound is silence with a click at a time."""
    count = round(seconds * SAMPLE_RATE)
    sound = np.zeros(count + -count % PACKET, np.int16)
    sound[round(time * SAMPLE_RATE) :][:20] = 30_000
    with av.open(f"file:{path}", "w") as output:
        video = output.add_stream("libx264", rate=RATE)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        audio = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        output.start_encoding()
        for number in range(round(seconds * RATE)):
            frame = av.VideoFrame.from_ndarray(corners_image(), format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        for first in range(0, len(sound), PACKET):
            samples = av.AudioFrame.from_ndarray(sound[None, first : first + PACKET], format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
            output.mux(audio.encode(samples))
        output.mux(audio.encode(None))
    return path


def click_time(path: Path) -> float:
    """The time of a file's loudest sample in seconds."""
    with av.open(f"file:{path}") as container:
        frames = [(frame.time, np.abs(frame.to_ndarray()[0])) for frame in container.decode(audio=0)]
    start, samples = max(frames, key=lambda frame: frame[1].max())
    return start + samples.argmax() / SAMPLE_RATE


@pytest.mark.parametrize("start", [0.0, 0.25])
def test_a_click_is_at_the_time_of_its_frame(tmp_path: Path, start: float) -> None:
    path = write_click(tmp_path / "a.mp4", 0.6, 1.0)
    assert click_time(path) == pytest.approx(0.6, abs=0.005)
    source = FrameSource(path, start=start)
    writer = VideoWriter(tmp_path / "drawn.mp4", source.rate, path)
    for frame in source:
        writer.write(frame.image, frame.time)
    writer.close()
    source.close()
    (first, *_) = FrameSource(tmp_path / "drawn.mp4")
    assert click_time(tmp_path / "drawn.mp4") - first.time == pytest.approx(0.6 - start, abs=PACKET / SAMPLE_RATE)
