"""Datasets: reading, validation and writing of COCO files; augmentation, crop datasets and data loaders.

COCO keypoint files are the only format of annotations: convert data in another format to such a file and validate it
with `posedy check` (`check.py`). Training also reads shards that are made from them (`shards.py`).
"""
