"""What is written for TensorRT. Whether a GPU accepts it cannot be seen here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from client import SAMPLE
from scripts.measuring import subject
from scripts.repository import builder, sources
from scripts.repository.check import Check
from scripts.repository.description import Description
from scripts.repository.errors import BuildError
from scripts.repository.graphs import engines
from scripts.repository.manifest import Entry
from scripts.repository.sources import ClassifierSource
from scripts.repository.tuning import Tuning
from tests.descriptions import said
from tests.graphs import CLASSES, FLEXIBLE, Array, classifier, convolved

TENSORRT = Tuning("gpu", engine="tensorrt")
# The parameters that Triton's backend accepts; with another one, a model does not load. This is
# what src/onnxruntime.cc of https://github.com/triton-inference-server/onnxruntime_backend compares
# `param_key` with in the branches r24.04 to r26.06, which are equal.
ACCEPTED = {
    *("precision_mode", "max_workspace_size_bytes"),
    *("int8_calibration_table_name", "int8_use_native_calibration_table"),
    *("trt_max_partition_iterations", "trt_min_subgraph_size", "trt_dla_enable", "trt_dla_core"),
    *("trt_engine_cache_enable", "trt_engine_cache_path", "trt_engine_cache_prefix"),
    *("trt_timing_cache_enable", "trt_timing_cache_path", "trt_force_timing_cache"),
    *("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes"),
    *("trt_force_sequential_engine_build", "trt_context_memory_sharing_enable"),
    *("trt_layer_norm_fp32_fallback", "trt_detailed_build_log", "trt_build_heuristics_enable"),
    *("trt_sparsity_enable", "trt_builder_optimization_level", "trt_auxiliary_streams"),
    *("trt_tactic_sources", "trt_extra_plugin_lib_paths", "trt_cuda_graph_enable"),
    *("trt_dump_subgraphs", "trt_dump_ep_context_model", "trt_ep_context_file_path"),
    "trt_ep_context_embed_mode",
}
SCORES = f"float[N,{CLASSES}]"

Build = Callable[..., Entry]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Builds a graph for TensorRT, with a crop of 32 pixels."""

    def run(
        model: onnx.ModelProto, *described: Description, tuning: Tuning = TENSORRT, **options: Any
    ) -> Entry:
        made = source(tmp_path, model, *described)
        return builder.add(tmp_path / "models", made, tuning=tuning, **options)

    return run


def source(folder: Path, model: onnx.ModelProto, *described: Description) -> ClassifierSource:
    onnx.save(model, folder / "birds.onnx")
    return sources.from_file(folder / "birds.onnx", "birds", *described)


def configs(folder: Path) -> dict[str, pb.ModelConfig]:
    """Parse every configuration of a built repository."""
    return {
        file.parent.name: text_format.Parse(file.read_text(), pb.ModelConfig())
        for file in (folder / "models").glob("*/config.pbtxt")
    }


def parameters(config: pb.ModelConfig) -> dict[str, str]:
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    return dict(accelerator.parameters)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_both_graphs_have_the_accelerator_with_parameters_that_triton_accepts(
    build: Build, tmp_path: Path, precision: str
) -> None:
    entry = build(convolved(), precision=precision, crops=10)
    assert (entry.engine, entry.backend, entry.precision) == ("tensorrt", "onnxruntime", precision)
    graphs = {entry.parts["pixels"], entry.parts["onnx"]}
    for name, config in configs(tmp_path).items():
        assert config.HasField("optimization") == (name in graphs)
    for name in graphs:
        config = configs(tmp_path)[name]
        written = parameters(config)
        assert config.backend == "onnxruntime"
        assert not config.parameters
        counts = [group.count for group in config.instance_group]
        assert counts == ([2] if name == entry.parts["pixels"] else [])
        assert written.keys() <= ACCEPTED
        assert "precision_mode" not in written
        assert written["max_workspace_size_bytes"] == str(4 * 1024**3)
        for cache in ("engine", "timing"):
            assert written[f"trt_{cache}_cache_enable"] == "1"
            assert written[f"trt_{cache}_cache_path"] == "/engines"


def profiles(config: pb.ModelConfig) -> list[str]:
    written = parameters(config)
    return [written[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")]


@pytest.mark.parametrize(
    ("model", "own"),
    [
        (convolved(), "3x32x32"),
        (classifier(FLEXIBLE, image="float[N,3,H,W]", scores=SCORES), "3x32x32"),
        (
            classifier(
                "planes = Transpose<perm = [0, 3, 1, 2]>(image)"
                + FLEXIBLE.replace("(image)", "(planes)"),
                image="float[N,32,32,3]",
                scores=SCORES,
            ),
            "32x32x3",
        ),
    ],
)
def test_engines_are_for_batches_of_1_to_32_images_of_the_crops_size(
    build: Build, tmp_path: Path, model: onnx.ModelProto, own: str
) -> None:
    build(model, said(crop=(32, 32), resize=(40, 40)))
    written = configs(tmp_path)
    batches = (1, 8, 32)
    assert profiles(written["birds_pixels"]) == [f"PIXELS:{each}x32x32x3" for each in batches]
    assert profiles(written["birds_onnx"]) == [f"image:{each}x{own}" for each in batches]
    for name in ("birds_pixels", "birds_onnx"):
        config = written[name]
        assert config.max_batch_size == batches[-1]
        assert [warm_up.batch_size for warm_up in config.model_warmup] == list(batches)
        for warm_up in config.model_warmup:
            (sample,) = warm_up.inputs.values()
            assert sample.dims == config.input[0].dims
            assert sample.data_type == config.input[0].data_type


def test_a_graph_with_other_weights_has_engines_of_its_own(build: Build, tmp_path: Path) -> None:
    def prefixes() -> set[str]:
        return {
            parameters(config)["trt_engine_cache_prefix"]
            for name, config in configs(tmp_path).items()
            if name in {"birds_pixels", "birds_onnx"}
        }

    found = []
    for factor in (1, 1, 2):
        model = convolved()
        weight = next(each for each in model.graph.initializer if each.name == "weight")
        array = onnx.numpy_helper.to_array(weight)
        weight.CopyFrom(onnx.numpy_helper.from_array(factor * array, "weight"))
        build(model)
        found.append(prefixes())
    first, same, other = found
    assert {prefix.rpartition("_")[0] for prefix in first} == {"birds_pixels", "birds_onnx"}
    assert first == same
    assert not first & other


def test_the_folder_for_engines_can_be_chosen(build: Build, tmp_path: Path) -> None:
    build(convolved(), tuning=Tuning("gpu", engine="tensorrt", engine_cache="/data/engines"))
    assert parameters(configs(tmp_path)["birds_pixels"])["trt_engine_cache_path"] == "/data/engines"


@pytest.mark.parametrize("tuning", [Tuning(), Tuning("gpu"), Tuning(engine="openvino")])
def test_other_engines_have_no_accelerator(build: Build, tmp_path: Path, tuning: Tuning) -> None:
    build(convolved(), tuning=tuning)
    assert not any(config.HasField("optimization") for config in configs(tmp_path).values())


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_a_conversion_is_the_only_node_that_takes_uint8(
    build: Build, tmp_path: Path, colour: str
) -> None:
    scores: list[Array] = []
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    for tuning in (TENSORRT, Tuning()):
        build(convolved(), said(colour=colour), tuning=tuning)
        file = tmp_path / "models" / "birds_pixels" / "1" / "model.onnx"
        takers = [node.op_type for node in onnx.load(file).graph.node if "PIXELS" in node.input]
        assert takers == (["Cast"] if tuning == TENSORRT else ["Transpose"])
        scores.append(engines.load("onnxruntime", file)(images))
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "name", "reason"),
    [
        ("uint8[N,3,32,32]", "image", "which is UINT8; build it with --engine onnxruntime"),
        ("double[N,3,32,32]", "image", "which is FP64; build it with --engine onnxruntime"),
        ("float[N,3,32,32]", "image:0", "whose name has a comma or a colon; build it with --engi"),
        ("float[N,3,32,32]", "a,b", "whose name has a comma or a colon; build it with --engine"),
    ],
)
def test_an_input_that_tensorrt_cannot_take_is_refused(
    build: Build, image: str, name: str, reason: str
) -> None:
    body = "float = Cast<to = 1>(image)" + FLEXIBLE.replace("(image)", "(float)")
    model = classifier(body, image=image, scores=SCORES)
    model.graph.input[0].name = model.graph.node[0].input[0] = name
    described = said(pixel_range=(0.0, 255.0), mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(BuildError, match=rf"^birds: TensorRT cannot take the graph's .*{reason}"):
        build(model, described)
    build(model, described, tuning=Tuning("gpu"))


def test_what_runs_graphs_on_this_machine_does_so_on_onnxruntime(
    build: Build, tmp_path: Path
) -> None:
    entry = build(convolved())
    compared = Check(source(tmp_path, convolved()), entry, tmp_path / "models").compare(SAMPLE)
    assert compared.difference < 0.01  # of the fast decoding
    assert str(subject.read(tmp_path / "models", "birds").build) == "onnxruntime fp32"
    assert str(TENSORRT) == "a GPU with TensorRT and 2 cores"
