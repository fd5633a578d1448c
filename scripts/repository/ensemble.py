"""The models and tensors that make up a classifier: an ensemble, its three steps, and the graph.

Each graph is written twice: `NAME_pixels` takes uint8 pixels and includes the normalisation, and
`NAME_onnx` keeps the original tensors. Both name their image format and their labels, which is what
Triton's example clients image_client.py and grpc_image_client.py need. These examples also need a
fixed image size: `NAME_pixels` always has one, `NAME_onnx` keeps a variable one if the graph allows
it, because that is the more useful contract for tensors.

With ten crops, a second ensemble `NAME_10crop` has steps of its own before and after the same
graph. Its tensors have no batch dimension: a request has one image, whose crops are a batch for the
graph.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.repository.config import Batching, Ensemble, EnsembleStep, Part, Tensor
from scripts.repository.errors import BuildError
from scripts.repository.graphs import pixels, values
from scripts.repository.graphs.pixels import INPUT
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.manifest import GRAPH_ROLES, ROLES
from scripts.repository.steps.preprocess.limits import Limits
from scripts.repository.steps.preprocess.recipe import Recipe, is_square
from scripts.repository.tuning import (
    MAX_TOP_K,
    MAX_WAIT_SECONDS,
    Tuning,
)

IMAGENET_LABELS = tuple(
    Path(__file__).with_name("imagenet_labels.txt").read_text("utf-8").splitlines()
)
LABELS_FILE = "labels.txt"
IMAGENET = Recipe()  # classifiers share its preprocessing steps, one for each `resize`

IMAGE = Tensor("IMAGE", "TYPE_STRING", (1,))
# The same image when it comes from an ensemble; the preprocessing step then issues a credit.
ENSEMBLE_IMAGE = replace(IMAGE, name="ENSEMBLE_IMAGE")
# Data types that Triton's `openvino` backend does not have.
NOT_ON_OPENVINO = ("TYPE_FP64", "TYPE_STRING")
# Accompanies an image from preprocessing to postprocessing, for flow control.
CREDIT = Tensor("CREDIT", "TYPE_INT64", (2,))


@dataclass(frozen=True)
class ClassifierSpec:
    """Everything from which the models of one classifier are written.

    Classifiers share steps. The numbers tell apart those that differ in tuning or code only.
    `crops`, one of `recipe.CROPS`, are those of an image, of which the ensemble takes the mean.
    """

    name: str
    prepared: Prepared
    recipe: Recipe
    labels: tuple[str, ...]
    tuning: Tuning
    precision: str = "fp32"  # one of `PRECISIONS`
    preprocess_number: int = 1
    postprocess_number: int = 1
    crops: int = 1

    @property
    def suffix(self) -> str:
        """Ends the names and the roles of the ensemble and its own steps."""
        return f"_{self.crops}crop" if self.crops > 1 else ""

    @property
    def ensemble_name(self) -> str:
        """The model that clients call."""
        return f"{self.name}{self.suffix}"

    @property
    def onnx_name(self) -> str:
        """The model with the graph's original tensors."""
        return f"{self.name}_onnx"

    @property
    def pixels_name(self) -> str:
        """The model with the graph that takes pixels, which the ensemble uses."""
        return f"{self.name}_pixels"

    @property
    def preprocess_name(self) -> str:
        """The preprocessing model; classifiers with the same ImageNet recipe can share one."""
        recipe = self.recipe
        same_sizes = replace(recipe, resize=IMAGENET.resize, crop=IMAGENET.crop)
        is_imagenet = replace(same_sizes, decoding=IMAGENET.decoding) == IMAGENET
        if is_imagenet and recipe.crop == IMAGENET.crop and is_square(recipe.resize):
            exact = "_exact" if recipe.decoding == "exact" else ""
            name = f"imagenet_preprocess_{recipe.resize[0]}{exact}{self.suffix}"
            return _numbered(name, self.preprocess_number)
        return f"{self.name}_preprocess{self.suffix}"

    @property
    def postprocess_name(self) -> str:
        """The postprocessing model; classifiers of ImageNet's 1,000 classes can share one."""
        if self.labels == IMAGENET_LABELS and self.prepared.scores.are_logits:
            return _numbered(f"imagenet_postprocess{self.suffix}", self.postprocess_number)
        return f"{self.name}_postprocess{self.suffix}"

    @property
    def parts(self) -> dict[str, str]:
        """The name of the model in each role."""
        names = (
            self.ensemble_name,
            self.preprocess_name,
            self.pixels_name,
            self.postprocess_name,
            self.onnx_name,
        )
        return {
            role if role in GRAPH_ROLES else f"{role}{self.suffix}": name
            for role, name in zip(ROLES, names, strict=True)
        }


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"


def preprocess_part(spec: ClassifierSpec) -> Part:
    """Configure the step from IMAGE to PIXELS."""
    tuning = spec.tuning
    part = Part(
        name=spec.preprocess_name,
        backend="python",
        inputs=(replace(IMAGE, optional=True), replace(ENSEMBLE_IMAGE, optional=True)),
        outputs=(_pixels(spec), CREDIT),
        batching=Batching(tuning.preprocess_batch, tuning.max_queue_size, MAX_WAIT_SECONDS),
        parameters={
            "recipe": spec.recipe.to_json(),
            "limits": Limits().to_json(),
            "crops": str(spec.crops),
            "credit_limit": str(tuning.credit_limit),
            "device": tuning.preprocess,
        },
        instances=tuning.preprocess_instances,
        kind=tuning.preprocess.upper(),
    )
    if spec.crops == 1:
        return part
    return replace(
        part,
        inputs=_rows(1, part.inputs),
        outputs=_rows(spec.crops, part.outputs),
        batching=replace(
            part.batching,
            preferred_size=None,
            # As much work as without crops: a longer queue would exceed the time limit, and Triton
            # does not drop cancelled requests for a model without batches before they are run.
            max_queue_size=max(1, tuning.max_queue_size // spec.crops),
        ),
        max_batch_size=0,
    )


def pixels_part(spec: ClassifierSpec) -> Part:
    """Configure the graph that takes PIXELS; the credit limit keeps its queue short."""
    image = replace(_pixels(spec), format="FORMAT_NHWC")
    scores = replace(_scores(pixels.output(spec.prepared), spec), labels=LABELS_FILE)
    batching = Batching(spec.tuning.graph_batch)
    part = _graph_part(spec, spec.pixels_name, image, (scores,), batching)
    part = replace(part, instances=spec.tuning.pixels_instances)
    if spec.tuning.preprocess == "cpu":
        return part
    # The Python backend, which runs the embedded server's onnxruntime, would copy the pixels from
    # the GPU to the CPU. Triton's own backend does not read the parameter.
    return replace(part, parameters=part.parameters | {"FORCE_CPU_ONLY_INPUT_TENSORS": "no"})


def onnx_part(spec: ClassifierSpec) -> Part:
    """Configure the graph with its original tensors, which clients call directly."""
    signature, tuning = spec.prepared.signature, spec.tuning
    size = (signature.height or -1, signature.width or -1)
    if tuning.engine == "tensorrt":
        size = spec.recipe.crop  # its engines are for images of one size
    channels = (signature.channels,)
    image = Tensor(
        signature.input,
        f"TYPE_{signature.input_type}",
        (*channels, *size) if signature.layout == "NCHW" else (*size, *channels),
        format=f"FORMAT_{signature.layout}",
    )
    batching = Batching(tuning.graph_batch, tuning.max_queue_size)
    return _graph_part(spec, spec.onnx_name, image, tuple(_original_outputs(spec)), batching)


def _original_outputs(spec: ClassifierSpec) -> Iterator[Tensor]:
    """Describe the outputs of the file that have one row an image; Triton cannot serve others."""
    prepared = spec.prepared
    for output in map(values.read, prepared.model.graph.output):
        is_scores = output.name == prepared.signature.output
        if output.data_type is None or not output.dims or output.dims[0] is not None:
            continue
        yield Tensor(
            output.name,
            f"TYPE_{output.data_type}",
            tuple(dim or -1 for dim in output.dims[1:]) or (1,),
            labels=LABELS_FILE if is_scores and not prepared.scores.is_single else None,
            is_scalar=len(output.dims) == 1,
        )


def _graph_part(
    spec: ClassifierSpec, name: str, image: Tensor, outputs: tuple[Tensor, ...], batching: Batching
) -> Part:
    tuning = spec.tuning
    part = Part(
        name=name,
        backend=tuning.backend,
        inputs=(image,),
        outputs=outputs,
        batching=batching,
        parameters=tuning.engine_parameters,
        instances=tuning.graph_instances,
        warm_up=_warm_up(image, spec),
        warm_up_batches=tuning.warm_up_batches,
    )
    return _on_openvino(part, spec) if tuning.engine == "openvino" else part


def _on_openvino(part: Part, spec: ClassifierSpec) -> Part:
    """Describe a graph for Triton's `openvino` backend.

    With a `max_batch_size`, that backend accepts batches of exactly this size. It cannot find an
    ONNX file by itself, and has instances on the CPU only.
    https://github.com/triton-inference-server/openvino_backend

    Raises:
        BuildError: the backend cannot serve one of the tensors.
    """
    for tensor in (*part.inputs, *part.outputs):
        if tensor.data_type in NOT_ON_OPENVINO:
            kind = tensor.data_type.removeprefix("TYPE_")
            raise BuildError(
                f"Triton's openvino backend cannot serve {tensor.name}, which is {kind}"
            )
    hint = {"HINT_BF16": "YES"} if spec.precision == "bf16" else {}
    return replace(
        part,
        file="model.onnx",
        explicit_batch=True,
        parameters=part.parameters | hint,
        kind="CPU",
    )


def _warm_up(image: Tensor, spec: ClassifierSpec) -> tuple[int, ...]:
    """Replace a variable height or width, which are -1, by that of the crop."""
    height, width = spec.recipe.crop
    is_first = image.format == "FORMAT_NCHW"
    size = (
        (spec.recipe.channels, height, width) if is_first else (height, width, spec.recipe.channels)
    )
    return tuple(
        known if known > 0 else chosen for known, chosen in zip(image.dims, size, strict=True)
    )


def postprocess_part(spec: ClassifierSpec) -> Part:
    """Configure the step from SCORES to the best classes."""
    part = Part(
        name=spec.postprocess_name,
        backend="python",
        inputs=(_scores("SCORES", spec), replace(CREDIT, optional=True)),
        outputs=_best_classes(),
        parameters={
            "labels": LABELS_FILE,
            "scores": "logits" if spec.prepared.scores.are_logits else "probabilities",
            "max_top_k": str(min(MAX_TOP_K, spec.prepared.classes)),
            "crops": str(spec.crops),
        },
        instances=spec.tuning.postprocess_instances,
        kind="CPU",
    )
    if spec.crops == 1:
        return part
    return replace(
        part,
        inputs=_rows(spec.crops, part.inputs),
        outputs=_rows(1, part.outputs),
        max_batch_size=0,
    )


def ensemble(spec: ClassifierSpec) -> Ensemble:
    """Chain the three steps under the ensemble's name."""
    outputs = _best_classes()
    chain = Ensemble(
        name=spec.ensemble_name,
        inputs=(IMAGE,),
        outputs=outputs,
        steps=(
            EnsembleStep(
                spec.preprocess_name,
                {ENSEMBLE_IMAGE.name: IMAGE.name},
                {INPUT: "pixels", CREDIT.name: "credit"},
            ),
            EnsembleStep(
                spec.pixels_name,
                {INPUT: "pixels"},
                {pixels.output(spec.prepared): "scores"},
            ),
            EnsembleStep(
                spec.postprocess_name,
                {"SCORES": "scores", CREDIT.name: "credit"},
                {output.name: output.name for output in outputs},
            ),
        ),
    )
    if spec.crops == 1:
        return chain
    return replace(
        chain, inputs=_rows(1, chain.inputs), outputs=_rows(1, chain.outputs), max_batch_size=0
    )


def _rows(count: int, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Put a first dimension of a known size in place of the batch."""
    return tuple(replace(tensor, dims=(count, *tensor.dims)) for tensor in tensors)


def _pixels(spec: ClassifierSpec) -> Tensor:
    return Tensor(INPUT, "TYPE_UINT8", (*spec.recipe.crop, spec.recipe.channels))


def _scores(name: str, spec: ClassifierSpec) -> Tensor:
    return Tensor(name, "TYPE_FP32", (spec.prepared.classes,))


def _best_classes() -> tuple[Tensor, ...]:
    return (
        Tensor("CLASS_ID", "TYPE_INT32", (-1,)),
        Tensor("PROBABILITY", "TYPE_FP32", (-1,)),
        Tensor("LABEL", "TYPE_STRING", (-1,)),
    )
