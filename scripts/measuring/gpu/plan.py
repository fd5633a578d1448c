"""What is measured on a GPU, in the order of importance."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec

import onnxruntime

PROVIDERS = {"cuda": "gpu", "cpu": "cpu"}  # of onnxruntime, and the device that it runs on
PREPROCESSES = ("gpu", "cpu")
BARE, BARE_HOST, ONNX, ENSEMBLE, ANSWERS = "bare", "bare_host", "onnx", "ensemble", "answers"
GPU_PACKAGES = ("cupy", "nvidia.nvimgcodec")  # of the preprocessing on a GPU
TENSORRT_PROVIDER, TENSORRT_LIBRARY = "TensorrtExecutionProvider", "libnvinfer.so.10"


@dataclass(frozen=True)
class Setup:
    """A build of a classifier.

    `device` (cpu or gpu) runs the graph, and `preprocess` (cpu or gpu) decodes the images.
    """

    model: str
    precision: str
    engine: str = "onnxruntime"
    device: str = "gpu"
    preprocess: str = "cpu"

    def __str__(self) -> str:
        engine = "" if self.engine == "onnxruntime" else f" with {self.engine}"
        device, preprocess = self.device.upper(), self.preprocess.upper()
        return f"{self.precision} on a {device}{engine}, {preprocess} preprocessing"

    @property
    def folder(self) -> str:
        """The name of the model repository that holds the build."""
        return f"{self.device}-{self.engine}-{self.precision}-{self.preprocess}_preprocessing"


@dataclass(frozen=True)
class Measurement:
    """One turn: a build, one of the five series, and the images or clients at a time.

    `bare` runs the graph of the ensemble on a batch of `load` images that is on the device, and
    `bare_host` on one that is copied from the host. `onnx` and `ensemble` have `load` clients.
    `answers` are the best classes of `load` images.
    """

    setup: Setup
    series: str
    load: int

    def __str__(self) -> str:
        setup, load = self.setup, self.load
        start = f"{setup.model} {setup.precision}, {setup.engine} on a {setup.device.upper()}"
        decoded = f"{setup.preprocess.upper()} preprocessing"
        what = {
            BARE: f"bare, batches of {load}",
            BARE_HOST: f"bare, batches of {load} from the host",
            ONNX: f"{setup.model}_onnx, clients: {load}",
            ENSEMBLE: f"ensemble, {decoded}, clients: {load}",
            ANSWERS: f"answers, {decoded}, images: {load}",
        }
        return f"{start}: {what[self.series]}"

    @property
    def is_bare(self) -> bool:
        """Whether no server is measured."""
        return self.series in {BARE, BARE_HOST}


@dataclass(frozen=True)
class Plan:
    """The builds and loads to measure.

    `compared` is the classifier whose answers are compared, for `images` images. With `skips`, what
    this installation cannot do is left out.
    """

    models: tuple[str, ...]
    precisions: tuple[str, ...]
    engines: tuple[str, ...]
    provider: str
    batches: tuple[int, ...]
    clients: tuple[int, ...]
    seconds: float
    rounds: int
    compared: str
    images: int
    skips: bool = True

    @property
    def device(self) -> str:
        """The device that runs the graphs: cpu or gpu."""
        return PROVIDERS[self.provider]

    @property
    def reference(self) -> Setup:
        """The build with whose answers the others are compared."""
        return Setup(self.compared, "fp32", device="cpu")

    @cached_property
    def measurements(self) -> list[Measurement]:
        """All measurements without repetition, the most important ones first."""
        first, *others = self.models
        found = [*self._of_model(first), *self._answers()]
        found += [each for model in others for each in self._of_model(model)]
        return list(dict.fromkeys(found))

    @cached_property
    def skipped(self) -> tuple[str, ...]:
        """What this installation cannot do; a sentence each."""
        reasons = [self._no_gpu_preprocessing, *map(self._no_engine, self.engines)]
        return tuple(filter(None, reasons))

    @cached_property
    def _no_gpu_preprocessing(self) -> str:
        if self.device == "cpu":
            return "GPU preprocessing is skipped: --provider cpu"
        missing = [name for name in GPU_PACKAGES if self.skips and not _is_installed(name)]
        return f"GPU preprocessing is skipped: {missing[0]} is not installed" if missing else ""

    def _no_engine(self, engine: str) -> str:
        if engine != "tensorrt":
            return ""
        if TENSORRT_PROVIDER not in onnxruntime.get_available_providers():
            return "TensorRT is skipped: the installed onnxruntime has no TensorRT provider"
        try:
            ctypes.CDLL(TENSORRT_LIBRARY)
        except OSError as error:
            return f"TensorRT is skipped: {error}"
        return ""

    def _of_model(self, model: str) -> Iterator[Measurement]:
        *early, last = self._preprocesses
        for preprocess in (*early, last):
            for precision in self.precisions:
                for engine in filter(lambda each: not self._no_engine(each), self.engines):
                    yield from self._of_setup(
                        Setup(model, precision, engine, self.device, preprocess),
                        with_onnx=preprocess == last,
                    )

    def _of_setup(self, setup: Setup, *, with_onnx: bool) -> Iterator[Measurement]:
        plain = replace(setup, preprocess="cpu")  # the graph is the same
        for series in (BARE, BARE_HOST):
            for batch in sorted(self.batches, reverse=True):
                yield Measurement(plain, series, batch)
        if setup.engine == "tensorrt":  # the embedded server does not have it
            return
        most, least = max(self.clients), min(self.clients)
        between = sorted(set(self.clients) - {most, least}, reverse=True)
        for clients in dict.fromkeys((most, least, *between)):
            yield Measurement(setup, ENSEMBLE, clients)
            if with_onnx:
                yield Measurement(plain, ONNX, clients)

    def _answers(self) -> Iterator[Measurement]:
        yield Measurement(self.reference, ANSWERS, self.images)
        for precision in self.precisions:
            for preprocess in self._preprocesses:
                setup = Setup(self.compared, precision, "onnxruntime", self.device, preprocess)
                yield Measurement(setup, ANSWERS, self.images)

    @property
    def _preprocesses(self) -> tuple[str, ...]:
        return PREPROCESSES[1:] if self._no_gpu_preprocessing else PREPROCESSES


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a package that contains it
        return False
