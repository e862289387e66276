"""What `posedy benchmark` times: each thing beside a baseline, in turns, in one process."""
