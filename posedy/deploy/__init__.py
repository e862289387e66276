"""Networks made ready for use: fused, exported, run by other runtimes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posedy.deploy.fusing import fuse

__all__ = ["fuse"]


def __getattr__(name: str) -> Any:
    if name != "fuse":
        raise AttributeError(f"module 'posedy.deploy' has no attribute {name!r}; it has fuse")
    from posedy.deploy.fusing import fuse  # imports torch, which `posedy export --help` does not need

    return fuse
