"""The four models behind a classifier's name: the ensemble and its three steps."""

from dataclasses import dataclass
from pathlib import Path

from scripts.repository.config import Ensemble, Part, Step, Tensor
from scripts.repository.prepare import Prepared
from scripts.repository.steps.preprocess.recipe import IMAGENET_MEAN, IMAGENET_STD, Recipe

IMAGENET_LABELS = tuple(
    Path(__file__).with_name("imagenet_labels.txt").read_text("utf-8").splitlines()
)
LABELS_FILE = "labels.txt"
IMAGENET_CROP = 224

# A Python backend instance is one process; two let one decode while the other waits for Triton.
PREPROCESS_INSTANCES = 2
POSTPROCESS_INSTANCES = 1


@dataclass(frozen=True)
class Classifier:
    """Everything that a classifier's part of the model repository is made from."""

    name: str
    prepared: Prepared
    recipe: Recipe
    labels: tuple[str, ...]

    @property
    def onnx_name(self) -> str:
        """The part that runs the graph."""
        return f"{self.name}_onnx"

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
    def parts(self) -> tuple[str, ...]:
        """All four names, the public one first."""
        return (self.name, self.preprocess_name, self.onnx_name, self.postprocess_name)


def preprocess_part(classifier: Classifier) -> Part:
    """Configure the step from IMAGE to PIXELS."""
    crop = classifier.recipe.crop
    return Part(
        name=classifier.preprocess_name,
        backend="python",
        inputs=(Tensor("IMAGE", "TYPE_STRING", (1,)),),
        outputs=(Tensor("PIXELS", "TYPE_FP32", (3, crop, crop)),),
        parameters={"recipe": classifier.recipe.to_json()},
        cpu_instances=PREPROCESS_INSTANCES,
    )


def onnx_part(classifier: Classifier) -> Part:
    """Configure the step that runs the graph, under the graph's own tensor names."""
    signature = classifier.prepared.signature
    size = (signature.height or -1, signature.width or -1)
    crop = classifier.recipe.crop
    return Part(
        name=classifier.onnx_name,
        backend="onnxruntime",
        inputs=(Tensor(signature.input, "TYPE_FP32", (3, *size)),),
        outputs=(_scores(signature.output, classifier),),
        warm_up=(3, crop, crop),
    )


def postprocess_part(classifier: Classifier) -> Part:
    """Configure the step from SCORES to the best classes."""
    return Part(
        name=classifier.postprocess_name,
        backend="python",
        inputs=(_scores("SCORES", classifier),),
        outputs=_best_classes(),
        parameters={"labels": LABELS_FILE, "scores": classifier.prepared.scores},
        cpu_instances=POSTPROCESS_INSTANCES,
    )


def ensemble(classifier: Classifier) -> Ensemble:
    """Chain the three steps under the public name."""
    signature = classifier.prepared.signature
    outputs = _best_classes()
    return Ensemble(
        name=classifier.name,
        inputs=(Tensor("IMAGE", "TYPE_STRING", (1,)),),
        outputs=outputs,
        steps=(
            Step(classifier.preprocess_name, {"IMAGE": "IMAGE"}, {"PIXELS": "pixels"}),
            Step(classifier.onnx_name, {signature.input: "pixels"}, {signature.output: "scores"}),
            Step(
                classifier.postprocess_name,
                {"SCORES": "scores"},
                {output.name: output.name for output in outputs},
            ),
        ),
    )


def _scores(name: str, classifier: Classifier) -> Tensor:
    return Tensor(name, "TYPE_FP32", (classifier.prepared.classes,))


def _best_classes() -> tuple[Tensor, ...]:
    return (
        Tensor("CLASS_ID", "TYPE_INT32", (-1,)),
        Tensor("PROBABILITY", "TYPE_FP32", (-1,)),
        Tensor("LABEL", "TYPE_STRING", (-1,)),
    )
