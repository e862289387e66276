"""A subject owns the names of its files, and no other's."""

import pytest

from posedy.data.synthetic import ANIMAL12, ANIMALS, PEOPLE, SUBJECTS
from posedy.skeleton import COCO17, Skeleton


def test_files_are_named_as_promised() -> None:
    assert PEOPLE.keypoints_file("val") == "annotations/person_keypoints_val2017.json"
    assert PEOPLE.detections_file == "annotations/person_detections_val2017.json"
    assert ANIMALS.keypoints_file("train") == "annotations/animal_keypoints_train.json"
    assert ANIMALS.detections_file is None
    assert SUBJECTS == {"people": PEOPLE, "animals": ANIMALS}
    assert (PEOPLE.mark, ANIMALS.mark) == ("people drawn by posedy", "animals drawn by posedy")


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("annotations", {"people", "animals"}),
        ("train", {"animals"}),
        ("val/000000000003.jpg", {"animals"}),
        ("annotations/animal_keypoints_val.json", {"animals"}),
        ("val2017/000000000003.jpg", {"people"}),
        ("annotations/person_detections_val2017.json", {"people"}),
        ("val/holiday.jpg", set()),
        ("test/000000000003.jpg", set()),
        ("annotations/000000000003.jpg", set()),
        ("annotations/animal_detections_val.json", set()),
    ],
)
def test_each_owns_its_own_files(path: str, owners: set[str]) -> None:
    assert {name for name, subject in SUBJECTS.items() if subject.owns(path)} == owners


def test_the_category_of_animals_is_as_a_user_would_write_it() -> None:
    assert not {"sigmas", "flip_pairs", "upper_body"} & set(ANIMALS.category)
    with pytest.warns(UserWarning, match="sigmas"):
        skeleton = Skeleton.from_coco_category(ANIMALS.category)
    assert skeleton.keypoints == ANIMAL12.keypoints
    assert skeleton.limbs == ANIMAL12.limbs
    assert set(skeleton.flip_pairs) == set(ANIMAL12.flip_pairs)
    assert Skeleton.from_coco_category(PEOPLE.category) == COCO17
