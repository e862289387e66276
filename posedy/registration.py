"""Names of parts: registration of backbones, heads, codecs and detectors, and the nearest valid name."""

import difflib
import re
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, TypeVar

_Part = TypeVar("_Part", bound=Callable[..., Any])


def register(registry: MutableMapping[str, Any], kind: str, name: str, pattern: str) -> Callable[[_Part], _Part]:
    """Returns a decorator that adds a class or a function to a registry.

    The same definition may be registered again, as by a module that is imported twice.

    Args:
        registry: names and parts; it is changed.
        kind: what the parts are, for messages.
        name: the name of the part.
        pattern: a regular expression that matches valid names.

    Raises:
        TypeError: if the part cannot be called.
        ValueError: if the name is invalid, or another part has it.
    """
    if not isinstance(name, str) or not re.fullmatch(pattern, name):
        hint = f": write @posedy.register_{kind}(NAME)" if callable(name) else ""  # a decorator without its name
        raise ValueError(f"expected a name of a {kind} that matches {pattern}, got {name!r}{hint}")

    def add(part: _Part) -> _Part:
        if not callable(part):
            raise TypeError(f"expected a class or a function as {kind} {name!r}, got {part!r}")
        existing = registry.get(name)
        if existing is not None and (_origin(existing) != _origin(part) or _arguments(existing) != _arguments(part)):
            raise ValueError(f"the {kind} {name!r} is already registered, by {_origin(existing)[0]}")
        registry[name] = part
        return part

    return add


def _origin(part: Callable[..., Any]) -> tuple[str, str]:
    part = getattr(part, "func", part)  # a functools.partial has no __qualname__
    return getattr(part, "__module__", ""), getattr(part, "__qualname__", repr(part))


def _arguments(part: Callable[..., Any]) -> tuple[Any, Any]:
    """Returns the arguments of a functools.partial, which distinguish parts of one function."""
    return getattr(part, "args", ()), getattr(part, "keywords", {})


def nearest_name(name: object, names: Iterable[str]) -> str:
    """Returns the name that is most similar to an unknown one, for error messages; there is at least one."""
    return difflib.get_close_matches(str(name), list(names), n=1, cutoff=0)[0]
