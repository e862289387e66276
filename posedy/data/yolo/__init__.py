"""Conversion between COCO keypoint files and YOLO pose datasets.

A line of a label file is an object: its class, the center and size of its box, and x, y (and v) of each keypoint,
divided by the width and height of the upright image, which has the EXIF orientation applied. COCO's coordinates are in
pixels as stored. `posedy convert --help` lists what a conversion keeps.
"""

from posedy.data.yolo.layout import YoloFileError
from posedy.data.yolo.reader import read_yolo
from posedy.data.yolo.writer import WrittenSplit, write_yolo

__all__ = ["WrittenSplit", "YoloFileError", "read_yolo", "write_yolo"]
