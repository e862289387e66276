"""How lab commands end: an error of the input as one line, exit status 1."""

import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(main: Callable[[], None], name: str) -> NoReturn:
    """Runs a command and leaves the process: status 0, or 1 with one line for what the input is to blame for."""
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {error}")
    sys.exit(0)
