"""Tiny clips in many formats, made with PyAV's encoders."""

import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")

RATE = 12
SIZE = (96, 64)
_SAMPLE_RATE = 48_000
_OPTIONS = {
    "libx264": {"g": "10"},
    "libx265": {"x265-params": "keyint=10:log-level=none"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
}


def corners_image(size: tuple[int, int] = SIZE) -> np.ndarray:
    """An image (H, W, 3) BGR whose quarters are red and green, and below blue and white."""
    image = np.empty((size[1], size[0], 3), np.uint8)
    top, left = size[1] // 2, size[0] // 2
    image[:top, :left], image[:top, left:] = (0, 0, 230), (0, 200, 0)
    image[top:, :left], image[top:, left:] = (220, 0, 0), (235, 235, 235)
    return image


def write_clip(
    path: Path,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    *,
    size: tuple[int, int] = SIZE,
    num_frames: int = 8,
    rate: int = RATE,
    times: Sequence[float] | None = None,
    container: str | None = None,
    audio: str | None = None,
    aspect: Fraction | None = None,
) -> Path:
    """Writes a clip of `corners_image`, with a tone of the same duration if the codec of its sound is given."""
    with _same_priority(), av.open(f"file:{path}", "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=_OPTIONS.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = output.add_stream(audio, rate=_SAMPLE_RATE, layout="mono") if audio else None
        output.start_encoding()
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(corners_image(size), format="bgr24")
            frame.pts = number if times is None else round(1000 * times[number])
            frame.time_base = Fraction(1, rate if times is None else 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            write_tone(output, sound, num_frames / rate)
    return path


@contextmanager
def _same_priority() -> Iterator[None]:
    """Restores the priority of this thread: SVT-AV1 makes that of root's threads real-time, which starves others."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def write_sound(path: Path, codec: str = "aac") -> Path:
    """Writes a file with a tone and without a video."""
    with av.open(f"file:{path}", "w") as output:
        write_tone(output, output.add_stream(codec, rate=_SAMPLE_RATE, layout="mono"), 0.5)
    return path


def write_tone(output: Any, stream: Any, seconds: float) -> None:
    """Writes a tone to a stream of an open container."""
    for start in range(0, round(seconds * _SAMPLE_RATE), 1024):
        tone = 9000 * np.sin(np.arange(start, start + 1024) / 10)
        samples = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = _SAMPLE_RATE, start, Fraction(1, _SAMPLE_RATE)
        output.mux(stream.encode(samples))
    output.mux(stream.encode(None))


def set_display_matrix(mp4: bytes, matrix: tuple[int, int, int, int]) -> bytes:
    """Sets the display matrix (a, b, c, d) in the header of an mp4 file's first track, as phones do."""
    at = mp4.index(b"tkhd") + 4
    at += 4 + (20 if mp4[at] == 0 else 32) + 16  # version and times, then layer, group and volume
    a, b, c, d = (value << 16 for value in matrix)
    return mp4[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + mp4[at + 36 :]


def zero_middle(data: bytes, start: float, end: float) -> bytes:
    """Zeroes a part of a file, from a fraction of its length to another."""
    first, last = (round(len(data) * fraction) for fraction in (start, end))
    return data[:first] + bytes(last - first) + data[last:]


def streams_of(path: Path) -> dict[str, tuple[str, float]]:
    """The codec and the duration in seconds of each kind of stream of a file."""
    with av.open(io.BytesIO(path.read_bytes())) as container:
        return {
            stream.type: (stream.codec_context.codec.canonical_name, float(stream.duration * stream.time_base))
            for stream in container.streams
        }
