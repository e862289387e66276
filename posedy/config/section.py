"""The base class of the sections of a configuration."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


def as_section(annotation: Any) -> type[BaseModel] | None:
    """Returns the section class of a field's annotation, or None for other fields."""
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def is_text(annotation: Any) -> bool:
    """Returns whether the values of a field are paths or strings, or optional ones."""
    if get_origin(annotation) is Literal:
        return all(isinstance(value, str) for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return all(kind is NoneType or is_text(kind) for kind in get_args(annotation))
    return annotation in (str, Path)


class Section(BaseModel):
    """A section of a configuration, which rejects unknown keys and booleans in place of numbers."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _reject_bool(cls, value: Any, info: ValidationInfo) -> Any:
        """Rejects booleans, which pydantic would convert to numbers, and replaces empty sections by their defaults."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if value is None and as_section(kind) is not None:
            return {}
        items = value if isinstance(value, list | tuple) else [value]
        if kind is not bool and any(isinstance(item, bool) for item in items):
            raise ValueError(f"expected no boolean, got {value!r} (YAML reads on and yes as true, off and no as false)")
        return value

    @field_validator("*")
    @classmethod
    def _expand_home(cls, value: Any) -> Any:
        try:
            return value.expanduser() if isinstance(value, Path) else value
        except RuntimeError as error:
            raise ValueError(f"{value}: {error}") from error

    def to_yaml(self) -> str:
        """Serializes the section as YAML; `load_config` reads that of a whole configuration."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def reject_options(options: Iterable[str], reserved: Mapping[str, str]) -> None:
    """Raises ValueError for an option of the architecture that is set elsewhere.

    Args:
        options: names of options.
        reserved: name -> what to do instead.
    """
    for option in options:
        if option in reserved:
            raise ValueError(f"options: {option} is not an option of the architecture; {reserved[option]}")
