"""How the graphs of a classifier are computed: in which precision, and by which engine."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from onnx import ModelProto

from scripts.repository import calibration, digests, onnx_file, summary, tensorrt
from scripts.repository.calibration import Images, Progress
from scripts.repository.contents import Contents, Graphs
from scripts.repository.ensemble import ClassifierSpec, onnx_part
from scripts.repository.errors import BuildError
from scripts.repository.graphs import fp16, pixels, samples
from scripts.repository.graphs.agreement import check_openvino, compare
from scripts.repository.graphs.engines import Run, has_bfloat16, load
from scripts.repository.graphs.pixels import with_pixels
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.graphs.quantize import quantize
from scripts.repository.graphs.runner import Array, loadable
from scripts.repository.graphs.scores import Scores
from scripts.repository.graphs.speed import speeds
from scripts.repository.manifest import Choice, Comparison, Quantization
from scripts.repository.sources import ClassifierSource
from scripts.repository.steps.preprocess.recipe import Recipe
from scripts.repository.tuning import ENGINES, Tuning

logger = logging.getLogger(__name__)

CHECKED = 3  # generated images on which OpenVINO is checked
COMPARED = 40  # generated images for the comparison with FP32 if there are no others
# OpenVINO is chosen if it is more than this many times as fast; less is not significant.
TIE = 1.05


@dataclass(frozen=True)
class Request:
    """How the graphs of a classifier shall be computed.

    Attributes:
        tuning: the machine that serves, and the engine.
        precision: one of `PRECISIONS`.
        images: those that calibrate INT8, and those to compare with FP32. None compares bf16 and
            fp16 on generated images.
        auto: choose the engine by measuring, instead of that of `tuning`.
        crops: 10 adds an ensemble that takes the mean of ten crops.
    """

    tuning: Tuning
    precision: str = "fp32"
    images: Images | None = None
    auto: bool = False
    crops: int = 1

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything in it that determines what is written, for a digest."""
        uses_openvino = self.auto or self.tuning.engine == "openvino"
        return {
            "tuning": asdict(self.tuning) | ({"engine": "auto"} if self.auto else {}),
            "precision": self.precision,
            "images": self.images.all_sha256 if self.images else None,
            "openvino": digests.version("openvino") if uses_openvino else None,
            "crops": self.crops,
        }


@dataclass(frozen=True)
class Watch:
    """What is called while graphs are converted and compared.

    `progress` is called with what is done, and returns a function that is called with the number of
    images done so far and their total. `report` is called with a line about speed and agreement;
    without it, speed is not measured.
    """

    progress: Callable[[str], Progress | None] = lambda _: None
    report: Callable[[str], None] | None = None


@dataclass(frozen=True)
class Execution:
    """The graph that is served and its files, the engine in `tuning`, and how both were chosen.

    `rounded` is compared with FP32 in place of a graph in FP16.
    """

    prepared: Prepared
    graphs: Graphs
    tuning: Tuning
    quantization: Quantization | None = None
    choice: Choice | None = None
    comparison: Comparison | None = None
    rounded: Prepared | None = None


def execute(source: ClassifierSource, fp32: Prepared, request: Request, watch: Watch) -> Execution:
    """Convert a graph, choose and check its engine, and compare it with FP32, as requested.

    Raises:
        BuildError: the graph cannot be converted, or has no finite scores in FP16, or the engine
            cannot compute it as requested.
        OSError: an image cannot be read any more.
    """
    if request.precision == "bf16" and (request.auto or request.tuning.engine != "openvino"):
        raise BuildError("only OpenVINO computes in bfloat16; give --engine openvino")
    uses_tensorrt = request.tuning.engine == "tensorrt"
    if uses_tensorrt:
        tensorrt.check(fp32.signature)
    prepared, quantization, rounded = fp32, None, None
    if request.precision == "int8":
        prepared, quantization = _quantize(source, fp32, request, watch)
    if request.precision == "fp16":
        prepared, rounded = _halve(source, fp32)
    model = with_pixels(prepared, source.recipe, convert_first=uses_tensorrt)
    graphs = Graphs(onnx=onnx_file.write(prepared.model), pixels=onnx_file.write(model))
    made = Execution(prepared, graphs, request.tuning, quantization, rounded=rounded)
    if request.auto or request.tuning.engine == "openvino":
        made = _with_openvino(source, made, model, request)
    is_bf16 = request.precision == "bf16" and has_bfloat16()
    if request.precision == "int8" or is_bf16 or rounded:
        made = replace(made, comparison=_compare(source, made, fp32, request, watch))
    return made


def _halve(source: ClassifierSource, fp32: Prepared) -> tuple[Prepared, Prepared | None]:
    """Convert a graph to FP16; the second one rounds as a GPU does, for the comparison."""
    if fp16.is_half(fp32.model):
        logger.warning(
            "%s: the graph computes in FP16 already; it is served as it is, and not compared with "
            "fp32",
            source.name,
        )
        return fp32, None
    made = fp16.convert(fp32)
    for constant in made.limited:
        logger.warning(
            "%s: the constant %s has numbers up to %.3g, which are limited to the largest of FP16, "
            "65,504",
            *(source.name, constant.name, constant.largest),
        )
    return made.prepared, made.rounded


def _quantize(
    source: ClassifierSource, fp32: Prepared, request: Request, watch: Watch
) -> tuple[Prepared, Quantization]:
    if not request.images:
        raise BuildError("INT8 needs images that calibrate it; give --calibration")
    progress = watch.progress("calibrating")
    quantized = quantize(fp32, request.images, source.recipe, progress=progress)
    return quantized.prepared, quantized.quantization


def _with_openvino(
    source: ClassifierSource, made: Execution, model: ModelProto, request: Request
) -> Execution:
    """Check the graphs in OpenVINO, which is requested or may be chosen."""
    choice = None
    try:
        _check(source, made, model, request)
    except BuildError as error:
        if not request.auto:
            fp32 = " --precision fp32" if request.precision == "bf16" else ""
            raise BuildError(f"{error}; build it with --engine onnxruntime{fp32}") from error
        logger.warning("%s: %s; onnxruntime is chosen", source.name, error)
    else:
        if not request.auto:
            return made
        choice = _choose(source, made, request)
    engine = choice.engine if choice else "onnxruntime"
    return replace(made, choice=choice, tuning=replace(made.tuning, engine=engine))


def _check(source: ClassifierSource, made: Execution, model: ModelProto, request: Request) -> None:
    """Check both graphs that are written; `model` is the one that takes pixels."""
    tuning = replace(request.tuning, engine="openvino")
    onnx_part(ClassifierSpec(source.name, made.prepared, source.recipe, (), tuning))
    height, width = source.recipe.crop
    prepared = made.prepared
    signature = replace(prepared.signature, height=height, width=width)
    images = samples.images(prepared.model, signature, CHECKED)
    check_openvino(prepared.model, made.graphs.onnx, signature, images, prepared.scores)
    signature = replace(signature, input=pixels.INPUT, output=pixels.output(prepared))
    images = samples.pixels(CHECKED, source.recipe.crop, source.recipe.channels)
    check_openvino(model, made.graphs.pixels, signature, images, _of_pixels(prepared.scores))


def _of_pixels(scores: Scores) -> Scores:
    """Say how the output of the graph with pixels becomes probabilities."""
    return replace(scores, is_single=False, needs_sigmoid=False, quantization=None)


def _choose(source: ClassifierSource, made: Execution, request: Request) -> Choice:
    """Measure both engines with as many instances and threads as the server has."""
    instances, threads = request.tuning.graph_instances or 1, request.tuning.graph_threads or 1
    variants = [
        [
            _load(engine, made.graphs.pixels, precision=request.precision, threads=threads)
            for _ in range(instances)
        ]
        for engine in ENGINES
    ]
    _, ratio = speeds(variants, samples.pixels(1, source.recipe.crop, source.recipe.channels))
    return Choice("openvino" if ratio > TIE else "onnxruntime", round(ratio, 2))


def _compare(
    source: ClassifierSource, made: Execution, fp32: Prepared, request: Request, watch: Watch
) -> Comparison:
    """Compare what is served, or what rounds like it, with the FP32 graph on onnxruntime."""
    before = made.graphs.pixels
    if made.prepared is not fp32:
        before = onnx_file.write(with_pixels(fp32, source.recipe))
    served = _load(made.tuning.backend, made.graphs.pixels, precision=request.precision)
    reference = _load("onnxruntime", before)
    images, described = _images(source.recipe, request, watch)
    kind = _of_pixels(made.prepared.scores)
    compared = _finite(source, made.rounded, fp32) if made.rounded else served
    comparison = compare(reference, compared, images, kind, described)
    if watch.report and request.tuning.is_cpu:
        slower = {"onnxruntime": reference}
        if made.tuning.engine == "openvino":
            slower |= _openvino(before)
        image = samples.pixels(1, source.recipe.crop, source.recipe.channels)
        gains = _gains(served, slower, image)
        watch.report(summary.gain(request.precision, made.tuning.engine, gains, comparison))
        if slow := summary.without_gain(request.precision, gains):
            logger.warning("%s: %s", source.name, slow)
    elif watch.report:
        watch.report(summary.agreement(request.precision, comparison))
    return comparison


def _finite(source: ClassifierSource, rounded: Prepared, fp32: Prepared) -> Run:
    """Load a graph that rounds to FP16, and refuse it for images without finite scores."""
    model = with_pixels(rounded, source.recipe)
    run = _load("onnxruntime", onnx_file.write(model))

    def checked(image: Array) -> Array:
        scores = run(image)
        if not np.isfinite(scores).all():
            plain = replace(fp32, model=fp32.body or fp32.model)
            raise BuildError(fp16.find_overflow(with_pixels(plain, source.recipe), image))
        return scores

    return checked


def _images(recipe: Recipe, request: Request, watch: Watch) -> tuple[Iterable[Array], str]:
    """Load or make the images of a comparison, each [1, H, W, C], and say which they are."""
    if not request.images:
        return samples.pixels(COMPARED, recipe.crop, recipe.channels)[:, None], "generated images"
    progress = watch.progress("comparing")
    if request.precision != "int8":
        return calibration.pixels(request.images.all, recipe, progress=progress), "images"
    described = "held-out images" if request.images.held_out else "calibration images"
    return calibration.pixels(request.images.compare, recipe, progress=progress), described


def _gains(served: Run, others: dict[str, Run], image: Array) -> dict[str, float]:
    """Measure how many times as fast `served` is as each of the others, on one thread."""
    _, *ratios = speeds([[served], *([run] for run in others.values())], image)
    return {name: 1 / ratio for name, ratio in zip(others, ratios, strict=True)}


def _openvino(graph: Contents) -> dict[str, Run]:
    """Load the FP32 graph in OpenVINO, which may compute only the INT8 one."""
    try:
        return {"openvino": _load("openvino", graph)}
    except BuildError:
        return {}


def _load(engine: str, files: Contents, **options: Any) -> Run:  # noqa: ANN401 - as `load` has them
    with loadable(dict(files)) as graph:
        return load(engine, graph, **options)
