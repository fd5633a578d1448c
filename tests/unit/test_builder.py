"""Building repositories from small graphs: what is written, kept, replaced and refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from scripts.repository import builder, calibration, manifest, sources
from scripts.repository.ensemble import IMAGENET_LABELS
from scripts.repository.errors import BuildError
from scripts.repository.graphs.prepare import Prepared, read_signature
from scripts.repository.graphs.quantize import Quantized, quantize
from scripts.repository.tuning import Tuning
from tests.files import contents
from tests.graphs import CLASSES, FLEXIBLE, classifier, convolved
from tests.images import fill


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    file = tmp_path / "birds.onnx"
    onnx.save(classifier(FLEXIBLE), file)
    return file


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def models(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/config.pbtxt")}


def config(repository: Path, part: str) -> model_config_pb2.ModelConfig:
    text = (repository / part / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_a_classifier_is_an_ensemble_its_steps_and_its_graph(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    parts = {"birds", "birds_preprocess", "birds_pixels", "birds_postprocess", "birds_onnx"}
    assert models(repository) == parts
    assert all((repository / part / "1").is_dir() for part in parts)


def test_the_same_input_gives_the_same_bytes(graph: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        builder.add(tmp_path / name, sources.from_file(graph, "birds"))
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@pytest.mark.parametrize("name", ["birds", "birds.v1.2"])
def test_building_again_in_place_changes_nothing(graph: Path, repository: Path, name: str) -> None:
    builder.add(repository, sources.from_file(graph, name))
    before = contents(repository)
    builder.add(repository, sources.from_file(graph, name))
    assert contents(repository) == before


def test_every_configuration_reads_back_as_triton_reads_it(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    for part in models(repository):
        message = config(repository, part)
        assert message.name == part
        assert message.max_batch_size == 32
        assert message.backend or message.platform == "ensemble"
        assert message.input
        assert message.output


@pytest.mark.parametrize("part", ["birds_onnx", "birds_pixels"])
def test_no_tuning_keeps_the_graph_off_a_gpu(graph: Path, repository: Path, part: str) -> None:
    for tuning in (Tuning("cpu"), Tuning("gpu")):
        builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
        assert "KIND_CPU" not in (repository / part / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("tuning", "instances", "threads"),
    [
        (Tuning("cpu", "throughput", cores=1), 1, "1"),
        (Tuning("cpu", "throughput", cores=2), 2, "1"),
        (Tuning("cpu", "throughput", cores=64), 8, "8"),
        (Tuning("cpu", "latency", cores=2), 1, "2"),
        (Tuning("cpu", "latency", cores=64), 1, "64"),
    ],
)
def test_the_cores_are_shared_out_among_the_sessions_of_a_graph(
    graph: Path, repository: Path, tuning: Tuning, instances: int, threads: str
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    for part in ("birds_onnx", "birds_pixels"):
        written = config(repository, part)
        assert [group.count for group in written.instance_group] == [instances]
        assert written.parameters["intra_op_thread_count"].string_value == threads
        assert list(written.dynamic_batching.preferred_batch_size) == [2]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize(("cores", "processes"), [(1, 2), (2, 3), (64, 16)])
def test_one_process_more_than_there_are_cores_decodes(
    graph: Path, repository: Path, device: str, cores: int, processes: int
) -> None:
    tuning = Tuning(device, cores=cores)
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    decoding = config(repository, "birds_preprocess")
    assert [group.count for group in decoding.instance_group] == [processes]


def test_a_gpu_takes_whole_queues(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"), tuning=Tuning("gpu", cores=12))
    written = config(repository, "birds_pixels")
    assert not written.instance_group
    assert not written.parameters
    assert not written.dynamic_batching.preferred_batch_size


@pytest.mark.parametrize(
    ("tuning", "queue", "ahead"),
    [
        (Tuning("cpu", "throughput", cores=2), 64, "8"),
        (Tuning("cpu", "latency", cores=64), 64, "8"),
        (Tuning("cpu", waiting=16), 16, "8"),
        (Tuning("gpu"), 512, "64"),
    ],
)
def test_what_clients_address_has_a_bounded_queue_and_decoding_goes_only_so_far_ahead(
    graph: Path, repository: Path, tuning: Tuning, queue: int, ahead: str
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    for part in ("birds_preprocess", "birds_onnx"):
        policy = config(repository, part).dynamic_batching.default_queue_policy
        assert policy.max_queue_size == queue
    assert config(repository, "birds_preprocess").parameters["ahead"].string_value == ahead


@pytest.mark.parametrize("part", ["birds_pixels", "birds_postprocess"])
def test_what_is_decoded_is_never_refused(graph: Path, repository: Path, part: str) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    batching = config(repository, part).dynamic_batching
    assert not batching.default_queue_policy.max_queue_size


def test_the_manifest_says_what_a_classifier_was_fitted_to(graph: Path, repository: Path) -> None:
    tuning = Tuning("cpu", "latency", 3)
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    assert manifest.read(repository)["birds"].tuning == tuning


def test_only_the_parts_batch(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    batching = {
        part: config(repository, part).HasField("dynamic_batching") for part in models(repository)
    }
    assert not batching.pop("birds")
    assert all(batching.values())


def test_the_manifest_says_what_a_classifier_was_made_from(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds", resize=40))
    entry = json.loads((repository / "manifest.json").read_text())["models"]["birds"]
    model = repository / "birds_onnx" / "1" / "model.onnx"
    assert entry["source"] == "file birds.onnx"
    assert entry["source_sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
    assert entry["prepared_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert entry["opset"] == 13
    assert (entry["recipe"]["resize"], entry["recipe"]["crop"]) == (40, 32)
    assert (repository / entry["labels"]).read_text().splitlines()[3] == "class 3"


def test_the_crop_is_the_size_that_the_graph_fixes(graph: Path) -> None:
    assert read_signature(onnx.load(graph)).height == 32
    recipe = sources.from_file(graph, "birds").recipe
    assert (recipe.resize, recipe.crop) == (37, 32)


def test_labels_come_from_a_file(graph: Path, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\n".join(f"bird {number}" for number in range(CLASSES)), "utf-8")
    builder.add(repository, sources.from_file(graph, "birds", labels=sources.read_labels(file)))
    written = (repository / "birds_postprocess" / "labels.txt").read_text("utf-8")
    assert written.splitlines()[:2] == ["bird 0", "bird 1"]


def test_another_classifier_leaves_the_first_alone(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    builder.add(repository, sources.from_file(graph, "planes"))
    assert set(manifest.read(repository)) == {"birds", "planes"}
    assert {"birds", "planes", "birds_onnx", "planes_onnx"} <= models(repository)


def test_parts_that_nothing_uses_any_more_are_removed(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    builder.add(repository, sources.from_file(graph, "planes"))
    assert builder.keep_only(repository, {"planes"}) == {"birds"}
    assert models(repository) == {
        "planes",
        "planes_preprocess",
        "planes_pixels",
        "planes_onnx",
        "planes_postprocess",
    }


def test_an_int8_classifier_is_configured_like_the_fp32_one(tmp_path: Path) -> None:
    file = tmp_path / "birds.onnx"
    onnx.save(convolved(), file)
    images = calibration.read(fill(tmp_path / "pictures", 2))

    def quantize_it(source: sources.ClassifierSource, prepared: Prepared) -> Quantized:
        return quantize(prepared, images, source.recipe)

    fp32 = builder.add(tmp_path / "fp32", sources.from_file(file, "birds"))
    int8 = builder.add(tmp_path / "int8", sources.from_file(file, "birds"), quantize=quantize_it)
    before, after = contents(tmp_path / "fp32"), contents(tmp_path / "int8")
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    graphs = {f"birds_{part}/1/model.onnx" for part in ("onnx", "pixels")}
    assert changed == {*graphs, "manifest.json"}
    assert (fp32.precision, fp32.quantization) == ("fp32", None)
    assert int8.precision == "int8"
    assert manifest.read(tmp_path / "int8")["birds"].quantization == int8.quantization


def test_an_older_manifest_is_read(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    file = repository / "manifest.json"
    written = json.loads(file.read_text())
    for field in ("precision", "quantization", "tuning"):
        del written["models"]["birds"][field]
    file.write_text(json.dumps(written))
    entry = manifest.read(repository)["birds"]
    assert (entry.precision, entry.quantization, entry.tuning) == ("fp32", None, None)


def test_a_failed_build_leaves_the_repository_as_it_was(
    graph: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    before = contents(repository)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "model.onnx")

    monkeypatch.setattr(builder, "_write_graph", full)
    with pytest.raises(OSError, match="No space left"):
        builder.add(repository, sources.from_file(graph, "birds", resize=64))
    assert contents(repository) == before


def test_what_is_no_model_repository_is_left_alone(graph: Path, tmp_path: Path) -> None:
    for place in (tmp_path, graph):
        with pytest.raises(BuildError, match=r"it has no manifest\.json"):
            builder.add(place, sources.from_file(graph, "birds"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birds.onnx"]


def test_a_name_that_is_another_classifiers_part_is_refused(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    with pytest.raises(BuildError, match="birds_onnx belongs to birds"):
        builder.add(repository, sources.from_file(graph, "birds_onnx"))


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "ü", "a/b"])
def test_a_name_that_no_url_could_hold_is_refused(name: str) -> None:
    with pytest.raises(BuildError, match="is no model name"):
        builder.check_name(name)


@pytest.mark.parametrize("name", ["resnet50_v1", "imagenet_postprocess"])
def test_the_projects_own_names_are_refused(name: str) -> None:
    with pytest.raises(BuildError, match="choose another with --name"):
        builder.check_name(name)


def test_too_few_labels_are_refused(graph: Path, repository: Path) -> None:
    with pytest.raises(BuildError, match="birds: the graph has 10 classes and the labels file 2"):
        builder.add(repository, sources.from_file(graph, "birds", labels=("crow", "owl")))


def test_a_crop_other_than_the_declared_size_is_taken_where_the_graph_allows_it(
    graph: Path, repository: Path
) -> None:
    entry = builder.add(repository, sources.from_file(graph, "birds", crop=64))
    assert (entry.recipe["resize"], entry.recipe["crop"]) == (73, 64)


def test_a_crop_that_the_graph_does_not_take_is_refused(tmp_path: Path, repository: Path) -> None:
    dense = np.ones((3 * 32 * 32, CLASSES), np.float32)
    body = "flat = Flatten(image) scores = MatMul(flat, dense)"
    file = tmp_path / "fixed.onnx"
    onnx.save(classifier(body, initializers={"dense": dense}), file)
    with pytest.raises(BuildError, match="fixed: the graph takes 32 x 32, not a crop of 64"):
        builder.add(repository, sources.from_file(file, "fixed", crop=64))


@pytest.mark.parametrize("numbers", [{"crop": 0}, {"resize": 0}, {"resize": 31}])
def test_a_recipe_that_cannot_work_is_refused(graph: Path, numbers: dict[str, int]) -> None:
    with pytest.raises(BuildError, match=r"birds\.onnx: a crop of"):
        sources.from_file(graph, "birds", **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x07"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(BuildError, match="is not an ONNX file"):
        sources.from_file(file, "birds")


def test_external_data_comes_along(tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "external" / "birds.onnx"
    file.parent.mkdir()
    model = classifier(FLEXIBLE)
    weight = model.graph.initializer[0].raw_data
    onnx.save(model, file, save_as_external_data=True, location="birds.data", size_threshold=0)
    builder.add(repository, sources.from_file(file, "birds"))
    prepared = onnx.load(repository / "birds_onnx" / "1" / "model.onnx")
    assert prepared.graph.initializer[0].raw_data == weight


def test_missing_external_data_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "birds.onnx"
    model = classifier(FLEXIBLE)
    onnx.save(model, file, save_as_external_data=True, location="birds.data", size_threshold=0)
    (tmp_path / "birds.data").unlink()
    with pytest.raises((BuildError, OSError), match=r"birds\.data") as caught:
        sources.from_file(file, "birds")
    assert "\n" not in str(caught.value)


def test_the_project_carries_imagenets_class_names() -> None:
    assert len(set(IMAGENET_LABELS)) == 1000
    assert IMAGENET_LABELS[285] == "n02124075 Egyptian cat"


def test_the_class_names_are_those_of_the_synset_file(shared_assets: Path) -> None:
    assert (shared_assets / "synset.txt").read_text().splitlines() == list(IMAGENET_LABELS)
