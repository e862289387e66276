"""Text tables of `python -m tools.lab.paper`."""

import textwrap
from collections.abc import Iterable, Sequence
from string import ascii_lowercase

from posedy.models.registry import is_beyond_paper
from tools.lab.paper.comparison import PAPER_SIZE, ComparedCount, ModelRow, Row, Table, list_reasons
from tools.lab.paper.published import AP_PROTOCOL

_WIDTH = 118
_CONVENTION = (
    "MAdds are multiply-adds of convolutions, linear layers, and the pooling, attention and aggregation of "
    "dynamic convolutions, counted in the graph of one image; #Param includes batch norm. 'paper' is the printed "
    "value; a letter marks values that differ from ours by more than 1 % and more than rounding."
)


def format_models(rows: Sequence[ModelRow], input_size: tuple[int, int]) -> str:
    """Formats all pose networks: our counts, the paper's, and the reasons of differences below."""
    width, height = input_size
    marks = _Marks(item for row in rows for item in row.counts())
    lines = [
        f"Pose networks for crops of {height}x{width} (height x width), 17 keypoints, K = 4 kernels in dynamic layers",
        "",
        f"{'':29}{'backbone':^34}{'head':^34}{'total':^16} paper",
        f"{'':29}" + f"  {'#Param':>6} {'paper':>6}    {'MAdds':>6} {'paper':>6}  " * 2 + f"  #Param   MAdds{'AP':>6}",
    ]
    previous = None
    for row in rows:
        group = row.backbone.name.removeprefix("dy_"), is_beyond_paper(row.name)
        if previous not in (None, group):
            lines.append("")
        if group[1] and not (previous and previous[1]):
            lines += ["Not in the paper: the light head fpn and its backbone mobilenetv2_175"]
        previous = group
        cells = "".join(f"  {format_count(item.ours)} {_paper(item, marks)}" for item in row.counts())
        total = f"  {format_count(row.total.parameters)}  {format_count(row.total.madds)}"
        lines.append(f"{row.name:29}{cells}{total}  {row.paper_ap.AP if row.paper_ap else '-':>4}")
    notes = [_CONVENTION]
    if input_size != PAPER_SIZE:
        notes.append("The paper's MAdds are for crops of 256x192 and are not shown.")
    notes.append(f"AP in percent, from the paper: {AP_PROTOCOL}.")
    return _page(lines, notes, marks)


def format_tables(tables: Sequence[Table]) -> str:
    """Formats the paper's tables: our counts, the paper's, and the reasons of differences below."""
    marks = _Marks(item for table in tables for row in table.rows for item in row.counts())
    lines: list[str] = []
    for table in tables:
        lines += [
            table.title,
            f"{'':27}" + f"{'#Param':>9}{'paper':>9}{'gap':>8}" + f"{'MAdds':>12}{'paper':>9}{'gap':>8}",
        ]
        lines += [_table_line(row, marks) for row in table.rows]
        lines.append("")
    return _page(lines[:-1], [_CONVENTION, "The gap is '=' if our count rounds to the printed digits."], marks)


def format_count(count: int) -> str:
    """Formats a count with 6 characters in millions or billions: "0.396M", "59.29M", "1.272G"."""
    unit, scale = ("G", 1e9) if count >= 999.95e6 else ("M", 1e6)
    value = count / scale
    # the largest number of decimals for which rounding does not add a digit before the point
    decimals = next((n for n in (3, 2, 1) if value < 10 ** (4 - n) - 0.5 * 10**-n), 0)
    return f"{value:.{decimals}f}{unit}".rjust(6)


class _Marks:
    """Footnote letters of the reasons, in order of first use."""

    def __init__(self, counts: Iterable[ComparedCount]) -> None:
        self.letters = dict(zip(list_reasons(counts), ascii_lowercase, strict=False))

    def letter(self, item: ComparedCount) -> str:
        reason = item.paper.reason if item.paper is not None and item.needs_reason else None
        return " " if reason is None else self.letters[reason]


def _paper(item: ComparedCount, marks: _Marks) -> str:
    return f"{item.paper.text if item.paper else '-':>6} {marks.letter(item)}"


def _table_line(row: Row, marks: _Marks) -> str:
    parameters = _with_gap(row.parameters, marks) if row.parameters else f"{'':28}"
    return f"{row.name:27}{parameters}   {_with_gap(row.madds, marks)}".rstrip()


def _with_gap(item: ComparedCount, marks: _Marks) -> str:
    gap = "=" if item.matches_printed else f"{item.gap or 0:+.1%}"
    return f"{format_count(item.ours):>9}{item.paper.text if item.paper else '-':>9}{gap:>8} {marks.letter(item)}"


def _page(lines: Sequence[str], notes: Iterable[str], marks: _Marks) -> str:
    footer = [textwrap.fill(note, _WIDTH) for note in notes]
    footer += [
        textwrap.fill(reason, _WIDTH, initial_indent=f"  {letter}  ", subsequent_indent=" " * 5)
        for reason, letter in marks.letters.items()
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", *footer])
