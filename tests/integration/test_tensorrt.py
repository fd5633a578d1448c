"""A repository for TensorRT on a server that does not have it."""

from pathlib import Path

import numpy as np
import onnx

from client import SAMPLE, Classifier
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, sources
from scripts.repository.tuning import Tuning
from tests.graphs import convolved
from tests.integration.conftest import HASTE


def test_graphs_for_tensorrt_run_on_the_cpu_and_the_log_says_so(tmp_path: Path) -> None:
    repository, log = tmp_path / "models", tmp_path / "tritonserver.log"
    onnx.save(convolved(), tmp_path / "birds.onnx")
    for name, tuning in (("cpu", Tuning()), ("gpu", Tuning("gpu", engine="tensorrt"))):
        builder.add(repository, sources.from_file(tmp_path / "birds.onnx", name), tuning=tuning)
    at = Endpoints.free()
    answers = []
    with EmbeddedServer(repository, endpoints=at, arguments=HASTE, log=log):
        for name in ("cpu", "gpu"):
            with Classifier(at.at("grpc"), model=name) as client:
                answers.append(client.image(SAMPLE).predictions)
    cpu, gpu = ([(each.class_id, each.probability) for each in answer] for answer in answers)
    np.testing.assert_allclose(gpu, cpu, atol=1e-5)
    lines = [line for line in log.read_text().splitlines() if "TensorRT" in line]
    text = "runs on CPUExecutionProvider: this server does not have TensorRT"
    assert len(lines) == 2
    for graph in ("gpu_onnx", "gpu_pixels"):
        assert any(f"{graph} {text}" in line for line in lines)
