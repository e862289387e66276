"""Poses over time: who is who, where to look next, smoothing, and the way from frames to frames."""
