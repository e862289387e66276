"""Reading of video files and streams with PyAV, which brings FFmpeg's libraries."""

import logging
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import ExitError, FFmpegError
from numpy.typing import NDArray

from posedy.inference.video_frame import DEFAULT_RATE, Clock, ReadFrame, check_frame_size

_logger = logging.getLogger("posedy")

_MAX_ERRORS_IN_A_ROW = 50  # of the container; errors of the decoder have no limit
_MAX_RATE = 480.0  # frames per second; Matroska files without a rate have 1000
_NUM_PROBED = 30  # packets from which the rate is estimated
_MIN_MISSING = 1.0  # seconds at the end of a file without a count of frames
_MAX_ASPECT = 4  # of a pixel; headers with others are wrong
_MIN_STRETCH = 0.01  # smaller ones are those of rounded sizes
_DAMAGE_SPAN = 32  # frames after an error in which the decoder may drop others without one
# formats that name other files and URLs, which the web page must not read
_PLAYLISTS = {"hls", "dash", "concat", "sdp", "imf"}
_LIVE_FORMATS = {"rtsp", "hls", "dash"}  # if without a duration; servers wait for those who read others
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
        self._name, self._is_url, self._timeout = str(source), isinstance(source, str), timeout
        self._container = self._open(source, timeout)
        self._lost = _LostFrames()
        self._end_reason = ""
        try:
            if isinstance(source, Path):
                self._check_format()
            videos = frame_streams(self._container)
            if not videos:
                raise ValueError(f"{source} has no video{_describe_streams(self._container)}")
            self._stream = videos[0]
            if self._stream.codec_context is None:
                raise ValueError(f"{source}: FFmpeg has no decoder for this video: convert it to H.264")
            self._stream.thread_type = "AUTO"
            check_frame_size(self._name, self._stream.codec_context.width, self._stream.codec_context.height)
            is_endless = self._container.duration is None and self._container.format.name in _LIVE_FORMATS
            self.is_live = self._is_url and is_endless
            self._demuxed = self._demux()
            self._probed = deque() if self.is_live else self._probe()
            if not self.is_live and not self._probed[0].size:  # only the packet that ends the stream
                raise ValueError(self._describe_no_frame())
        except (OSError, ValueError):
            self._container.close()
            raise
        self.has_sound = bool(self._container.streams.audio)
        self.rate = self._find_rate()
        self.damaged = 0
        self.missing = 0
        self.count: int | None = self._stream.frames or None

    def frames(self) -> Iterator[ReadFrame]:
        """Yields the frames until the source ends, which may be early with a log message if it breaks.

        Numbers include frames that were damaged, also those that the decoder drops without an error.
        """
        clock = Clock(self.rate)
        is_avi = self._container.format.name == "avi"
        first_decoded = self._probed[0].dts if self._probed else None
        origin: int | None = None
        yielded, end = 0, 0.0
        for frame in self._decode():
            if self._lost.was_counted(frame):  # the decoder returns it late, out of order
                continue
            self.damaged += self._lost.before(frame)
            shape = _square_size(frame.width, frame.height, self._stream.sample_aspect_ratio)
            check_frame_size(self._name, *shape)
            base = frame.time_base or self._stream.time_base
            number = yielded + self.damaged
            # AVI stores the order of decoding only: FFmpeg numbers B-frames of H.264 by it, out of order
            ticks = frame.dts if is_avi else frame.pts
            if origin is None and ticks is not None:
                if yielded:  # live streams may begin with frames without timestamps
                    origin = ticks - round(end / base)
                else:
                    origin = ticks if self._stream.start_time is None else self._stream.start_time
                    if is_avi and first_decoded is not None:  # the delay of the decoder, with frames lost before
                        origin += ticks - first_decoded - round(number / self.rate / base)
            timestamp = None if ticks is None or origin is None else float((ticks - origin) * base)
            duration = float(frame.duration * base) if frame.duration else None
            time = clock.tick(number, timestamp, duration)
            yield ReadFrame(number, time, partial(_to_bgr, frame, shape))
            yielded, end = yielded + 1, time + 1 / self.rate
        self.missing = self._count_missing(yielded, end)

    def close(self) -> None:
        """Closes the video file or stream."""
        self._container.close()

    def _describe_no_frame(self) -> str:
        if not self._end_reason:
            return f"{self._name} has no frame: it was cut, or nothing was recorded"
        message = f"{self._name} has no readable frame ({self._end_reason})"
        if self._is_url and "mp4" in self._container.format.name:
            return (
                f"{message}: the server may not support byte ranges, which an mp4 file with its index at the end "
                "needs: download it first"
            )
        return f"{message}: check whether the file is whole"

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
            reason = f"{source} cannot be read as a video ({self._reason_of(error)})"
            if isinstance(source, Path) and not isinstance(error, PermissionError):
                raise ValueError(f"{reason}: check whether the file is whole, and is a video") from error
            remedy = "permissions" if isinstance(source, Path) else "address, and whether it can be reached"
            raise OSError(f"{reason}: check its {remedy}") from error

    def _demux(self) -> Iterator["av.Packet"]:
        """Yields the packets of the video, and one of size 0 at the end; damaged parts of the file are skipped."""
        errors_in_a_row, is_empty = 0, True
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    errors_in_a_row, is_empty = 0, False
                    yield packet
                return
            except FFmpegError as error:
                errors_in_a_row += 1
                if not isinstance(error, ValueError) or errors_in_a_row > _MAX_ERRORS_IN_A_ROW:
                    self._end_reason = self._reason_of(error)
                    if not is_empty:  # otherwise it is the reason of an error
                        _logger.warning("%s ends early: %s", self._name, self._end_reason)
                    yield av.Packet(0)
                    return

    def _reason_of(self, error: FFmpegError) -> str:
        """Returns FFmpeg's message, or a clearer one for a timeout, at which PyAV interrupts FFmpeg."""
        if isinstance(error, ExitError):
            return f"no data for {self._timeout:g} seconds"
        return error.strerror or str(error)

    def _probe(self) -> "deque[av.Packet]":
        """Returns the first packets, at least that which ends the stream."""
        packets: deque[av.Packet] = deque()
        for packet in self._demuxed:
            packets.append(packet)
            if len(packets) == _NUM_PROBED:
                break
        return packets

    def _decode(self) -> Iterator["av.VideoFrame"]:
        """Yields the decoded frames, and records packets and errors."""
        context = self._stream.codec_context
        while (packet := self._probed.popleft() if self._probed else next(self._demuxed, None)) is not None:
            if packet.size:
                self._lost.add(packet)
                try:
                    frames: Iterable[av.VideoFrame] = context.decode(packet)
                except FFmpegError:
                    self._lost.add_error()
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
                    self._lost.add_error()

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
            return self._lost.at_end() if left < _MIN_MISSING else round(left * self.rate)
        if self._stream.time_base == 1 / (self._stream.average_rate or 1):
            reached = max(reached, round(end * self.rate))  # AVI counts repeated frames, which it does not store
        elif left < 0.5 / self.rate:
            return self._lost.at_end()  # mp4 counts the frames that were trimmed off
        return max(self.count - reached, 0)

    def _duration(self) -> float | None:
        """Returns the duration of the video in seconds according to the header; None if unknown."""
        if self._stream.duration is not None:
            return float(self._stream.duration * self._stream.time_base)
        # those of Matroska end at the last timestamp and begin at 0, even if the first one is later
        is_matroska = "matroska" in self._container.format.name
        begin = float((self._stream.start_time or 0) * self._stream.time_base) if is_matroska else 0.0
        tag = self._stream.metadata.get("DURATION", "").split(":")
        try:
            hours, minutes, seconds = map(float, tag)
            return 3600 * hours + 60 * minutes + seconds - begin
        except ValueError:
            pass
        if self.is_live or self._container.duration is None or len(self._container.streams) > 1:
            return None  # other streams may be longer
        return self._container.duration / av.time_base - begin


class _LostFrames:
    """Counts the frames that a decoder does not return, by the timestamps of the packets that it was given.

    A decoder drops frames that refer to damaged ones, with or without an error. Packets without a frame are no sign of
    damage by themselves: of some streams each field is a packet, or some packets only help to decode others. They count
    after an error or a damaged frame, and only for streams whose packets all gave a frame before. For other streams,
    among them those without timestamps or with packets that are out of order, only errors count.
    """

    def __init__(self) -> None:
        self._waiting: set[int] = set()  # timestamps of packets whose frame is still to come
        self._counted: set[int] = set()  # those of lost frames
        self._is_regular = True
        self._errors = 0  # since the last frame
        self._watched = 0  # frames for which the last damage matters

    def add(self, packet: "av.Packet") -> None:
        """Records a packet before it is decoded."""
        if packet.pts is None:
            self._is_regular = False
        elif self._is_regular and not packet.is_discard:  # frames that an edit list trims off
            self._waiting.add(packet.pts)
        if packet.is_corrupt:
            self._watched = _DAMAGE_SPAN

    def add_error(self) -> None:
        """Records an error of the decoder."""
        self._errors += 1
        self._watched = _DAMAGE_SPAN

    def before(self, frame: "av.VideoFrame") -> int:
        """Returns how many frames were lost since the last one."""
        errors, self._errors = self._errors, 0
        if frame.is_corrupt:
            self._watched = _DAMAGE_SPAN
        if frame.pts is None or not self._is_regular:
            return errors
        lost = {pts for pts in self._waiting if pts < frame.pts}
        self._waiting -= lost | {frame.pts}
        if lost and not self._watched:
            self._is_regular = False
            self._waiting.clear()
            return errors
        self._counted |= lost
        self._watched = max(self._watched - 1, 0)
        if not self._watched:
            self._counted.clear()  # a later part of the stream may have the same timestamps
        return len(lost)

    def was_counted(self, frame: "av.VideoFrame") -> bool:
        """Returns whether a frame was taken for lost before."""
        return frame.pts in self._counted

    def at_end(self) -> int:
        """Returns how many frames were lost after the last one."""
        return len(self._waiting) if self._is_regular and self._watched else self._errors


def frame_streams(container: "av.container.InputContainer") -> "list[av.video.stream.VideoStream]":
    """Returns the videos of a container, of which the first is read, without the cover images of sound files."""
    cover = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & cover]


def _describe_streams(container: "av.container.InputContainer") -> str:
    kinds = sorted({stream.type for stream in container.streams} - {"video"})
    return f", only {' and '.join(kinds)}" if kinds else " and no frame: it was cut, or nothing was recorded"


def _square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Returns the width and height of a frame with square pixels: the longer sides of its pixels are not shortened."""
    if not aspect or abs(aspect - 1) < _MIN_STRETCH or not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def _to_bgr(frame: "av.VideoFrame", size: tuple[int, int]) -> NDArray[np.uint8]:
    """Converts a frame to (H, W, 3) uint8 BGR, of a size (width, height) before it is made upright."""
    image = np.ascontiguousarray(frame.to_ndarray(format="bgr24"))
    if size != (frame.width, frame.height):
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
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
