"""The report of an evaluation: sentences and tables for people, JSON for programs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.evaluation.results import REFERENCE, Agreement, Result
from scripts.evaluation.sheet import Sheet
from scripts.evaluation.statistics import SIGNIFICANCE, Share, holm

SHOWN_FAILURES = 20


@dataclass(frozen=True)
class Data:
    """The data set: where it is, where its labels come from, and its digest."""

    path: str
    layout: str
    sha256: str
    images: int


@dataclass(frozen=True)
class Report:
    """The results of the models, in their order, and what they agree with.

    `labels` are those of the classes, in output order. `published` has the top-1 and top-5, as
    fractions, that the zoo publishes for some of the models.
    """

    data: Data
    labels: tuple[str, ...]
    results: tuple[Result, ...]
    agreements: tuple[Agreement, ...] = ()
    published: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON has it; shares are fractions, with their intervals."""
        return {
            "data": asdict(self.data),
            "models": {each.model: self._model(each) for each in self.results},
            "agreements": [
                {name: _plain(value) for name, value in vars(each).items()}
                | {"p_adjusted": adjusted}
                for each, adjusted in zip(self.agreements, self._adjusted, strict=True)
            ],
        }

    def sentences(self) -> list[str]:
        """Return what the tables do not say by themselves."""
        return [
            *self._about_rates(),
            *self._about_failures(),
            *self._about_agreements(),
            *self._about_published(),
            *self._about_differences(),
        ]

    def sheets(self) -> list[Sheet]:
        """Return the tables, the most important first."""
        return [*self._accuracies(), self._images(), *self._agreements(), *self._differences()]

    def details(self) -> list[Sheet]:
        """Return the tables of single images and classes."""
        return [*self._confused(), *self._farthest(), *self._failures()]

    @property
    def _adjusted(self) -> list[float | None]:
        """The p-values of the agreements, adjusted for their number."""
        adjusted = iter(holm([each.p for each in self.agreements if each.p is not None]))
        return [None if each.p is None else next(adjusted) for each in self.agreements]

    def _model(self, result: Result) -> dict[str, Any]:
        accuracy = result.accuracy
        values: dict[str, Any] = {
            "images": result.images,
            "images_per_second": round(result.images_per_second, 2),
            "failures": [asdict(each) for each in result.failures],
        }
        if accuracy:
            values["top1"], values["top5"] = _plain(accuracy.top1), _plain(accuracy.top5)
            values["calibration_error"] = accuracy.calibration_error
            values["most_confused"] = [
                {
                    "label": self.labels[pair.label],
                    "predicted": self.labels[pair.predicted],
                    "count": pair.count,
                    "total": pair.total,
                }
                for pair in accuracy.confusion.most_confused()
            ]
        if accuracy and (published := self.published.get(result.model)):
            values["published"] = dict(zip(("top1", "top5"), published, strict=True))
        return values

    def _accuracies(self) -> Iterator[Sheet]:
        rows = [row for each in self.results for row in self._accuracy_rows(each)]
        if rows:
            columns = ("model", "", "accuracy", "95 % interval", "published", "published is")
            kept = len(columns) if self.published else -2
            yield Sheet("Accuracy", columns[:kept], [row[:kept] for row in rows], right=2)

    def _accuracy_rows(self, result: Result) -> Iterator[tuple[str, ...]]:
        if not result.accuracy:
            return
        published = self.published.get(result.model) or (None, None)
        shares = (result.accuracy.top1, result.accuracy.top5)
        for name, share, known in zip(("top-1", "top-5"), shares, published, strict=True):
            if share:
                value, interval = _percent(share.value), _interval(share)
                yield (result.model, name, value, interval, *_published(share, known))

    def _images(self) -> Sheet:
        rows = [
            (
                each.model,
                f"{each.images:,}",
                f"{len(each.failures):,}",
                _optional(each.accuracy.calibration_error if each.accuracy else None, "{:.4f}"),
                f"{each.images_per_second:.1f}",
            )
            for each in self.results
        ]
        return Sheet("Images", ("model", "images", "failed", "calibration error", "images/s"), rows)

    def _agreements(self) -> Iterator[Sheet]:
        if not self.agreements:
            return
        rows = [
            (
                each.model,
                each.other,
                f"{each.top1.total:,}",
                _percent(each.top1.value),
                _percent(each.top5.value) if each.top5 else "-",
                _percent(each.order.value),
            )
            for each in self.agreements
        ]
        columns = ("model", "compared with", "images", "same top-1", "same top-5", "in order")
        yield Sheet("Agreement", columns, rows, right=2)

    def _differences(self) -> Iterator[Sheet]:
        """Return tables of what differs: accuracy, if there are labels, and probabilities."""
        names = ("model", "compared with")
        rows = [
            (each.model, each.other, f"{each.gain:+.2%}", f"{each.p:.3g}")
            for each in self.agreements
            if each.gain is not None and each.p is not None
        ]
        if rows:
            columns = (*names, "top-1 accuracy", "McNemar's p")
            yield Sheet("Difference in accuracy", columns, rows, right=2)
        rows = [
            (each.model, each.other, f"{each.largest:.4f}", f"{each.mean:.5f}")
            for each in self.agreements
            if each.largest is not None and each.mean is not None
        ]
        if rows:
            title = "Largest difference in the probability of a class, in all images and on average"
            yield Sheet(title, (*names, "largest", "mean"), rows, right=2)

    def _farthest(self) -> Iterator[Sheet]:
        for each in self.agreements:
            if each.farthest:
                rows = [(name, f"{difference:.4f}") for name, difference in each.farthest]
                title = f"Images whose probabilities differ most: {each.model} and {each.other}"
                yield Sheet(title, ("image", "difference"), rows)

    def _confused(self) -> Iterator[Sheet]:
        for each in self.results:
            if each.accuracy and each.accuracy.confusion.most_confused(1):
                title = f"Most confused pairs of {each.model}"
                yield each.accuracy.confusion.to_sheet(self.labels, title)

    def _failures(self) -> Iterator[Sheet]:
        for each in self.results:
            rows = [(failure.name, failure.reason) for failure in each.failures[:SHOWN_FAILURES]]
            if rows:
                first = f", the first {len(rows)}" if len(rows) < len(each.failures) else ""
                title = f"Images that failed with {each.model}{first}"
                yield Sheet(title, ("image", "reason"), rows, right=2)

    def _about_failures(self) -> Iterator[str]:
        if any(each.failures and each.accuracy for each in self.results):
            yield "Images that the server refuses count as wrong."

    def _about_agreements(self) -> Iterator[str]:
        """Name the images that the shares of an agreement leave out."""
        for each in self.agreements:
            if left_out := self.data.images - each.top1.total:
                yield (
                    f"{each.model}: {left_out:,} of {self.data.images:,} images were not compared "
                    f"with {each.other}; neither has an answer for them."
                )

    def _about_rates(self) -> Iterator[str]:
        if any(each.other == REFERENCE for each in self.agreements):
            yield "The reference ran on this machine at the same time, so images/s are fewer."

    def _about_published(self) -> Iterator[str]:
        if any(each.accuracy and each.model in self.published for each in self.results):
            yield (
                "The published figures are the zoo's, for the 50,000 images of ImageNet's "
                "validation set."
            )

    def _about_differences(self) -> Iterator[str]:
        """Name the differences in accuracy that chance does not explain."""
        compared = [each for each in self._adjusted if each is not None]
        for each, p in zip(self.agreements, self._adjusted, strict=True):
            if p is None or each.gain is None:
                continue
            size = f"{abs(each.gain) * 100:.2f} percentage points"
            where = f"{'above' if each.gain > 0 else 'below'} {each.other}"
            if p < SIGNIFICANCE:
                yield f"{each.model} is {size} {where} in top-1, beyond chance (p = {p:.2g})."
            elif each.gain:
                yield f"{each.model} is {size} {where} in top-1, which may be chance (p = {p:.2g})."
            else:
                yield f"{each.model} has the same top-1 accuracy as {each.other}."
        if len(compared) > 1:
            yield f"These p are adjusted for {len(compared)} comparisons (Holm)."


def write(report: Report, folder: Path) -> None:
    """Write `report.json` and `report.md`.

    Raises:
        OSError: a file cannot be written.
    """
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False)
    (folder / "report.json").write_text(text + "\n", "utf-8")
    (folder / "report.md").write_text(_markdown(report), "utf-8")


def _markdown(report: Report) -> str:
    data = report.data
    head = (
        f"# Evaluation\n\n{data.images:,} images of `{data.path}` ({data.layout}), "
        f"sha256 of their names and labels {data.sha256}.\n"
    )
    sentences = "".join(f"\n- {each}" for each in report.sentences())
    pictures = [
        f"![Confusion matrix of {each.model}]({picture(each.model)})\n"
        for each in report.results
        if each.accuracy
    ]
    sheets = [each.to_markdown() for each in (*report.sheets(), *report.details())]
    return "\n".join(filter(None, (head, sentences and f"{sentences[1:]}\n", *sheets, *pictures)))


def picture(model: str) -> str:
    """Return the name of the file with a model's confusion matrix."""
    return f"{model}-confusion.png"


def _published(share: Share, known: float | None) -> tuple[str, str]:
    if known is None:
        return "-", "-"
    if known < share.low:
        return _percent(known), "below"
    return _percent(known), "above" if known > share.high else "inside"


def _interval(share: Share) -> str:
    return f"{share.low * 100:.2f} to {share.high * 100:.2f}%"


def _percent(fraction: float) -> str:
    return f"{fraction:.2%}"


def _optional(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _plain(value: Any) -> Any:  # noqa: ANN401 - the fields of an Agreement
    if isinstance(value, Share):
        names = ("count", "total", "value", "low", "high")
        return {name: getattr(value, name) for name in names}
    return value
