"""The report as one HTML file that needs nothing else: styles, plots and pictures are inside."""

import base64
import html
import math
from collections.abc import Iterable, Sequence

import cv2

from posedy.evaluation.analysis import PCK_FRACTIONS
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.evaluation.errors import ERROR_CLASSES
from posedy.evaluation.report.contents import ReportContents
from posedy.evaluation.report.plots import (
    ERROR_COLORS,
    plot_calibration,
    plot_errors,
    plot_precision_recall,
    plot_training,
    swatch,
)

_STYLE = """
:root { color-scheme: light; --line: #d9dee3; --soft: #5c6770; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; color: #1d2429; background: #fff;
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0 .75rem; max-width: 48rem; color: var(--soft); overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 2.5rem; }
.columns > section { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; border-bottom-width: 2px; }
.protocol td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.protocol td:first-child { color: var(--soft); white-space: nowrap; vertical-align: top; }
.errors td:last-child { text-align: left; white-space: normal; min-width: 9rem; color: var(--soft); line-height: 1.3; }
svg, img { max-width: 100%; height: auto; display: block; }
svg { width: 34rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0 1.25rem; margin-top: .5rem; font-size: .9rem;
          font-variant-numeric: tabular-nums; }
.persons img { min-width: 48rem; max-width: none; width: 100%; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
"""
_CLASS_WORDS = {
    "good": "similarity with the truth from 0.85",
    "jitter": "0.5 to 0.85",
    "inversion": "on the other side's keypoint of the same person",
    "swap": "on a keypoint of another person",
    "miss": "near nothing",
}


def render(contents: ReportContents) -> str:
    """The HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(contents.title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(contents.title)}: AP {_number(contents.metrics['AP'])}</h1>",
            f"<p>{contents.num_results} poses on {contents.num_images} images, "
            f"{len(contents.details.errors.persons.oks)} labeled persons.</p>",
            '<div class="columns">',
            _section("Numbers", "95 % intervals by bootstrap over images.", _metrics(contents)),
            _section("Protocol", "", _table(None, contents.protocol, "protocol")),
            _section(
                "Precision and recall",
                "One curve for each threshold of OKS; AP is the mean of all.",
                plot_precision_recall(contents.details.curves),
            ),
            _section(
                "Errors",
                "What predicted keypoints of persons that were found are (Ronchi and Perona, 2017), and the AP that "
                "each class of errors costs: what AP rises by when a jitter has a similarity of 0.85 with the truth, a "
                "miss of 0.5, and an inversion or a swap the one that it has with what it is confused with.",
                _errors(contents),
            ),
            "</div>",
            _section(
                "Keypoints",
                "Similarity and PCK count persons not found as missed; the shares are of those found.",
                _keypoints(contents),
            ),
            '<div class="columns">',
            _section("Errors by keypoint", "", plot_errors(contents.details.errors)),
            _section(
                "Parts of the persons",
                "AP of the poses that are nearest to the persons of a part; those that are near nobody count in the "
                "whole alone.",
                _parts(contents),
            ),
            _scores(contents),
            _section("Training", "", plot_training(contents.training)) if contents.training else "",
            "</div>",
            _persons(contents),
            "</body></html>",
        ]
    )


def _section(title: str, words: str, body: str) -> str:
    paragraph = f"<p>{html.escape(words)}</p>" if words else ""
    return f'<section><h2>{html.escape(title)}</h2>{paragraph}<div class="scroll">{body}</div></section>'


def _table(head: Sequence[str] | None, rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are words, escaped here, but for those that begin with a swatch."""
    top = f"<thead><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}">{top}<tbody>{lines}</tbody></table>'


def _cell(words: str) -> str:
    return words if words.startswith('<span class="swatch"') else html.escape(words)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _metrics(contents: ReportContents) -> str:
    rows = []
    for name in METRIC_NAMES:
        interval = contents.intervals[name]
        rows.append((name, _number(contents.metrics[name]), f"{_number(interval.low)} to {_number(interval.high)}"))
    return _table(("", "", "95 %"), rows)


def _errors(contents: ReportContents) -> str:
    counts = contents.details.errors.counts.sum(axis=0)
    rows = []
    for name, count in zip(ERROR_CLASSES, counts, strict=True):
        title, share = f"{swatch(ERROR_COLORS[name])}{name}", f"{count / max(counts.sum(), 1):.1%}"
        cost = contents.details.errors.costs.get(name)
        rows.append((title, share, "" if cost is None else f"{cost:+.3f}", _CLASS_WORDS[name]))
    rows.append(("all errors", "", f"{contents.details.errors.costs['all']:+.3f}", ""))
    return _table(("", "share", "AP", ""), rows, "errors")


def _keypoints(contents: ReportContents) -> str:
    numbers, skeleton = contents.details.keypoints, contents.details.errors.persons.skeleton
    counts = contents.details.errors.counts
    rows = []
    for index, name in enumerate(skeleton.keypoints):
        shares = counts[index] / max(counts[index].sum(), 1)
        rows.append(
            [
                name.replace("_", " "),
                str(numbers.labeled[index]),
                _number(float(numbers.similarity[index])),
                *(_number(float(numbers.pck[fraction][index])) for fraction in PCK_FRACTIONS),
                *(f"{share:.1%}" for share in shares),
            ]
        )
    head = ["", "labeled", "similarity", *(f"PCK {fraction:g}" for fraction in PCK_FRACTIONS), *ERROR_CLASSES]
    return _table(head, rows)


def _parts(contents: ReportContents) -> str:
    tables = []
    for title, group in contents.details.parts.items():
        rows = [
            (name, str(part.persons), _number(part.ap), _number(part.ar), _number(part.oks))
            for name, part in group.items()
        ]
        tables.append(_table((title, "persons", "AP", "AR", "OKS"), rows))
    return "<br>".join(tables)


def _scores(contents: ReportContents) -> str:
    words = (
        "Poses: their score beside their OKS, 0 for those of nobody. Keypoints: their score beside their "
        "similarity with the truth. Ten bins of equally many; calibrated scores are on the diagonal."
    )
    shown = {}
    for name, calibration in (("poses", contents.pose_calibration), ("keypoints", contents.keypoint_calibration)):
        if calibration.of_probabilities:
            shown[name] = calibration
        else:
            low, high = calibration.score[[0, -1]]
            words += (
                f" Scores of {name} are no probabilities, which are from 0 to 1: the means of the bins go from "
                f"{low:.3g} to {high:.3g}; their calibration is left out."
            )
    return _section("Scores", words, plot_calibration(shown) if shown else "")


def _persons(contents: ReportContents) -> str:
    title = "Best, median and worst persons"
    if contents.persons is None:
        return _section(title, contents.missing_photos, "") if contents.missing_photos else ""
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(contents.persons, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    source = base64.b64encode(jpeg.tobytes()).decode()
    picture = (
        f'<div class="persons"><img alt="persons, truth beside prediction" src="data:image/jpeg;base64,{source}"></div>'
    )
    words = f"The truth (left) beside the prediction, and OKS. {contents.missing_photos}".strip()
    return _section(title, words, picture)
