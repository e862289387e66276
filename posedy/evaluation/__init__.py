"""Evaluation of networks and results with the COCO keypoint metrics."""
