"""Reading and writing ONNX files, with weights in other files, and naming what is no ONNX file."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from scripts.repository import onnx_file
from scripts.repository.errors import BuildError
from scripts.repository.graphs.opset import with_opset
from scripts.repository.graphs.prepare import prepare
from scripts.repository.onnx_file import read, write
from tests.graphs import FLEXIBLE, SOFTMAXED, classifier, convolved

PICTURE = np.ones((1, 3, 32, 32), np.float32)


def save(folder: Path, name: str = "m.onnx", data: str = "m.onnx.data") -> Path:
    """Save a classifier whose weights are in another file."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(
        classifier(FLEXIBLE),
        folder / name,
        save_as_external_data=True,
        location=data,
        size_threshold=0,
    )
    return folder / name


def scores(model: bytes | Path) -> list[float]:
    session = onnxruntime.InferenceSession(model)
    return list(session.run(None, {"image": PICTURE})[0][0])


EXPECTED = scores(classifier(FLEXIBLE).SerializeToString())


def test_weights_in_another_file_are_read(tmp_path: Path) -> None:
    graph = read(save(tmp_path / "a folder with spaces, ü and 模型"))
    assert scores(graph.model.SerializeToString()) == EXPECTED


def test_weights_behind_links_are_read_as_in_the_cache_of_hugging_face(tmp_path: Path) -> None:
    original, snapshot = save(tmp_path / "saved"), tmp_path / "snapshots"
    snapshot.mkdir()
    (tmp_path / "blobs").mkdir()
    for blob, file in (("aaa", original), ("bbb", original.with_name("m.onnx.data"))):
        file.rename(tmp_path / "blobs" / blob)
        (snapshot / file.name).symlink_to(f"../blobs/{blob}")
    assert scores(read(snapshot / "m.onnx").model.SerializeToString()) == EXPECTED


def test_weights_beside_the_file_that_a_link_leads_to_are_read(tmp_path: Path) -> None:
    (tmp_path / "link.onnx").symlink_to(save(tmp_path / "saved"))
    assert scores(read(tmp_path / "link.onnx").model.SerializeToString()) == EXPECTED


def test_the_digest_covers_the_weights(tmp_path: Path) -> None:
    file = save(tmp_path)
    before = read(file).sha256
    data = bytearray((tmp_path / "m.onnx.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "m.onnx.data").write_bytes(data)
    assert read(file).sha256 != before


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path)
    data = file.with_name("m.onnx.data")
    data.write_bytes(data.read_bytes()[:50])
    with pytest.raises(BuildError, match=r"m\.onnx\.data is incomplete: it has 50 bytes"):
        read(file)


def test_missing_weights_are_named_with_a_file_that_can_be_them(tmp_path: Path) -> None:
    file = save(tmp_path)
    file.with_name("m.onnx.data").unlink()
    missing = r"weights in m\.onnx\.data, which is missing; put it into .*"
    with pytest.raises(BuildError, match=missing + r"[^)]$"):
        read(file)
    (tmp_path / "other.data").touch()
    with pytest.raises(BuildError, match=missing + r"\(or rename other\.data to m\.onnx\.data\)$"):
        read(file)


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../m.onnx.data", "C:\\m.data", "a\\..\\..\\m"]
)
def test_weights_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    file = save(tmp_path)
    model = onnx.load(file, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    file.write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="with a relative location"):
        read(file)


@pytest.mark.parametrize(("key", "value"), [("offset", "-4"), ("length", "4"), ("length", "x")])
def test_invalid_places_of_weights_are_refused(tmp_path: Path, key: str, value: str) -> None:
    file = save(tmp_path)
    model = onnx.load(file, load_external_data=False)
    entries = model.graph.initializer[0].external_data
    next(entry for entry in entries if entry.key == key).value = value
    file.write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="invalid external data for weight; export it again"):
        read(file)


def archive(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr(name, "")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as content:
        content.addfile(tarfile.TarInfo("model.onnx"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (bytes(100), "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "run: git lfs pull"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page"),
        (b'<?xml version="1.0"?><net>', "is XML"),
        (b'{"error": "not found"}', "is JSON"),
        (b"../blobs/0123456789abcdef\n", "is text"),
        (archive("model/data.pkl"), "is a PyTorch file; export it with torch.onnx.export"),
        (archive("model.weights.h5"), "is a Keras file"),
        (archive("model.onnx"), "is a zip archive; unpack it"),
        (tar(), "is a tar archive; unpack it"),
        (b"\x1f\x8b\x08" + bytes(10), "is compressed"),
        (b"\x80\x02}q\x00", "is a Python pickle"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9), "is HDF5, as Keras writes"),
        (b"\x1c\0\0\0TFL3" + bytes(9), "is TensorFlow Lite"),
        (b"\x1c\0\0\0ORTM" + bytes(9), "onnxruntime's ORT format"),
        (b"ptrt" + bytes(9), "is a TensorRT engine"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"head.weight":', "has weights only"),
        (classifier(FLEXIBLE).SerializeToString()[:-9], "is incomplete"),
        (b"\x08\x01", "it contains no graph"),
    ],
)
def test_a_file_that_is_not_onnx_is_refused_with_what_it_is(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(BuildError, match=reason) as caught:
        read(tmp_path / "m.onnx")
    assert str(tmp_path / "m.onnx") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(BuildError, match=r"cannot read .*/m\.onnx: No such file"):
        read(tmp_path / "m.onnx")


def test_a_small_graph_is_written_into_one_file() -> None:
    model = classifier(FLEXIBLE)
    assert write(model) == {"model.onnx": model.SerializeToString(deterministic=True)}


@pytest.fixture
def tiny_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are large from 1,200 bytes and tensors from 100, instead of 2 GiB and 1 KiB."""
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 1200)
    monkeypatch.setattr("scripts.repository.graphs.weights.INLINE", 100)


@pytest.mark.usefixtures("tiny_limit")
def test_a_large_graph_is_written_with_its_weights_in_another_file(tmp_path: Path) -> None:
    model = convolved()
    model.metadata_props.add(key="names", value="ü")
    files = write(model)
    assert sorted(files) == ["model.onnx", "model.onnx.data"]
    assert len(files["model.onnx"]) < 1200
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert read(tmp_path / "model.onnx").model == model
    expected = scores(model.SerializeToString())
    assert scores(tmp_path / "model.onnx") == expected


@pytest.mark.usefixtures("tiny_limit")
def test_a_large_graph_is_prepared() -> None:
    model = convolved(opset=22, ir_version=10)
    prepared = prepare(model)
    assert (prepared.opset, prepared.difference <= 1e-5) == (21, True)
    assert sorted(write(prepared.model)) == ["model.onnx", "model.onnx.data"]


@pytest.mark.usefixtures("tiny_limit")
def test_a_graph_that_is_large_without_weights_is_refused() -> None:
    model = classifier(FLEXIBLE)
    model.doc_string = "long" * 1000
    with pytest.raises(BuildError, match="exceeds 2 GiB without its weights"):
        write(model)


@pytest.mark.usefixtures("tiny_limit")
def test_weights_are_kept_when_the_opset_is_converted() -> None:
    converted = with_opset(classifier(SOFTMAXED, opset=22), 7, 21)
    assert (
        converted.graph.initializer[0].raw_data
        == classifier(FLEXIBLE).graph.initializer[0].raw_data
    )
