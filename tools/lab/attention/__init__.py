"""What the attention of a trained network does."""
