"""What follows from the measurements: shares of the bare model, agreement, and the targets."""

import statistics
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from scripts.measuring.figures import Figures
from scripts.measuring.gpu.journal import Result
from scripts.measuring.gpu.plan import (
    ANSWERS,
    BARE,
    ENSEMBLE,
    PREPROCESSES,
    Measurement,
    Plan,
    Setup,
)
from scripts.measuring.gpu.turns import NO_ANSWER
from scripts.measuring.report import Machine, medians


@dataclass(frozen=True)
class Target:
    """A figure and its bound; `value` is None if it was not measured, and `note` says why."""

    name: str
    bound: float
    unit: str
    value: float | None
    is_most: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met."""
        if self.value is None:
            return "not measured"
        is_met = self.value <= self.bound if self.is_most else self.value >= self.bound
        return "met" if is_met else "not met"


@dataclass(frozen=True)
class Agreement:
    """The share of `images` for which two builds have the same best class."""

    one: Setup
    other: Setup
    images: int
    share: float


@dataclass(frozen=True)
class Report:
    """All results, and where and of what they are.

    `weights` are those of the models, `compared_weights` those of the model whose answers are
    compared. `are_photographs` says whether the images of the answers are.
    """

    machine: Machine
    gpu: dict[str, str]
    plan: Plan
    results: tuple[Result, ...]
    weights: str
    compared_weights: str
    are_photographs: bool

    @property
    def is_rehearsal(self) -> bool:
        """Whether no GPU was measured."""
        return self.plan.provider == "cpu"

    @property
    def title(self) -> str:
        """What the report is."""
        if self.is_rehearsal:
            return "Rehearsal on a CPU: these are not figures of a GPU"
        return f"Benchmark on {self.gpu.get('gpu', 'a GPU')}"

    @cached_property
    def figures(self) -> dict[Measurement, Figures]:
        """The medians over the rounds, in the order of the plan."""
        rounds: dict[Measurement, list[Figures]] = {each: [] for each in self.plan.measurements}
        for each in self.results:
            if each.figures:
                rounds.setdefault(each.measurement, []).append(each.figures)
        return {each: medians(figures) for each, figures in rounds.items() if figures}

    @cached_property
    def failures(self) -> dict[Measurement, str]:
        """Why measurements failed that have no figures and no answers."""
        failed = {each.measurement: each.failed for each in self.results if each.failed}
        good = {each.measurement for each in self.results if not each.failed}
        return {each: reason for each, reason in failed.items() if each not in good}

    @cached_property
    def missing(self) -> list[Measurement]:
        """What was not measured yet."""
        tried = {each.measurement for each in self.results}
        return [each for each in self.plan.measurements if each not in tried]

    def best(
        self, series: str, model: str, precision: str, engine: str = "onnxruntime"
    ) -> float | None:
        """Return the most images/s of a series, over its loads and both preprocessings."""
        found = (model, precision, engine)
        rates = [
            figures["rate"]
            for each, figures in self.figures.items()
            if each.series == series
            and (each.setup.model, each.setup.precision, each.setup.engine) == found
        ]
        return max(rates, default=None)

    def share(self, measurement: Measurement) -> float | None:
        """Divide images/s by those of the bare model at its best batch size."""
        setup = measurement.setup
        bare = self.best(BARE, setup.model, setup.precision, setup.engine)
        return _ratio(self.figures[measurement]["rate"], bare)

    @cached_property
    def agreements(self) -> list[Agreement]:
        """Compare each build with FP32 on the CPU, and GPU with CPU preprocessing.

        Answers for another number of images, of an earlier plan, are left out.
        """
        answers = {
            each.measurement.setup: each.classes
            for each in self.results
            if each.measurement.series == ANSWERS and len(each.classes) == self.plan.images
        }
        found = []
        for setup in answers:
            others = {self.plan.reference, replace(setup, preprocess="cpu")} - {setup}
            found += [
                _agreement(other, setup, answers)
                for other in sorted(others & answers.keys(), key=str)
                if setup != self.plan.reference
            ]
        return found

    @cached_property
    def targets(self) -> list[Target]:
        """The targets for the first model."""
        model = self.plan.models[0]
        served = self.best(ENSEMBLE, model, "fp16")
        halved, full = (self.best(BARE, model, precision) for precision in ("fp16", "fp32"))
        share, speedup = _ratio(served, halved), _ratio(halved, full)
        agreement, note = self._worst_agreement()
        return [
            Target(f"{model} fp16, ensemble / bare model", 0.8, "", share),
            Target(f"{model} fp16, ensemble", 10_000, " images/s", served),
            Target(f"{model}, bare model: FP16 / FP32", 2, "", speedup),
            Target(
                f"{model} fp16, one client: p50 above the bare model's",
                3,
                " ms",
                self._latency(model),
                is_most=True,
            ),
            Target(
                f"{self.plan.compared}, top-1 agreement with FP32 on the CPU",
                0.995,
                "",
                agreement,
                note=note,
            ),
        ]

    def _latency(self, model: str) -> float | None:
        """Return how much longer one client waits for the ensemble, in milliseconds."""
        bare = self.figures.get(Measurement(Setup(model, "fp16", device=self.plan.device), BARE, 1))
        setups = [
            Setup(model, "fp16", device=self.plan.device, preprocess=each) for each in PREPROCESSES
        ]
        served = [self.figures.get(Measurement(setup, ENSEMBLE, 1)) for setup in setups]
        waits = [figures["p50_ms"] for figures in served if figures]
        return min(waits) - bare["p50_ms"] if bare and waits else None

    def _worst_agreement(self) -> tuple[float | None, str]:
        if not self.are_photographs:
            return None, "no photographs: give --images"
        if self.compared_weights == "synthetic":
            return None, "random weights: give --onnx"
        shares = [each.share for each in self.agreements if each.one == self.plan.reference]
        return min(shares, default=None), ""

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "title": self.title,
            "machine": asdict(self.machine) | self.gpu,
            "plan": asdict(self.plan) | {"weights": self.weights},
            "measurements": [
                asdict(each) | {"figures": figures, "share_of_bare": self.share(each)}
                for each, figures in self.figures.items()
            ],
            "agreement": [asdict(each) for each in self.agreements],
            "targets": [asdict(each) | {"verdict": each.verdict} for each in self.targets],
            "failed": {str(each): reason for each, reason in self.failures.items()},
            "not_measured": [str(each) for each in self.missing],
        }


def _agreement(one: Setup, other: Setup, answers: dict[Setup, tuple[int, ...]]) -> Agreement:
    """Compare answers; images that the first build refuses do not count."""
    pairs = zip(answers[one], answers[other], strict=True)
    same = [first == second for first, second in pairs if first != NO_ANSWER]
    return Agreement(one, other, len(same), statistics.fmean(same))


def _ratio(value: float | None, bound: float | None) -> float | None:
    return value / bound if value is not None and bound else None
