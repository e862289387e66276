"""Inference: pose estimation in images and videos."""
