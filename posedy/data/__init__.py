"""Data sets: reading and checking COCO files, augmentation, crops, and drawn people."""
