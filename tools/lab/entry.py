"""Entry point of lab commands: input errors are printed as one line with exit status 1."""

import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(main: Callable[[], None], name: str) -> NoReturn:
    """Runs a command and exits with status 0, or with status 1 and one line for an OSError or ValueError."""
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"{name}: {error}")
    sys.exit(0)
