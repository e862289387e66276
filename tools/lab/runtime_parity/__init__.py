"""Comparison of the keypoints of exported files in several runtimes with PyTorch's."""
