"""Converts a classifier's ONNX graph to one that Triton can serve in batches."""

from dataclasses import dataclass

from onnx import ModelProto

from scripts.repository.graphs import inference_mode
from scripts.repository.graphs.batches import with_batches
from scripts.repository.graphs.compare import precision
from scripts.repository.graphs.opset import opset, servable
from scripts.repository.graphs.original import run_original
from scripts.repository.graphs.samples import DEFAULT_SIZE
from scripts.repository.graphs.scores import Scores, recognise
from scripts.repository.graphs.signature import Signature, read_signature, without_zip_maps
from scripts.repository.graphs.strides import with_early_strides
from scripts.repository.steps.preprocess.recipe import Size

__all__ = ["DEFAULT_SIZE", "Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """A servable graph.

    Attributes:
        model: the graph, with the file's own tensors and a variable batch size.
        signature: its tensors.
        scores: how its output becomes probabilities.
        batches: how several images are computed: `variable`, together, or `loop`, in turn.
        difference: the largest difference from the file's scores that was found, relative to
            their spread.
        body: what is inside the loop, of a fixed batch size; None without a loop.
    """

    model: ModelProto
    signature: Signature
    scores: Scores
    batches: str = "variable"
    difference: float = 0.0
    body: ModelProto | None = None

    @property
    def classes(self) -> int:
        """The number of classes that are served."""
        return self.scores.classes

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return opset(self.model)


def prepare(
    model: ModelProto,
    *,
    size: Size | None = None,
    output: str | None = None,
    layout: str | None = None,
    scores: str | None = None,
) -> Prepared:
    """Make the batch size variable, and height and width too if the graph supports it.

    Initializers are removed from the inputs, opset and IR are converted to versions that
    onnxruntime 1.19 and later support where that is possible, and tensors keep their names. Pixels
    that no layer needs are not computed.

    Args:
        model: the graph of a file; it is not changed.
        size: height and width at which a graph without a fixed size is tested.
        output: name of the scores, if the graph has several outputs.
        layout: `NCHW` or `NHWC`; None recognises it.
        scores: one of `scores.KINDS`; None recognises it.

    Raises:
        BuildError: the graph is not an image classifier, its scores are random or depend on the
            other images of a batch, or they change by more than rounding explains.
    """
    model = without_zip_maps(model)
    inference_mode.check_not_random(model)
    signature = read_signature(model, output=output, layout=layout)
    original = run_original(model, signature, size)
    kind = recognise(model, signature.output, original.scores, told=scores)
    graph = servable(original)
    if precision(graph) == "FP32":  # a pooling between the nodes of an INT8 layer splits it
        graph = with_early_strides(graph)
    batched = with_batches(graph, original)
    return Prepared(
        model=batched.model,
        signature=batched.signature,
        scores=kind,
        batches="loop" if batched.body else "variable",
        difference=batched.difference,
        body=batched.body,
    )
