import html.parser
import re
from dataclasses import replace

import numpy as np
import pytest

from posedy.evaluation.analysis import SubsetMetrics
from posedy.evaluation.report.contents import collect_contents
from posedy.evaluation.report.page import render_page


class ParsedPage(html.parser.HTMLParser):
    """Checks that elements are nested correctly, and collects texts, addresses and ids."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.addresses, self.ids = [], [], [], []
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
        self.texts.append(data.strip())


def test_page_is_valid_and_self_contained(gt, make_noisy_results):
    gallery = np.zeros((60, 80, 3), dtype=np.uint8)
    contents = replace(
        collect_contents("a <network>", [("boxes", "gt & more")], gt, make_noisy_results(6)), gallery=gallery
    )
    page = render_page(contents)
    parsed = ParsedPage(page)
    assert parsed.open == []
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert "url(http" not in page
    assert len(set(parsed.ids)) == len(parsed.ids)
    referenced = {address[1:] for address in parsed.addresses if address.startswith("#")}
    assert referenced | set(re.findall(r"url\(#([^)]*)\)", page)) <= set(parsed.ids)
    assert f"a <network>: AP {contents.metrics['AP']:.3f}" in parsed.texts
    assert "gt & more" in parsed.texts
    for heading in (
        "Confidence intervals",
        "Protocol",
        "Precision-recall curves",
        "Error analysis",
        "Keypoints",
        "Subsets of persons",
        "Calibration",
        "Persons",
    ):
        assert heading in parsed.texts
    assert "Training" not in parsed.texts
    for text in (
        "left wrist",
        "inversion",
        "neighbors (IoU of boxes)",
        f"{contents.details.errors.ap_costs['miss']:+.3f}",
    ):
        assert text in parsed.texts


@pytest.mark.slow
def test_page_contains_training_curves_of_a_training_run(gt, make_noisy_results):
    rows = [{"epoch": "1", "loss": "2.5", "AP": ""}, {"epoch": "2", "loss": "2.0", "AP": "0.1"}]
    contents = collect_contents("x", [], gt, make_noisy_results(6), training_log=rows)
    assert "Training" in ParsedPage(render_page(contents)).texts


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "ap"), [(0, "1.000"), (500, "0.000")])
def test_page_is_valid_for_perfect_and_useless_results(gt, make_noisy_results, noise, ap):
    parsed = ParsedPage(render_page(collect_contents("x", [], gt, make_noisy_results(noise))))
    assert parsed.open == []
    assert f"x: AP {ap}" in parsed.texts
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_undefined_metrics_are_shown_as_dashes(gt, make_noisy_results):
    contents = collect_contents("x", [], gt, make_noisy_results(6))
    empty = {"size": {"empty": SubsetMetrics(0, np.nan, np.nan, np.nan)}}
    texts = ParsedPage(render_page(replace(contents, details=replace(contents.details, breakdown=empty)))).texts
    assert texts[texts.index("empty") + 1 :][:8].count("–") == 3


@pytest.mark.slow
def test_calibration_is_omitted_for_scores_outside_0_to_1(gt, make_noisy_results):
    results = [{**result, "score": 30 * result["score"]} for result in make_noisy_results(6)]
    contents = collect_contents("x", [], gt, results)
    page = render_page(contents)
    assert "Scores of poses are not probabilities" in page
    assert "poses, ECE" not in page
    assert "keypoints, ECE" in page
    page = render_page(replace(contents, keypoint_calibration=contents.pose_calibration))
    assert "Scores of keypoints are not probabilities" in page
    assert ", ECE" not in page


def test_keypoint_names_are_escaped_and_not_math(gt, make_noisy_results):
    names = [f"${index}<\\frac$" for index in range(17)]
    odd = replace(gt, category={**gt.category, "keypoints": names, "sigmas": [0.05] * 17})
    parsed = ParsedPage(render_page(collect_contents("x", [], odd, make_noisy_results(6))))
    assert parsed.texts.count(names[3]) == 2


@pytest.mark.slow
def test_page_supports_one_keypoint(gt, make_noisy_results):
    one = replace(
        gt,
        category={"id": 1, "name": "dot", "keypoints": ["dot"], "sigmas": [0.1]},
        annotations=tuple({**person, "keypoints": person["keypoints"][:3]} for person in gt.annotations),
    )
    results = [{**result, "keypoints": result["keypoints"][:3]} for result in make_noisy_results(2)]
    assert ParsedPage(render_page(collect_contents("x", [], one, results))).texts.count("dot") == 2
