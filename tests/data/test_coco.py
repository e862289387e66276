import io
import pickle
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from posedy.data.coco import read_coco
from posedy.skeleton import COCO17


def test_persons_of_a_small_file(coco_folder):
    persons = read_coco(coco_folder.annotations, coco_folder.images)
    assert len(persons) == 3
    assert persons.skeleton == COCO17
    assert persons.category_id == 1
    assert persons.image_ids.tolist() == [10, 20, 30, 40]
    assert persons.image_sizes.tolist() == [[64, 48]] * 4
    assert persons.annotation_ids.tolist() == [1, 2, 3]
    assert persons.image_index.tolist() == [0, 0, 1]
    assert persons.boxes.tolist() == [[10.5, 5.25, 30.5, 35.25], [0, 0, 64, 48], [10.5, 5.25, 30.5, 35.25]]
    assert persons.keypoints[0, :3].tolist() == [[20, 10], [22, 9], [18, 9]]
    assert persons.visibility[0].tolist() == [2, 2, 1, 2, 1] + [0] * 12
    assert persons.left_out == {"crowd": 1, "no labeled keypoints": 1}
    assert persons.summary() == (
        "persons.json: 4 images, 3 persons with keypoints on 2 of them; left out: 1 crowd, 1 no labeled keypoints"
    )


def test_arrays_have_documented_types(coco_folder):
    persons = read_coco(coco_folder.annotations)
    types = {
        "image_ids": (np.int64, (4,)),
        "image_sizes": (np.int32, (4, 2)),
        "annotation_ids": (np.int64, (3,)),
        "image_index": (np.int64, (3,)),
        "boxes": (np.float32, (3, 4)),
        "keypoints": (np.float32, (3, 17, 2)),
        "visibility": (np.uint8, (3, 17)),
    }
    for name, (dtype, shape) in types.items():
        assert getattr(persons, name).dtype == dtype, name
        assert getattr(persons, name).shape == shape, name


def test_missing_file_raises_os_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        read_coco(tmp_path / "none.json")


def test_image_paths_include_subfolders_and_non_ascii_names(coco_folder):
    persons = read_coco(coco_folder.annotations, coco_folder.images)
    expected = [coco_folder.images / image["file_name"] for image in coco_folder.content["images"]]
    assert [persons.image_path(index) for index in range(4)] == expected
    with pytest.raises(IndexError):
        persons.image_path(4)
    with pytest.raises(ValueError, match="images"):
        read_coco(coco_folder.annotations).image_path(0)


def test_custom_skeleton_and_category_id(coco_folder):
    content = coco_folder.content
    content["categories"] = [
        {"id": 1, "name": "tree"},
        {"id": 7, "name": "hand", "keypoints": ["tip", "root"], "sigmas": [0.1, 0.2], "skeleton": [[1, 2]]},
    ]
    for annotation in content["annotations"][:2]:
        annotation.update(category_id=7, keypoints=[1, 2, 2, 3, 4, 0], num_keypoints=1)
    coco_folder.write()
    persons = read_coco(coco_folder.annotations)
    assert persons.skeleton.keypoints == ("tip", "root")
    assert persons.category_id == 7
    assert persons.keypoints.tolist() == [[[1, 2], [3, 4]]] * 2
    assert persons.left_out == {"crowd": 0, "no labeled keypoints": 0, "of other categories": 3}
    assert "3 of other categories" in persons.summary()


def read_enlarged(coco_folder, copies):
    """Reads the file with copies of its first image and person."""
    images, annotations = coco_folder.content["images"], coco_folder.content["annotations"]
    for index in range(copies):
        images.append(images[0] | {"id": 1000 + index, "file_name": f"{index:012d}.jpg"})
        annotations.append(annotations[0] | {"id": 1000 + index, "image_id": 1000 + index})
    coco_folder.write()
    return read_coco(coco_folder.annotations)


def test_number_of_python_objects_is_constant(coco_folder):
    def count_objects(persons):
        objects = []
        pickler = pickle.Pickler(io.BytesIO())
        pickler.persistent_id = lambda value: objects.append(value)
        pickler.dump(persons)
        return len(objects)

    small = count_objects(read_coco(coco_folder.annotations))
    persons = read_enlarged(coco_folder, 500)
    assert len(persons) == 503
    assert count_objects(persons) == small
    assert all(
        getattr(persons, field.name).dtype != object
        for field in fields(persons)
        if isinstance(getattr(persons, field.name), np.ndarray)
    )
    # per person: ids and index 16, box 16, keypoints 136, flags 17; per image: id, size and offset 24, name 16
    assert len(pickle.dumps(persons)) < 503 * 185 + 504 * 40 + 5000


def test_persons_can_be_pickled(coco_folder):
    persons = read_coco(coco_folder.annotations, coco_folder.images)
    copy = pickle.loads(pickle.dumps(persons))
    assert copy.summary() == persons.summary()
    assert copy.image_path(2) == persons.image_path(2)
    np.testing.assert_array_equal(copy.keypoints, persons.keypoints)


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("annotations", "images", "num_persons", "num_images"),
    [
        pytest.param(
            *("coco/annotations/person_keypoints_train2017.json", "coco/train2017", 7478, 2395), marks=pytest.mark.slow
        ),
        ("coco/annotations/person_keypoints_val2017.json", "coco/val2017", 1151, 726),
        ("coco/annotations/person_keypoints_train32.json", "coco/train2017", 32, 32),
        pytest.param("lspet/person_keypoints_lspet.json", "lspet/images", 2000, 2000, marks=pytest.mark.slow),
    ],
)
def test_real_annotation_files(real_data, annotations, images, num_persons, num_images):
    path: Path = real_data / annotations
    persons = read_coco(path, real_data / images)
    assert len(persons) == num_persons
    assert len(persons.image_ids) == num_images
    assert persons.warnings == ()

    reference = COCO(str(path))
    for index in range(0, len(persons), 17):
        annotation = reference.anns[int(persons.annotation_ids[index])]
        keypoints = np.array(annotation["keypoints"]).reshape(17, 3)
        assert annotation["image_id"] == persons.image_ids[persons.image_index[index]]
        assert (
            persons.image_path(persons.image_index[index]).name == reference.imgs[annotation["image_id"]]["file_name"]
        )
        x, y, width, height = annotation["bbox"]
        np.testing.assert_allclose(persons.boxes[index], [x, y, x + width, y + height], rtol=1e-6)
        np.testing.assert_allclose(persons.keypoints[index], keypoints[:, :2], rtol=1e-6)
        np.testing.assert_array_equal(persons.visibility[index], keypoints[:, 2])
    usable = sum(
        not annotation["iscrowd"] and annotation["num_keypoints"] > 0 for annotation in reference.anns.values()
    )
    assert usable == num_persons
    assert sum(persons.left_out.values()) + len(persons) == len(reference.anns)
