"""Copying of a video's sound to another video, without encoding it again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import av
from av.error import FFmpegError

from posedy.inference.video_pyav import frame_streams

_CODECS = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}  # of those in mp4 files
_MAX_ERRORS_IN_A_ROW = 50


class AudioCopy:
    """Copies the packets of a track of a video's sound, up to the time of the frames that were written.

    Args:
        source: the opened video.
        track: the track.
        output: the container to write, whose streams of video were added.
        start: time of the output's first frame in the source, in seconds.

    Attributes:
        damaged: number of damaged parts that were left out.
        others: number of the source's other tracks, which are left out.
    """

    def __init__(
        self,
        source: "av.container.InputContainer",
        track: "av.audio.stream.AudioStream",
        output: "av.container.OutputContainer",
        start: float,
    ) -> None:
        self._source, self._track, self._output = source, track, output
        self._stream = output.add_stream_from_template(track)
        video = frame_streams(source)[0]
        self._start = start + float((video.start_time or 0) * (video.time_base or 0))
        self._packets: Iterator[av.Packet] = source.demux(track)
        self._pending: av.Packet | None = None
        self.damaged = 0
        self.others = len(source.streams.audio) - 1

    @classmethod
    def open(cls, path: Path, output: "av.container.OutputContainer", start: float) -> Self | None:
        """Opens the first track of a video file's sound that mp4 takes; returns None if the file has no sound.

        Raises:
            ValueError: if mp4 takes no track's codec, or the file cannot be read.
        """
        try:
            source = av.open(
                f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_encoding="latin-1"
            )
        except FFmpegError as error:
            raise ValueError(f"{path} cannot be read again ({error.strerror})") from error
        names = [_codec_name(track) for track in source.streams.audio]
        for track, name in zip(source.streams.audio, names, strict=True):
            if name in _CODECS:
                return cls(source, track, output, start)
        source.close()
        if names:
            raise ValueError(f"mp4 files take no {' and no '.join(dict.fromkeys(names))}")
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
                self._packets = self._source.demux(self._track)
        return None

    def close(self) -> None:
        """Closes the video from which the audio is copied."""
        self._source.close()


def _codec_name(track: "av.audio.stream.AudioStream") -> str:
    return "unknown codec" if track.codec_context is None else track.codec_context.codec.canonical_name
