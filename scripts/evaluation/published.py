"""Compares what a served graph answers with published outputs."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.graphs import Graph, GraphClient
from scripts.evaluation.tensors import DataSet
from scripts.repository.graphs.compare import difference
from scripts.repository.manifest import Entry
from scripts.repository.steps.postprocess.ranking import best

Array = npt.NDArray[Any]

TOLERANCE = 1e-3
TOP = 5


@dataclass(frozen=True)
class Deviation:
    """How far served outputs are from the published ones.

    `absolute` is the largest difference of two numbers. `relative` is the largest difference over
    the standard deviation of the published output, or over a tenth of its largest absolute value
    if that is more: `scripts.repository.graphs.compare.difference`. `top1` and `top5` tell for each
    row of the first output with several classes whether its best class, and the set of its best
    five, are the same.
    """

    absolute: float
    relative: float
    top1: tuple[bool, ...] = ()
    top5: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """All data sets of a classifier over one protocol, and the median time of a request."""

    graph: Graph
    protocol: str
    data_sets: int
    deviation: Deviation
    milliseconds: float


def verify(client: GraphClient, graph: Graph, data_sets: Sequence[DataSet]) -> Outcome:
    """Send the inputs of all data sets to a graph, and compare what it answers with the outputs.

    Raises:
        EvaluationError: the data is that of another graph, or the server fails.
    """
    deviations, times = [], []
    for data_set in data_sets:
        outputs, seconds = client.run(graph, data_set)
        deviations.append(compare(data_set, outputs))
        times.append(seconds)
    milliseconds = 1000 * statistics.median(times)
    return Outcome(graph, client.protocol, len(data_sets), _worst(deviations), milliseconds)


def compare(data_set: DataSet, served: Sequence[Array]) -> Deviation:
    """Compare outputs with those of a data set, each [N, ...].

    Raises:
        EvaluationError: they do not have the same shapes.
    """
    pairs = [
        (_like(tensor.array, output, f"{data_set.name}/output_{number}.pb"), output)
        for number, (tensor, output) in enumerate(zip(data_set.outputs, served, strict=True))
    ]
    worst = _worst([Deviation(_absolute(*pair), difference(*pair)) for pair in pairs])
    rows = next((pair for pair in pairs if _classes(pair[0]) > 1), None)
    if not rows:
        return worst
    top1, top5 = (_same_best(*rows, min(k, _classes(rows[0]))) for k in (1, TOP))
    return Deviation(worst.absolute, worst.relative, top1, top5)


def explain(outcome: Outcome, entry: Entry | None) -> str:
    """Say in a sentence why outputs can differ more than they should.

    Args:
        outcome: the outputs.
        entry: what the manifest of the model repository says about the classifier, if it is known.
    """
    if entry and entry.source.startswith("synthetic"):
        return (
            "the model repository was built with random weights (--weights synthetic), which "
            "cannot give the published outputs; build it with the zoo's files"
        )
    precision = entry.precision if entry else "bf16" if outcome.graph.is_bf16 else "fp32"
    if precision != "fp32":
        return (
            f"it was built with --precision {precision}, whose outputs differ from those of FP32 "
            "by design; scripts.evaluate measures what that costs"
        )
    if entry:
        return f"it was built from {entry.source} in FP32; is the archive that of this model?"
    return (
        "perhaps it was built with --weights synthetic or in another precision, or the archive is "
        "that of another model"
    )


def _like(expected: Array, served: Array, file: str) -> Array:
    """Give an output the served shape, since Triton adds dimensions of 1."""
    if served.shape[:1] != expected.shape[:1] or served.size != expected.size:
        raise EvaluationError(
            f"{file} has shape {list(expected.shape)}, and the server answers "
            f"{list(served.shape)}: is the archive that of another model?"
        )
    return expected.reshape(served.shape)


def _absolute(expected: Array, served: Array) -> float:
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        return float(np.abs(expected.astype(np.float64) - served).max())


def _classes(output: Array) -> int:
    return output.size // len(output)


def _same_best(expected: Array, served: Array, k: int) -> tuple[bool, ...]:
    before, after = (each.reshape(len(each), -1) for each in (expected, served))
    pairs = zip(before.astype(np.float32), after.astype(np.float32), strict=True)
    return tuple(set(best(one, k)) == set(best(other, k)) for one, other in pairs)


def _worst(deviations: Iterable[Deviation]) -> Deviation:
    """Combine deviations; NaN is worse than any number."""
    every = list(deviations)
    return Deviation(
        float(np.max([each.absolute for each in every])),
        float(np.max([each.relative for each in every])),
        tuple(same for each in every for same in each.top1),
        tuple(same for each in every for same in each.top5),
    )
