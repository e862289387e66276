"""Made persons, written in the documented formats of annotation tools."""

import csv
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image

NAMES = ("nose", "left_wing", "right_wing")
LIMBS = (("nose", "left_wing"), ("nose", "right_wing"))


@dataclass(frozen=True)
class MadePerson:
    """x, y, v (1 or 2) of the labeled keypoints by name, and the box as x1, y1, x2, y2."""

    keypoints: dict[str, tuple[float, float, int]]
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class MadeImage:
    """An image with its width and height."""

    name: str
    size: tuple[int, int]
    persons: Sequence[MadePerson]


EXAMPLE = (
    MadeImage(
        "a.jpg",
        (160, 120),
        (
            MadePerson(
                {"nose": (40.5, 30.25, 2), "left_wing": (60.0, 50.0, 1), "right_wing": (20.0, 50.0, 2)},
                (10.0, 20.0, 70.0, 60.0),
            ),
            MadePerson({"nose": (120.0, 70.0, 2), "left_wing": (140.0, 90.0, 2)}, (100.0, 60.0, 150.0, 110.0)),
        ),
    ),
    MadeImage("b.jpg", (120, 160), (MadePerson({"nose": (50.0, 60.0, 2), "right_wing": (30.0, 80.0, 2)}),)),
)


def write_images(folder: Path, images: Sequence[MadeImage]) -> Path:
    """Writes gray image files."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        Image.new("L", image.size, 128).save(folder / image.name)
    return folder


def cvat_labels(label: str = "person", names: Sequence[str] = NAMES) -> str:
    """The labels in CVAT's <meta>, with the edges of the skeleton's drawing."""
    lines = [
        f'<line x1="1" y1="2" x2="3" y2="4" data-type="edge" data-node-from="{names.index(a) + 1}" '
        f'data-node-to="{names.index(b) + 1}"></line>'
        for a, b in LIMBS
        if a in names and b in names
    ]
    lines += [
        f'<circle cx="1" cy="2" data-type="element node" data-node-id="{index}" data-label-name="{name}"></circle>'
        for index, name in enumerate(names, start=1)
    ]
    svg = "".join(lines).replace("<", "&lt;").replace(">", "&gt;")
    labels = [f"<label><name>{label}</name><type>skeleton</type><attributes></attributes><svg>{svg}</svg></label>"]
    labels += [f"<label><name>{name}</name><type>points</type><parent>{label}</parent></label>" for name in names]
    return "".join(labels)


def cvat_document(body: str, labels: str = "") -> str:
    """An annotations.xml with these <image> elements."""
    meta = f"<meta><task><id>1</id><labels>{labels}</labels></task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{body}</annotations>\n'


def write_cvat(path: Path, images: Sequence[MadeImage], names: Sequence[str] = NAMES) -> Path:
    """Writes annotations.xml with skeletons, and boxes of the label bbox in the group of their skeleton."""
    parts = []
    for number, image in enumerate(images):
        width, height = image.size
        parts.append(f'<image id="{number}" name={quoteattr(image.name)} width="{width}" height="{height}">')
        for group, person in enumerate(image.persons, start=1):
            parts.append(f'<skeleton label="person" source="manual" z_order="0" group_id="{group}">')
            for name in names:
                x, y, v = person.keypoints.get(name, (0.0, 0.0, 0))
                parts.append(
                    f'<points label="{name}" source="manual" outside="{int(v == 0)}" occluded="{int(v == 1)}" '
                    f'points="{x!r},{y!r}"></points>'
                )
            parts.append("</skeleton>")
            if person.box is not None:
                corners = zip(("xtl", "ytl", "xbr", "ybr"), person.box, strict=True)
                coordinates = " ".join(f'{key}="{value!r}"' for key, value in corners)
                parts.append(f'<box label="bbox" occluded="0" {coordinates} z_order="0" group_id="{group}"></box>')
        parts.append("</image>")
    path.write_text(cvat_document("".join(parts), cvat_labels(names=names)), encoding="utf-8")
    return path


def label_studio_tasks(images: Sequence[MadeImage]) -> list[dict[str, Any]]:
    """Tasks with keypoints whose parent is their rectangle, or that are connected by relations without one."""
    tasks = []
    for number, image in enumerate(images, start=1):
        result: list[dict[str, Any]] = []
        width, height = image.size
        common = {"original_width": width, "original_height": height, "image_rotation": 0, "to_name": "image"}
        for index, person in enumerate(image.persons):
            box_id, ids = f"box{index}", []
            if person.box is not None:
                x1, y1, x2, y2 = person.box
                value = {
                    "x": x1 / width * 100,
                    "y": y1 / height * 100,
                    "width": (x2 - x1) / width * 100,
                    "height": (y2 - y1) / height * 100,
                    "rotation": 0,
                    "rectanglelabels": ["person"],
                }
                result.append({**common, "id": box_id, "type": "rectanglelabels", "from_name": "label", "value": value})
            for name, (x, y, v) in person.keypoints.items():
                value = {"x": x / width * 100, "y": y / height * 100, "width": 0.5, "keypointlabels": [name]}
                region = {**common, "id": f"{index}{name}", "type": "keypointlabels", "from_name": "kp", "value": value}
                result.append(region if person.box is None else {**region, "parentID": box_id})
                ids.append(region["id"])
                if v == 1:
                    choice = {"id": region["id"], "type": "choices", "from_name": "visibility"}
                    result.append({**choice, "value": {"choices": ["occluded"]}})
            if person.box is None:
                result += [
                    {"from_id": a, "to_id": b, "type": "relation", "direction": "right"}
                    for a, b in itertools.pairwise(ids)
                ]
        tasks.append(
            {
                "id": number,
                "data": {"image": f"/data/upload/1/{number:08x}-{image.name}"},
                "annotations": [{"id": number, "was_cancelled": False, "ground_truth": False, "result": result}],
                "predictions": [],
            }
        )
    return tasks


def write_label_studio(path: Path, images: Sequence[MadeImage]) -> Path:
    path.write_text(json.dumps(label_studio_tasks(images)), encoding="utf-8")
    return path


def labelme_content(image: MadeImage) -> dict[str, Any]:
    """The content of Labelme's file of an image."""
    shapes: list[dict[str, Any]] = []
    for group, person in enumerate(image.persons, start=1):
        common = {"group_id": group, "description": "", "flags": {}, "mask": None}
        if person.box is not None:
            x1, y1, x2, y2 = person.box
            shapes.append({**common, "label": "person", "points": [[x2, y1], [x1, y2]], "shape_type": "rectangle"})
        for name, (x, y, v) in person.keypoints.items():
            shape = {**common, "label": name, "points": [[x, y]], "shape_type": "point"}
            shapes.append({**shape, "flags": {"occluded": v == 1}})
    width, height = image.size
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"..\\images\\{image.name}",
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }


def write_labelme(folder: Path, images: Sequence[MadeImage]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        path = folder / Path(image.name).with_suffix(".json").name
        path.write_text(json.dumps(labelme_content(image)), encoding="utf-8")
    return folder


def deeplabcut_rows(
    images: Sequence[MadeImage], num_individuals: int | None = 2, index_columns: int = 1, names: Sequence[str] = NAMES
) -> list[list[str]]:
    """The rows of CollectedData_*.csv; None individuals is a project of a single one."""
    individuals = [f"individual{index + 1}" for index in range(num_individuals or 1)]
    columns = [(individual, name, coord) for individual in individuals for name in names for coord in ("x", "y")]
    blank = [""] * (index_columns - 1)
    rows = [["scorer", *blank, *("me" for _ in columns)]]
    if num_individuals is not None:
        rows.append(["individuals", *blank, *(column[0] for column in columns)])
    rows.append(["bodyparts", *blank, *(column[1] for column in columns)])
    rows.append(["coords", *blank, *(column[2] for column in columns)])
    for image in images:
        pieces = ["labeled-data", "video", image.name]
        row = pieces if index_columns == 3 else ["/".join(pieces)]
        for index in range(len(individuals)):
            keypoints = image.persons[index].keypoints if index < len(image.persons) else {}
            for name in names:
                x, y, _ = keypoints.get(name, ("", "", 0))
                row = [*row, *(repr(value) if value != "" else "" for value in (x, y))]
        rows.append(row)
    return rows


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


def csv_rows(images: Sequence[MadeImage], names: Sequence[str] = NAMES) -> list[list[str]]:
    """The rows of a plain CSV file with a row for each person."""
    rows = [["image", "person", *(f"{name}_{key}" for name in names for key in ("x", "y", "v"))]]
    for image in images:
        for index, person in enumerate(image.persons):
            row = [image.name, str(index)]
            for name in names:
                row += [str(value) for value in person.keypoints[name]] if name in person.keypoints else ["", "", "0"]
            rows.append(row)
    return rows
