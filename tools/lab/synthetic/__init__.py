"""Synthetic people: small data sets in COCO's format that ship as code and are drawn when they are needed."""

from tools.lab.synthetic.statistics import DrawnStatistics
from tools.lab.synthetic.tree import draw_dataset

__all__ = ["DrawnStatistics", "draw_dataset"]
