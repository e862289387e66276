"""Benchmarks against baselines, interleaved in one process: `python -m tools.lab.benchmarks`."""
