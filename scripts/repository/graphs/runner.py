"""Runs graphs in onnxruntime while they are built."""

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto

from scripts.repository import onnx_file
from scripts.repository.errors import BuildError
from scripts.repository.graphs.signature import Signature

Array = npt.NDArray[Any]
Shape = tuple[int | str | None, ...]

# onnxruntime raises errors as exceptions; it would also log those of attempts that may fail.
LOG_NOTHING = 4


class Runner:
    """Runs a graph on any number of images, in batches of its declared size.

    Without `optimised`, onnxruntime computes each node as it is. `threads` compute one batch; 0
    takes one for each core.

    Raises:
        BuildError: onnxruntime cannot load or run the graph.
    """

    def __init__(
        self,
        model: ModelProto,
        signature: Signature,
        *,
        optimised: bool = True,
        threads: int = 0,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_NOTHING
        options.intra_op_num_threads = threads
        if not optimised:
            levels = onnxruntime.GraphOptimizationLevel
            options.graph_optimization_level = levels.ORT_DISABLE_ALL
        self._signature = signature
        try:
            self._session = session(model, options)
        except Exception as error:
            raise BuildError(f"onnxruntime cannot load the graph: {first_line(error)}") from error

    def run(self, images: Array) -> Array:
        """Compute the scores [N, ...] of images in the layout and type of the signature.

        A last batch that is too small is filled with its last image.
        """
        batch = self._signature.batch or len(images)
        starts = range(0, len(images), batch)
        return np.concatenate([self._run_batch(images[at : at + batch], batch) for at in starts])

    def run_each(self, images: Array) -> Array:
        """Compute the same, one image at a time if the graph's batch size allows it."""
        return np.concatenate([self.run(image[None]) for image in images])

    def shapes(self) -> dict[str, Shape]:
        """Tell the shape of each output by its name, as onnxruntime infers it.

        Dimensions that are not fixed are names, or None.
        """
        return {output.name: tuple(output.shape) for output in self._session.get_outputs()}

    def _run_batch(self, images: Array, batch: int) -> Array:
        count = len(images)
        filled = np.concatenate([images, np.repeat(images[-1:], batch - count, axis=0)])
        try:
            scores: Array = self._session.run(
                [self._signature.output], {self._signature.input: filled}
            )[0]
        except Exception as error:
            raise BuildError(f"onnxruntime cannot run the graph: {first_line(error)}") from error
        if scores.ndim == 0 or len(scores) != batch:
            raise BuildError(f"its output is {list(scores.shape)} for {batch} images")
        return scores[:count]


def session(model: ModelProto, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """Load a graph of any size for the CPU."""
    with source(model) as graph:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def source(model: ModelProto) -> AbstractContextManager[bytes | Path]:
    """Provide a graph as engines take it: serialised, or as files if it exceeds 2 GiB."""
    return loadable(onnx_file.write(model))


@contextmanager
def loadable(files: dict[str, bytes]) -> Iterator[bytes | Path]:
    """Provide the files of a graph, the main one first, as engines take them.

    Files that have to be on the disk are removed from `files`, which frees their memory.
    """
    main, *others = files
    if not others:
        yield files[main]
        return
    with tempfile.TemporaryDirectory() as folder:
        while files:
            name, content = files.popitem()
            Path(folder, name).write_bytes(content)
        del content
        yield Path(folder, main)


def first_line(error: Exception) -> str:
    """Shorten an error message of onnxruntime, which can be a page long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
