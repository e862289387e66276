import html.parser
import re
from dataclasses import replace

import numpy as np
import pytest

from posedy.evaluation.analysis import Part
from posedy.evaluation.report.contents import gather
from posedy.evaluation.report.page import render


class Parsed(html.parser.HTMLParser):
    """Checks that elements are closed in order, and gathers text and addresses."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.addresses, self.ids = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        if tag not in ("meta", "img", "br"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def test_the_page_is_whole_and_needs_nothing_else(truth, noised):
    picture = np.zeros((60, 80, 3), dtype=np.uint8)
    contents = replace(gather("a <network>", [("boxes", "gt & more")], truth, noised(6)), persons=picture)
    page = render(contents)
    parsed = Parsed(page)
    assert parsed.open == []
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert "url(http" not in page
    assert len(set(parsed.ids)) == len(parsed.ids)
    pointed_at = {address[1:] for address in parsed.addresses if address.startswith("#")}
    assert pointed_at | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(parsed.ids)
    assert f"a <network>: AP {contents.metrics['AP']:.3f}" in parsed.words
    assert "gt & more" in parsed.words
    for heading in ("Numbers", "Protocol", "Precision and recall", "Errors", "Keypoints", "Scores"):
        assert heading in parsed.words
    assert "Training" not in parsed.words
    for words in (
        "left wrist",
        "inversion",
        "neighbors (IoU of boxes)",
        f"{contents.details.errors.costs['miss']:+.3f}",
    ):
        assert words in parsed.words


@pytest.mark.slow
def test_curves_of_a_training_are_there_if_there_was_one(truth, noised):
    rows = [{"epoch": "1", "loss": "2.5", "AP": ""}, {"epoch": "2", "loss": "2.0", "AP": "0.1"}]
    assert "Training" in Parsed(render(gather("x", [], truth, noised(6), training=rows))).words


@pytest.mark.parametrize("size", [0, 500])
def test_perfect_and_hopeless_results_have_pages_too(truth, noised, size):
    Parsed(render(gather("x", [], truth, noised(size))))


def test_what_is_undefined_is_a_dash(truth, noised):
    contents = gather("x", [], truth, noised(6))
    empty = {"size": {"nobody": Part(0, np.nan, np.nan, np.nan)}}
    words = Parsed(render(replace(contents, details=replace(contents.details, parts=empty)))).words
    assert words[words.index("nobody") + 1 :][:8].count("–") == 3


@pytest.mark.slow
def test_scores_that_are_no_probabilities_have_no_calibration(truth, noised):
    results = [{**result, "score": 30 * result["score"]} for result in noised(6)]
    contents = gather("x", [], truth, results)
    page = render(contents)
    assert "Scores of poses are no probabilities" in page
    assert "poses, mean distance" not in page
    assert "keypoints, mean distance" in page
    page = render(replace(contents, keypoint_calibration=contents.pose_calibration))
    assert "Scores of keypoints are no probabilities" in page
    assert "mean distance" not in page


def test_names_of_keypoints_are_words_not_formulas(truth, noised):
    names = [f"${index}<\\frac$" for index in range(17)]
    odd = replace(truth, category={**truth.category, "keypoints": names, "sigmas": [0.05] * 17})
    parsed = Parsed(render(gather("x", [], odd, noised(6))))
    assert parsed.words.count(names[3]) == 2


def test_one_keypoint_is_enough(truth, noised):
    one = replace(
        truth,
        category={"id": 1, "name": "dot", "keypoints": ["dot"], "sigmas": [0.1]},
        annotations=tuple({**person, "keypoints": person["keypoints"][:3]} for person in truth.annotations),
    )
    results = [{**result, "keypoints": result["keypoints"][:3]} for result in noised(2)]
    assert Parsed(render(gather("x", [], one, results))).words.count("dot") == 2
