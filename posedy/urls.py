"""Reading of images from URLs."""

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

_SCHEMES = ("http", "https")
_MAX_BYTES = 50_000_000
_TIMEOUT = 20.0  # seconds, for the whole answer
_CHUNK = 1 << 16


def is_url(value: object) -> bool:
    """Returns whether a value is an http or https URL."""
    return isinstance(value, str) and value.lower().startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def has_scheme(value: object) -> bool:
    """Returns whether a value is text that begins with the scheme of any URL, such as rtsp://."""
    return isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]+://", value, re.IGNORECASE) is not None


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in _SCHEMES:
            raise urllib.error.URLError(f"redirect to {newurl}, expected http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def read_url(url: str) -> bytes:
    """Reads a URL of at most 50 MB within 20 seconds.

    Raises:
        OSError: if it cannot be read, is larger, or takes longer; the message names the URL.
    """
    deadline = time.monotonic() + _TIMEOUT
    opener = urllib.request.build_opener(_SafeRedirects)
    content = bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "posedy"})
        with opener.open(request, timeout=_TIMEOUT) as answer:
            while chunk := answer.read1(_CHUNK):
                content += chunk
                if len(content) > _MAX_BYTES:
                    raise ValueError(f"it is larger than {_MAX_BYTES / 1_000_000:g} MB")
                if time.monotonic() > deadline:
                    raise ValueError(f"it took longer than {_TIMEOUT:g} s")
            if answer.length:  # what is left of the promised length
                raise ValueError(f"the connection ended {answer.length} bytes early")
    except urllib.error.HTTPError as error:
        raise OSError(f"{url} cannot be read: HTTP status {error.code} ({error.reason})") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise OSError(f"{url} cannot be read: {getattr(error, 'reason', None) or error}") from error
    return bytes(content)
