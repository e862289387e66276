"""The score under which person boxes are left out.

Nothing heavy is imported, so that command lines can ask it.
"""

import argparse

BOX_THRESHOLD = 0.3
"""Of whatever shows persons: `PoseEstimator`, the demo, videos, the web page. Lower scores are mostly no persons."""


def checked_box_threshold(threshold: float) -> float:
    """The threshold, if it is a score.

    Raises:
        ValueError: if it is not a number from 0 to 1.
    """
    if not 0 <= threshold <= 1:  # NaN is not either
        raise ValueError(f"a threshold of box scores is a number from 0 to 1, got {threshold}")
    return threshold


def box_threshold_argument(text: str) -> float:
    """The threshold that a word of a command line means.

    Raises:
        argparse.ArgumentTypeError: if it is not a number from 0 to 1.
    """
    try:
        return checked_box_threshold(float(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score from 0 to 1") from None
