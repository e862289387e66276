"""Importers of annotation tools: CVAT, Label Studio, Labelme, DeepLabCut and plain CSV files.

Each module reads one format as an `ImportedFile`; `to_coco` converts it to the content of a COCO keypoint file.
`posedy convert --help` lists what a conversion keeps. The readers are this package's own: they need only the standard
library, and keep visibility, groups and the order of names, which the libraries that read several of the formats drop.
"""

from posedy.data.imports.formats import IMPORT_FORMATS, detect_format, read_export
from posedy.data.imports.structure import ImportedFile, ImportFileError
from posedy.data.imports.to_coco import to_coco

__all__ = ["IMPORT_FORMATS", "ImportFileError", "ImportedFile", "detect_format", "read_export", "to_coco"]
