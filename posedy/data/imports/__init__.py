"""Importers of annotation tools: CVAT, Label Studio, Labelme, DeepLabCut and plain CSV files.

Each module reads one format as an `ImportedFile`; `to_coco` converts it to the content of a COCO keypoint file.
`posedy convert --help` lists what a conversion keeps. The readers need only the standard library: those of
datumaro (CVAT) and sleap-io (Label Studio) have no skeletons or no visibility, and bring many packages.
"""

from posedy.data.imports.formats import IMPORT_FORMATS, detect_format, read_export
from posedy.data.imports.structure import ImportedFile, ImportFileError
from posedy.data.imports.to_coco import to_coco

__all__ = ["IMPORT_FORMATS", "ImportFileError", "ImportedFile", "detect_format", "read_export", "to_coco"]
