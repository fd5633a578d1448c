"""Quantising graphs: what becomes INT8, what stays FP32, how well they agree, what is rejected."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from PIL import Image

from scripts.repository import calibration
from scripts.repository.calibration import Images
from scripts.repository.errors import BuildError
from scripts.repository.graphs.opset import IR_VERSIONS, OPSETS
from scripts.repository.graphs.prepare import Prepared, prepare
from scripts.repository.graphs.quantize import quantize
from scripts.repository.graphs.signature import read_signature
from scripts.repository.graphs.speed import speedup
from scripts.repository.graphs.tensors import tensor
from scripts.repository.steps.preprocess.recipe import square
from tests.graphs import CLASSES, CONVOLVED, FILTERS, FLEXIBLE, Array, classifier, convolved
from tests.images import fill

RECIPE = square(37, 32)
AVERAGED = """
    first = Conv<kernel_shape = [3, 3]>(image, filters)
    active = Relu(first)
    second = Conv(active, classes)
    pooled = GlobalAveragePool(second)
    scores = Flatten(pooled)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return calibration.read(fill(tmp_path_factory.mktemp("pictures"), calibration.RECOMMENDED))


@pytest.fixture(scope="module")
def fp32() -> Prepared:
    return prepare(convolved())


@pytest.fixture(scope="module")
def int8(fp32: Prepared, images: Images) -> Prepared:
    return quantize(fp32, images, RECIPE).prepared


def averaged() -> ModelProto:
    model = convolved(AVERAGED)
    weights = np.random.default_rng(4).standard_normal((CLASSES, FILTERS, 1, 1))
    array = numpy_helper.from_array(weights.astype(np.float32), "classes")
    model.graph.initializer.append(array)
    return model


def run(model: ModelProto, pixels: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    scores: Array = session.run(["scores"], {"image": pixels})[0]
    return scores


def tensors(files: Iterable[Path]) -> Array:
    """Images as the graphs of `convolved` take them."""
    signature = read_signature(convolved())
    return np.concatenate(
        [tensor(pixels, RECIPE, signature) for pixels in calibration.pixels(files, RECIPE)]
    )


def operators(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def weight_types(model: ModelProto) -> set[int]:
    """The types of the convolution's filters, which quantisation renames."""
    shape = [FILTERS, 3, 3, 3]
    return {each.data_type for each in model.graph.initializer if list(each.dims) == shape}


def test_signature_and_scores_are_kept(fp32: Prepared, int8: Prepared) -> None:
    assert int8.signature == fp32.signature
    assert int8.model.graph.input == fp32.model.graph.input
    assert int8.model.graph.output == fp32.model.graph.output
    assert (int8.classes, int8.scores) == (fp32.classes, fp32.scores)


def test_batch_and_image_size_are_variable(int8: Prepared) -> None:
    pixels = np.random.default_rng(0).standard_normal((5, 3, 40, 50)).astype(np.float32)
    together = run(int8.model, pixels)
    np.testing.assert_allclose(
        together, np.concatenate([run(int8.model, image[None]) for image in pixels]), atol=1e-5
    )


def test_weights_are_int8_with_one_scale_per_channel(int8: Prepared) -> None:
    assert weight_types(int8.model) == {TensorProto.INT8}
    scales = [list(each.dims) for each in int8.model.graph.initializer if "scale" in each.name]
    assert [FILTERS] in scales


def test_batch_normalisation_is_folded_into_convolutions(int8: Prepared) -> None:
    assert "QuantizeLinear" in operators(int8.model)
    assert "BatchNormalization" not in operators(int8.model)


def test_batch_normalisation_that_cannot_be_folded_stays_fp32(images: Images) -> None:
    body = "centred = BatchNormalization(image, three, three, three, three)"
    body += CONVOLVED.replace("(image,", "(centred,")
    original = convolved(body)
    numbers = np.array([1e-4, 1, 1e4], np.float32)
    original.graph.initializer.append(numpy_helper.from_array(numbers, "three"))
    model = quantize(prepare(original), images, RECIPE).prepared.model
    (kept,) = (each for each in model.graph.initializer if list(each.dims) == [3])
    np.testing.assert_array_equal(numpy_helper.to_array(kept), numbers)


def test_the_last_layer_stays_fp32(int8: Prepared) -> None:
    last = int8.model.graph.node[-1]
    assert (last.op_type, list(last.output)) == ("MatMul", ["scores"])
    types = {each.name: each.data_type for each in int8.model.graph.initializer}
    assert types[last.input[1]] == TensorProto.FLOAT


def test_the_last_layer_is_int8_if_its_scores_are_averaged(images: Images) -> None:
    model = quantize(prepare(averaged()), images, RECIPE).prepared.model
    types = {each.data_type for each in model.graph.initializer if len(each.dims) == 4}
    assert types == {TensorProto.INT8}
    assert operators(model)[-2:] == ["GlobalAveragePool", "Flatten"]


@pytest.mark.parametrize(("opset", "ir_version"), [(7, 3), (13, 8), (21, 10)])
def test_the_result_is_standard_onnx_in_supported_versions(
    images: Images, opset: int, ir_version: int
) -> None:
    original = prepare(convolved(opset=opset, ir_version=ir_version))
    quantized = quantize(original, images, RECIPE).prepared
    onnx.checker.check_model(quantized.model, full_check=True)
    assert [opset.domain for opset in quantized.model.opset_import] == [""]
    assert 13 <= quantized.opset <= OPSETS[1]
    assert quantized.model.ir_version <= IR_VERSIONS[1]


def test_int8_scores_are_close_to_fp32_scores(
    fp32: Prepared, int8: Prepared, images: Images
) -> None:
    pixels = tensors(images.compare)
    expected = run(fp32.model, pixels)
    assert np.abs(run(int8.model, pixels) - expected).max() < 0.05 * np.abs(expected).max()


def test_quantisation_is_reproducible(fp32: Prepared, int8: Prepared, images: Images) -> None:
    again = quantize(fp32, images, RECIPE).prepared.model
    assert again.SerializeToString(deterministic=True) == int8.model.SerializeToString(
        deterministic=True
    )


def test_the_original_graph_is_not_modified(images: Images) -> None:
    original = prepare(convolved(opset=7, ir_version=3))
    before = original.model.SerializeToString(deterministic=True)
    quantize(original, images, RECIPE)
    assert original.model.SerializeToString(deterministic=True) == before


def test_agreement_is_counted_on_held_out_images(fp32: Prepared, images: Images) -> None:
    quantized = quantize(fp32, images, RECIPE)
    pixels = tensors(images.compare)
    expected = run(fp32.model, pixels).argmax(axis=1)
    actual = run(quantized.prepared.model, pixels).argmax(axis=1)
    result = quantized.quantization
    assert (result.images, result.compared, result.held_out) == (80, 20, True)
    assert result.agreeing == (expected == actual).sum()
    assert result.images_sha256 == images.sha256


def test_disagreements_are_counted(fp32: Prepared, images: Images, tmp_path: Path) -> None:
    # Calibrated on grey only, the graph cannot represent colours.
    colours = [tmp_path / f"{name}.png" for name in ("grey", "red", "lime", "blue", "yellow")]
    for file in colours:
        Image.new("RGB", (40, 40), file.stem).save(file)
    chosen = replace(images, calibrate=tuple(colours[:1]), compare=tuple(colours))
    quantized = quantize(fp32, chosen, RECIPE)
    pixels = tensors(colours)
    expected, actual = (
        run(each.model, pixels).argmax(axis=1) for each in (fp32, quantized.prepared)
    )
    assert quantized.quantization.agreeing == (expected == actual).sum() < len(colours)


def test_progress_covers_calibration_and_comparison(fp32: Prepared, images: Images) -> None:
    reports: list[tuple[int, int]] = []
    quantize(fp32, images, RECIPE, progress=lambda done, total: reports.append((done, total)))
    assert reports == [(done, 100) for done in range(1, 101)]


POOLED = "pooled = GlobalMaxPool(image) scores = Flatten(pooled)"


@pytest.mark.parametrize("model", [classifier(FLEXIBLE), classifier(POOLED, scores="float[1,3]")])
def test_a_graph_with_nothing_to_quantise_is_rejected(model: ModelProto, images: Images) -> None:
    with pytest.raises(BuildError, match="nothing to quantise"):
        quantize(prepare(model), images, RECIPE)


def test_a_failure_of_the_quantiser_is_reported_in_one_line(
    fp32: Prepared, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a reason\nand a page more")

    monkeypatch.setattr("scripts.repository.graphs.quantize.quantize_static", fail)
    with pytest.raises(BuildError, match=r"onnxruntime cannot quantise the graph: a reason$"):
        quantize(fp32, images, RECIPE)


def test_the_speed_of_two_graphs_is_compared(fp32: Prepared, int8: Prepared) -> None:
    assert speedup(fp32, int8, (32, 32)) > 0


def test_a_graph_with_more_work_is_measured_as_slower(fp32: Prepared) -> None:
    repeated = convolved(
        CONVOLVED.replace(
            "active = Relu(normal)", "padded = Tile(normal, tiles) active = Relu(padded)"
        )
    )
    tiles = numpy_helper.from_array(np.array([1, 1, 16, 16]), "tiles")
    repeated.graph.initializer.append(tiles)
    assert speedup(replace(fp32, model=repeated), fp32, (32, 32)) > 1


def test_a_graph_that_is_quantised_already_is_rejected(int8: Prepared, images: Images) -> None:
    again = prepare(int8.model)
    with pytest.raises(BuildError, match=r"quantised already; build it with --precision fp32$"):
        quantize(again, images, RECIPE)


def test_a_graph_of_fp16_is_rejected(images: Images) -> None:
    body = CONVOLVED.replace("(image, filters", "(small, small_filters")
    body = "small = Cast<to = 10>(image)" + body
    body = body.replace("normal =", "large = Cast<to = 1>(filtered) normal =")
    original = convolved(body.replace("Normalization(filtered", "Normalization(large"))
    filters = np.ones((FILTERS, 3, 3, 3), np.float16)
    original.graph.initializer.append(numpy_helper.from_array(filters, "small_filters"))
    with pytest.raises(BuildError, match=r"computes in FP16.*--precision fp32$"):
        quantize(prepare(original), images, RECIPE)


@pytest.mark.parametrize(
    ("image", "head", "layout"),
    [
        ("uint8[N,3,32,32]", "real = Cast<to = 1>(image)", "NCHW"),
        ("float[N,32,32,3]", "real = Transpose<perm = [0, 3, 1, 2]>(image)", "NHWC"),
    ],
)
def test_graphs_of_other_types_and_layouts_are_quantised(
    images: Images, image: str, head: str, layout: str
) -> None:
    original = convolved(head + CONVOLVED.replace("(image", "(real"), image=image)
    quantized = quantize(prepare(original), images, RECIPE)
    assert quantized.prepared.signature.layout == layout
    assert weight_types(quantized.prepared.model) == {TensorProto.INT8}
    assert quantized.quantization.agreeing >= 18


@pytest.mark.parametrize("batch", [1, 4])
def test_a_graph_in_a_loop_is_quantised_inside_it(images: Images, batch: int) -> None:
    body = CONVOLVED.replace("features = Flatten(pooled)", "line = Reshape(pooled, all)")
    body = body.replace(
        "scores =", "added = Add(line, ones_of_all) features = Reshape(added, rows) scores ="
    )
    original = convolved(body, image=f"float[{batch},3,32,32]", scores=f"float[{batch},{CLASSES}]")
    for name, array in (
        ("all", np.array([batch * FILTERS])),
        ("ones_of_all", np.ones(batch * FILTERS, np.float32)),
        ("rows", np.array([batch, FILTERS])),
    ):
        original.graph.initializer.append(numpy_helper.from_array(array, name))
    fp32 = prepare(original)
    assert fp32.batches == "loop"
    quantized = quantize(fp32, images, RECIPE)
    int8 = quantized.prepared
    (scan,) = (node for node in int8.model.graph.node if node.op_type == "Scan")
    assert "QuantizeLinear" in {node.op_type for node in scan.attribute[0].g.node}
    pixels = tensors(images.compare)
    expected = run(fp32.model, pixels)
    assert np.abs(run(int8.model, pixels) - expected).max() < 0.05 * np.abs(expected).max()
    assert quantized.quantization.agreeing >= 18
