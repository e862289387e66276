"""What a check finds in a data set: each kind of trouble once, counted, the first few named, with what to do."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Severity = Literal["error", "warning"]
NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in a file.

    Attributes:
        kind: what is wrong, in a few words.
        severity: an "error" keeps the file from being used, a "warning" does not.
        count: how often it was found.
        examples: the first few, each with its id, file and value.
        advice: what to do.
    """

    kind: str
    severity: Severity
    count: int
    examples: tuple[str, ...]
    advice: str

    def __str__(self) -> str:
        more = self.count - len(self.examples)
        named = "; ".join(self.examples) + (f"; and {more} more" if more else "")
        return f"{self.severity}: {self.kind} ({self.count}): {named}. {self.advice}"


class FindingLog:
    """Collects findings while a file is checked."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def add(
        self,
        severity: Severity,
        kind: str,
        culprits: Sequence[Any] | NDArray,
        describe: Callable[[Any], str],
        advice: str,
    ) -> None:
        """Adds a finding unless there are no culprits; `describe` is asked for the first few only."""
        if len(culprits):
            examples = tuple(describe(culprit) for culprit in culprits[:NAMED])
            self.findings.append(Finding(kind, severity, len(culprits), examples, advice))

    def error(self, kind: str, example: str, advice: str) -> None:
        """Adds an error about the file as a whole."""
        self.findings.append(Finding(kind, "error", 1, (example,), advice))

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the file from being used."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    def as_error(self, source: str) -> "CocoFileError":
        """The errors as an exception that names the file."""
        return CocoFileError.listing(source, self.errors)

    def raise_errors(self, source: str) -> None:
        """Raises the errors, if there are any.

        Raises:
            CocoFileError: which names the file and all kinds of errors.
        """
        if self.errors:
            raise self.as_error(source)


@dataclass(frozen=True)
class CheckReport:
    """The outcome of checking an annotation file.

    Attributes:
        annotations: the file.
        summary: one line: images, persons that can be used, what is left out and why.
        findings: errors first, then warnings.
    """

    annotations: Path
    summary: str
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the file from being used."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings to look at that do not keep the file from being used."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether the file can be used."""
        return not self.errors

    def raise_errors(self) -> None:
        """Raises the errors, if there are any.

        Raises:
            CocoFileError: which names the file and all kinds of errors.
        """
        if self.errors:
            raise CocoFileError.listing(str(self.annotations), self.errors)

    def format(self) -> str:
        """The report as text: the summary, then a line per finding."""
        verdict = "can be used" if self.ok else "cannot be used"
        counts = f"{self.annotations} {verdict}: {len(self.errors)} kinds of errors, {len(self.warnings)} of warnings"
        return "\n".join([self.summary, counts, *(f"  {finding}" for finding in self.findings)])


class CocoFileError(ValueError):
    """A COCO file that cannot be used; the message lists what is wrong, counted, with the first few named.

    Args:
        message: the text, which names the file.
        findings: the errors that it lists.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)

    @classmethod
    def listing(cls, source: str, findings: Sequence[Finding]) -> "CocoFileError":
        """The error of a file that lists findings, a line each."""
        lines = "\n".join(f"  {finding}" for finding in findings)
        return cls(f"{source} cannot be used:\n{lines}", findings)


def short(value: Any) -> str:
    """A JSON value as text of bounded length."""
    return _SHORT.repr(value)


def name_reasons(left_out: Mapping[str, int]) -> str:
    """The counts of what is left out as text: "27 crowd, 468 no labeled keypoints", or "nothing"."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count) or "nothing"


def count_reasons(reasons: Mapping[str, ArrayLike]) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Counts what is left out, each item under its first reason.

    Args:
        reasons: for each reason, at least one, the items (N,) that it leaves out.

    Returns:
        Which items (N,) have no reason, and how many are left out, by reason.
    """
    culprits = np.array(list(reasons.values()), dtype=bool)
    by_first_reason = culprits & (culprits.cumsum(axis=0) == 1)
    left_out = dict(zip(reasons, by_first_reason.sum(axis=1).tolist(), strict=True))
    return np.logical_not(culprits.any(axis=0)), left_out


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlong = 20
