"""Copying of a video's sound to another video, without encoding it again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import av
from av.error import FFmpegError

_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}  # of those in mp4 files
_MAX_ERRORS_IN_A_ROW = 50


class AudioCopy:
    """Copies the packets of a video's sound, up to the time of the frames that were written.

    Args:
        source: the opened video.
        output: the container to write, whose streams of video were added.
        start: time of the output's first frame in the source, in seconds.

    Attributes:
        damaged: number of damaged parts that were left out.
    """

    def __init__(self, source: "av.container.InputContainer", output: "av.container.OutputContainer", start: float):
        self._source, self._output = source, output
        audio = source.streams.audio[0]
        self._stream = output.add_stream_from_template(audio)
        video = source.streams.video[0]
        self._start = start + float((video.start_time or 0) * (video.time_base or 0))
        self._packets: Iterator[av.Packet] = source.demux(audio)
        self._pending: av.Packet | None = None
        self.damaged = 0

    @classmethod
    def open(cls, path: Path, output: "av.container.OutputContainer", start: float) -> Self | None:
        """Opens the sound of a video file; returns None if it has none.

        Raises:
            ValueError: if mp4 does not take its codec, or it cannot be read.
        """
        try:
            source = av.open(
                f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_encoding="latin-1"
            )
        except FFmpegError as error:
            raise ValueError(f"{path} cannot be read again ({error.strerror})") from error
        if source.streams.audio:
            context = source.streams.audio[0].codec_context
            name = "unknown codec" if context is None else context.codec.canonical_name
            if name in _CODECS:
                return cls(source, output, start)
            source.close()
            raise ValueError(f"mp4 files take no {name}")
        source.close()
        return None

    def copy_until(self, time: float) -> None:
        """Copies the audio packets up to a time of the output video in seconds.

        Raises:
            OSError: if the output cannot be written, or the source not be read.
        """
        while (packet := self._pending or self._next()) is not None:
            self._pending = None
            if packet.pts is None or packet.dts is None or packet.time_base is None:
                continue
            at = float(packet.pts * packet.time_base) - self._start
            if at > time:
                self._pending = packet
                return
            if at >= 0:
                offset = round(self._start / packet.time_base)
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                packet.stream = self._stream
                try:
                    self._output.mux(packet)
                except ValueError:  # a full disk is an OSError
                    self.damaged += 1

    def _next(self) -> "av.Packet | None":
        """Returns the next packet; damaged parts of the file are skipped."""
        for _ in range(_MAX_ERRORS_IN_A_ROW):
            try:
                return next(self._packets, None)
            except ValueError:
                self.damaged += 1
                self._packets = self._source.demux(self._source.streams.audio[0])
        return None

    def close(self) -> None:
        """Closes the video from which the audio is copied."""
        self._source.close()
