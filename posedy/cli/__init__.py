"""The command line: `main`, and one module per command."""

from posedy.cli.main import main

__all__ = ["main"]
