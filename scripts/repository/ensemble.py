"""The models behind a classifier's name: the ensemble, its three steps, and the plain graph."""

from dataclasses import dataclass, replace
from pathlib import Path

from scripts.repository.config import Batching, Ensemble, Part, Step, Tensor
from scripts.repository.graphs.pixels import INPUT
from scripts.repository.graphs.prepare import Prepared
from scripts.repository.manifest import ROLES
from scripts.repository.steps.preprocess.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe
from scripts.repository.tuning import STEP_BATCH, Tuning

IMAGENET_LABELS = tuple(
    Path(__file__).with_name("imagenet_labels.txt").read_text("utf-8").splitlines()
)
LABELS_FILE = "labels.txt"
IMAGENET_CROP = 224

POSTPROCESS_INSTANCES = 1
IMAGE = Tensor("IMAGE", "TYPE_STRING", (1,))
# The same, from an ensemble: decoding gives it a credit.
ENSEMBLE_IMAGE = replace(IMAGE, name="ENSEMBLE_IMAGE")
# Goes with an image from decoding to postprocessing, so that decoding knows how far ahead it is.
CREDIT = Tensor("CREDIT", "TYPE_INT64", (4,))


@dataclass(frozen=True)
class Classifier:
    """Everything that a classifier's part of the model repository is made from."""

    name: str
    prepared: Prepared
    recipe: Recipe
    labels: tuple[str, ...]
    tuning: Tuning

    @property
    def onnx_name(self) -> str:
        """The part that runs the graph as it is documented, on normalised tensors."""
        return f"{self.name}_onnx"

    @property
    def pixels_name(self) -> str:
        """The part that runs the graph on pixels, for the ensemble."""
        return f"{self.name}_pixels"

    @property
    def preprocess_name(self) -> str:
        """The preprocessing part, shared by all classifiers with one of ImageNet's recipes."""
        recipe = self.recipe
        if (recipe.crop, recipe.mean, recipe.std) == (IMAGENET_CROP, IMAGENET_MEAN, IMAGENET_STD):
            return f"imagenet_preprocess_{recipe.resize}"
        return f"{self.name}_preprocess"

    @property
    def postprocess_name(self) -> str:
        """The postprocessing part, shared by all classifiers of ImageNet's 1,000 classes."""
        is_imagenet = self.labels == IMAGENET_LABELS and self.prepared.scores == "logits"
        return "imagenet_postprocess" if is_imagenet else f"{self.name}_postprocess"

    @property
    def parts(self) -> dict[str, str]:
        """The name of the model in each role."""
        names = (
            self.name,
            self.preprocess_name,
            self.pixels_name,
            self.postprocess_name,
            self.onnx_name,
        )
        return dict(zip(ROLES, names, strict=True))


def preprocess_part(classifier: Classifier) -> Part:
    """Configure the step from IMAGE to PIXELS."""
    tuning = classifier.tuning
    return Part(
        name=classifier.preprocess_name,
        backend="python",
        inputs=(replace(IMAGE, optional=True), replace(ENSEMBLE_IMAGE, optional=True)),
        outputs=(_pixels(classifier), CREDIT),
        batching=Batching(STEP_BATCH, tuning.queue),
        parameters={"recipe": classifier.recipe.to_json(), "credit_limit": str(tuning.ahead)},
        instances=tuning.preprocess_instances,
        on_cpu=True,
    )


def pixels_part(classifier: Classifier) -> Part:
    """Configure the step that runs the graph on PIXELS. Decoding keeps its queue short."""
    return _graph_part(classifier, classifier.pixels_name, _pixels(classifier), queue=None)


def onnx_part(classifier: Classifier) -> Part:
    """Configure the graph by itself, under its own tensor names."""
    signature = classifier.prepared.signature
    size = (signature.height or -1, signature.width or -1)
    image = Tensor(signature.input, "TYPE_FP32", (3, *size))
    return _graph_part(classifier, classifier.onnx_name, image, queue=classifier.tuning.queue)


def _graph_part(classifier: Classifier, name: str, image: Tensor, *, queue: int | None) -> Part:
    tuning = classifier.tuning
    crop = classifier.recipe.crop
    threads = tuning.graph_threads
    return Part(
        name=name,
        backend="onnxruntime",
        inputs=(image,),
        outputs=(_scores(classifier.prepared.signature.output, classifier),),
        batching=Batching(tuning.graph_batch, queue),
        parameters={"intra_op_thread_count": str(threads)} if threads else {},
        instances=tuning.graph_instances,
        warm_up=tuple(crop if size < 0 else size for size in image.dims),
    )


def postprocess_part(classifier: Classifier) -> Part:
    """Configure the step from SCORES to the best classes."""
    return Part(
        name=classifier.postprocess_name,
        backend="python",
        inputs=(_scores("SCORES", classifier), replace(CREDIT, optional=True)),
        outputs=_best_classes(),
        parameters={"labels": LABELS_FILE, "scores": classifier.prepared.scores},
        instances=POSTPROCESS_INSTANCES,
        on_cpu=True,
    )


def ensemble(classifier: Classifier) -> Ensemble:
    """Chain the three steps under the public name."""
    signature = classifier.prepared.signature
    outputs = _best_classes()
    return Ensemble(
        name=classifier.name,
        inputs=(IMAGE,),
        outputs=outputs,
        steps=(
            Step(
                classifier.preprocess_name,
                {ENSEMBLE_IMAGE.name: IMAGE.name},
                {INPUT: "pixels", CREDIT.name: "credit"},
            ),
            Step(classifier.pixels_name, {INPUT: "pixels"}, {signature.output: "scores"}),
            Step(
                classifier.postprocess_name,
                {"SCORES": "scores", CREDIT.name: "credit"},
                {output.name: output.name for output in outputs},
            ),
        ),
    )


def _pixels(classifier: Classifier) -> Tensor:
    crop = classifier.recipe.crop
    return Tensor(INPUT, "TYPE_UINT8", (crop, crop, 3))


def _scores(name: str, classifier: Classifier) -> Tensor:
    return Tensor(name, "TYPE_FP32", (classifier.prepared.classes,))


def _best_classes() -> tuple[Tensor, ...]:
    return (
        Tensor("CLASS_ID", "TYPE_INT32", (-1,)),
        Tensor("PROBABILITY", "TYPE_FP32", (-1,)),
        Tensor("LABEL", "TYPE_STRING", (-1,)),
    )
