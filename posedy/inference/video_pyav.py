"""Reading of video files and streams with PyAV, which brings FFmpeg's libraries."""

import logging
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from numpy.typing import NDArray

from posedy.inference.video_frame import DEFAULT_RATE, Clock, ReadFrame, check_frame_size

_logger = logging.getLogger("posedy")

_MAX_ERRORS_IN_A_ROW = 50  # of the container; errors of the decoder have no limit
_MAX_RATE = 480.0  # frames per second; Matroska files without a rate have 1000
_NUM_PROBED = 30  # packets from which the rate is estimated
_MIN_MISSING = 1.0  # seconds at the end of a file without a count of frames
# formats that name other files and URLs, which the web page must not read
_PLAYLISTS = {"hls", "dash", "concat", "sdp", "imf"}
_IMAGE_BRANDS = {"avif", "avis", "heic", "heix", "heim", "heis", "mif1", "msf1"}  # of files in the container of mp4
_TEXTS = {"tty", "bin", "xbin", "adf", "idf"}  # FFmpeg draws text files as videos
_PROTOCOLS = {"file": "file", "http": "http,https,tcp,tls,crypto", "rtsp": "rtsp,rtsps,rtp,udp,tcp,tls,http,https"}


class PyAVReader:
    """A video file or stream that PyAV reads; see `FrameReader`.

    Args:
        source: a file, or the URL of a video (http, https) or a live stream (rtsp, rtsps).
        timeout: seconds to wait for the data of a URL.

    Raises:
        OSError: if the source cannot be opened.
        ValueError: if it is no video, has no frames or frames that are too large.
    """

    def __init__(self, source: Path | str, timeout: float) -> None:
        self._name = str(source)
        self._container = self._open(source, timeout)
        self._errors = 0
        try:
            if isinstance(source, Path):
                self._check_format()
            videos = [stream for stream in self._container.streams.video if not _is_cover(stream)]
            if not videos:
                raise ValueError(f"{source} has no video{_describe_streams(self._container)}")
            self._stream = videos[0]
            if self._stream.codec_context is None:
                raise ValueError(f"{source}: FFmpeg has no decoder for this video: convert it to H.264")
            self._stream.thread_type = "AUTO"
            check_frame_size(self._name, self._stream.codec_context.width, self._stream.codec_context.height)
            self.is_live = isinstance(source, str) and self._container.duration is None
            self._demuxed = self._demux()
            self._probed = deque() if self.is_live else self._probe()
            if not self.is_live and not self._probed[0].size:  # only the packet that ends the stream
                raise ValueError(f"{source} has no frame: it was cut, or nothing was recorded")
        except (OSError, ValueError):
            self._container.close()
            raise
        self.rate = self._find_rate()
        self.damaged = 0
        self.missing = 0
        self.count: int | None = self._stream.frames or None

    def frames(self) -> Iterator[ReadFrame]:
        """Yields the frames until the source ends, which may be early with a log message if it breaks."""
        clock = Clock(self.rate)
        origin: int | None = None
        yielded, end = 0, 0.0
        for frame in self._decode():
            self.damaged, self._errors = self.damaged + self._errors, 0
            check_frame_size(self._name, frame.width, frame.height)
            base = frame.time_base or self._stream.time_base
            if origin is None and frame.pts is not None:
                first = frame.pts if self._stream.start_time is None else self._stream.start_time
                # live streams may begin with frames without timestamps
                origin = frame.pts - round(end / base) if yielded else first
            timestamp = None if frame.pts is None or origin is None else float((frame.pts - origin) * base)
            duration = float(frame.duration * base) if frame.duration else None
            number = yielded + self.damaged
            time = clock.tick(number, timestamp, duration)
            yield ReadFrame(number, time, partial(_to_bgr, frame))
            yielded, end = yielded + 1, time + 1 / self.rate
        self.missing = self._count_missing(yielded, end)

    def close(self) -> None:
        """Closes the source."""
        self._container.close()

    def _check_format(self) -> None:
        """Raises ValueError if a file is an image, a text or a list of other files, which FFmpeg reads, too."""
        kind = self._container.format.name
        if kind in _PLAYLISTS:
            raise ValueError(f"{self._name} is a list of videos ({kind}): give one of them")
        brand = self._container.metadata.get("major_brand", "")
        if kind in _TEXTS or kind.endswith("_pipe") or kind == "image2" or brand in _IMAGE_BRANDS:
            raise ValueError(f"{self._name} is no video ({brand or kind}): an image needs a suffix such as .jpg")

    def _open(self, source: Path | str, timeout: float) -> "av.container.InputContainer":
        # "file:" since FFmpeg takes a name such as 10:30.mp4 for a URL
        url = f"file:{source}" if isinstance(source, Path) else source
        scheme = url.partition(":")[0].lower()
        options = {"protocol_whitelist": _PROTOCOLS.get(scheme.rstrip("s"), "")}
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        waits = None if isinstance(source, Path) else (timeout, timeout)
        try:
            return av.open(url, container_options=options, metadata_encoding="latin-1", timeout=waits)
        except FFmpegError as error:
            reason = f"{source} cannot be read as a video ({error.strerror})"
            if isinstance(source, Path) and not isinstance(error, PermissionError):
                raise ValueError(f"{reason}: check whether the file is whole, and is a video") from error
            remedy = "permissions" if isinstance(source, Path) else "address, and whether it can be reached"
            raise OSError(f"{reason}: check its {remedy}") from error

    def _demux(self) -> Iterator["av.Packet"]:
        """Yields the packets of the video, and one of size 0 at the end; damaged parts of the file are skipped."""
        errors_in_a_row = 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    errors_in_a_row = 0
                    yield packet
                return
            except FFmpegError as error:
                errors_in_a_row += 1
                if not isinstance(error, ValueError) or errors_in_a_row > _MAX_ERRORS_IN_A_ROW:
                    _logger.warning("%s ends early: %s", self._name, error.strerror)
                    yield av.Packet(0)
                    return

    def _probe(self) -> "deque[av.Packet]":
        """Returns the first packets, at least that which ends the stream."""
        packets: deque[av.Packet] = deque()
        for packet in self._demuxed:
            packets.append(packet)
            if len(packets) == _NUM_PROBED:
                break
        return packets

    def _decode(self) -> Iterator["av.VideoFrame"]:
        """Yields the decoded frames, and counts errors."""
        context = self._stream.codec_context
        while (packet := self._probed.popleft() if self._probed else next(self._demuxed, None)) is not None:
            if packet.size:
                try:
                    frames: Iterable[av.VideoFrame] = context.decode(packet)
                except FFmpegError:
                    self._errors += 1
                    continue
                yield from frames
                continue
            for _ in range(_MAX_ERRORS_IN_A_ROW):  # the decoder still has frames, of which some may be damaged
                try:
                    yield from context.decode(None)
                    break
                except EOFError:
                    break
                except FFmpegError:
                    self._errors += 1

    def _find_rate(self) -> float:
        """Returns the rate of the header if it is plausible, otherwise that of the first packets' timestamps."""
        times = sorted(packet.pts for packet in self._probed if packet.pts is not None)
        rates = [self._stream.average_rate, self._stream.guessed_rate]
        if not times and not self.is_live:  # a stream without a container, whose average rate is a default
            durations = [float(packet.duration * packet.time_base) for packet in self._probed if packet.duration]
            rates.insert(0, 1 / statistics.median(durations) if durations else None)
        for rate in rates:
            if rate and 0 < rate <= _MAX_RATE:
                return float(rate)
        steps = [float(after - before) for before, after in pairwise(times) if after > before]
        return 1 / (statistics.median(steps) * float(self._stream.time_base)) if steps else DEFAULT_RATE

    def _count_missing(self, yielded: int, end: float) -> int:
        """Returns how many frames the header promises after the last readable one.

        Args:
            yielded: number of readable frames.
            end: end of the last one in seconds.
        """
        duration, reached = self._duration(), yielded + self.damaged
        left = 0.0 if duration is None else duration - end
        if self.count is None:
            return self._errors if left < _MIN_MISSING else round(left * self.rate)
        if self._stream.time_base == 1 / (self._stream.average_rate or 1):
            reached = max(reached, round(end * self.rate))  # AVI counts repeated frames, which it does not store
        elif left < 0.5 / self.rate:
            return self._errors  # mp4 counts the frames that were trimmed off
        return max(self.count - reached, 0)

    def _duration(self) -> float | None:
        """Returns the duration of the video in seconds according to the header; None if unknown."""
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        tag = self._stream.metadata.get("DURATION", "").split(":")
        try:
            hours, minutes, seconds = map(float, tag)
            return 3600 * hours + 60 * minutes + seconds
        except ValueError:
            pass
        if self.is_live or self._container.duration is None or len(self._container.streams) > 1:
            return None  # other streams may be longer
        return self._container.duration / av.time_base


def _is_cover(stream: "av.video.stream.VideoStream") -> bool:
    """Returns whether a video stream is the cover image of a sound file."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _describe_streams(container: "av.container.InputContainer") -> str:
    kinds = sorted({stream.type for stream in container.streams} - {"video"})
    return f", only {' and '.join(kinds)}" if kinds else " and no frame: it was cut, or nothing was recorded"


def _to_bgr(frame: "av.VideoFrame") -> NDArray[np.uint8]:
    """Converts a frame to (H, W, 3) uint8 BGR, upright."""
    image = np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return image if matrix is None else _make_upright(image, np.frombuffer(bytes(matrix), np.int32))


def _make_upright(image: NDArray[np.uint8], matrix: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Applies a display matrix: x' = a x + c y, y' = b x + d y, of which multiples of 90 degrees and flips are used."""
    (a, b), (c, d) = matrix.reshape(3, 3)[:2, :2].astype(float)
    if abs(b) > abs(a):
        image, (a, d) = np.asarray(cv2.transpose(image), np.uint8), (c, b)
    if a < 0 or d < 0:
        image = np.asarray(cv2.flip(image, -1 if a < 0 and d < 0 else 1 if a < 0 else 0), np.uint8)
    return image
