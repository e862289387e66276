"""Rendering of the report as a self-contained HTML file: styles, plots and images are inline."""

import base64
import html
import math
from collections.abc import Iterable, Sequence

from posedy.evaluation.analysis import PCK_FRACTIONS
from posedy.evaluation.coco_eval import METRIC_NAMES
from posedy.evaluation.errors import ERROR_CLASSES
from posedy.evaluation.report.contents import ReportContents
from posedy.evaluation.report.plots import (
    ERROR_COLORS,
    make_swatch,
    plot_calibration,
    plot_errors,
    plot_precision_recall,
    plot_training,
)
from posedy.images import encode_jpeg, rgb_to_bgr

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
.gallery img { min-width: 48rem; max-width: none; width: 100%; }
.swatch { display: inline-block; width: .75em; height: .75em; border-radius: 2px; margin-right: .4em; }
"""
_CLASS_DESCRIPTIONS = {
    "good": "similarity with its ground truth >= 0.85",
    "jitter": "similarity from 0.5 to 0.85",
    "inversion": "left and right confused on the same person",
    "swap": "nearest to a keypoint of another person",
    "miss": "similarity < 0.5 with every keypoint",
}


def render_page(contents: ReportContents) -> str:
    """Renders a report as HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(contents.title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(contents.title)}: AP {_format_number(contents.metrics['AP'])}</h1>",
            f"<p>{contents.num_results} poses on {contents.num_images} images, "
            f"{len(contents.details.errors.persons.oks)} labeled persons.</p>",
            '<div class="columns">',
            _render_section(
                "Confidence intervals",
                "COCO metrics with 95 % confidence intervals, by bootstrap over images.",
                _render_metrics(contents),
            ),
            _render_section("Protocol", "", _render_table(None, contents.protocol, "protocol")),
            _render_section(
                "Precision-recall curves",
                "One curve for each OKS threshold; AP is the mean over all curves.",
                plot_precision_recall(contents.details.curves),
            ),
            _render_section(
                "Error analysis",
                "Error classes of the predicted keypoints of matched persons (Ronchi and Perona, 2017). The AP cost of "
                "a class is the AP gained by correcting its keypoints: each is moved towards its ground truth until "
                "their similarity is 0.85 for a jitter, 0.5 for a miss, and for an inversion or a swap that with the "
                "keypoint it is confused with.",
                _render_errors(contents),
            ),
            "</div>",
            _render_section(
                "Keypoints",
                "In similarity and PCK, unmatched persons count as missed. Error classes are fractions of the "
                "keypoints of matched persons.",
                _render_keypoints(contents),
            ),
            '<div class="columns">',
            _render_section("Errors by keypoint", "", plot_errors(contents.details.errors)),
            _render_section(
                "Subsets of persons",
                "Metrics of subsets of the persons. Results that are near no person reduce the overall AP, but not the "
                "AP of a subset.",
                _render_breakdown(contents),
            ),
            _render_calibration(contents),
            _render_section("Training", "", plot_training(contents.training_log)) if contents.training_log else "",
            "</div>",
            _render_gallery(contents),
            "</body></html>",
        ]
    )


def _render_section(title: str, text: str, body: str) -> str:
    paragraph = f"<p>{html.escape(text)}</p>" if text else ""
    return f'<section><h2>{html.escape(title)}</h2>{paragraph}<div class="scroll">{body}</div></section>'


def _render_table(header: Sequence[str] | None, rows: Iterable[Sequence[str]], css_class: str = "") -> str:
    """Renders a table of text cells, which are escaped, except for cells that start with a swatch."""
    head = f"<thead><tr>{''.join(f'<th>{html.escape(cell)}</th>' for cell in header)}</tr></thead>" if header else ""
    body = "".join(f"<tr>{''.join(f'<td>{_render_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{css_class}">{head}<tbody>{body}</tbody></table>'


def _render_cell(text: str) -> str:
    return text if text.startswith('<span class="swatch"') else html.escape(text)


def _format_number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _render_metrics(contents: ReportContents) -> str:
    rows = []
    for name in METRIC_NAMES:
        interval = contents.intervals[name]
        bounds = f"{_format_number(interval.low)} to {_format_number(interval.high)}"
        rows.append((name, _format_number(contents.metrics[name]), bounds))
    return _render_table(("metric", "value", "95 % interval"), rows)


def _render_errors(contents: ReportContents) -> str:
    counts = contents.details.errors.counts.sum(axis=0)
    costs = contents.details.errors.ap_costs
    rows = []
    for name, count in zip(ERROR_CLASSES, counts, strict=True):
        title, fraction = f"{make_swatch(ERROR_COLORS[name])}{name}", f"{count / max(counts.sum(), 1):.1%}"
        cost = costs.get(name)
        rows.append((title, fraction, "" if cost is None else f"{cost:+.3f}", _CLASS_DESCRIPTIONS[name]))
    rows.append(("all errors", "", f"{costs['all']:+.3f}", ""))
    return _render_table(("class", "fraction", "AP cost", ""), rows, "errors")


def _render_keypoints(contents: ReportContents) -> str:
    metrics, skeleton = contents.details.keypoints, contents.details.errors.persons.skeleton
    counts = contents.details.errors.counts
    rows = []
    for index, name in enumerate(skeleton.keypoints):
        fractions = counts[index] / max(counts[index].sum(), 1)
        rows.append(
            [
                name.replace("_", " "),
                str(metrics.labeled[index]),
                _format_number(float(metrics.similarity[index])),
                *(_format_number(float(metrics.pck[threshold][index])) for threshold in PCK_FRACTIONS),
                *(f"{fraction:.1%}" for fraction in fractions),
            ]
        )
    pck = (f"PCK {threshold:g}" for threshold in PCK_FRACTIONS)
    return _render_table(["keypoint", "labeled", "similarity", *pck, *ERROR_CLASSES], rows)


def _render_breakdown(contents: ReportContents) -> str:
    tables = []
    for criterion, subsets in contents.details.breakdown.items():
        rows = [
            (
                name,
                str(subset.persons),
                _format_number(subset.ap),
                _format_number(subset.ar),
                _format_number(subset.oks),
            )
            for name, subset in subsets.items()
        ]
        tables.append(_render_table((criterion, "persons", "AP", "AR", "OKS"), rows))
    return "<br>".join(tables)


def _render_calibration(contents: ReportContents) -> str:
    text = (
        "Mean OKS of poses and mean similarity of keypoints against their mean score, in ten equal-count bins; the OKS "
        "of an unmatched pose is 0. Calibrated scores lie on the diagonal. ECE is the expected calibration error."
    )
    plotted = {}
    for name, calibration in (("poses", contents.pose_calibration), ("keypoints", contents.keypoint_calibration)):
        if calibration.is_probability:
            plotted[name] = calibration
        else:
            low, high = calibration.score[[0, -1]]
            text += (
                f" Scores of {name} are not probabilities, which are in [0, 1]: the bin means range from {low:.3g} to "
                f"{high:.3g}, so their calibration is not shown."
            )
    return _render_section("Calibration", text, plot_calibration(plotted) if plotted else "")


def _render_gallery(contents: ReportContents) -> str:
    title = "Persons"
    if contents.gallery is None:
        return _render_section(title, contents.missing_images, "") if contents.missing_images else ""
    source = base64.b64encode(encode_jpeg(rgb_to_bgr(contents.gallery), quality=85)).decode()
    image = (
        '<div class="gallery"><img alt="persons, ground truth next to prediction" '
        f'src="data:image/jpeg;base64,{source}"></div>'
    )
    text = "The best, median and worst persons by OKS: ground truth (left) and prediction (right)."
    return _render_section(title, f"{text} {contents.missing_images}".strip(), image)
