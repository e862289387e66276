"""Keypoints by configuration: pairs, limbs, sigmas and upper body in place of the file's."""

import json
from pathlib import Path

import pytest

from posedy.config import SkeletonConfig, load_config
from posedy.data.categories import with_overrides
from posedy.data.coco import GroundTruth, read_coco
from posedy.skeleton import Skeleton

NAMES = ["snout", "paw_a", "paw_b", "tail"]
CATEGORY = {"id": 1, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2]], "sigmas": [0.1] * 4}


def test_what_is_not_said_stays_as_it_is() -> None:
    assert with_overrides(CATEGORY, None) == CATEGORY
    assert with_overrides(CATEGORY, SkeletonConfig()) == CATEGORY


def test_names_become_indices() -> None:
    config = SkeletonConfig(
        flip_pairs=[("paw_a", "paw_b")], limbs=[("snout", "tail"), ("tail", "paw_b")], upper_body=["snout", "paw_a"]
    )
    skeleton = Skeleton.from_coco_category(with_overrides(CATEGORY, config))
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.limbs == ((0, 3), (3, 2))
    assert skeleton.upper_body == (0, 1)
    assert CATEGORY["skeleton"] == [[1, 2]]


@pytest.mark.parametrize(
    "sigmas", [0.05, [0.05, 0.05, 0.05, 0.05], {"tail": 0.05, "snout": 0.05, "paw_b": 0.05, "paw_a": 0.05}]
)
def test_sigmas_are_one_number_a_list_or_by_name(sigmas: object) -> None:
    changed = with_overrides(CATEGORY, SkeletonConfig.model_validate({"sigmas": sigmas}))
    assert changed["sigmas"] == [0.05] * 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"flip_pairs": [["paw_a", "pawb"]]}, r"flip_pairs: 'pawb' is no keypoint .* nearest is 'paw_b'"),
        ({"limbs": [["snoot", "tail"]]}, r"limbs: 'snoot' .* 'snout'"),
        ({"upper_body": ["head"]}, r"upper_body: 'head'"),
        ({"sigmas": [0.1, 0.1]}, r"sigmas \(or --sigmas\) has 2 numbers, the category 4 keypoints"),
        ({"sigmas": {"tail": 0.1}}, r"sigmas has none for snout, paw_a, paw_b"),
        ({"sigmas": {"tial": 0.1}}, r"sigmas: 'tial' .* 'tail'"),
    ],
)
def test_what_does_not_fit_is_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.skeleton\.{words}"):
        with_overrides(CATEGORY, SkeletonConfig.model_validate(settings))


def test_reader_and_truth_follow_the_configuration(drawn: Path, tmp_path: Path) -> None:
    path = drawn / "annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    category = content["categories"][0]
    category["keypoints"] = [f"k{index}" for index in range(17)]
    for key in ("sigmas", "flip_pairs", "upper_body"):
        del category[key]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(content))
    config = load_config(None, ["data.skeleton={sigmas: 0.05, flip_pairs: [[k1, k2]]}"]).data.skeleton
    plain, persons = read_coco(own), read_coco(own, overrides=config)
    about_skeleton = {"skeleton without sigmas", "skeleton without left and right"}
    assert plain.skeleton.flip_pairs == ()
    assert {finding.kind for finding in plain.warnings} >= about_skeleton
    assert persons.skeleton.flip_pairs == ((1, 2),)
    assert persons.skeleton.sigmas == (0.05,) * 17
    assert not {finding.kind for finding in persons.warnings} & about_skeleton
    assert GroundTruth.from_coco(own, config).category["sigmas"] == [0.05] * 17
    wrong = config.model_copy(update={"flip_pairs": [("k1", "k99")]})
    with pytest.raises(ValueError, match=r"data\.skeleton\.flip_pairs: 'k99'"):
        read_coco(own, overrides=wrong)


def test_pairs_are_found_by_many_ways_to_say_left() -> None:
    names = ["nose", "L_Eye", "R_Eye", "left front paw", "right front paw"]
    names += ["earLeft", "earRight", "paw_l", "paw_r", "tail"]
    skeleton = Skeleton.from_coco_category({"name": "cat", "keypoints": names, "sigmas": [0.05] * 10})
    assert skeleton.flip_pairs == ((1, 2), (3, 4), (5, 6), (7, 8))
