"""What `scripts.verify` needs no server for: archives, mirrors, and how outputs are compared."""

import gzip
import hashlib
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from scripts import verify
from scripts.evaluation import archives, published, tensors
from scripts.evaluation.errors import EvaluationError
from scripts.evaluation.graphs import Graph
from scripts.evaluation.published import Deviation, Outcome
from scripts.evaluation.tensors import DataSet, Tensor
from scripts.repository import manifest
from scripts.repository.catalog import CATALOG, ZooModel
from tests.archives import Array, data_sets, proto, write
from tests.web import Responder, serving

MODEL = CATALOG["mobilenetv2"]
ZOO_PATH = "validated/vision/classification/mobilenet/model/mobilenetv2-7.tar.gz"
IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
SCORES = np.linspace(-1, 1, 10, dtype=np.float32).reshape(1, 10)
INPUT, OUTPUT = "test_data_set_0/input_0.pb", "test_data_set_0/output_0.pb"
FILES = {INPUT: proto(IMAGE), OUTPUT: proto(SCORES)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / MODEL.archive


def assert_refused(file: Path, reason: str) -> None:
    with pytest.raises(EvaluationError, match=reason) as caught:
        tensors.read(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", ["", "./", "model/", "./mobilenetv2-7/", "a/b c/"])
def test_an_archive_is_read_whatever_its_folder_is_named(file: Path, folder: str) -> None:
    (data_set,) = tensors.read(write(file, FILES, folder=folder))
    assert data_set.name == "test_data_set_0"
    np.testing.assert_array_equal(data_set.inputs[0].array, IMAGE)
    np.testing.assert_array_equal(data_set.outputs[0].array, SCORES)


def test_files_of_macos_and_numpy_archives_beside_the_tensors_are_ignored(file: Path) -> None:
    others = {
        "._mobilenetv2": b"AppleDouble",
        "test_data_set_0/._input_0.pb": b"AppleDouble",
        "._test_data_set_0/input_0.pb": b"AppleDouble",
        "test_data_set_0/.DS_Store": b"",
        "test_data_0.npz": b"PK",
    }
    (data_set,) = tensors.read(write(file, others | FILES))
    np.testing.assert_array_equal(data_set.inputs[0].array, IMAGE)


def test_data_sets_and_tensors_are_in_the_order_of_their_numbers(file: Path) -> None:
    files = data_sets([(IMAGE + number, SCORES) for number in range(11)])
    files |= {
        f"test_data_set_0/output_{number}.pb": proto(SCORES, str(number)) for number in (2, 1)
    }
    read = tensors.read(write(file, files))
    assert [data_set.inputs[0].array.flat[0] for data_set in read] == list(range(11))
    assert [tensor.name for tensor in read[0].outputs] == ["", "1", "2"]


def test_a_tensor_without_raw_data_is_read(file: Path) -> None:
    listed = helper.make_tensor("data", TensorProto.FLOAT, IMAGE.shape, IMAGE.flatten())
    (data_set,) = tensors.read(write(file, {**FILES, INPUT: listed.SerializeToString()}))
    assert data_set.inputs[0].name == "data"
    np.testing.assert_array_equal(data_set.inputs[0].array, IMAGE)


def external() -> bytes:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    data: bytes = tensor.SerializeToString()
    return data


def promising(dims: list[int]) -> bytes:
    data: bytes = TensorProto(data_type=TensorProto.FLOAT, dims=dims).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "no test_data_set_0/input_0.pb"),
        ({INPUT: FILES[INPUT]}, "test_data_set_0 has no output_0.pb"),
        ({OUTPUT: FILES[OUTPUT]}, "test_data_set_0 has no input_0.pb"),
        ({**FILES, INPUT.replace("0.pb", "2.pb"): FILES[INPUT]}, "has no input_1.pb"),
        ({**FILES, INPUT: b""}, "input_0.pb is not an ONNX tensor"),
        ({**FILES, INPUT: b"\xff" * 99}, "input_0.pb is not an ONNX tensor"),
        ({**FILES, INPUT: FILES[INPUT][:-9]}, "input_0.pb is not an ONNX tensor"),
        ({**FILES, INPUT: promising([1 << 40, 3])}, "input_0.pb is not an ONNX tensor"),
        ({**FILES, INPUT: promising([-1])}, "input_0.pb has no numbers"),
        ({**FILES, INPUT: promising([0])}, "input_0.pb has no numbers"),
        ({**FILES, INPUT: proto(np.array(["a"], np.object_))}, "input_0.pb has no numbers"),
        ({**FILES, INPUT: external()}, "input_0.pb keeps its content in another file"),
        ({"a/" + INPUT: FILES[INPUT], **FILES}, "more than one test_data_set_0/input_0.pb"),
        ({**FILES, "../" + INPUT: b""}, "outside of the archive's own folder"),
    ],
)
def test_an_archive_without_usable_tensors_is_refused(
    file: Path, files: dict[str, bytes], reason: str
) -> None:
    assert_refused(write(file, files), reason)


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for each, value in fields.items():
        setattr(made, each, value)
    return made


def header(made: tarfile.TarInfo, *, is_pax: bool = False) -> bytes:
    return made.tobuf(tarfile.PAX_FORMAT if is_pax else tarfile.GNU_FORMAT)


# The map of a sparse file, which says how many numbers follow.
SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": INPUT}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(member("/" + INPUT)), "outside of the archive's own folder"),
        (header(member(INPUT, type=tarfile.SYMTYPE, linkname="/etc/passwd")), "is a link"),
        (header(member(INPUT, type=tarfile.LNKTYPE, linkname="model.onnx")), "is a link"),
        (header(member(INPUT, type=tarfile.FIFOTYPE)), "is a link or no regular file"),
        (header(member("model.onnx", size=1 << 50)), "unpacks to more than 2304 MiB"),
        (header(member(INPUT, size=100 << 20)), "input_0.pb has more than 64 MiB"),
        (header(member(INPUT, size=1 << 20)), "is damaged or incomplete"),
        (header(member("model.onnx", size=1 << 50), is_pax=True), "unpacks to more than"),
        (header(member("model.onnx", size=-(1 << 20))), "is damaged or incomplete"),
        (header(member("pax", type=tarfile.XHDTYPE, size=1 << 33)), "a header of more than 64 MiB"),
        (header(member("long", type=tarfile.GNUTYPE_LONGNAME, size=1 << 33)), "a header of more"),
        (header(member("pax", type=tarfile.XHDTYPE)) * 5000, "is damaged or incomplete"),
        (header(member("sparse", pax_headers=SPARSE), is_pax=True) + b"9\n", "is damaged"),
        (b"this is no tar archive" * 100, "is damaged or incomplete"),
        (b"", "no test_data_set_0/input_0.pb|is damaged"),
    ],
)
def test_a_hostile_archive_is_refused_in_one_line(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(gzip.compress(content))
    assert_refused(file, reason)


def test_a_decompression_bomb_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensors, "MAX_ARCHIVE", 8 << 20)
    bomb = write(file, {"weights": bytes(16 << 20), **FILES})
    assert bomb.stat().st_size < 1 << 20
    assert_refused(bomb, "unpacks to more than 8 MiB")
    file.write_bytes(gzip.compress(bytes(16 << 20)))  # after the end of the archive
    assert_refused(file, "unpacks to more than 8 MiB|no test_data_set_0")


def test_tensors_that_together_need_much_memory_are_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "MAX_TENSORS", 1 << 20)
    large = np.zeros((1, 3, 224, 224), np.float32)
    assert_refused(write(file, data_sets([(large, SCORES)] * 2)), "more than 1 MiB of tensors")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not compressed with gzip"),
        (b"PK\x03\x04", "not compressed with gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ],
)
def test_a_file_that_is_no_archive_is_refused(file: Path, content: bytes, reason: str) -> None:
    file.write_bytes(content)
    assert_refused(file, reason)
    with pytest.raises(EvaluationError, match=reason):
        archives.check(MODEL, file)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "is not a file")


def test_damage_anywhere_is_refused_or_changes_nothing(file: Path) -> None:
    whole = write(file, FILES).read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 100):
        for damaged in (whole[:place], whole[:place] + b"\x5a" + whole[place + 1 :]):
            file.write_bytes(damaged)
            with suppress(EvaluationError):
                (data_set,) = tensors.read(file)
                np.testing.assert_array_equal(data_set.inputs[0].array, IMAGE)
                np.testing.assert_array_equal(data_set.outputs[0].array, SCORES)


def known(file: Path) -> ZooModel:
    """The zoo's model with the sha256 of an archive that a test made."""
    return replace(MODEL, archive_sha256=hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.mark.parametrize("place", [MODEL.archive, ZOO_PATH])
def test_an_archive_is_found_in_a_folder_and_in_a_clone(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    model = known(write(file, FILES))
    assert archives.require([model], tmp_path) == {model.name: file}
    archives.check(model, file)
    with pytest.raises(EvaluationError, match="its sha256 is not b463ad62"):
        archives.check(MODEL, file)


def test_all_missing_archives_are_named(tmp_path: Path) -> None:
    write(tmp_path / MODEL.archive, FILES)
    with pytest.raises(EvaluationError, match=r"lacks resnet18-v1-7\.tar\.gz, resnet34-v1-7\.tar"):
        archives.require(CATALOG.values(), tmp_path)


@dataclass
class Mirror:
    """A mirror with one archive at `place`."""

    url: str = ""
    place: str = MODEL.archive
    content: bytes = b""
    status: int = 200
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    mirror = Mirror(content=write(tmp_path / "on the mirror", FILES).read_bytes())

    class Handler(Responder):
        def do_GET(self) -> None:  # noqa: N802 - called by its name
            mirror.requests.append(self.path)
            if self.path == f"/copy/{mirror.place}":
                self.respond(mirror.status, mirror.content)
            else:
                self.respond(404, b"not here")

    with serving(Handler) as address:
        mirror.url = f"http://{address}/copy/"
        yield mirror


@pytest.fixture
def model(mirror: Mirror) -> ZooModel:
    return replace(MODEL, archive_sha256=hashlib.sha256(mirror.content).hexdigest())


@pytest.mark.parametrize("place", [MODEL.archive, ZOO_PATH])
def test_an_archive_is_downloaded_from_a_mirror(
    mirror: Mirror, model: ZooModel, tmp_path: Path, place: str
) -> None:
    mirror.place = place
    seen: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "folder"
    report: Callable[[int, int], None] = lambda *each: seen.append(each)  # noqa: E731
    file = archives.download(model, folder, mirror.url, progress=report)
    assert file == folder / MODEL.archive
    assert file.read_bytes() == mirror.content
    assert seen[-1] == (len(mirror.content), len(mirror.content))
    assert [*folder.iterdir()] == [file]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"place": "elsewhere"}, r"mobilenetv2-7\.tar\.gz do not exist\. The zoo's own downloads"),
        ({"status": 500}, "cannot download mobilenetv2-7.tar.gz from http://127.*500 Server Error"),
        ({"content": b"version https://git-lfs"}, "sha256 is not that of the zoo's mobilenetv2-7"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    mirror: Mirror, model: ZooModel, tmp_path: Path, changes: dict[str, object], reason: str
) -> None:
    for name, value in changes.items():
        setattr(mirror, name, value)
    with pytest.raises(EvaluationError, match=reason) as caught:
        archives.download(model, tmp_path / "data", mirror.url)
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "data").iterdir()]


def test_a_download_without_end_is_refused(
    mirror: Mirror, model: ZooModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "SLACK", 100)
    with pytest.raises(EvaluationError, match="is larger than the zoo's mobilenetv2-7"):
        archives.download(replace(model, size=100), tmp_path / "data", mirror.url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nowhere", "ftp://127.0.0.1/x"])
def test_a_mirror_that_does_not_respond_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(EvaluationError, match=re.escape(f"from {url}: ")) as caught:
        archives.download(MODEL, tmp_path, url)
    assert "\n" not in str(caught.value)


def single(*outputs: Array) -> DataSet:
    return DataSet("test_data_set_0", (Tensor("", IMAGE),), tuple(Tensor("", a) for a in outputs))


def test_the_difference_is_relative_to_the_spread_of_the_published_output() -> None:
    served = SCORES.copy()
    served[0, 3] += 0.01
    found = published.compare(single(SCORES), [served])
    assert found.absolute == pytest.approx(0.01, rel=1e-5)
    assert found.relative == pytest.approx(0.01 / SCORES.std(), rel=1e-5)
    assert (found.top1, found.top5) == ((True,), (True,))


def test_the_difference_of_nearly_equal_scores_is_relative_to_their_size() -> None:
    expected = SCORES * 1e-3 + 50
    served = expected + np.float32(0.25)
    assert published.compare(single(expected), [served]).relative == pytest.approx(0.05, rel=1e-3)


def test_other_best_classes_are_counted_for_each_row() -> None:
    expected = np.stack([SCORES[0], SCORES[0]])
    served = expected.copy()
    served[1] = served[1][::-1]
    found = published.compare(single(expected), [served])
    assert (found.top1, found.top5) == ((True, False), (True, False))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_above_any_tolerance(value: float) -> None:
    served = SCORES.copy()
    served[0, 0] = value
    assert published.compare(single(SCORES), [served]).relative == np.inf


def test_all_outputs_are_compared() -> None:
    features = np.ones((1, 4), np.float32)
    found = published.compare(single(SCORES, features), [SCORES, features + 1])
    assert found.absolute == 1


@pytest.mark.parametrize("shape", [(1, 10, 1, 1), (1, 2, 5)])
def test_dimensions_of_an_output_may_differ(shape: tuple[int, ...]) -> None:
    assert published.compare(single(SCORES.reshape(shape)), [SCORES]).relative == 0


@pytest.mark.parametrize("shape", [(1, 5), (10, 1), (10,), (2, 10)])
def test_an_output_of_another_model_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EvaluationError, match=r"output_0\.pb has shape .* that of another model"):
        published.compare(single(np.resize(SCORES, shape)), [SCORES])


def entry(**fields: str) -> manifest.Entry:
    values = {"source": "zoo mobilenetv2-7.onnx", "precision": "fp32"} | fields
    return manifest.Entry(
        source=values["source"],
        source_sha256="",
        prepared_sha256="",
        opset=13,
        ir_version=8,
        classes=10,
        scores="logits",
        recipe={},
        labels="",
        parts={},
        precision=values["precision"],
    )


@pytest.mark.parametrize(
    ("is_bf16", "recorded", "words"),
    [
        (False, entry(source="synthetic mobilenetv2-7.onnx"), "built with random weights"),
        (False, entry(), "from zoo mobilenetv2-7.onnx in FP32; is the archive that of this"),
        (False, entry(precision="int8"), "built with --precision int8"),
        (False, entry(precision="fp16"), "built with --precision fp16"),
        (True, None, "built with --precision bf16"),
        (False, None, "perhaps it was built with --weights synthetic or in another precision"),
    ],
)
def test_a_difference_is_explained(
    is_bf16: bool, recorded: manifest.Entry | None, words: str
) -> None:
    graph = Graph("birds_onnx", "onnxruntime", is_bf16, ("data", "FP32", 4), ("scores",))
    outcome = Outcome(graph, "grpc", 1, Deviation(1.5, 1.5), 1.0)
    assert words in published.explain(outcome, recorded)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("birds=a.tar.gz", ("birds", "a.tar.gz")),
        ("a/birds.tar.gz", ("birds", "a/birds.tar.gz")),
        ("birds.v2.tgz", ("birds.v2", "birds.v2.tgz")),
        ("a=b/birds.tar.gz", ("a", "b/birds.tar.gz")),
        ("/a=b/birds.tar.gz", ("birds", "/a=b/birds.tar.gz")),
    ],
)
def test_an_archive_names_its_classifier(text: str, expected: tuple[str, str]) -> None:
    assert verify.archive(text) == (expected[0], Path(expected[1]))


@pytest.mark.parametrize("option", ["--archive=", "--archive==a", "--archive=birds=", "--data="])
def test_an_empty_name_or_file_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        verify.main([option])
    assert "must not be empty" in capsys.readouterr().err


def test_a_folder_that_is_no_model_repository_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify.main(["--model-repository", str(tmp_path)]) == 1
    assert "has no manifest.json" in capsys.readouterr().err
