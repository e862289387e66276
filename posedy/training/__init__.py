"""Training: loss, schedules, checkpoints, logs and the loop."""
