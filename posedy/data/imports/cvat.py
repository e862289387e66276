"""Reading of "CVAT for images 1.1": annotations.xml, or a zip file with it.

A `<skeleton>` has a `<points>` element for each keypoint, with `outside` and `occluded`. A `<points>` shape outside of
skeletons is a keypoint named by its label, or, with several points, all keypoints of a person.
https://docs.cvat.ai/docs/other/xml_format
"""

import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from posedy.data.imports.grouping import BoxShape, KeypointShape, add_keypoint, group_shapes
from posedy.data.imports.structure import (
    ErrorLog,
    ImportedFile,
    ImportedImage,
    ImportedKeypoint,
    ImportedPerson,
    ImportFileError,
    read_size,
    rotate_box,
)
from posedy.files import read_bytes

MAX_XML_BYTES = 2**29
"""Maximum size of annotations.xml in a zip file, unpacked: an export of a million persons is smaller."""
_NAME = "annotations.xml"


def read_cvat(path: Path, keypoints: Sequence[str] | None = None) -> ImportedFile:
    """Reads annotations that CVAT exported as XML, "CVAT for images 1.1".

    Args:
        path: annotations.xml, a zip file with it, or a folder with it.
        keypoints: the names of the points of `<points>` shapes with several points.

    Raises:
        OSError: if the file cannot be read.
        ImportFileError: if it is invalid.
    """
    if path.is_dir():
        path = path / _NAME
    root = _parse(_read_zip(path) if path.suffix.lower() == ".zip" else read_bytes(path), path)
    if root.tag != "annotations":
        raise ImportFileError(f"{path}: expected the element <annotations> of CVAT, got <{root.tag}>")
    if root.find("track") is not None:
        raise ImportFileError(f"{path} has tracks: it is CVAT for video; export the task as CVAT for images 1.1")
    errors = ErrorLog(path)
    reader = _ImageReader(_read_names(root), keypoints, errors)
    images = tuple(reader.read(element) for element in root.iter("image"))
    errors.raise_errors()
    if not images:
        raise ImportFileError(f"{path} has no <image>: export a task with images as CVAT for images 1.1")
    folder = path.parent / "images"
    return ImportedFile(
        source=path,
        image_dir=folder if folder.is_dir() else path.parent,
        images=images,
        keypoint_names=reader.names,
        limbs={label: limbs for label in reader.names if (limbs := _read_limbs(root, label, reader.names[label]))},
        left_out=reader.left_out,
    )


def _read_zip(path: Path) -> bytes:
    """Reads the one annotations.xml of a zip file, up to `MAX_XML_BYTES`."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.rpartition("/")[2] == _NAME]
            if len(names) != 1:
                raise ImportFileError(f"{path}: expected one {_NAME}, got {len(names)}: export as CVAT for images 1.1")
            with archive.open(names[0]) as member:
                data = member.read(MAX_XML_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no file at {path.absolute()}: check its name and folder") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ImportFileError(f"{path} is not a zip file that can be read ({error}): download it again") from error
    if len(data) > MAX_XML_BYTES:
        raise ImportFileError(
            f"{path}: {names[0]} has more than {MAX_XML_BYTES / 1e6:.0f} MB: unpack the file and give {_NAME}"
        )
    return data


def _parse(data: bytes, source: Path) -> Element:
    """Parses XML without document type declarations, whose entities can expand without limit or name other files."""
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def reject(*_: object) -> None:
        raise ImportFileError(f"{source} has a document type declaration (DTD), which CVAT does not write: remove it")

    parser.StartDoctypeDeclHandler = reject
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except (expat.ExpatError, ParseError, AssertionError, ValueError) as error:
        if isinstance(error, ImportFileError):
            raise
        raise ImportFileError(f"{source} is not an XML file ({error}): export it again from CVAT") from error


def _read_names(root: Element) -> dict[str, tuple[str, ...]]:
    """Returns the keypoint names by skeleton label, in the order of the labels in `<meta>`."""
    labels = root.findall("meta//label")
    skeletons = [label.findtext("name", "") for label in labels if label.findtext("type") == "skeleton"]
    return {
        skeleton: tuple(label.findtext("name", "") for label in labels if label.findtext("parent") == skeleton)
        for skeleton in skeletons
    }


def _read_limbs(root: Element, skeleton: str, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Returns the edges of a skeleton's drawing between known keypoints."""
    texts = [
        label.findtext("svg", "")
        for label in root.iterfind("meta//label")
        if label.findtext("name") == skeleton and label.findtext("type") == "skeleton"
    ]
    try:
        svg = _parse(f"<svg>{''.join(texts)}</svg>".encode(), Path("svg"))
    except ImportFileError:  # only drawings need limbs
        return ()
    nodes = {node.get("data-node-id"): node.get("data-label-name") for node in svg.iter("circle")}
    edges = [
        (nodes.get(line.get("data-node-from")), nodes.get(line.get("data-node-to")))
        for line in svg.iter("line")
        if line.get("data-type") == "edge"
    ]
    known = [(a, b) for a, b in edges if a is not None and b is not None and a in names and b in names and a != b]
    return tuple(dict.fromkeys(known))


class _ImageReader:
    """Reads the `<image>` elements of a file.

    Attributes:
        names: the keypoint names by skeleton label.
        left_out: number of other shapes.
    """

    def __init__(self, names: dict[str, tuple[str, ...]], keypoints: Sequence[str] | None, errors: ErrorLog) -> None:
        self.names = names
        self.left_out: Counter[str] = Counter()
        self._keypoints = keypoints
        self._errors = errors

    def read(self, image: Element) -> ImportedImage:
        """Reads an image and its persons."""
        name = image.get("name", "")
        where = f"image {image.get('id')} ({name})"
        if not name:
            self._errors.add("missing value", f"{where}: name")
        size = read_size(image.get("width"), image.get("height"), where, self._errors)
        persons: list[ImportedPerson] = []
        keypoints: list[KeypointShape] = []
        boxes: list[BoxShape] = []
        groups: list[str | None] = []
        for index, element in enumerate(image):
            item = f"{where}, <{element.tag}> {index + 1} ({element.get('label')})"
            if element.tag == "skeleton":
                persons.append(self._read_skeleton(element, item))
                groups.append(_group(element))
            elif element.tag == "points" and ";" in element.get("points", ""):
                persons.append(self._read_unnamed(element, item))
                groups.append(_group(element))
            elif element.tag == "points" and self.names:
                self.left_out["<points> outside of skeletons"] += 1
            elif element.tag == "points":
                if element.get("outside") != "1":  # datumaro marks keypoints that are not labeled as skeletons do
                    keypoints.extend(self._read_keypoint(element, item))
            elif element.tag == "box":
                boxes.extend(self._read_box(element, item))
            else:
                self.left_out[f"<{element.tag}>"] += 1
        others = []
        for box in boxes:
            if box.group is not None and groups.count(str(box.group)) == 1:
                index = groups.index(str(box.group))
                if persons[index].box is not None:
                    self._errors.add("several boxes of one person", f"{box.where} and {persons[index].where}")
                persons[index] = replace(persons[index], box=box.box)
            else:
                others.append(box)
        persons.extend(group_shapes(keypoints, others, self._errors))
        name, subset = name.replace("\\", "/"), image.get("subset")  # projects have a folder for each subset
        return ImportedImage(where, (name, f"{subset}/{name}") if subset else (name,), size, tuple(persons))

    def _read_skeleton(self, element: Element, where: str) -> ImportedPerson:
        label = element.get("label", "")
        found: dict[str, ImportedKeypoint] = {}
        known = self.names.get(label)
        for points in element.iter("points"):
            name = points.get("label", "")
            item = f"{where}: {name}"
            if known and name not in known:
                self._errors.add("unknown keypoint", f"{item}: expected one of {', '.join(known)}")
            if points.get("outside") == "1":
                continue
            pairs = self._read_pairs(points, item)
            if len(pairs) > 1:
                self._errors.add("invalid entry", f"{item}: expected one point, got {len(pairs)}")
            for x, y in pairs[:1]:
                add_keypoint(found, name, ImportedKeypoint(item, x, y, _visibility(points)), self._errors)
        return ImportedPerson(where, label, found)

    def _read_unnamed(self, element: Element, where: str) -> ImportedPerson:
        """Reads a shape whose points are all keypoints of a person, in the order of the names."""
        pairs, names = self._read_pairs(element, where), self._keypoints or ()
        problem = None
        if pairs and len(pairs) != len(names):
            problem = f"{where}: {len(pairs)} points, {len(names) or 'no'} names"
        v = _visibility(element)
        found = {
            name: ImportedKeypoint(f"{where}: {name}", x, y, v) for name, (x, y) in zip(names, pairs, strict=False)
        }
        return ImportedPerson(where, element.get("label", ""), found, problem=problem)

    def _read_keypoint(self, element: Element, where: str) -> list[KeypointShape]:
        """Reads a shape of one point, which is named by its label."""
        v = _visibility(element)
        return [
            KeypointShape(element.get("label", ""), ImportedKeypoint(where, x, y, v), _group(element))
            for x, y in self._read_pairs(element, where)
        ]

    def _read_pairs(self, element: Element, where: str) -> list[tuple[float, float]]:
        """Returns the x, y of "x,y;x,y"; none after logging an error."""
        text = element.get("points")
        if text is None:
            self._errors.add("missing value", f"{where}: points")
            return []
        pairs = []
        for part in text.split(";"):
            values = part.split(",")
            numbers = self._errors.numbers(values if len(values) == 2 else [part], where)
            if numbers is None or len(numbers) != 2:
                if numbers is not None:
                    self._errors.add("invalid number", f"{where}: expected x,y, got {part!r}")
                return []
            pairs.append((numbers[0], numbers[1]))
        return pairs

    def _read_box(self, element: Element, where: str) -> list[BoxShape]:
        values = [element.get(key) for key in ("xtl", "ytl", "xbr", "ybr")]
        values.append(element.get("rotation", "0"))
        numbers = self._errors.numbers(values, f"{where}: xtl, ytl, xbr, ybr, rotation")
        if numbers is None:
            return []
        x1, y1, x2, y2, degrees = numbers
        box = rotate_box((x1, y1, x2, y2), degrees, ((x1 + x2) / 2, (y1 + y2) / 2))
        return [BoxShape(where, element.get("label", ""), box, _group(element))]


def _group(element: Element) -> str | None:
    group = element.get("group_id", "0")
    return None if group in ("", "0") else group


def _visibility(element: Element) -> int:
    return 1 if element.get("occluded") == "1" else 2
