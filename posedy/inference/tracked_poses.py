"""Poses of the successive frames of a video."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from posedy.inference.threads import FRAME_QUEUE_SIZE, Prefetcher
from posedy.inference.tracking import PoseTracker
from posedy.inference.video_io import Frame, FrameSource
from posedy.poses import Poses


class TrackedPoses(Iterator[Poses]):
    """Iterator over the poses of successive frames, for `PoseEstimator.track`.

    Args:
        tracker: returns the poses of each frame.
        frames: the frames; a `FrameSource` is closed at its end, after an error and by `close`. Of a camera or a live
            stream, frames that come too fast are dropped.
    """

    # no generator: one that is closed before its first frame runs none of its code, and so would not close the source
    def __init__(self, tracker: PoseTracker, frames: Iterable[Frame]) -> None:
        self._tracker, self._source = tracker, frames
        is_live = isinstance(frames, FrameSource) and frames.is_live
        self._prefetcher = Prefetcher(frames, FRAME_QUEUE_SIZE, drops=True) if is_live else None
        self._frames = iter(frames if self._prefetcher is None else self._prefetcher)

    @property
    def dropped(self) -> int:
        """The number of frames of a camera or a live stream that were dropped so far, as they came too fast."""
        return self._prefetcher.dropped if self._prefetcher is not None else 0

    def __next__(self) -> Poses:
        """Returns the poses of the next frame.

        Raises:
            OSError, TypeError, ValueError: as for `PoseEstimator.track`.
        """
        try:
            frame = next(self._frames)
            poses = self._tracker(frame.image, frame.time)
        except BaseException:  # StopIteration and KeyboardInterrupt, too
            self.close()
            raise
        return replace(poses, frame=frame.number)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Ends the iteration and closes the video, stream or camera."""
        self._frames = iter(())
        if self._prefetcher is not None:
            self._prefetcher.close()
        if isinstance(self._source, FrameSource):
            self._source.close()
