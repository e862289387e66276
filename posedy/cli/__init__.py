"""The command line: `main` and one module for each command."""

from posedy.cli.main import main

__all__ = ["main"]
