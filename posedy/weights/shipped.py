"""The trained networks that come with posedy: NAME.safetensors beside this file, each with its model card NAME.md."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent
DEFAULT = "dy_mobilenetv2_050-dy_bneck"
"""The network that is used where none is named."""


def list_shipped() -> list[str]:
    """The names of the shipped networks, sorted."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def find_weights(model: str | os.PathLike[str]) -> Path:
    """The file that a path or the name of a shipped network means.

    A word without a suffix is a name, unless a file is called so.

    Raises:
        ValueError: if it is a name that no shipped network has.
    """
    path = Path(model)
    if path.name != str(model) or path.suffix or path.exists():
        return path
    from posedy.models.zoo import list_models  # imports torch, which a command's --help does without

    shipped = list_shipped()
    if path.name in shipped:
        return FOLDER / f"{path.name}.safetensors"
    hint = (
        f" ({path} is an architecture: posedy.create_model builds it, untrained)" if str(path) in list_models() else ""
    )
    raise ValueError(
        f"no shipped model is named {str(path)!r}{hint}; shipped are: {', '.join(shipped) or 'none'}. "
        "Or give the path of a .pt or .safetensors file"
    )
