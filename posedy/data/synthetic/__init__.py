"""Synthetic people: small data sets in COCO's format that ship as code and are drawn when they are needed."""

from posedy.data.synthetic.statistics import DrawnStatistics
from posedy.data.synthetic.tree import draw_dataset

__all__ = ["DrawnStatistics", "draw_dataset"]
