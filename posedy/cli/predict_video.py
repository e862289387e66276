"""The options of `posedy predict` for videos and cameras."""

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posedy.inference.track_outputs import TrackOutputs


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Adds detection interval, smoothing, time range, files of tracks and window to the parser of `posedy predict`."""
    videos = parser.add_argument_group("videos and cameras")
    videos.add_argument(
        "--detect-every",
        type=int,
        metavar="N",
        help="run the detector at every N-th frame, and when a person is lost (default: 10)",
    )
    smoothing = videos.add_mutually_exclusive_group()
    smoothing.add_argument(
        "--smooth",
        choices=("online", "offline", "none"),
        help="smooth keypoints over time: online, frame by frame, lags by one to two frames; offline smooths whole "
        "tracks at the end, without lag, and fills short gaps (default: online)",
    )
    smoothing.add_argument(
        "--no-smooth", dest="smooth", action="store_const", const="none", help="short for --smooth none"
    )
    videos.add_argument(
        "--from",
        dest="start",
        type=_parse_time,
        default=0.0,
        metavar="TIME",
        help="time of the first frame, in seconds or as mm:ss or h:mm:ss (default: 0)",
    )
    videos.add_argument(
        "--to",
        dest="end",
        type=_parse_time,
        metavar="TIME",
        help="time before which the last frame is (default: the end)",
    )
    videos.add_argument("--stride", type=int, default=1, metavar="N", help="use every N-th frame only (default: 1)")
    videos.add_argument(
        "--tracks",
        metavar="FORMATS",
        help="also write the keypoints as csv, wide-csv, openpose, trc or parquet; several are separated by commas",
    )
    videos.add_argument(
        "--plots",
        action="store_true",
        help="also write NAME-frames.jpg, twelve drawn frames, and NAME-angles.png and .csv, the angles at elbows, "
        "shoulders, hips and knees over time",
    )
    videos.add_argument(
        "--show", action="store_true", help="open a window, as --webcam does where possible; Escape or q closes it"
    )


def check_video_options(arguments: argparse.Namespace, has_videos: bool) -> None:
    """Sets the defaults of options for videos; ends with an error of usage if one is invalid or without a video."""
    options = {
        "--tracks": arguments.tracks is not None,
        "--plots": arguments.plots,
        f"--smooth {arguments.smooth}": arguments.smooth is not None,
        "--detect-every": arguments.detect_every is not None,
        "--show": arguments.show,
        "--from": arguments.start != 0,
        "--to": arguments.end is not None,
        "--stride": arguments.stride != 1,
    }
    given = next((name for name, is_given in options.items() if is_given), None)
    if given is not None and not has_videos:
        arguments.parser.error(f"{given} is for videos and cameras, and no input is one: leave it out or give a video")
    # argparse cannot tell a given default from a missing option
    arguments.smooth = arguments.smooth or "online"
    arguments.detect_every = 10 if arguments.detect_every is None else arguments.detect_every
    if arguments.detect_every < 1:
        arguments.parser.error(f"--detect-every: expected at least 1, got {arguments.detect_every}")
    if not 0 <= arguments.start < (math.inf if arguments.end is None else arguments.end):
        end = "" if arguments.end is None else f", before --to {arguments.end:g}"
        arguments.parser.error(f"--from: expected a time of at least 0 s{end}, got {arguments.start:g}")
    if arguments.stride < 1:
        arguments.parser.error(f"--stride: expected at least 1, got {arguments.stride}")


def track_outputs(arguments: argparse.Namespace) -> "TrackOutputs":
    """Returns what to make of tracks; ends with an error of usage for an unknown format."""
    from posedy.inference.track_files import parse_track_formats
    from posedy.inference.track_outputs import TrackOutputs

    formats: list[str] = []
    if arguments.tracks is not None:
        try:
            formats = parse_track_formats(arguments.tracks)
        except ValueError as error:
            arguments.parser.error(f"--tracks: {error}")
    return TrackOutputs(arguments.smooth == "offline", formats, arguments.plots)


def _parse_time(text: str) -> float:
    """Parses a time in seconds from the text 75.5, 1:15.5 or 0:01:15.5."""
    *larger, seconds = text.split(":")
    try:
        units = [*map(int, larger), float(seconds)]
    except ValueError:
        units = [math.nan]
    is_valid = len(units) <= 3 and all(unit >= 0 for unit in units) and all(unit < 60 for unit in units[1:])
    if not (is_valid and math.isfinite(units[-1])):
        raise argparse.ArgumentTypeError(f"expected seconds from 0, mm:ss or h:mm:ss, got {text!r}")
    return sum(unit * 60**power for power, unit in enumerate(reversed(units)))
