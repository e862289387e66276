"""Prints a random sample of posedy's public objects: names, signatures and first lines of the docstrings."""

import argparse
import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).parents[2] / "posedy"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class PublicObject:
    """A public function, class, method or property, with its signature and the first line of its docstring."""

    name: str
    signature: str
    first_line: str


def public_objects(package: Path = _PACKAGE) -> list[PublicObject]:
    """Returns the public objects of all public modules of a package, without importing them."""
    objects: list[PublicObject] = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            objects += _objects_in(ast.parse(path.read_text(encoding="utf-8")), ".".join(parts))
    return objects


def _objects_in(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[PublicObject]:
    """Yields the public functions and classes of a module or class, except overloads and property setters."""
    for node in parent.body:
        if not isinstance(node, _Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if any(decorator.endswith(("overload", ".setter", ".deleter")) for decorator in decorators):
            continue
        name = f"{prefix}.{node.name}"
        first_line = (ast.get_docstring(node) or "").partition("\n")[0]
        yield PublicObject(name, _signature(node, decorators), first_line)
        if isinstance(node, ast.ClassDef):
            yield from _objects_in(node, name)


def _signature(node: _Function | ast.ClassDef, decorators: list[str]) -> str:
    """Returns the line that declares an object, without its module and its body."""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}({', '.join(map(ast.unparse, [*node.bases, *node.keywords]))})".removesuffix("()")
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if any(decorator.endswith("property") for decorator in decorators):
        return f"property {node.name}{returned}"
    return f"def {node.name}({ast.unparse(node.args)}){returned}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints `--count` objects, which `--seed` samples."""
    parser = argparse.ArgumentParser(prog="python -m tools.docs.docstrings", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="number of objects (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    options = parser.parse_args(arguments)
    objects = public_objects()
    for item in random.Random(options.seed).sample(objects, min(options.count, len(objects))):
        print(item.name, f"    {item.signature}", f"    {item.first_line}\n", sep="\n")


if __name__ == "__main__":
    main()
