import dataclasses
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.cocoeval import Params

from posedy.skeleton import COCO17, LimbWarning, Skeleton, pair_names, side_of_name

HAND = Skeleton(
    keypoints=("wrist", "left_tip", "right_tip", "palm"),
    flip_pairs=((1, 2),),
    limbs=((0, 3), (3, 1), (3, 2)),
    sigmas=(0.05, 0.06, 0.06, 0.1),
    upper_body=(1, 2),
)


@st.composite
def skeletons(draw: st.DrawFn) -> Skeleton:
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=12, unique=True))
    order = draw(st.permutations(range(len(names))))
    pairs = draw(st.integers(0, len(names) // 2))
    index = st.integers(0, len(names) - 1)
    return Skeleton(
        keypoints=tuple(names),
        flip_pairs=tuple((order[2 * i], order[2 * i + 1]) for i in range(pairs)),
        limbs=tuple(draw(st.lists(st.tuples(index, index), max_size=10))),
        sigmas=tuple(draw(st.lists(st.floats(1e-3, 1), min_size=len(names), max_size=len(names)))),
        upper_body=draw(st.none() | st.lists(index, unique=True).map(tuple)),
    )


def test_coco_sigmas_equal_pycocotools():
    np.testing.assert_allclose(COCO17.sigmas, Params(iouType="keypoints").kpt_oks_sigmas, rtol=1e-12)


def test_coco_flip_pairs_are_left_and_right():
    assert len(COCO17.flip_pairs) == 8
    for left, right in COCO17.flip_pairs:
        assert COCO17.keypoints[left].removeprefix("left_") == COCO17.keypoints[right].removeprefix("right_")
    assert [COCO17.keypoints[i] for i, j in enumerate(COCO17.flip_permutation) if i == j] == ["nose"]


def test_coco_upper_and_lower_body():
    assert COCO17.upper_body == tuple(range(11))
    assert COCO17.lower_body == tuple(range(11, 17))


@given(skeletons())
def test_flip_permutation_is_an_involution(skeleton):
    permutation = skeleton.flip_permutation
    assert sorted(permutation) == list(range(skeleton.num_keypoints))
    assert [permutation[index] for index in permutation] == list(range(skeleton.num_keypoints))
    moved = {index for pair in skeleton.flip_pairs for index in pair}
    assert {index for index, other in enumerate(permutation) if index != other} == moved


@given(skeletons())
def test_upper_and_lower_body_partition_the_keypoints(skeleton):
    if skeleton.upper_body is None:
        assert skeleton.lower_body is None
    else:
        assert sorted(skeleton.upper_body + skeleton.lower_body) == list(range(skeleton.num_keypoints))


@given(skeletons() | st.just(COCO17) | st.just(HAND))
@pytest.mark.filterwarnings("error")
def test_coco_category_can_be_read_back(skeleton):
    category = json.loads(json.dumps(skeleton.to_coco_category()))
    assert Skeleton.from_coco_category(category) == skeleton


def test_limbs_of_a_coco_category_are_one_based():
    assert HAND.to_coco_category()["skeleton"] == [[1, 4], [4, 2], [4, 3]]


@pytest.mark.filterwarnings("error")
def test_official_category_is_coco17():
    category = {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(COCO17.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in COCO17.limbs],
    }
    assert Skeleton.from_coco_category(category) == COCO17


def test_unknown_names_give_flip_pairs_by_name_and_a_warning():
    names = ["Left_Wing", "tail", "right_wing", "wing_left", "wing_right", "left_alone"]
    with pytest.warns(UserWarning, match="'bird'"):
        skeleton = Skeleton.from_coco_category({"name": "bird", "keypoints": names})
    assert skeleton.flip_pairs == ((0, 2), (3, 4))
    assert skeleton.sigmas == (pytest.approx(np.mean(COCO17.sigmas), abs=1e-4),) * 6
    assert skeleton.limbs == ()
    assert skeleton.upper_body is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": (), "sigmas": ()}, "at least one"),
        ({"keypoints": ("a", "b", "a", "c")}, "unique"),
        ({"sigmas": (0.1, 0.1, 0.1)}, "expected 4 sigmas .*got 3"),
        ({"sigmas": (0.1, 0.1, 0.1, 0)}, "positive"),
        ({"sigmas": (0.1, 0.1, 0.1, float("nan"))}, "positive"),
        ({"sigmas": (0.1, 0.1, 0.1, float("inf"))}, "positive"),
        ({"flip_pairs": ((0, 1), (1, 2))}, "flip_pairs: expected each"),
        ({"flip_pairs": ((1, 1),)}, "flip_pairs: expected each"),
        ({"flip_pairs": ((0, 4),)}, r"flip_pairs: .*got \[4\]"),
        ({"flip_pairs": ((0, 1, 2),)}, "flip_pairs: expected pairs"),
        ({"limbs": ((0, -1),)}, r"limbs: .*got \[-1\]"),
        ({"limbs": ((0,),)}, "limbs: expected pairs"),
        ({"upper_body": (0, 9)}, r"upper_body: .*0 to 3, got \[9\]"),
    ],
)
def test_inconsistent_values_raise(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(HAND, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": None},
        {"keypoints": []},
        {"keypoints": "nose"},
        {"keypoints": ["nose", 3]},
        {"sigmas": ["wide"] * 4},
        {"sigmas": [0.1]},
        {"flip_pairs": [[0]]},
        {"flip_pairs": [["left_tip", "tip"]]},
        {"flip_pairs": [[0, 7]]},
        {"upper_body": 3},
        {"upper_body": [4]},
    ],
)
def test_invalid_category_raises(changes):
    with pytest.raises(ValueError, match=r"category|keypoints|flip_pairs|limbs|sigmas|upper_body"):
        Skeleton.from_coco_category(HAND.to_coco_category() | changes)


def test_null_is_absent():
    category = {"name": "person", "keypoints": list(COCO17.keypoints)}
    expected = Skeleton.from_coco_category(category)
    assert Skeleton.from_coco_category(category | {"sigmas": None, "flip_pairs": None}) == expected


@pytest.mark.parametrize(
    ("limbs", "expected"),
    [
        (None, ()),
        ([], ()),
        ([[1, 4], [4.0, "2"]], ((0, 3), (3, 1))),
        ([["wrist", "palm"]], ((0, 3),)),
        ([[0, 3], [3, 1]], ((0, 3), (3, 1))),
        ([[0, 3], [3, 4]], ()),
        ([[1, 5]], ()),
        ([[-1, 2]], ()),
        ([[1, 2, 3]], ()),
        ([1, 2], ()),
        ([["wrist", "thumb"]], ()),
        ([["wrist", 4]], ()),
        ([[1, 10**400]], ()),
        ([[1, float("nan")]], ()),
        (5, ()),
    ],
)
def test_limbs_are_lenient_with_a_warning(limbs, expected):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        skeleton = Skeleton.from_coco_category(HAND.to_coco_category() | {"skeleton": limbs})
    assert skeleton == dataclasses.replace(HAND, limbs=expected)
    is_usual = not limbs or (expected and limbs[0][0] != 0)
    assert [warning.category for warning in caught] == ([] if is_usual else [LimbWarning])


def test_pairs_and_upper_body_may_be_names():
    names = {"flip_pairs": [["left_tip", "right_tip"]], "upper_body": ["left_tip", 2]}
    assert Skeleton.from_coco_category(HAND.to_coco_category() | names) == HAND


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        ("nose LShoulder RShoulder WristL WristR", "LShoulder-RShoulder WristL-WristR"),
        (
            "shoulder.L shoulder.R l_eye r_eye kp_left3 kp_right3",
            "shoulder.L-shoulder.R l_eye-r_eye kp_left3-kp_right3",
        ),
        ("rHip lHip HandR2 HandL2 L1 R1", "lHip-rHip HandL2-HandR2 L1-R1"),
        ("leye reye LSHO RSHO hipl hipr", "leye-reye LSHO-RSHO hipl-hipr"),
        ("leftear rightear EARLEFT EARRIGHT", "leftear-rightear EARLEFT-EARRIGHT"),
        ("l_eye_left l_eye_right r_eye_left r_eye_right", "l_eye_left-r_eye_right l_eye_right-r_eye_left"),
        ("Lt_hip Rt_hip 左肩 右肩 auge_links auge_rechts", "Lt_hip-Rt_hip 左肩-右肩 auge_links-auge_rechts"),
        (
            "ojo_izq ojo_der mano.esq mano.dir SxGinocchio DxGinocchio",
            "ojo_izq-ojo_der mano.esq-mano.dir SxGinocchio-DxGinocchio",
        ),
        ("left_eye Left_eye right_eye", ""),
        ("left_eye R_eye lip rear L5 upper_left lal", ""),
        ("lal ral lar rar", "lal-ral lar-rar"),
        ("face-0 face-1 face-2", ""),
    ],
)
def test_pairs_are_found_by_name(names, pairs):
    names = names.split()
    assert {f"{names[a]}-{names[b]}" for a, b in pair_names(names)} == set(pairs.split())


@given(
    st.lists(st.text("lrLR_1e", max_size=4) | st.sampled_from(["left", "leftl", "right", "rightl", "右"]), unique=True)
)
def test_found_pairs_are_disjoint(names):
    paired = [index for pair in pair_names(names) for index in pair]
    assert len(set(paired)) == len(paired)


@pytest.mark.parametrize(
    ("name", "side"),
    [("left_eye", "left"), ("EyeR", "right"), ("l_1", "left"), ("earright", "right"), ("L5", None), ("rear", None)],
)
def test_side_of_a_name(name, side):
    assert side_of_name(name) == side


def test_category_without_keypoints_raises():
    with pytest.raises(ValueError, match="'dog'"):
        Skeleton.from_coco_category({"id": 18, "name": "dog"})
