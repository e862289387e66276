"""Training: losses, optimizer and schedules, checkpoints, logging and the training loop."""
