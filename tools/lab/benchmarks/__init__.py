"""What `python -m tools.lab.benchmarks` times: each thing beside a baseline, in turns, in one process."""
