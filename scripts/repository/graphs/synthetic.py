"""Synthetic versions of the ONNX Model Zoo's classifiers, for machines without a network.

Each has the structure, the names and the size of the zoo's file, which MXNet exported from the
Gluon model zoo, with seeded random weights instead of the trained ones.

The weights are chosen so that the logits depend on the image. In a plain random network the mean
that each ReLU adds soon dominates, and all images get the same class. Here each filter behind a
ReLU sums to zero, which cancels the mean of its inputs, and residual branches are scaled down so
that a stage of 36 blocks neither explodes nor amplifies rounding errors.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.helper import make_tensor_value_info as describe

from scripts.repository.catalog import ZooModel

Weights = NDArray[np.float32]
Attribute = int | float | list[int]

CLASSES = 1000
IR_VERSION = 3
OPSET = 7

# The defaults of Gluon's BatchNorm.
BATCH_NORM = {"epsilon": 1e-5, "momentum": 0.9}

# From the Gluon model zoo's `resnet.py`: blocks per stage by depth, and strides and channels of the
# stages. The output of a bottleneck has four times as many channels.
RESNET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
RESNET_STRIDES = (1, 2, 2, 2)
RESNET_CHANNELS = (64, 128, 256, 512)
RESNET_STEM = 64
RESNET_POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
SHALLOWEST_BOTTLENECK = 50

# From its `mobilenet.py`, for MobileNetV2 at width 1.0, per row of equal blocks: output channels,
# expansion, stride of the first block, and number of blocks.
MOBILENET_CHANNELS = (16, 24, 32, 64, 96, 160, 320)
MOBILENET_EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
MOBILENET_STRIDES = (1, 2, 2, 2, 1, 2, 1)
MOBILENET_BLOCKS = (1, 2, 3, 4, 3, 3, 1)
MOBILENET_STEM = 32
MOBILENET_HEAD = 1280

# The variance of a ReLU's output for a unit Gaussian input.
RELU_VARIANCE = (1 - 1 / math.pi) / 2
# The variance that all residual branches of a stage together add to its unit variance. Measured:
# with less, the logits of different images are more alike; with more, rounding errors grow.
RESIDUAL_VARIANCE = 0.4
# The standard deviation of the stem's shifts; without them an all-zero image has equal logits.
SHIFT_STD = 0.5
LOGIT_STD = 4.0  # before pooling, which halves it


@dataclass(frozen=True)
class _Edge:
    """A tensor between nodes: its name, its channels, and whether it comes from a ReLU."""

    name: str
    channels: int
    rectified: bool = False


@dataclass(frozen=True)
class _Block:
    """A residual block; `inner` and `channels` are those inside and at the output."""

    scope: str
    inner: int
    channels: int
    stride: int
    gain: float


class _Graph:
    """Builds an ONNX graph, with names numbered like those of Gluon and of its exporter."""

    def __init__(self, scope: str, seed: int) -> None:
        self.proto, self.scope = onnx.GraphProto(name="mxnet_converted_model"), scope
        self._counts: Counter[str] = Counter()
        self._rng = np.random.default_rng(seed)

    def conv(
        self, x: _Edge, out: int, size: int, stride: int = 1, *, gain: float = 1, bias: bool = False
    ) -> _Edge:
        """A convolution; unit variance, before any ReLU, becomes `gain` squared."""
        arrays = {"weight": self._filters((out, x.channels, size, size), x, gain)}
        if bias:
            arrays["bias"] = np.zeros(out, np.float32)
        return self._convolve(x, self._count("conv"), stride, **arrays)

    def depthwise(self, x: _Edge, stride: int) -> _Edge:
        """A 3 x 3 depthwise convolution: a blur plus a random part."""
        # Behind a ReLU, a filter with a negative sum zeroes its channel, and one with sum zero
        # zeroes smooth images.
        weights = (1 + self._filters((x.channels, 1, 3, 3), x)) / np.float32(9)
        return self._convolve(x, self._count("conv"), stride, weight=weights)

    def predict(self, x: _Edge) -> _Edge:
        """MobileNet's last layer, a 1 x 1 convolution."""
        weights = self._filters((CLASSES, x.channels, 1, 1), x, LOGIT_STD)
        return self._convolve(x, f"{self.scope}pred", 1, weight=weights)

    def dense(self, x: _Edge, *, flatten: bool) -> _Edge:
        """A ResNet's last layer, optionally with a Flatten in front."""
        name = self._count("dense")
        weights = self._filters((CLASSES, x.channels), x, LOGIT_STD)
        parameters = self._parameters(name, weight=weights, bias=np.zeros(CLASSES, np.float32))
        flat = self._node("Flatten", f"flatten_{self._index}", [x.name]) if flatten else x.name
        return _Edge(self._node("Gemm", f"{name}_fwd", [flat, *parameters], transB=1), CLASSES)

    def batch_norm(self, x: _Edge, shift_std: float = 0.0, variance: float = 1.0) -> _Edge:
        """A batch normalisation for inputs of mean zero and this variance."""
        name = self._count("batchnorm")
        ones, zeros = np.ones(x.channels, np.float32), np.zeros(x.channels, np.float32)
        shift = self._rng.normal(0.0, shift_std, x.channels).astype(np.float32)
        var = np.float32(variance) * ones
        statistics = {"gamma": ones, "beta": shift, "running_mean": zeros, "running_var": var}
        inputs = [x.name, *self._parameters(name, **statistics)]
        output = self._node("BatchNormalization", f"{name}_fwd", inputs, **BATCH_NORM)
        return _Edge(output, x.channels)

    def relu(self, x: _Edge) -> _Edge:
        """A ReLU that Gluon defines as a layer."""
        name = self._node("Relu", f"{self._count('relu')}_fwd", [x.name])
        return _Edge(name, x.channels, rectified=True)

    def activation(self, x: _Edge) -> _Edge:
        """A ReLU that Gluon defines as an activation in a residual block."""
        name = self._node("Relu", self._count("activation"), [x.name])
        return _Edge(name, x.channels, rectified=True)

    def add(self, branch: _Edge, shortcut: _Edge, kind: str) -> _Edge:
        """The sum at the end of a residual block."""
        name = self._node("Add", self._count(kind), [branch.name, shortcut.name])
        return _Edge(name, branch.channels)

    def pool(self, x: _Edge, operator: str, **window: list[int]) -> _Edge:
        """A pooling."""
        name = f"{self._count('pool')}_fwd"
        return replace(x, name=self._node(operator, name, [x.name], **window))

    def reshape(self, x: _Edge, shape: list[int]) -> _Edge:
        """A reshape to a constant shape."""
        constant = self._parameter(f"reshape_attr_tensor{self._index}", np.array(shape, np.int64))
        name = f"{self._count('flatten')}_reshape0"
        return replace(x, name=self._node("Reshape", name, [x.name, constant]))

    @property
    def _index(self) -> int:
        """The number that the exporter gives the next node; MXNet counts variables as nodes."""
        return len(self.proto.input) + len(self.proto.node)

    def _convolve(self, x: _Edge, name: str, stride: int, **arrays: Weights) -> _Edge:
        channels, per_group, kernel, _ = arrays["weight"].shape
        inputs = [x.name, *self._parameters(name, **arrays)]
        window = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        group = x.channels // per_group
        output = self._node("Conv", f"{name}_fwd", inputs, group=group, dilations=[1, 1], **window)
        return _Edge(output, channels)

    def _filters(self, shape: tuple[int, ...], x: _Edge, gain: float = 1.0) -> Weights:
        """Random filters for `x` with this gain; they sum to zero if `x` comes from a ReLU."""
        variance = RELU_VARIANCE if x.rectified else 1.0
        weights = self._rng.standard_normal(shape, dtype=np.float32)
        weights *= np.float32(gain / math.sqrt(variance * math.prod(shape[1:])))
        if x.rectified:
            weights -= weights.mean(axis=tuple(range(1, len(shape))), keepdims=True)
        return weights

    def _count(self, kind: str) -> str:
        """The next name of this kind in the scope, such as `resnetv17_stage1_conv0`."""
        stem = f"{self.scope}{kind}"
        self._counts[stem] += 1
        return f"{stem}{self._counts[stem] - 1}"

    def _parameters(self, layer: str, **arrays: Weights) -> list[str]:
        return [self._parameter(f"{layer}_{kind}", array) for kind, array in arrays.items()]

    def _parameter(self, name: str, array: Weights | NDArray[np.int64]) -> str:
        """An initializer that is also an input, as IR 3 requires."""
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensor = self.proto.initializer.add(name=name, data_type=kind, dims=array.shape)
        tensor.raw_data = array.tobytes()
        self.proto.input.append(describe(name, kind, array.shape))
        return name

    def _node(self, operator: str, name: str, inputs: list[str], **attributes: Attribute) -> str:
        node = helper.make_node(operator, inputs, [name], name)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.proto.node.append(node)
        return name


_Blocks = Iterable[_Block]
_Residual = Callable[[_Graph, _Edge, _Block], _Edge]


def build(model: ZooModel) -> onnx.ModelProto:
    """Build the synthetic version of a classifier of the catalogue, reproducibly.

    The input `data` is FP32 [N, 3, 224, 224], and the output, `model.output`, the logits, FP32
    [N, 1000]. N is 1 for `mobilenetv2` and variable for the others.

    Raises:
        KeyError: Gluon has no ResNet of this depth.
    """
    graph = _Graph(model.output.split("_")[0] + "_", seed=zlib.crc32(model.name.encode()))
    batch: int | str = 1 if model.family == "mobilenet" else "N"
    image, classes = [batch, 3, 224, 224], [batch, CLASSES]
    graph.proto.input.append(describe("data", TensorProto.FLOAT, image))
    logits = _network(graph, _Edge("data", 3), model)
    graph.proto.output.append(describe(logits.name, TensorProto.FLOAT, classes))
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph.proto, ir_version=IR_VERSION, opset_imports=[opset])


def _network(graph: _Graph, x: _Edge, model: ZooModel) -> _Edge:
    if model.family == "mobilenet":
        return _mobilenet(graph, x)
    depth, version = model.name.removeprefix("resnet").split("_")
    return (_resnet_v1 if version == "v1" else _resnet_v2)(graph, x, _resnet_blocks(int(depth)))


def _resnet_blocks(depth: int) -> Iterator[_Block]:
    widening = 4 if depth >= SHALLOWEST_BOTTLENECK else 1
    stages = zip(RESNET_CHANNELS, RESNET_STRIDES, RESNET_BLOCKS[depth], strict=True)
    for number, (inner, stride, blocks) in enumerate(stages, 1):
        gain = math.sqrt(RESIDUAL_VARIANCE / blocks)
        first = _Block(f"stage{number}_", inner, widening * inner, stride, gain)
        yield from [first, *[replace(first, stride=1)] * (blocks - 1)]


def _run(graph: _Graph, x: _Edge, blocks: _Blocks, residual: _Residual) -> _Edge:
    prefix = graph.scope
    for block in blocks:
        graph.scope = prefix + block.scope
        x = residual(graph, x, block)
    graph.scope = prefix
    return x


def _resnet_v1(graph: _Graph, x: _Edge, blocks: _Blocks) -> _Edge:
    x = graph.batch_norm(graph.conv(x, RESNET_STEM, 7, 2), SHIFT_STD)
    x = graph.pool(graph.relu(x), "MaxPool", **RESNET_POOL)
    x = _run(graph, x, blocks, _residual_v1)
    return graph.dense(graph.pool(x, "GlobalAveragePool"), flatten=True)


def _residual_v1(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    """A residual block that ends in a sum and a ReLU."""
    body = _basic_v1 if block.inner == block.channels else _bottleneck_v1
    branch, shortcut = body(graph, x, block), x
    if x.channels != block.channels:
        shortcut = graph.batch_norm(graph.conv(x, block.channels, 1, block.stride))
    return graph.activation(graph.add(branch, shortcut, "_plus"))


def _basic_v1(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    x = graph.relu(graph.batch_norm(graph.conv(x, block.inner, 3, block.stride)))
    return graph.batch_norm(graph.conv(x, block.channels, 3, gain=block.gain))


def _bottleneck_v1(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    """A bottleneck; Gluon's stride is in the first convolution, not in the second."""
    x = graph.relu(graph.batch_norm(graph.conv(x, block.inner, 1, block.stride, bias=True)))
    x = graph.relu(graph.batch_norm(graph.conv(x, block.inner, 3)))
    return graph.batch_norm(graph.conv(x, block.channels, 1, gain=block.gain, bias=True))


def _resnet_v2(graph: _Graph, x: _Edge, blocks: _Blocks) -> _Edge:
    x = graph.batch_norm(graph.conv(graph.batch_norm(x), RESNET_STEM, 7, 2), SHIFT_STD)
    x = graph.pool(graph.relu(x), "MaxPool", **RESNET_POOL)
    x = _run(graph, x, blocks, _residual_v2)
    growth = (1 + RESIDUAL_VARIANCE) ** len(RESNET_STRIDES)
    x = graph.pool(graph.relu(graph.batch_norm(x, variance=growth)), "GlobalAveragePool")
    return graph.dense(graph.reshape(x, [0, -1]), flatten=False)


def _residual_v2(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    """A residual block that starts with a batch normalisation and a ReLU."""
    inner = graph.activation(graph.batch_norm(x))
    body = _basic_v2 if block.inner == block.channels else _bottleneck_v2
    branch, shortcut = body(graph, inner, block), x
    if x.channels != block.channels:
        shortcut = graph.conv(inner, block.channels, 1, block.stride)
    return graph.add(branch, shortcut, "_plus")


def _basic_v2(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    x = graph.activation(graph.batch_norm(graph.conv(x, block.inner, 3, block.stride)))
    return graph.conv(x, block.channels, 3, gain=block.gain)


def _bottleneck_v2(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    x = graph.activation(graph.batch_norm(graph.conv(x, block.inner, 1)))
    x = graph.activation(graph.batch_norm(graph.conv(x, block.inner, 3, block.stride)))
    return graph.conv(x, block.channels, 1, gain=block.gain)


def _mobilenet(graph: _Graph, x: _Edge) -> _Edge:
    prefix = graph.scope
    graph.scope = f"{prefix}features_"
    x = graph.relu(graph.batch_norm(graph.conv(x, MOBILENET_STEM, 3, 2), SHIFT_STD))
    x = _run(graph, x, _mobilenet_blocks(), _linear_bottleneck)
    x = graph.relu(graph.batch_norm(graph.conv(x, MOBILENET_HEAD, 1)))
    x = graph.pool(x, "GlobalAveragePool")
    graph.scope = f"{prefix}output_"
    return graph.reshape(graph.predict(x), [0, -1])


def _mobilenet_blocks() -> Iterator[_Block]:
    scopes = (f"linearbottleneck{number}_" for number in count())
    inputs = MOBILENET_STEM
    tables = (MOBILENET_CHANNELS, MOBILENET_EXPANSIONS, MOBILENET_STRIDES, MOBILENET_BLOCKS)
    for channels, expansion, stride, blocks in zip(*tables, strict=True):
        gain = math.sqrt(RESIDUAL_VARIANCE / blocks)
        yield _Block(next(scopes), expansion * inputs, channels, stride, gain=1.0)
        for _ in range(blocks - 1):
            yield _Block(next(scopes), expansion * channels, channels, 1, gain)
        inputs = channels


def _linear_bottleneck(graph: _Graph, x: _Edge, block: _Block) -> _Edge:
    y = graph.relu(graph.batch_norm(graph.conv(x, block.inner, 1)))
    y = graph.relu(graph.batch_norm(graph.depthwise(y, block.stride)))
    y = graph.batch_norm(graph.conv(y, block.channels, 1, gain=block.gain))
    keeps_shape = block.stride == 1 and x.channels == block.channels
    return graph.add(y, x, "elemwise_add") if keeps_shape else y
