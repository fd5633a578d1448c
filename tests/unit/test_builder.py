"""Building repositories from small graphs: what is written, kept, replaced and rejected."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from scripts.repository import builder, calibration, digests, labels, manifest, onnx_file, sources
from scripts.repository.contents import STEPS
from scripts.repository.ensemble import IMAGENET_LABELS
from scripts.repository.errors import BuildError
from scripts.repository.execution import Request
from scripts.repository.graphs.signature import read_signature
from scripts.repository.manifest import Entry, Quantization
from scripts.repository.sources import ClassifierSource
from scripts.repository.tuning import Tuning
from tests.conftest import ROOT
from tests.descriptions import said
from tests.files import contents
from tests.graphs import CLASSES, FLEXIBLE, classifier, convolved, imagenet
from tests.images import fill

PARTS = {
    "ensemble": "birds",
    "preprocess": "birds_preprocess",
    "pixels": "birds_pixels",
    "postprocess": "birds_postprocess",
    "onnx": "birds_onnx",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "model_repository"


def models(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/config.pbtxt")}


def config(repository: Path, part: str) -> model_config_pb2.ModelConfig:
    text = (repository / part / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def find_current(repository: Path, source: ClassifierSource, **options: Any) -> Entry | None:
    request = Request(**{"tuning": Tuning(), **options})
    with builder.session(repository) as session:
        return session.find_current(source, request)


def remove(repository: Path, names: list[str]) -> None:
    with builder.session(repository) as session:
        session.remove(names)


def test_a_classifier_has_an_ensemble_its_steps_and_two_graphs(
    graph: Path, repository: Path
) -> None:
    entry = builder.add(repository, sources.from_file(graph, "birds"))
    assert entry.parts == manifest.read(repository)["birds"].parts == PARTS
    assert models(repository) == set(PARTS.values())
    assert all((repository / part / "1").is_dir() for part in PARTS.values())


def test_builds_are_reproducible(graph: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        builder.add(tmp_path / name, sources.from_file(graph, "birds"))
    assert contents(tmp_path / "first") == contents(tmp_path / "second")


@pytest.mark.parametrize("name", ["birds", "birds.v1.2"])
def test_rebuilding_in_place_changes_nothing(graph: Path, repository: Path, name: str) -> None:
    builder.add(repository, sources.from_file(graph, name))
    before = contents(repository)
    builder.add(repository, sources.from_file(graph, name))
    assert contents(repository) == before


def test_every_configuration_can_be_parsed(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    for part in models(repository):
        message = config(repository, part)
        assert message.name == part
        assert message.max_batch_size == 32
        assert message.backend or message.platform == "ensemble"
        assert message.input
        assert message.output


@pytest.mark.parametrize("part", ["birds_onnx", "birds_pixels"])
def test_graphs_are_never_restricted_to_the_cpu(graph: Path, repository: Path, part: str) -> None:
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
def test_cores_are_divided_among_the_sessions_of_a_graph(
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
def test_there_is_one_more_decoding_process_than_cores(
    graph: Path, repository: Path, device: str, cores: int, processes: int
) -> None:
    tuning = Tuning(device, cores=cores)
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    preprocess = config(repository, "birds_preprocess")
    assert [group.count for group in preprocess.instance_group] == [processes]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_preprocessing_is_on_the_device_that_is_asked_for(
    graph: Path, repository: Path, device: str
) -> None:
    tuning = Tuning("gpu", cores=3, preprocess=device)
    entry = builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning, crops=10)
    assert entry.preprocess == manifest.read(repository)["birds"].preprocess == device
    kinds = model_config_pb2.ModelInstanceGroup.Kind
    for name in ("birds_preprocess", "birds_preprocess_10crop"):
        written = config(repository, name)
        (group,) = written.instance_group
        expected = {"cpu": ("KIND_CPU", 4), "gpu": ("KIND_GPU", 6)}[device]
        assert (kinds.Name(group.kind), group.count) == expected
        assert not group.gpus  # all of them
        assert written.parameters["device"].string_value == device
        kernels = repository / name / "1" / "gpu_resize.cu"
        assert kernels.read_bytes() == (STEPS / "preprocess" / kernels.name).read_bytes()
    preferred = config(repository, "birds_preprocess").dynamic_batching.preferred_batch_size
    assert list(preferred) == {"cpu": [4], "gpu": []}[device]
    stays = config(repository, "birds_pixels").parameters["FORCE_CPU_ONLY_INPUT_TENSORS"]
    assert stays.string_value == {"cpu": "", "gpu": "no"}[device]
    (group,) = config(repository, "birds_postprocess").instance_group
    assert kinds.Name(group.kind) == "KIND_CPU"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"antialias": False}, "cannot resize with bilinear without antialiasing"),
        ({"antialias": False, "interpolation": "opencv"}, "cannot resize with opencv without"),
        ({"interpolation": "nearest"}, "cannot resize with nearest"),
        ({"decoding": "exact"}, "decodes with nvJPEG, not with the bits that exact decoding"),
    ],
)
def test_recipes_that_a_gpu_does_not_compute_are_refused(
    graph: Path, repository: Path, fields: dict[str, Any], reason: str
) -> None:
    source = sources.from_file(graph, "birds", said(**fields))
    tuning = Tuning("gpu", preprocess="gpu")
    with pytest.raises(BuildError, match=rf"^birds: a GPU {reason}.*; give --preprocess cpu$"):
        builder.add(repository, source, tuning=tuning)
    assert builder.add(repository, source, tuning=replace(tuning, preprocess="cpu"))


def test_a_gpu_batches_everything_that_waits(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"), tuning=Tuning("gpu", cores=12))
    for name, instances in (("birds_pixels", [2]), ("birds_onnx", [])):
        written = config(repository, name)
        assert [group.count for group in written.instance_group] == instances
        assert all(group.kind == 0 for group in written.instance_group)  # KIND_AUTO: each GPU
        assert not written.parameters
        assert not written.dynamic_batching.preferred_batch_size
        assert [warm_up.batch_size for warm_up in written.model_warmup] == [1, 8, 32]


@pytest.mark.parametrize(
    ("tuning", "max_queue_size", "credit_limit"),
    [
        (Tuning("cpu", "throughput", cores=2), 64, "8"),
        (Tuning("cpu", "latency", cores=64), 64, "8"),
        (Tuning("cpu", queue=16), 16, "8"),
        (Tuning("gpu"), 512, "64"),
    ],
)
def test_models_that_clients_call_have_a_bounded_queue_and_workers_a_credit_limit(
    graph: Path, repository: Path, tuning: Tuning, max_queue_size: int, credit_limit: str
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    for part in ("birds_preprocess", "birds_onnx"):
        policy = config(repository, part).dynamic_batching.default_queue_policy
        assert policy.max_queue_size == max_queue_size
    parameters = config(repository, "birds_preprocess").parameters
    assert parameters["credit_limit"].string_value == credit_limit


@pytest.mark.parametrize("part", ["birds_pixels", "birds_postprocess"])
def test_decoded_images_are_never_rejected(graph: Path, repository: Path, part: str) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    batching = config(repository, part).dynamic_batching
    assert not batching.default_queue_policy.max_queue_size


def test_the_manifest_records_the_tuning(graph: Path, repository: Path) -> None:
    tuning = Tuning("cpu", "latency", 3)
    builder.add(repository, sources.from_file(graph, "birds"), tuning=tuning)
    assert manifest.read(repository)["birds"].tuning == tuning


def test_only_parts_have_dynamic_batching(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    batching = {
        part: config(repository, part).HasField("dynamic_batching") for part in models(repository)
    }
    assert not batching.pop("birds")
    assert all(batching.values())


def test_the_manifest_records_what_a_classifier_was_built_from(
    graph: Path, repository: Path
) -> None:
    builder.add(repository, sources.from_file(graph, "birds", said(resize=40)))
    entry = json.loads((repository / "manifest.json").read_text())["models"]["birds"]
    model = repository / "birds_onnx" / "1" / "model.onnx"
    assert entry["source"] == "file birds.onnx"
    assert entry["source_sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
    assert entry["prepared_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert entry["opset"] == 13
    assert (entry["recipe"]["resize"], entry["recipe"]["crop"]) == ([40, 40], [32, 32])
    assert (repository / entry["labels"]).read_text().splitlines()[3] == "class 3"


def test_the_default_crop_is_the_fixed_size_of_the_graph(graph: Path) -> None:
    assert read_signature(onnx.load(graph)).height == 32
    recipe = sources.from_file(graph, "birds").recipe
    assert (recipe.resize, recipe.crop) == ((37, 37), (32, 32))


def test_labels_come_from_a_file(graph: Path, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.txt"
    file.write_text("\n".join(f"bird {number}" for number in range(CLASSES)), "utf-8")
    builder.add(repository, sources.from_file(graph, "birds", said(labels=labels.read(file))))
    written = (repository / "birds_postprocess" / "labels.txt").read_text("utf-8")
    assert written.splitlines()[:2] == ["bird 0", "bird 1"]


def test_adding_a_classifier_leaves_others_unchanged(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    builder.add(repository, sources.from_file(graph, "planes"))
    assert set(manifest.read(repository)) == {"birds", "planes"}
    assert {"birds", "planes", "birds_onnx", "planes_onnx"} <= models(repository)


@pytest.fixture
def zoo(tmp_path: Path) -> dict[str, ClassifierSource]:
    """Three classifiers with ImageNet's recipe and labels, which share both steps."""
    file = tmp_path / "imagenet.onnx"
    onnx.save(imagenet(), file)
    return {name: sources.from_file(file, name) for name in ("birds", "planes", "cats")}


def add_all(repository: Path, *chosen: ClassifierSource, queue: int | None = None) -> None:
    with builder.session(repository, {source.name for source in chosen}) as session:
        for source in chosen:
            session.add(source, Request(Tuning(queue=queue)))


def steps(repository: Path, role: str = "preprocess") -> dict[str, str]:
    """Return the step of each classifier, after checking that the manifest is true."""
    entries = manifest.read(repository)
    assert manifest.verify(repository, models(repository)) == []
    assert manifest.parts(repository).keys() == models(repository)
    for entry in entries.values():
        policy = config(repository, entry.parts["preprocess"]).dynamic_batching
        assert entry.tuning
        assert policy.default_queue_policy.max_queue_size == entry.tuning.max_queue_size
    return {name: entry.parts[role] for name, entry in entries.items()}


def test_classifiers_with_the_same_settings_share_their_steps(
    zoo: dict[str, ClassifierSource], repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_all(repository, zoo["birds"], zoo["planes"])
    add_all(repository, zoo["cats"], queue=Tuning().max_queue_size)
    assert set(steps(repository).values()) == {"imagenet_preprocess_256"}
    assert set(steps(repository, "postprocess").values()) == {"imagenet_postprocess"}
    assert not caplog.text


def test_a_shared_step_of_other_classifiers_is_kept_when_settings_differ(
    zoo: dict[str, ClassifierSource], repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add_all(repository, zoo["birds"])
    before = contents(repository / "imagenet_preprocess_256")
    add_all(repository, zoo["planes"], zoo["cats"], queue=3)
    assert contents(repository / "imagenet_preprocess_256") == before
    own = "imagenet_preprocess_256_2"
    assert steps(repository) == {"birds": own[:-2], "planes": own, "cats": own}
    assert set(steps(repository, "postprocess").values()) == {"imagenet_postprocess"}
    assert [record.getMessage() for record in caplog.records] == [
        f"planes uses the new step {own}: {own[:-2]} has other settings, for birds"
    ]


def test_a_step_of_its_own_is_given_up_when_the_settings_are_the_same_again(
    zoo: dict[str, ClassifierSource], repository: Path
) -> None:
    add_all(repository, zoo["birds"])
    add_all(repository, zoo["planes"], queue=3)
    add_all(repository, zoo["birds"], queue=3)
    assert set(steps(repository).values()) == {"imagenet_preprocess_256_2"}
    add_all(repository, zoo["birds"], zoo["planes"])
    assert len(set(steps(repository).values())) == 1
    assert len(list(repository.glob("imagenet_preprocess_*"))) == 1


def test_a_shared_step_changes_together_with_all_classifiers_that_use_it(
    zoo: dict[str, ClassifierSource], repository: Path
) -> None:
    add_all(repository, zoo["birds"], zoo["planes"])
    before = contents(repository)
    with builder.session(repository, {"birds", "planes", "cats"}) as session:
        session.add(zoo["birds"], Request(Tuning(queue=3)))
        assert contents(repository) == before
        assert session.find_current(zoo["planes"], Request(Tuning())) is None
        session.add(zoo["cats"], Request(Tuning(queue=3)))
        assert contents(repository) == before
        session.add(zoo["planes"], Request(Tuning(queue=3)))
        assert steps(repository).keys() == {"birds", "planes", "cats"}
    assert set(steps(repository).values()) == {"imagenet_preprocess_256"}


def test_a_shared_step_stays_when_one_of_its_classifiers_cannot_be_built(
    zoo: dict[str, ClassifierSource], repository: Path
) -> None:
    add_all(repository, zoo["birds"], zoo["planes"])
    before = contents(repository)
    broken = replace(zoo["planes"], labels=("too", "few"))
    with pytest.raises(BuildError, match="planes: the graph has 1000 classes"):
        add_all(repository, zoo["birds"], broken, queue=3)
    assert contents(repository) == before


def test_every_classifier_is_kept_that_was_built_before_an_interruption(
    zoo: dict[str, ClassifierSource], repository: Path
) -> None:
    def interrupt() -> onnx_file.Graph:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_all(repository, zoo["birds"], replace(zoo["planes"], load=interrupt))
    assert steps(repository).keys() == {"birds"}


def test_the_steps_of_a_repository_of_an_older_version_are_kept(
    zoo: dict[str, ClassifierSource], repository: Path
) -> None:
    add_all(repository, zoo["birds"])
    file = repository / "manifest.json"
    written = json.loads(file.read_text())
    file.write_text(json.dumps({"models": written["models"]}))
    (repository / ".staging" / "birds").mkdir(parents=True)
    before = contents(repository / "imagenet_preprocess_256")
    add_all(repository, zoo["planes"])
    assert contents(repository / "imagenet_preprocess_256") == before
    assert manifest.read(repository)["planes"].parts["preprocess"] == "imagenet_preprocess_256_2"
    assert not (repository / ".staging").exists()


def test_removing_a_classifier_removes_the_parts_that_only_it_uses(
    graph: Path, repository: Path
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    builder.add(repository, sources.from_file(graph, "planes"))
    remove(repository, ["planes"])
    assert models(repository) == set(PARTS.values())
    assert set(manifest.read(repository)) == {"birds"}


def test_removing_an_unknown_classifier_is_rejected(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    before = contents(repository)
    with pytest.raises(BuildError, match="has no planes; it has birds"):
        remove(repository, ["birds", "planes"])
    assert contents(repository) == before


def test_pruning_removes_classifiers_of_the_catalogue_but_not_ones_own(
    graph: Path, repository: Path
) -> None:
    for name in ("birds", "resnet18_v1", "mobilenetv2"):
        builder.add(repository, sources.from_file(graph, name))
    with builder.session(repository) as session:
        assert session.prune({"resnet18_v1"}) == {"mobilenetv2"}
    assert set(manifest.read(repository)) == {"birds", "resnet18_v1"}
    assert not (repository / "mobilenetv2_onnx").exists()


def test_a_repository_may_hold_only_its_readme(graph: Path, repository: Path) -> None:
    repository.mkdir()
    shutil.copy(ROOT / "model_repository" / "README.md", repository)
    assert manifest.read(repository) == {}
    builder.add(repository, sources.from_file(graph, "birds"))
    assert set(manifest.read(repository)) == {"birds"}
    assert (repository / "README.md").is_file()


CROPS = {
    "ensemble_10crop": "birds_10crop",
    "preprocess_10crop": "birds_preprocess_10crop",
    "postprocess_10crop": "birds_postprocess_10crop",
}


def test_ten_crops_are_an_ensemble_of_their_own_until_they_are_no_longer_asked_for(
    graph: Path, repository: Path
) -> None:
    source = sources.from_file(graph, "birds")
    builder.add(repository, source)
    before = contents(repository)
    entry = builder.add(repository, source, crops=10)
    assert (entry.crops, entry.parts) == (10, PARTS | CROPS)
    assert manifest.read(repository)["birds"].crops == 10
    assert models(repository) == {*PARTS.values(), *CROPS.values()}
    assert manifest.verify(repository, models(repository)) == []
    after = contents(repository)
    assert {name for name in before if after[name] != before[name]} == {"manifest.json"}
    assert find_current(repository, source, crops=10)
    assert find_current(repository, source) is None
    builder.add(repository, source)
    assert contents(repository) == before


def test_removing_a_classifier_removes_its_ten_crops(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"), crops=10)
    builder.add(repository, sources.from_file(graph, "planes"))
    remove(repository, ["birds"])
    assert not [name for name in models(repository) if name.startswith("birds")]


def test_classifiers_share_the_steps_of_ten_crops(
    zoo: dict[str, ClassifierSource], repository: Path
) -> None:
    builder.add(repository, zoo["cats"])
    with builder.session(repository, {"birds", "planes"}) as session:
        for name in ("birds", "planes"):
            session.add(zoo[name], Request(Tuning(), crops=10))
    shared = {
        "preprocess": "imagenet_preprocess_256",
        "postprocess": "imagenet_postprocess",
        "preprocess_10crop": "imagenet_preprocess_256_10crop",
        "postprocess_10crop": "imagenet_postprocess_10crop",
    }
    for name in ("birds", "planes"):
        parts = manifest.read(repository)[name].parts
        assert shared.items() <= parts.items()
        assert parts["ensemble_10crop"] == f"{name}_10crop"
    builder.add(repository, zoo["birds"], tuning=Tuning(queue=3), crops=10)
    parts = manifest.read(repository)["birds"].parts
    assert parts["preprocess_10crop"] == "imagenet_preprocess_256_10crop_2"
    assert manifest.verify(repository, models(repository)) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "letterbox"}, "birds: 10 crops are for pictures that are larger than the crop"),
        ({"mode": "squash"}, "birds: 10 crops would be equal but for mirror images"),
    ],
)
def test_ten_crops_that_make_no_sense_are_refused(
    graph: Path, repository: Path, fields: dict[str, Any], message: str
) -> None:
    source = sources.from_file(graph, "birds", said(**fields))
    with pytest.raises(BuildError, match=rf"{message}.*; leave out --crops$"):
        builder.add(repository, source, crops=10)
    assert builder.add(repository, source).crops == 1


@pytest.mark.parametrize(("resize", "is_said"), [((32, 32), True), ((36, 36), False)])
def test_ten_crops_without_a_margin_are_mentioned(
    graph: Path,
    repository: Path,
    resize: tuple[int, int],
    is_said: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    builder.add(repository, sources.from_file(graph, "birds", said(resize=resize)), crops=10)
    assert ("birds: the 10 crops of a square image are equal" in caplog.text) == is_said


def test_ten_crops_do_not_take_the_name_of_another_classifier(
    graph: Path, repository: Path
) -> None:
    builder.add(repository, sources.from_file(graph, "birds_10crop"))
    with pytest.raises(BuildError, match="birds_10crop belongs to birds_10crop; choose another"):
        builder.add(repository, sources.from_file(graph, "birds"), crops=10)


def test_a_classifier_is_current_after_it_was_built(graph: Path, repository: Path) -> None:
    source = sources.from_file(graph, "birds")
    assert find_current(repository, source) is None
    builder.add(repository, source)
    current = find_current(repository, source)
    assert current == manifest.read(repository)["birds"]


@pytest.mark.parametrize(
    "changes",
    [
        {"tuning": Tuning(cores=3)},
        {"tuning": Tuning("gpu")},
        {"resize": 40},
        {"std": (0.5, 0.5, 0.5)},
        {"labels": tuple("abcdefghij")},
        {"tuning": Tuning(engine="openvino")},
        {"tuning": Tuning(engine="openvino"), "precision": "bf16"},
        {"precision": "int8"},
        {"auto": True},
        {"crops": 10},
    ],
)
def test_a_classifier_is_not_current_with_other_options(
    graph: Path, repository: Path, changes: dict[str, Any]
) -> None:
    options = {"tuning": Tuning(), "precision": "fp32", "auto": False, "crops": 1}
    builder.add(repository, sources.from_file(graph, "birds"))
    recipe = {key: value for key, value in changes.items() if key not in options}
    source = sources.from_file(graph, "birds", said(**recipe))
    changed = {key: changes.get(key, value) for key, value in options.items()}
    assert find_current(repository, source, **changed) is None


def test_a_classifier_is_not_current_when_its_external_weights_change(
    tmp_path: Path, repository: Path
) -> None:
    file = tmp_path / "birds.onnx"
    for scale in (1, 2):
        model = classifier(FLEXIBLE)
        weight = scale * onnx.numpy_helper.to_array(model.graph.initializer[0])
        model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
        (tmp_path / "birds.data").unlink(missing_ok=True)
        onnx.save(model, file, save_as_external_data=True, location="birds.data", size_threshold=0)
        source = sources.from_file(file, "birds")
        assert find_current(repository, source) is None
        builder.add(repository, source)


def test_a_classifier_is_not_current_after_the_generator_changed(
    graph: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources.from_file(graph, "birds")
    builder.add(repository, source)
    monkeypatch.setattr(digests, "generator", lambda: "another release")
    assert find_current(repository, source) is None


@pytest.mark.parametrize(
    "path",
    ["birds/config.pbtxt", "birds/1", "birds_onnx/1/model.onnx", "birds_preprocess/1/model.py"],
)
def test_a_classifier_is_not_current_when_a_file_is_missing(
    graph: Path, repository: Path, path: str
) -> None:
    source = sources.from_file(graph, "birds")
    builder.add(repository, source)
    (repository / path).rename(repository / "moved")
    assert find_current(repository, source) is None


def test_a_classifier_is_not_current_when_a_file_was_edited(graph: Path, repository: Path) -> None:
    source = sources.from_file(graph, "birds")
    builder.add(repository, source)
    file = repository / "birds_pixels" / "config.pbtxt"
    file.write_text(file.read_text().replace("count: 2", "count: 3"))
    assert find_current(repository, source) is None


def test_bytecode_that_triton_leaves_behind_does_not_matter(graph: Path, repository: Path) -> None:
    source = sources.from_file(graph, "birds")
    builder.add(repository, source)
    cache = repository / "birds_preprocess" / "1" / "__pycache__"
    cache.mkdir()
    (cache / "model.pyc").touch()
    assert find_current(repository, source)


@pytest.mark.parametrize(
    ("part", "image_format"), [("birds_pixels", "FORMAT_NHWC"), ("birds_onnx", "FORMAT_NCHW")]
)
def test_graphs_name_their_image_format_and_their_labels(
    graph: Path, repository: Path, part: str, image_format: str
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    written = config(repository, part)
    assert written.input[0].format == model_config_pb2.ModelInput.Format.Value(image_format)
    labels = (repository / part / written.output[0].label_filename).read_text().splitlines()
    assert labels == [f"class {number}" for number in range(CLASSES)]


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_int8_classifier_has_the_same_configuration_as_the_fp32_one(
    tmp_path: Path, engine: str
) -> None:
    file = tmp_path / "birds.onnx"
    onnx.save(convolved(), file)
    images = calibration.read(fill(tmp_path / "pictures", 2))
    source, tuning = sources.from_file(file, "birds"), Tuning(engine=engine)
    fp32 = builder.add(tmp_path / "fp32", source, tuning=tuning)
    int8 = builder.add(tmp_path / "int8", source, tuning=tuning, precision="int8", images=images)
    before, after = contents(tmp_path / "fp32"), contents(tmp_path / "int8")
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    graphs = {f"birds_{part}/1/model.onnx" for part in ("onnx", "pixels")}
    assert changed == {*graphs, "manifest.json"}
    assert (fp32.precision, fp32.quantization, fp32.comparison) == ("fp32", None, None)
    assert (int8.precision, int8.quantization) == ("int8", Quantization(2, images.sha256))
    assert int8.comparison
    assert (int8.comparison.compared, int8.comparison.images) == (2, "calibration images")
    written = manifest.read(tmp_path / "int8")["birds"]
    assert (written.quantization, written.comparison) == (int8.quantization, int8.comparison)
    options: dict[str, Any] = {"tuning": tuning, "precision": "int8"}
    assert find_current(tmp_path / "int8", source, images=images, **options) == written
    other = calibration.read(fill(tmp_path / "pictures", 3))
    assert find_current(tmp_path / "int8", source, images=other, **options) is None


def test_a_manifest_of_an_older_version_can_be_read(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    file = repository / "manifest.json"
    written = json.loads(file.read_text())
    entry = written["models"]["birds"]
    del written["version"], written["parts"]
    for field in ("precision", "quantization", "comparison", "choice", "inputs_sha256", "crops"):
        del entry[field]
    entry["files_sha256"] = "of version 1 only"
    del entry["tuning"]["engine"]
    entry["tuning"]["waiting"] = entry["tuning"].pop("queue")
    entry["parts"] = [entry["parts"][role] for role in manifest.ROLES]
    file.write_text(json.dumps(written))
    entry = manifest.read(repository)["birds"]
    assert manifest.verify(repository, PARTS.values()) == list(PARTS.values())
    assert entry.parts == PARTS
    assert (entry.precision, entry.quantization, entry.tuning) == ("fp32", None, None)
    assert entry.crops == 1


def test_an_int8_classifier_of_an_older_version_can_be_read(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    file = repository / "manifest.json"
    written = json.loads(file.read_text())
    entry = written["models"]["birds"]
    del entry["comparison"], entry["tuning"]["engine"]
    calibrated = {"images": 80, "images_sha256": "a digest"}
    compared = {"compared": 20, "agreeing": 19, "held_out": True}
    entry |= {"precision": "int8", "quantization": calibrated | compared}
    file.write_text(json.dumps(written))
    read = manifest.read(repository)["birds"]
    assert (read.quantization, read.comparison) == (Quantization(80, "a digest"), None)
    assert read.tuning == Tuning()


def test_a_manifest_of_a_newer_version_is_rejected(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    file = repository / "manifest.json"
    file.write_text(file.read_text().replace('"version": 2', '"version": 3'))
    with pytest.raises(BuildError, match="has version 3, of a newer release; upgrade"):
        manifest.read(repository)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"models": []}', '{"models": {"birds": 1}}'])
def test_a_damaged_manifest_is_reported_in_one_line(repository: Path, content: str) -> None:
    repository.mkdir()
    (repository / "manifest.json").write_text(content)
    with pytest.raises(BuildError, match=r"cannot read .*; build into a new folder") as caught:
        manifest.read(repository)
    assert "\n" not in str(caught.value)


def test_a_repository_matches_its_manifest(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    assert manifest.parts(repository).keys() == set(PARTS.values())
    assert manifest.verify(repository, PARTS.values()) == []


def edit(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("path", "damage", "message"),
    [
        ("birds/1", Path.rmdir, "birds/1/ is missing"),
        ("birds/2", Path.mkdir, "birds/2/ is not in the manifest"),
        ("birds_onnx/1/model.onnx", edit, "1/model.onnx does not match its sha256"),
        ("birds_onnx/labels.txt", Path.unlink, "birds_onnx/labels.txt is missing"),
        ("birds_preprocess/1/new.py", Path.touch, "birds_preprocess/1/new.py is not in the"),
    ],
)
def test_a_file_that_does_not_match_the_manifest_is_named(
    graph: Path, repository: Path, path: str, damage: Callable[[Path], None], message: str
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    damage(repository / path)
    with pytest.raises(BuildError, match=message):
        manifest.verify(repository, PARTS.values())
    manifest.verify(repository, set(PARTS.values()) - {path.partition("/")[0]})


def test_a_failed_build_leaves_the_repository_unchanged(
    graph: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    before = contents(repository)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "model.onnx")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        builder.add(repository, sources.from_file(graph, "birds", said(resize=64)))
    assert contents(repository) == before


def test_a_folder_that_is_not_a_model_repository_is_rejected(graph: Path, tmp_path: Path) -> None:
    for place in (tmp_path, graph):
        with pytest.raises(BuildError, match=r"it has no manifest\.json"):
            builder.add(place, sources.from_file(graph, "birds"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["birds.onnx"]


def test_the_name_of_another_classifiers_part_is_rejected(graph: Path, repository: Path) -> None:
    builder.add(repository, sources.from_file(graph, "birds"))
    with pytest.raises(BuildError, match="birds_onnx belongs to birds"):
        builder.add(repository, sources.from_file(graph, "birds_onnx"))


@pytest.mark.parametrize("name", ["", "a b", "../up", ".hidden", "ü", "a/b"])
def test_an_invalid_name_is_rejected(name: str) -> None:
    with pytest.raises(BuildError, match="invalid model name"):
        builder.check_name(name)


def test_a_name_that_is_too_long_for_a_folder_is_rejected() -> None:
    builder.check_name("a" * 200)
    with pytest.raises(BuildError, match="name of 201 characters is too long"):
        builder.check_name("a" * 201)


@pytest.mark.parametrize(
    "name",
    [
        *("resnet50_v1", "resnet50_v1_onnx", "resnet50_v1_10crop", "mobilenetv2_preprocess_10crop"),
        *("imagenet_postprocess", "README.md"),
    ],
)
def test_a_reserved_name_is_rejected(name: str) -> None:
    with pytest.raises(BuildError, match="is reserved; choose another with --name"):
        builder.check_name(name)


def test_too_few_labels_are_rejected(graph: Path, repository: Path) -> None:
    with pytest.raises(BuildError, match="birds: the graph has 10 classes, but the test has 2 lab"):
        builder.add(repository, sources.from_file(graph, "birds", said(labels=("crow", "owl"))))


def test_a_crop_other_than_the_declared_size_is_accepted_if_the_graph_supports_it(
    graph: Path, repository: Path
) -> None:
    entry = builder.add(repository, sources.from_file(graph, "birds", said(crop=64)))
    assert (entry.recipe["resize"], entry.recipe["crop"]) == ((73, 73), (64, 64))


def test_a_crop_that_the_graph_does_not_support_is_rejected(
    tmp_path: Path, repository: Path
) -> None:
    dense = np.ones((3 * 32 * 32, CLASSES), np.float32)
    body = "flat = Flatten(image) scores = MatMul(flat, dense)"
    file = tmp_path / "fixed.onnx"
    onnx.save(classifier(body, initializers={"dense": dense}), file)
    with pytest.raises(BuildError, match="fixed: the graph takes 32 pixels, not a crop of 64"):
        builder.add(repository, sources.from_file(file, "fixed", said(crop=64)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 0}, "a crop of 0 pixels is impossible"),
        ({"crop": 100_000}, "give sides from 1 to 4096"),
        ({"resize": 0}, "a resize of 0 pixels is impossible"),
        ({"resize": 31}, "a crop of 32 pixels does not fit an image resized to 31"),
        ({"fill": (1, 2, 3)}, "fill is for the mode letterbox, not shorter"),
        ({"mean": (0.1, 0.2)}, "mean has 2 values; a recipe for rgb takes 1, or 3"),
        ({"colour": "grey", "mean": (0.1, 0.2, 0.3)}, "a recipe for grey takes 1"),
        ({"std": (0.0,)}, "std must be positive, not 0"),
        ({"pixel_range": (1.0, 0.0)}, "white must be above that of black, not 1 0"),
        ({"pixel_range": (0.0, float("inf"))}, "pixel_range must be finite, not 0 inf"),
    ],
)
def test_an_invalid_recipe_is_rejected(
    graph: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(BuildError) as caught:
        sources.from_file(graph, "birds", said(**fields))  # type: ignore[arg-type]
    assert str(caught.value).startswith(f"{graph}: ")
    assert message in str(caught.value)


def test_external_data_is_included(tmp_path: Path, repository: Path) -> None:
    file = tmp_path / "external" / "birds.onnx"
    file.parent.mkdir()
    model = classifier(FLEXIBLE)
    weight = model.graph.initializer[0].raw_data
    onnx.save(model, file, save_as_external_data=True, location="birds.data", size_threshold=0)
    builder.add(repository, sources.from_file(file, "birds"))
    prepared = onnx.load(repository / "birds_onnx" / "1" / "model.onnx")
    assert prepared.graph.initializer[0].raw_data == weight


def test_missing_external_data_is_reported_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "birds.onnx"
    model = classifier(FLEXIBLE)
    onnx.save(model, file, save_as_external_data=True, location="birds.data", size_threshold=0)
    (tmp_path / "birds.data").unlink()
    with pytest.raises((BuildError, OSError), match=r"birds\.data") as caught:
        sources.from_file(file, "birds")
    assert "\n" not in str(caught.value)


def test_the_labels_of_imagenet_are_included() -> None:
    assert len(set(IMAGENET_LABELS)) == 1000
    assert IMAGENET_LABELS[285] == "n02124075 Egyptian cat"


def test_the_labels_match_the_synset_file(shared_assets: Path) -> None:
    assert (shared_assets / "synset.txt").read_text().splitlines() == list(IMAGENET_LABELS)
