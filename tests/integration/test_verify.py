"""`python -m scripts.verify` on a real Triton, with archives that the tests make."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import requests

from scripts import verify
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.repository import builder, sources
from scripts.repository.catalog import CATALOG
from scripts.repository.graphs import synthetic
from scripts.repository.tuning import ENGINES, Tuning
from tests.archives import Array, data_sets, proto, write
from tests.descriptions import said
from tests.graphs import FLEXIBLE, classifier
from tests.integration.conftest import HASTE, PROTOCOLS
from tests.web import Responder, serving

MOBILENET = CATALOG["mobilenetv2"]
BIRDS = classifier(FLEXIBLE)  # as `add_birds` adds it
SETS = 2


def answered(model: onnx.ModelProto, size: int) -> list[tuple[Array, Array]]:
    """Random images and what onnxruntime answers for them, one by one."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (tensor,) = session.get_inputs()
    images = np.random.default_rng(0).standard_normal((SETS, 1, 3, size, size)).astype(np.float32)
    return [(image, session.run(None, {tensor.name: image})[0]) for image in images]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives of MobileNetV2 and of the birds, and one with another output."""
    folder = tmp_path_factory.mktemp("archives")
    write(folder / MOBILENET.archive, data_sets(answered(synthetic.build(MOBILENET), 224)))
    birds = answered(BIRDS, 32)
    write(folder / "birds.tar.gz", data_sets(birds))
    changed = [(image, scores + np.float32(0.1)) for image, scores in birds]
    write(folder / "changed.tar.gz", data_sets([birds[0], changed[1]]))
    return folder


@pytest.fixture
def published(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with MobileNetV2's archive, as if the zoo had published it."""
    content = (folder / MOBILENET.archive).read_bytes()
    known = replace(MOBILENET, archive_sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(CATALOG, MOBILENET.name, known)
    return folder


def run(server: EmbeddedServer, *options: str | Path) -> int:
    addresses = [f"--{protocol}={server.endpoints.at(protocol)}" for protocol in PROTOCOLS]
    return verify.main([*addresses, *map(str, options)])


def rows(output: str, name: str) -> list[list[str]]:
    lines = [line.split() for line in output.splitlines()]
    return [line for line in lines if line and line[0] == name]


def assert_verified(output: str, name: str, engine: str = "onnxruntime", sets: int = SETS) -> None:
    """Assert that a table has good rows for both protocols."""
    found = rows(output, name)
    assert [row[1:4] for row in found] == [[engine, each, str(sets)] for each in ("gRPC", "HTTP")]
    for row in found:
        assert float(row[5]) < 1e-4
        assert row[6:8] == [f"{sets}/{sets}"] * 2
        assert float(row[8]) > 0


def assert_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Assert that there is one error, with these words, and return what is printed besides."""
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for each in words:
        assert each in captured.err
    return captured.out


def test_the_zoos_archive_agrees_over_both_protocols(
    server: EmbeddedServer, published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, "--models", "mobilenetv2", "--data", published) == 0
    output = capsys.readouterr().out
    assert_verified(output, "mobilenetv2")
    assert "All outputs are the published ones, within 0.001" in output


def test_an_archive_of_an_own_classifier_agrees(
    server: EmbeddedServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, "--archive", folder / "birds.tar.gz") == 0
    assert_verified(capsys.readouterr().out, "birds")


def test_changed_outputs_fail_but_others_are_shown(
    server: EmbeddedServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = (f"birds={folder / 'changed.tar.gz'}", f"birds={folder / 'birds.tar.gz'}")
    assert run(server, "--archive", f"mobilenetv2={folder / MOBILENET.archive}", *changed) == 1
    output = assert_one_line(capsys, "birds: over gRPC, outputs differ", "more than 0.001")
    assert_verified(output, "mobilenetv2")
    largest = [float(row[4]) for row in rows(output, "birds")]
    assert largest == pytest.approx([0.1, 0.1, 0, 0], rel=0.05, abs=1e-4)


def test_the_tolerance_can_be_higher(server: EmbeddedServer, tmp_path: Path) -> None:
    ((image, scores), *_) = answered(BIRDS, 32)
    changed = scores + np.float32(0.2 * scores.std())
    file = write(tmp_path / "birds.tar.gz", data_sets([(image, changed)]))
    assert run(server, "--archive", file, "--tolerance", "0.1") == 1
    assert run(server, "--archive", file, "--tolerance", "0.3") == 0


def test_random_weights_are_named_as_the_reason(
    server: EmbeddedServer, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.zeros((1, 3, 224, 224), np.float32)
    scores = np.random.default_rng(1).standard_normal((1, 1000)).astype(np.float32)
    file = write(tmp_path / "mobilenetv2.tar.gz", data_sets([(image, scores)]))
    assert run(server, "--archive", file, "--model-repository", repository) == 1
    assert_one_line(capsys, "mobilenetv2: over", "built with random weights")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((1, 3, 32, 32), np.float64), "is FP64 with 4 dimensions; birds_onnx takes FP32"),
        (np.zeros((3, 32, 32), np.float32), "is FP32 with 3 dimensions"),
        (np.zeros((1, 4, 32, 32), np.float32), "birds_onnx, test_data_set_0, grpc: "),
    ],
)
def test_inputs_of_another_model_are_refused(
    server: EmbeddedServer,
    tmp_path: Path,
    image: Array,
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scores = np.zeros((1, 10), np.float32)
    assert (
        run(server, "--archive", write(tmp_path / "birds.tgz", data_sets([(image, scores)]))) == 1
    )
    assert_one_line(capsys, "birds: ", words)


@pytest.mark.parametrize("kind", ["input_1.pb", "output_1.pb"])
def test_more_tensors_than_the_graph_has_are_refused(
    server: EmbeddedServer, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = data_sets([(np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 10), np.float32))])
    files[f"test_data_set_0/{kind}"] = proto(np.zeros(1, np.float32))
    assert run(server, "--archive", write(tmp_path / "birds.tar.gz", files)) == 1
    assert_one_line(capsys, "birds: test_data_set_0 has 2 ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--archive", "eagles=birds.tar.gz"], "does not serve eagles; it has birds, "),
        (["--models", "eagles"], "unknown model eagles"),
        (["--models", "mobilenetv2", "--data", "nowhere"], "nowhere lacks mobilenetv2-7.tar.gz"),
        (["--data", "nowhere"], "nowhere lacks resnet18-v1-7.tar.gz, resnet34-v1-7.tar.gz, "),
        (["--archive", "birds=nowhere.tar.gz"], "birds: nowhere.tar.gz is not a file"),
        (["--grpc", "localhost:1", "--models", "mobilenetv2"], "--grpc: grpc://localhost:1 is"),
    ],
)
def test_what_is_missing_is_named(
    server: EmbeddedServer, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, *options) == 1
    assert_one_line(capsys, words)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"this is not HTTP"])
def test_a_connection_that_breaks_is_one_line(
    server: EmbeddedServer, folder: Path, answer: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    class Proxy(Responder, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            response = requests.get(f"http://{server.endpoints.at('http')}{self.path}", timeout=10)
            self.respond(response.status_code, response.content)

        def do_POST(self) -> None:
            self.wfile.write(answer)
            self.close_connection = True

    with serving(Proxy) as address:
        archive = folder / "birds.tar.gz"
        assert run(server, "--http", address, "--archive", archive) == 1
    assert_one_line(capsys, "birds: birds_onnx, test_data_set_0, http: the connection failed")


def test_a_server_without_classifiers_of_the_zoo_needs_an_archive(
    small_server: EmbeddedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small_server) == 1
    assert_one_line(capsys, "has none of the zoo's classifiers, but birds; give --archive")


def test_another_file_than_the_zoos_is_refused(
    server: EmbeddedServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(server, "--models", "mobilenetv2", "--data", folder) == 1
    assert_one_line(capsys, "is not the zoo's mobilenetv2-7.tar.gz")


def test_an_archive_is_downloaded_once(
    server: EmbeddedServer, published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []

    class Handler(Responder, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.respond(200, (published / MOBILENET.archive).read_bytes())

    options = ("--models", "mobilenetv2", "--data", tmp_path / "data")
    with serving(Handler) as address:
        for _ in range(2):
            assert run(server, *options, "--mirror", f"http://{address}") == 0
    assert paths == ["/mobilenetv2-7.tar.gz"]
    assert run(server, *options) == 0
    assert len(rows(capsys.readouterr().out, "mobilenetv2")) == 6


@pytest.fixture(scope="module")
def squeezenet(
    shared_assets: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """SqueezeNet on each engine; only the graphs are loaded."""
    output = tmp_path_factory.mktemp("squeezenet") / "model_repository"
    for engine in ENGINES:
        source = sources.from_file(shared_assets / "squeezenet1.1.onnx", engine, said())
        builder.add(output, source, tuning=Tuning(cores=1, engine=engine))
    graphs = [f"{engine}_onnx" for engine in ENGINES]
    with EmbeddedServer(
        output, models=graphs, endpoints=Endpoints.free(), arguments=HASTE
    ) as server:
        yield server


def test_squeezenets_published_tensors_agree_on_both_engines(
    squeezenet: EmbeddedServer,
    shared_assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    golden = np.load(shared_assets / "squeezenet1.1-golden.npz")
    pairs = [(golden[f"input_{number}"], golden[f"output_{number}"]) for number in range(3)]
    file = write(tmp_path / "squeezenet1.1-7.tar.gz", data_sets(pairs), folder="squeezenet1.1/")
    assert run(squeezenet, "--archive", *(f"{engine}={file}" for engine in ENGINES)) == 0
    output = capsys.readouterr().out
    for engine in ENGINES:
        assert_verified(output, engine, engine, sets=3)
