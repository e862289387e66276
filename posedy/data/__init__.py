"""Data sets: COCO files read, checked and written; augmentation, crops and their loaders."""
