"""A repository with `--preprocess gpu` on a real server, with a stand-in for CUDA (tests/cuda).

Triton places instances on GPUs only if there is one: without one they are on the CPU here.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from client import SAMPLE, Classifier
from scripts.embedded import EmbeddedServer, Endpoints, ServerError
from scripts.repository import builder, sources
from scripts.repository.tuning import Tuning
from tests import cuda, images
from tests.graphs import convolved
from tests.integration.conftest import HASTE, PROTOCOLS, url

pytestmark = cuda.needed

FILES = [
    SAMPLE.read_bytes(),
    images.encode(images.photo(600, 900), "JPEG", progressive=True),
    images.encode(images.photo(200, 90).convert("CMYK"), "JPEG"),
    images.encode(images.photo(80, 90), "PNG"),
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of one file, which preprocess on the CPU and on the GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    onnx.save(convolved(), folder / "birds.onnx")
    for name, device in (("cpu", "cpu"), ("gpu", "gpu")):
        source = sources.from_file(folder / "birds.onnx", name)
        tuning = Tuning("gpu", cores=1, preprocess=device)
        builder.add(folder / "models", source, tuning=tuning)
    for config in (folder / "models").glob("gpu_preprocess*/config.pbtxt"):
        text = config.read_text()
        assert "count: 6\n  kind: KIND_GPU" in text
        kind = "KIND_GPU" if cuda.IS_REAL else "KIND_CPU"
        config.write_text(text.replace("KIND_GPU", kind).replace("count: 6", "count: 1"))
    return folder / "models"


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[EmbeddedServer]:
    served = shutil.copytree(repository, repository.with_name("served"))
    if not cuda.IS_REAL:
        for step in served.glob("gpu_preprocess*/1"):
            shutil.copytree(cuda.STAND_IN, step, dirs_exist_ok=True)
    at = Endpoints.free()
    with EmbeddedServer(served, endpoints=at, arguments=HASTE, gpu=cuda.IS_REAL) as server:
        yield server


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_are_those_of_preprocessing_on_the_cpu(
    server: EmbeddedServer, protocol: str
) -> None:
    probabilities = []
    for model in ("cpu", "gpu"):
        with Classifier(url(server, protocol), model=model, top_k=10) as client:
            answers = [client.image(FILES[0]), *client.batch(FILES)]
        by_class = [
            {each.class_id: each.probability for each in answer.predictions} for answer in answers
        ]
        probabilities.append([[scores[number] for number in range(10)] for scores in by_class])
    on_cpu, on_gpu = probabilities
    np.testing.assert_allclose(on_gpu, on_cpu, atol=0.01)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_invalid_image_fails_only_its_own_request(server: EmbeddedServer, protocol: str) -> None:
    files = [*FILES, b"text", FILES[0][:9000]] * 8
    found = []
    for model in ("cpu", "gpu"):
        with Classifier(url(server, protocol), model=model) as client:
            found.append([str(result.error) for result in client.stream(files)])
    assert found[0] == found[1]
    assert [error == "None" for error in found[1]] == [True, True, True, True, False, False] * 8


def test_without_the_libraries_the_model_does_not_load(repository: Path, tmp_path: Path) -> None:
    if cuda.IS_REAL:
        pytest.skip("CuPy is installed")
    at, log = Endpoints.free(), tmp_path / "tritonserver.log"
    server = EmbeddedServer(repository, models=["gpu"], endpoints=at, arguments=HASTE, log=log)
    message = (
        "cannot decode on a GPU: No module named 'cupy'; install cupy-cuda13x and "
        r"nvidia-nvimgcodec-cu13\[nvjpeg\]; or build the repository with --preprocess cpu$"
    )
    with pytest.raises(ServerError, match=message), server:
        pass
    assert "Traceback" not in log.read_text()
