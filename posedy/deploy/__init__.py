"""Networks made ready for use: fused, exported, run by other runtimes."""
