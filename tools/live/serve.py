"""A local web server for the built page, with the headers that threads of WASM need.

python -m tools.live.serve --port 8000 --folder build/live
"""

import argparse
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tools.lab.entry import run_and_exit

OUT = Path("build/live")
"""The folder of the page, relative to the working directory."""
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    # a rebuilt page is shown at once
    "Cache-Control": "no-cache",
}
"""The headers of all answers; with the first two the page is cross-origin isolated, and threads can share memory."""

_HOST = "127.0.0.1"


class Handler(SimpleHTTPRequestHandler):
    """Serves the files of a folder with `HEADERS`."""

    extensions_map = {  # noqa: RUF012 # as in the base class
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Adds the headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_head(self) -> Any:
        """Sends the headers of a file; a name with a null byte, which the system rejects, is no file."""
        try:
            return super().send_head()
        except ValueError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return None

    def log_message(self, format: str, *args: Any) -> None:
        """Prints nothing for each file."""


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """Creates a server of a folder at this computer's own address.

    Args:
        folder: the built page.
        port: the port; 0 chooses a free one.

    Raises:
        OSError: if the folder has no page, or the port is not available.
        ValueError: if the port is not from 0 to 65535.
    """
    if not (folder / "index.html").is_file():
        raise FileNotFoundError(f"{folder} has no page: build it with python -m tools.live.build --out {folder}")
    try:
        return ThreadingHTTPServer((_HOST, port), partial(Handler, directory=str(folder)))
    except OverflowError as error:
        raise ValueError(f"expected a port from 0 to 65535, got {port}") from error
    except OSError as error:
        raise OSError(f"port {port} is not available ({error.strerror}): choose another --port") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the arguments and serves the page until Ctrl-C.

    Raises:
        OSError, ValueError: see `make_server`.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.live.serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=OUT, help="the built page (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 chooses a free one (default: %(default)s)")
    arguments = parser.parse_args(argv)
    with make_server(arguments.folder, arguments.port) as server:
        # browsers allow the camera at localhost without https
        print(f"open http://localhost:{server.server_port} in a browser; Ctrl-C stops the server", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")


if __name__ == "__main__":
    run_and_exit(main, "tools.live.serve")
