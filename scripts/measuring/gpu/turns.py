"""Measures builds: the bare graph in a process of its own, the others through a server."""

import logging
import resource
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from tritonclient.utils import InferenceServerException

from client import Classifier, ClientError, Source
from scripts.embedded import EmbeddedServer, Endpoints, ServerError
from scripts.embedded.health import GpuLog
from scripts.errors import UserError, last_line
from scripts.measuring import subject, triton
from scripts.measuring.figures import Figures
from scripts.measuring.gpu import bare
from scripts.measuring.gpu.journal import Result
from scripts.measuring.gpu.plan import ANSWERS, ENSEMBLE, ONNX, Measurement, Plan, Setup
from scripts.measuring.gpu.usage import Usage
from scripts.measuring.pictures import picture
from scripts.measuring.rounds import QUALITY, SIZE
from scripts.measuring.wrk import Wrk
from scripts.repository import manifest
from scripts.repository.tuning import GPU_QUEUE, MAX_BATCH_SIZE

logger = logging.getLogger(__name__)

# onnxruntime searches the fastest convolutions at the first batch of each size.
WARM_UP_SECONDS = 60
AT_ONCE = "--exit-timeout-secs=0"  # no request is in flight when a server stops
CONCURRENCY = 16  # requests in flight for the answers
NO_ANSWER = -1  # the class of an image that is refused
Outcome = Figures | tuple[int, ...] | Exception
EXPECTED = (UserError, OSError, ClientError, InferenceServerException)


@dataclass(frozen=True)
class Builds:
    """The folder with the model repositories; one that has the classifier is used as it is.

    `weights` are those of `build_repository`; `file` is the ONNX file of the classifier `own`.
    """

    folder: Path
    weights: str
    own: str = ""
    file: Path | None = None

    def repository(self, setup: Setup) -> Path:
        """Return the model repository that has a build; builds it if it is missing.

        Raises:
            ServerError: the build fails, or the one that is there has another precision.
        """
        repository = self.folder / setup.folder
        if entry := manifest.read(repository).get(setup.model):
            if entry.precision != setup.precision:
                raise ServerError(f"{repository} has {entry.precision} graphs; remove the folder")
            return repository
        command = [sys.executable, "-m", "scripts.build_repository", "--output", str(repository)]
        command += ["--device", setup.device, "--precision", setup.precision]
        command += ["--queue", str(GPU_QUEUE)]
        if setup.engine != "onnxruntime":
            command += ["--engine", setup.engine]
        if setup.preprocess == "gpu":
            command += ["--preprocess", "gpu"]
        if self.file and setup.model == self.own:
            command += ["--onnx", str(self.file), "--name", setup.model]
        else:
            command += ["--models", setup.model, "--weights", self.weights]
        result = subprocess.run(command, cwd=bare.ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ServerError(last_line(result.stderr, result.stdout).removeprefix("error: "))
        return repository


@dataclass(frozen=True)
class Bench:
    """What all turns use.

    `images` are those whose answers are compared, and `arguments` further options of tritonserver.
    """

    plan: Plan
    builds: Builds
    wrk: str
    images: Sequence[Source]
    arguments: tuple[str, ...] = ()

    def results(
        self, measurements: Iterable[Measurement], number: int
    ) -> Generator[Result, None, None]:
        """Measure in a round; neighbours with the same build share a server or a process."""
        for (setup, is_bare), group in groupby(measurements, lambda one: (one.setup, one.is_bare)):
            left = list(group)
            measure = self._bare if is_bare else self._served
            try:
                for outcome in measure(self.builds.repository(setup), setup, tuple(left)):
                    yield _result(left.pop(0), number, outcome)
            except EXPECTED as error:
                yield from [_result(each, number, error) for each in left]

    def _bare(
        self, repository: Path, setup: Setup, measurements: Sequence[Measurement]
    ) -> Iterator[Outcome]:
        graph = subject.read(repository, setup.model).graph
        provider = "tensorrt" if setup.engine == "tensorrt" else self.plan.provider
        loads = [(each.series, each.load) for each in measurements]
        for output in bare.measure(graph, provider, loads, self.plan.seconds):
            yield ServerError(output["failed"]) if "failed" in output else output

    def _served(
        self, repository: Path, setup: Setup, measurements: Sequence[Measurement]
    ) -> Iterator[Outcome]:
        """Start a server, warm it up, and measure each; a failed turn does not end the others."""
        target, endpoints = subject.read(repository, setup.model), Endpoints.free()
        models = [target.name]
        if any(each.series == ONNX for each in measurements):
            models.append(target.onnx_name)
        with EmbeddedServer(
            repository,
            models=models,
            endpoints=endpoints,
            arguments=[AT_ONCE, *self.arguments],
            gpu=setup.device == "gpu",
        ) as server:
            log = GpuLog(server.log) if server.gpus and server.log else None
            wrk = Wrk(endpoints.at("http"), self.wrk)
            if any(each.series != ANSWERS for each in measurements):
                self._warm_up(wrk, target, setup, with_onnx=target.onnx_name in models)
            for each in measurements:
                try:
                    if each.series == ANSWERS:
                        outcome: Outcome = self._answers(endpoints.at("grpc"), target.name)
                    else:
                        outcome = self._turn(wrk, target, each)
                    if log:
                        log.check()
                    yield outcome
                except EXPECTED as error:
                    yield error

    def _turn(self, wrk: Wrk, target: subject.Subject, measurement: Measurement) -> Figures:
        image = picture(SIZE, quality=QUALITY)
        is_ensemble = measurement.series == ENSEMBLE
        request = target.image_request(image) if is_ensemble else target.tensor_request()
        before, start = _seconds_of_children(), time.monotonic()
        with Usage() as usage:
            load = wrk.closed_loop(request, clients=measurement.load, seconds=self.plan.seconds)
        used = (_seconds_of_children() - before) / (time.monotonic() - start)
        triton.settle(wrk.address, request)
        return load | usage.figures | {"wrk_cores": used}

    def _warm_up(self, wrk: Wrk, target: subject.Subject, setup: Setup, *, with_onnx: bool) -> None:
        """Let the graphs run each batch size once, and all processes work; on a CPU, one image."""
        request, start = target.image_request(picture(SIZE, quality=QUALITY)), time.monotonic()
        triton.settle(wrk.address, request)
        if setup.device == "cpu":
            return
        for batch in range(1, MAX_BATCH_SIZE + 1):
            if time.monotonic() - start > WARM_UP_SECONDS:
                logger.warning("%s: no warm-up of batches from %d images", setup.model, batch)
                break
            triton.settle(wrk.address, target.pixels_request(batch))
            if with_onnx:
                triton.settle(wrk.address, target.tensor_request(batch))
        with suppress(ServerError):  # the turn of this load says why
            wrk.closed_loop(request, clients=max(self.plan.clients), seconds=1)
        triton.settle(wrk.address, request)

    def _answers(self, address: str, model: str) -> tuple[int, ...]:
        with Classifier(address, model=model, top_k=1) as classify:
            found = tuple(classify.stream(self.images, concurrency=CONCURRENCY))
        classes = tuple(NO_ANSWER if each.error else each.top.class_id for each in found)
        if set(classes) == {NO_ANSWER}:
            raise ServerError(f"{model} has no answer for any image: {found[0].error}")
        return classes


def _result(measurement: Measurement, number: int, outcome: Outcome) -> Result:
    if isinstance(outcome, Exception):
        reason = (str(outcome).strip() or type(outcome).__name__).splitlines()[0]
        return Result(measurement, number, failed=reason)
    if isinstance(outcome, tuple):
        return Result(measurement, number, classes=outcome)
    return Result(measurement, number, outcome)


def _seconds_of_children() -> float:
    """Return the CPU time of the child processes that have ended, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
