"""Overrides of the skeleton by the configuration: flip pairs, limbs, sigmas and upper body."""

import json
from pathlib import Path

import pytest

from posedy.config import SkeletonConfig, load_config
from posedy.data.categories import apply_overrides
from posedy.data.coco import GroundTruth, read_coco
from posedy.skeleton import Skeleton

NAMES = ["snout", "paw_a", "paw_b", "tail"]
CATEGORY = {"id": 1, "name": "cat", "keypoints": NAMES, "skeleton": [[1, 2]], "sigmas": [0.1] * 4}


def test_empty_overrides_change_nothing() -> None:
    assert apply_overrides(CATEGORY, None) == CATEGORY
    assert apply_overrides(CATEGORY, SkeletonConfig()) == CATEGORY


def test_names_are_converted_to_indices() -> None:
    config = SkeletonConfig(
        flip_pairs=[("paw_a", "paw_b")], limbs=[("snout", "tail"), ("tail", "paw_b")], upper_body=["snout", "paw_a"]
    )
    skeleton = Skeleton.from_coco_category(apply_overrides(CATEGORY, config))
    assert skeleton.flip_pairs == ((1, 2),)
    assert skeleton.limbs == ((0, 3), (3, 2))
    assert skeleton.upper_body == (0, 1)
    assert CATEGORY["skeleton"] == [[1, 2]]


@pytest.mark.parametrize(
    "sigmas", [0.05, [0.05, 0.05, 0.05, 0.05], {"tail": 0.05, "snout": 0.05, "paw_b": 0.05, "paw_a": 0.05}]
)
def test_sigmas_are_a_number_a_list_or_a_mapping(sigmas: object) -> None:
    changed = apply_overrides(CATEGORY, SkeletonConfig.model_validate({"sigmas": sigmas}))
    assert changed["sigmas"] == [0.05] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip_pairs": [["paw_a", "pawb"]]}, r"flip_pairs: 'pawb' .*'paw_b'"),
        ({"limbs": [["snoot", "tail"]]}, r"limbs: 'snoot' .* 'snout'"),
        ({"upper_body": ["head"]}, r"upper_body: 'head'"),
        ({"sigmas": [0.1, 0.1]}, r"sigmas .*expected 4 numbers, got 2"),
        ({"sigmas": {"tail": 0.1}}, r"sigmas .*snout, paw_a, paw_b"),
        ({"sigmas": {"tial": 0.1}}, r"sigmas: 'tial' .* 'tail'"),
    ],
)
def test_invalid_overrides_raise_with_key_and_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.skeleton\.{message}"):
        apply_overrides(CATEGORY, SkeletonConfig.model_validate(settings))


def test_persons_and_ground_truth_use_the_overrides(synthetic: Path, tmp_path: Path) -> None:
    path = synthetic / "annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    category = content["categories"][0]
    category["keypoints"] = [f"k{index}" for index in range(17)]
    for key in ("sigmas", "flip_pairs", "upper_body"):
        del category[key]
    custom = tmp_path / "custom.json"
    custom.write_text(json.dumps(content))
    config = load_config(None, ["data.skeleton={sigmas: 0.05, flip_pairs: [[k1, k2]]}"]).data.skeleton
    default, persons = read_coco(custom), read_coco(custom, overrides=config)
    skeleton_warnings = {"skeleton without sigmas", "skeleton without flip pairs"}
    assert default.skeleton.flip_pairs == ()
    assert {issue.kind for issue in default.warnings} >= skeleton_warnings
    assert persons.skeleton.flip_pairs == ((1, 2),)
    assert persons.skeleton.sigmas == (0.05,) * 17
    assert not {issue.kind for issue in persons.warnings} & skeleton_warnings
    assert GroundTruth.from_coco(custom, config).category["sigmas"] == [0.05] * 17
    wrong = config.model_copy(update={"flip_pairs": [("k1", "k99")]})
    with pytest.raises(ValueError, match=r"data\.skeleton\.flip_pairs: 'k99'"):
        read_coco(custom, overrides=wrong)


def test_flip_pairs_are_found_by_names() -> None:
    names = ["nose", "L_Eye", "R_Eye", "left front paw", "right front paw"]
    names += ["earLeft", "earRight", "paw_l", "paw_r", "tail"]
    skeleton = Skeleton.from_coco_category({"name": "cat", "keypoints": names, "sigmas": [0.05] * 10})
    assert skeleton.flip_pairs == ((1, 2), (3, 4), (5, 6), (7, 8))
