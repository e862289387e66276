"""Drawn people and animals: small data sets in COCO's format that ship as code and are drawn when they are needed."""

from posedy.data.synthetic.animal import ANIMAL12
from posedy.data.synthetic.statistics import DrawnStatistics
from posedy.data.synthetic.subject import ANIMALS, PEOPLE, SUBJECTS, Subject
from posedy.data.synthetic.tree import draw_dataset

__all__ = ["ANIMAL12", "ANIMALS", "PEOPLE", "SUBJECTS", "DrawnStatistics", "Subject", "draw_dataset"]
