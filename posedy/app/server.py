"""Web server of the page."""

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from posedy.app.page import CSS, MAX_FILE_MB, make_page
from posedy.app.service import PoseService

if TYPE_CHECKING:
    import gradio as gr

_EXPECTED_HOST = (
    "expected as --host an address of this computer: 127.0.0.1, or 0.0.0.0 to accept connections from other computers"
)
_HINTS: dict[int | None, str] = {
    errno.EADDRINUSE: "another program uses the port; choose another --port",
    errno.EACCES: "the port is reserved; choose a --port from 1024",
    errno.EADDRNOTAVAIL: _EXPECTED_HOST,
}


def launch(service: PoseService, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves the web page of `posedy app` until Ctrl-C.

    Args:
        service: estimates the poses.
        host: address to listen at.
        port: port to listen at.
        on_ready: called with the page's address as soon as the page is available.

    Raises:
        OSError: if the host is no address of this computer, or the port is not available.
    """
    # gradio requests its own page at the start, which the proxy of another computer cannot reach
    no_proxy = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = ",".join(filter(None, [no_proxy, "localhost", host]))
    page = serve(service, host, port)
    try:
        on_ready(f"http://{_in_url(host)}:{port}")
        while page.is_running:
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("stopping the page ...")
    finally:
        page.close(verbose=False)


def serve(service: PoseService, host: str, port: int) -> "gr.Blocks":
    """Serves the page from a background thread until its `close` method is called.

    Args:
        service: estimates the poses.
        host: address to listen at.
        port: port to listen at.

    Raises:
        OSError: if the host is no address of this computer, or the port is not available.
    """
    _check_address(host, port)
    page = make_page(service)
    try:
        page.launch(
            server_name=_in_url(host),
            server_port=port,
            share=False,
            max_file_size=f"{MAX_FILE_MB}mb",
            css=CSS,
            footer_links=[],
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise OSError(
            f"cannot serve the page at host {host!r}, port {port} ({error}): choose another --port or --host"
        ) from error
    return page


def _check_address(host: str, port: int) -> None:
    """Checks that a server can listen at an address; gradio reports each reason as a port in use.

    Raises:
        OSError: if it cannot.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except (OSError, UnicodeError) as error:
        hint = _HINTS.get(getattr(error, "errno", None), f"{error}; {_EXPECTED_HOST}")
        raise OSError(f"cannot serve the page at host {host!r}, port {port}: {hint}") from error


def _in_url(host: str) -> str:
    """Returns a host as it stands in URLs: an IPv6 address in brackets."""
    return f"[{host.strip('[]')}]" if ":" in host else host
