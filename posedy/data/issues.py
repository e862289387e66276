"""Validation errors and warnings: one issue per kind, with its count, its first examples and advice."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Severity = Literal["error", "warning"]
MAX_EXAMPLES = 5


@dataclass(frozen=True)
class ValidationIssue:
    """One kind of validation error or warning in a file.

    Attributes:
        kind: a short description.
        severity: an "error" makes the file unusable, a "warning" does not.
        count: number of occurrences.
        examples: the first occurrences, each with its id, file and value.
        advice: how to fix it.
    """

    kind: str
    severity: Severity
    count: int
    examples: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        more = self.count - len(self.examples)
        examples = "; ".join(self.examples) + (f"; and {more} more" if more else "")
        return f"{self.severity}: {self.kind} ({self.count}): {examples}. {self.advice}"


class IssueLog:
    """Collects the issues of a file during validation."""

    def __init__(self) -> None:
        self.issues: list[ValidationIssue] = []

    def add(
        self,
        severity: Severity,
        kind: str,
        items: Sequence[Any] | NDArray,
        describe: Callable[[Any], str],
        advice: str,
    ) -> None:
        """Adds an issue if any items are affected; `describe` is called for the first few only."""
        if len(items):
            examples = tuple(describe(item) for item in items[:MAX_EXAMPLES])
            self.issues.append(ValidationIssue(kind, severity, len(items), examples, advice))

    def error(self, kind: str, example: str, advice: str) -> None:
        """Adds an error about the file as a whole."""
        self.issues.append(ValidationIssue(kind, "error", 1, (example,), advice))

    @property
    def errors(self) -> tuple[ValidationIssue, ...]:
        """The issues of severity "error"."""
        return tuple(issue for issue in self.issues if issue.severity == "error")

    def to_error(self, source: str) -> "CocoFileError":
        """Creates an exception that names the file and lists the errors."""
        return CocoFileError.from_issues(source, self.errors)

    def raise_errors(self, source: str) -> None:
        """Raises the errors, if there are any.

        Raises:
            CocoFileError: with the file and all kinds of errors in its message.
        """
        if self.errors:
            raise self.to_error(source)


@dataclass(frozen=True)
class CheckReport:
    """The result of validating an annotation file.

    Attributes:
        annotations: the file.
        summary: one line with the numbers of images, of usable persons and of annotations left out, by reason.
        issues: errors first, then warnings.
        flip_pairs: the names of left and right keypoints that a flip exchanges, None if there is no valid skeleton.
    """

    annotations: Path
    summary: str
    issues: tuple[ValidationIssue, ...]
    flip_pairs: tuple[tuple[str, str], ...] | None = None

    @property
    def errors(self) -> tuple[ValidationIssue, ...]:
        """The issues of severity "error"."""
        return tuple(issue for issue in self.issues if issue.severity == "error")

    @property
    def warnings(self) -> tuple[ValidationIssue, ...]:
        """The issues of severity "warning"."""
        return tuple(issue for issue in self.issues if issue.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether the file can be used."""
        return not self.errors

    def raise_errors(self) -> None:
        """Raises CocoFileError with all errors of the annotation file, if there are any.

        Raises:
            CocoFileError: with the file and all kinds of errors in its message.
        """
        if self.errors:
            raise CocoFileError.from_issues(str(self.annotations), self.errors)

    def format(self) -> str:
        """Formats the report as text: the summary, the flip pairs, then a line per issue."""
        verdict = "can be used" if self.ok else "cannot be used"
        counts = f"{self.annotations} {verdict}: {len(self.errors)} kinds of errors, {len(self.warnings)} of warnings"
        lines = [self.summary, counts, *(f"  {issue}" for issue in self.issues)]
        if self.flip_pairs is not None:
            lines.insert(1, f"flip pairs: {', '.join('-'.join(pair) for pair in self.flip_pairs) or 'none'}")
        return "\n".join(lines)


class CocoFileError(ValueError):
    """An invalid COCO file; the message lists every kind of error with its count and first examples.

    Args:
        message: the text, with the name of the file.
        issues: the errors in the message.
    """

    def __init__(self, message: str, issues: Sequence[ValidationIssue] = ()) -> None:
        super().__init__(message)
        self.issues = tuple(issues)

    @classmethod
    def from_issues(cls, source: str, issues: Sequence[ValidationIssue]) -> "CocoFileError":
        """Creates the exception of a file from its errors, one line each."""
        return cls(format_issues(source, issues), issues)


def format_issues(source: object, issues: Sequence[ValidationIssue]) -> str:
    """Formats the errors of a file or folder that cannot be used as text, one line each."""
    return "\n".join([f"{source} cannot be used:", *(f"  {issue}" for issue in issues)])


def short_repr(value: Any) -> str:
    """Returns the `repr` of a JSON value, shortened to a bounded length."""
    return _SHORT.repr(value)


def format_reasons(left_out: Mapping[str, int]) -> str:
    """Formats counts by reason as text: "27 crowd, 468 no labeled keypoints", or "nothing"."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "nothing"


def count_reasons(reasons: Mapping[str, ArrayLike]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Counts the items that are left out, each under its first reason.

    Args:
        reasons: for each reason, at least one, the mask (N,) of items that it leaves out.

    Returns:
        The mask (N,) of items that are kept, and the number of items left out by reason.
    """
    masks = np.array(list(reasons.values()), dtype=bool)
    by_first_reason = masks & (masks.cumsum(axis=0) == 1)
    left_out = dict(zip(reasons, by_first_reason.sum(axis=1).tolist(), strict=True))
    return np.logical_not(masks.any(axis=0)), left_out


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 20
