"""Synthetic people: small datasets in COCO's format, generated on demand."""

from tools.lab.synthetic.generation import generate_dataset
from tools.lab.synthetic.statistics import DatasetStatistics

__all__ = ["DatasetStatistics", "generate_dataset"]
