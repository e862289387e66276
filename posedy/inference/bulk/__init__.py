"""Prediction of any number of images: resumable, sharded over processes, with one output file for each unit of images.

    arguments --sources--> inputs.jsonl --units--> decode -> detect -> crops, network -> part-00000.parquet, ...

The sorted list of inputs is divided into units. A unit is what one process predicts, writes as one file, and repeats
after a kill; batches never contain persons of two units, so that its file does not depend on the number of processes.
"""

from posedy.inference.bulk.formats import FORMATS, PartFormat
from posedy.inference.bulk.runner import predict_bulk

__all__ = ["FORMATS", "PartFormat", "predict_bulk"]
