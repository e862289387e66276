"""Networks made ready for use: fused, exported, run by other runtimes."""

from posedy.deploy.fusing import fuse

__all__ = ["fuse"]
