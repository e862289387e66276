"""Writing of H.264 videos with PyAV, with the sound of the input."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from posedy.inference.video_audio import AudioCopy
from posedy.inference.video_frame import MAX_GAP, pad_to_even_sides
from posedy.poses import format_count

# the first one that FFmpeg has; superfast at 25 has the size and error of veryfast at 23 in two thirds of the time
_ENCODERS = {"libx264": {"preset": "superfast", "crf": "25"}, "libopenh264": {}, "mpeg4": {"qscale": "4"}}
_CLOCK = 90_000  # ticks per second of the timestamps, as in MPEG
_KEYFRAME_INTERVAL = 60  # frames, for players that jump to a time
_BT709 = 1  # number of the color space, its primaries and its transfer function


class PyAVWriter:
    """Writer of H.264 (yuv420p, BT.709) in mp4, which browsers, phones and desktop players play.

    Frames keep their times: playback speed equals recording speed at variable rates and with slow cameras. Frames with
    an odd side get a copy of their last row or column, since H.264 stores colors for 2 x 2 pixels.

    Args:
        path: the file to write.
        rate: frames per second, for the duration of the last frame and of frames with invalid times.
        audio_from: the video whose sound is copied, if it has one; times of frames are those of this video.

    Attributes:
        notes: lines of text about sound that was left out.
    """

    def __init__(self, path: Path, rate: float, audio_from: Path | None) -> None:
        self._path, self._rate, self._audio_from = path, rate, audio_from
        self._container: av.container.OutputContainer | None = None
        self._size = (0, 0)
        self._time, self._last_time = 0.0, 0.0
        self._audio: AudioCopy | None = None
        self._to_yuv = VideoReformatter()  # that of each frame would start anew
        self.notes: list[str] = []

    def write(self, image: NDArray[np.uint8], time: float) -> None:
        """Adds a frame (H, W, 3) BGR, resized to the size of the first one, at a time in seconds.

        Raises:
            OSError: if the file cannot be written.
        """
        if self._container is None:
            self._open(image.shape[1], image.shape[0], time)
        else:
            elapsed = time - self._last_time
            self._time += max(elapsed, 1 / _CLOCK) if 0 < elapsed <= MAX_GAP else 1 / self._rate
        self._last_time = time
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(cv2.resize(image, self._size), np.uint8)
        image = pad_to_even_sides(image)
        frame = self._to_yuv.reformat(
            av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="bgr24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        frame.pts, frame.time_base = round(self._time * _CLOCK), Fraction(1, _CLOCK)
        self._mux(self._stream.encode(frame))
        if self._audio is not None:
            self._audio.copy_until(self._time)

    def close(self) -> None:
        """Finishes the file.

        Raises:
            OSError: if the file cannot be written.
        """
        if self._container is not None:
            self._mux(self._stream.encode(None))
            if self._audio is not None:
                self._audio.copy_until(self._time + 1 / self._rate)
            container, self._container = self._container, None
            container.close()
        self._close_audio()

    def discard(self) -> None:
        """Closes the file as it is."""
        container, self._container = self._container, None
        with contextlib.suppress(FFmpegError):  # the error that led here was raised
            if container is not None:
                container.close()
        self._close_audio()

    def _open(self, width: int, height: int, time: float) -> None:
        self._size = width, height
        self._container = self._create_container()
        if self._audio_from is None:
            return
        try:
            self._audio = AudioCopy.open(self._audio_from, self._container, time)
            self._container.start_encoding()
        except ValueError as error:
            self.notes.append(f"sound left out ({getattr(error, 'strerror', None) or error})")
            self.discard()
            self._container = self._create_container()

    def _create_container(self) -> "av.container.OutputContainer":
        # "file:" since FFmpeg takes a name such as 10:30.mp4 for a URL; the index at the beginning is for browsers
        container = av.open(f"file:{self._path}", "w", format="mp4", options={"movflags": "+faststart"})
        name = next(name for name in _ENCODERS if name in av.codecs_available)
        rate = max(Fraction(self._rate).limit_denominator(1000), Fraction(1, 1000))
        self._stream = container.add_stream(name, rate=rate, options=_ENCODERS[name])
        width, height = self._size
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, _CLOCK)
        context.gop_size = _KEYFRAME_INTERVAL
        context.max_b_frames = 0  # with them the duration of the file lacks a long last gap
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        return container

    def _close_audio(self) -> None:
        audio, self._audio = self._audio, None
        if audio is not None:
            audio.close()
            if audio.others:
                self.notes.append(f"{format_count(audio.others, 'other track')} of sound left out")
            if audio.damaged:
                self.notes.append(f"damaged sound left out in {format_count(audio.damaged, 'place')}")

    def _mux(self, packets: "list[av.Packet]") -> None:
        if self._container is not None:
            self._container.mux(packets)
