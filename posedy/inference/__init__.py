"""Inference: photos in, poses out."""
