"""Drawn people: a small data set in COCO's format that ships as code and is drawn when it is needed."""

from posedy.data.synthetic.statistics import DrawnStatistics
from posedy.data.synthetic.tree import draw_dataset

__all__ = ["DrawnStatistics", "draw_dataset"]
