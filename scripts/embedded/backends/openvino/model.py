"""Triton's `openvino` backend, written in Python, for the Triton that pip installs.

That Triton does not include the C++ backend. A model whose config.pbtxt has `backend: "openvino"`
loads here without changes. It differs from the C++ backend in this:

- Each instance is a process with a compiled graph and one stream of its own. It has the share of
  `INFERENCE_NUM_THREADS` that one of `NUM_STREAMS` streams has.
- It computes in FP32 unless `HINT_BF16` is `YES`, and in FP32 as well if the CPU has no bfloat16
  instructions. The C++ backend uses bfloat16 wherever the CPU has it, and emulates it elsewhere.
- It runs batches image by image, since OpenVINO takes less time for a graph that is compiled for
  one image of a known size. Batches may therefore have any size if `max_batch_size` is set.
- Without `max_batch_size`, a request has at most 32 images.
- It refuses images that are too small for the graph. The C++ backend can answer with what an
  earlier request has left in memory.
- It refuses the parameters that it does not have, unless they only concern speed.
"""

import os
import sys
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from scripts.embedded.backends.python.graph_model import (
        GraphModel,
        InvalidRequest,
        join,
        parameters,
    )
else:
    from graph_model import GraphModel, InvalidRequest, join, parameters  # as the server has it

# Without its telemetry package, OpenVINO does not report each import to Google Analytics.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
try:
    from openvino import Core, Tensor
except ImportError as error:
    raise ImportError("openvino is not installed; run: pip install --group serve") from error

UNSUPPORTED = ("CPU_EXTENSION_PATH", "RESHAPE_IO_LAYERS")
MAX_IMAGES = 32
IMAGE_DIMS = 4  # with the batch
MAX_CHECKED = 1000  # shapes whose check is remembered
Shapes = dict[str, list[int]]  # by the name of the input


class TritonPythonModel(GraphModel):
    """Runs the model file in OpenVINO."""

    engine = "openvino"

    def load(self, path: Path, config: dict[str, Any], args: dict[str, str]) -> None:
        """Read the model file and compile it for the shapes of one image."""
        settings = parameters(config)
        _check_parameters(settings)
        dims = config["input"][0]["dims"]
        self.has_implicit_batch = config["max_batch_size"] > 0
        self.has_explicit_batch = (
            not self.has_implicit_batch and len(dims) == IMAGE_DIMS and int(dims[0]) == -1
        )
        self.core = Core()
        self.properties = {
            "INFERENCE_PRECISION_HINT": self._precision(settings, args),
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": _threads(settings),
            # Every process would pin its threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self.model = self.core.read_model(path)
        self.checked: set[tuple[tuple[int, ...], ...]] = set()
        self.expected, has_others = self._expected_shapes(config)
        self.request = (
            self._compile(self._reshaped(self.expected)) if self.expected else self.flexible_request
        )
        if not has_others:
            del self.model  # and with it the weights as they are in the file

    def run(self, parts: list[list[Any]]) -> list[Any]:
        """Compute the outputs, image by image."""
        arrays = [join(each) for each in parts]
        count = len(arrays[0])
        if self.has_explicit_batch and not 1 <= count <= MAX_IMAGES:
            raise InvalidRequest(f"batch-size must be 1 to {MAX_IMAGES}, not {count}")
        if count == 1 or not (self.has_implicit_batch or self.has_explicit_batch):
            return self._infer(arrays)
        rows = [self._infer([array[at : at + 1] for array in arrays]) for at in range(count)]
        return [np.concatenate(each) for each in zip(*rows, strict=True)]

    def _infer(self, arrays: list[Any]) -> list[Any]:
        tensors = dict(zip(self.inputs, arrays, strict=True))
        shapes = {name: list(array.shape) for name, array in tensors.items()}
        if shapes == self.expected:
            request = self.request
        else:
            self._check(shapes)
            request = self.flexible_request
        for name, array in tensors.items():
            request.set_tensor(name, Tensor(array, shared_memory=True))
        request.infer()
        # The next inference overwrites the request's own tensors.
        return [np.array(request.get_tensor(name).data) for name in self.outputs]

    @cached_property
    def flexible_request(self) -> Any:
        """The graph for other shapes. It takes as much memory again, so it waits for the first."""
        return self._compile(self.model)

    def _compile(self, model: Any) -> Any:
        return self.core.compile_model(model, "CPU", self.properties).create_infer_request()

    def _reshaped(self, shapes: Shapes) -> Any:
        model = self.model.clone()
        model.reshape(shapes)
        return model

    def _check(self, shapes: Shapes) -> None:
        """Refuse shapes for which the graph has an empty tensor, such as too small images.

        OpenVINO skips what would compute it or use it, and then answers with what an earlier
        request has left there.
        """
        key = tuple(tuple(shape) for shape in shapes.values())
        if key in self.checked:
            return
        for node in self._reshaped(shapes).get_ops():
            if node.get_type_name() != "Constant" and any(map(_is_empty, node.outputs())):
                raise InvalidRequest(f"the graph needs larger inputs than {shapes}")
        if len(self.checked) == MAX_CHECKED:
            self.checked.clear()
        self.checked.add(key)

    def _expected_shapes(self, config: dict[str, Any]) -> tuple[Shapes | None, bool]:
        """Return the shapes of one image, or of that of the warm-up if the images' size varies.

        Returns:
            The shapes, None if they are not known, and whether others are possible.
        """
        if any("reshape" in tensor for tensor in config["input"]):
            return None, True
        dims = {tensor["name"]: tensor["dims"] for tensor in config["input"]}
        if shapes := self._known(dims):
            return shapes, False
        for warm_up in config["model_warmup"]:
            dims |= {name: sample["dims"] for name, sample in warm_up["inputs"].items()}
        return self._known(dims), True

    def _known(self, dims: dict[str, list[Any]]) -> Shapes | None:
        shapes = {name: [int(size) for size in sizes] for name, sizes in dims.items()}
        for shape in shapes.values():
            if self.has_implicit_batch:
                shape.insert(0, 1)
            elif self.has_explicit_batch:
                shape[0] = 1
        return shapes if all(min(shape) > 0 for shape in shapes.values()) else None

    def _precision(self, settings: dict[str, str], args: dict[str, str]) -> str:
        if "HINT_BF16" not in settings:
            return "f32"
        if "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            return "bf16"
        if args["model_instance_name"].endswith("_0"):  # once for all instances
            pb_utils.Logger.log_warn(
                f"{args['model_name']} runs in FP32: this CPU has no bfloat16 instructions "
                "(AVX512-BF16 or AMX)"
            )
        return "f32"


def _is_empty(output: Any) -> bool:
    """Return whether an output has no values; those of the types of shapes may be empty."""
    is_shape = output.element_type.get_type_name() in ("i32", "i64")
    return not is_shape and output.partial_shape.is_static and 0 in output.shape


def _check_parameters(settings: dict[str, str]) -> None:
    """Refuse what would change the answers and does not exist here."""
    for name in UNSUPPORTED:
        if name in settings:
            raise ValueError(f"the embedded server does not have the parameter {name}")
    for name, only in (("TARGET_DEVICE", "CPU"), ("HINT_BF16", "YES")):
        if settings.get(name, only).upper() != only:
            raise ValueError(f"the embedded server has {name} {only} only, not {settings[name]}")


def _threads(settings: dict[str, str]) -> int:
    """Share the threads, by default one a core, among the streams, by default one."""
    streams = settings.get("NUM_STREAMS", "1")
    count = int(streams) if streams.upper() not in ("AUTO", "NUMA") else 1
    threads = int(settings.get("INFERENCE_NUM_THREADS", 0)) or len(os.sched_getaffinity(0))
    return max(1, threads // max(1, count))
