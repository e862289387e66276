"""The reference page of the configuration, from its schema: keys, defaults, permitted values and meanings."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from posedy.config import ClassifierConfig, Config
from posedy.config.section import as_section

_BEGINNING = """# Configuration

This page is for users who train or test networks: it lists all configuration keys with their defaults and meanings.

A configuration is a YAML file that has the keys that differ from their defaults; `key=value` on the command line
overrides it: `posedy train my.yaml train.lr=0.0005 --dry-run`. The file has sections, and the command line dots:
`lr: 0.0005` in `train:` is `train.lr`. Unknown keys and invalid values are errors that name the nearest key or the
expected values. `null` is no value. Relative paths are relative to the working directory. `configs/` has the files of
the paper's experiments, with the paper's AP as a comment.
"""
_NAMES: dict[Any, str] = {
    str: "text",
    Path: "path",
    int: "integer",
    float: "number",
    bool: "true or false",
    Any: "value",
}


def configuration_page() -> str:
    """Returns the Markdown of the page."""
    pose = [*_sections(Config, "")]
    classifier = [*_sections(ClassifierConfig, "")]
    return (
        "\n".join(
            [
                _BEGINNING,
                "## Pose networks\n",
                "The keys of `posedy train` and `posedy test`. Defaults are the paper's recipe.\n",
                *pose,
                "## Classifiers\n",
                "The keys of `posedy train-classifier`.\n",
                *classifier,
            ]
        ).rstrip()
        + "\n"
    )


def _sections(section: type[BaseModel], prefix: str) -> Iterator[str]:
    """Yields the table of a section's own keys, then those of the sections in it."""
    rows = []
    inner = []
    for name, field in section.model_fields.items():
        kind = as_section(field.annotation)
        if kind is not None:
            inner.append((kind, f"{prefix}{name}."))
        else:
            cells = (f"`{prefix}{name}`", f"`{_default(field)}`", _values(field), _meaning(section, name))
            rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    if rows:
        if prefix:
            yield f"### {prefix.rstrip('.')}\n\n{_docstring(section)}\n"
        yield "\n".join(["| key | default | values | meaning |", "|---|---|---|---|", *rows, ""])
    for kind, name in inner:
        yield from _sections(kind, name)


def _docstring(section: type[BaseModel]) -> str:
    return " ".join((section.__doc__ or "").split())


def _meaning(section: type[BaseModel], name: str) -> str:
    """Returns the description of a key: the section's own, or that of the section it is derived from."""
    for base in section.__mro__:
        field = getattr(base, "model_fields", {}).get(name)
        if field is not None and field.description:
            return re.sub(r"\bNone\b", "null", " ".join(field.description.split()))  # as YAML has it
    raise ValueError(f"{section.__name__}.{name} has no docstring: write one below it, it is the key's documentation")


def _default(field: FieldInfo) -> str:
    """Returns a default as it is written in YAML, on one line."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    value = [*value] if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    return re.sub(r"\n?\.\.\.$", "", text)


def _values(field: FieldInfo) -> str:
    """Returns the permitted values of a field as text."""
    kind = field.annotation
    if get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
        values = " or ".join(_describe(argument) for argument in get_args(kind) if argument is not NoneType)
        return f"{values}{_limits(field.metadata)} or null"
    return f"{_describe(kind)}{_limits(field.metadata)}"


def _describe(annotation: Any) -> str:
    """Returns a type as text."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [_limits(part.metadata) for part in arguments[1:] if isinstance(part, FieldInfo)]
        return f"{_describe(arguments[0])}{''.join(limits)}"
    if origin is Literal:
        return ", ".join(str(value) for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join("null" if kind is NoneType else _describe(kind) for kind in arguments)
    if origin is list:
        return f"list of: {_describe(arguments[0])}"
    if origin is tuple:
        return f"list of {len(arguments)}: {_describe(arguments[0])}"
    if origin is dict:
        return f"map of {_describe(arguments[0])} to {_describe(arguments[1])}"
    if as_section(annotation) is not None:
        return "`{" + ", ".join(annotation.model_fields) + "}`"
    return _NAMES[annotation]


def _limits(metadata: list[Any]) -> str:
    """Returns the limits of a number as text, or nothing."""
    limits = []
    for item in metadata:
        for limit in item if isinstance(item, annotated_types.GroupedMetadata) else [item]:
            match limit:
                case annotated_types.Gt(gt=value):
                    limits.append(f"> {value}")
                case annotated_types.Ge(ge=value):
                    limits.append(f"≥ {value}")
                case annotated_types.Lt(lt=value):
                    limits.append(f"< {value}")
                case annotated_types.Le(le=value):
                    limits.append(f"≤ {value}")
                case annotated_types.MultipleOf(multiple_of=value):
                    limits.append(f"divisible by {value}")
    return " " + ", ".join(limits) if limits else ""
