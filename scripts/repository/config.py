"""Configurations of Triton models: dataclasses, written as config.pbtxt."""

from dataclasses import dataclass, field

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from scripts.repository.tuning import MAX_BATCH_SIZE


@dataclass(frozen=True)
class Tensor:
    """An input or output without its batch dimension; a size of -1 is variable.

    `data_type` is a name of the protobuf enum, such as `TYPE_FP32`. `format` of an input is
    `FORMAT_NCHW` or `FORMAT_NHWC` if it is an image. `labels` of an output is a file in the model's
    folder with one label per line, which Triton's `classification` extension reads. `is_scalar`
    tells that the backend gives an output as [N], which Triton serves as [N, 1].
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    format: str | None = None
    labels: str | None = None
    is_scalar: bool = False


@dataclass(frozen=True)
class Batching:
    """How Triton combines waiting requests into batches.

    `preferred_size` is the size at which a batch is run, or None to run everything that waits.
    When `max_queue_size` requests wait, Triton rejects further ones as unavailable; None leaves
    the queue unbounded. A request that has waited for `max_wait_seconds` is rejected as well; a
    client can set a shorter time with the request's own `timeout`, in microseconds.
    """

    preferred_size: int | None = None
    max_queue_size: int | None = None
    max_wait_seconds: float | None = None

    @property
    def has_limits(self) -> bool:
        """Whether Triton rejects some requests."""
        return bool(self.max_queue_size or self.max_wait_seconds)


@dataclass(frozen=True)
class Part:
    """A model that a backend runs: one step of an ensemble.

    `instances` None selects Triton's default. They are created on a `kind` of device: `CPU`, `GPU`
    (on each; without one, the model does not load), or `AUTO` (on each GPU, or else on the CPU).
    `warm_up` are the dimensions of random images on which the model runs before it is reported as
    ready, once with each of `warm_up_batches` images; empty means no warm-up. `file` is the model's
    file if its name is not the backend's default. `tensorrt` are the parameters of the accelerator
    TensorRT, of the `onnxruntime` backend; empty leaves it out.

    `max_batch_size` 0 tells that the tensors have no batch dimension: each request runs by itself.
    With `explicit_batch`, the batch is the first dimension of each tensor and Triton does not know
    it (`max_batch_size: 0`): each request runs by itself, with any number of images.
    """

    name: str
    backend: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batching: Batching = Batching()
    parameters: dict[str, str] = field(default_factory=dict)
    instances: int | None = None
    kind: str = "AUTO"
    warm_up: tuple[int, ...] = ()
    warm_up_batches: tuple[int, ...] = (1,)
    tensorrt: dict[str, str] = field(default_factory=dict)
    file: str | None = None
    explicit_batch: bool = False
    max_batch_size: int = MAX_BATCH_SIZE

    def to_protobuf(self) -> pb.ModelConfig:
        """Create the protobuf message that config.pbtxt holds."""
        config = pb.ModelConfig(
            name=self.name,
            backend=self.backend,
            default_model_filename=self.file,
            max_batch_size=0 if self.explicit_batch else self.max_batch_size,
        )
        _set_tensors(config, self.inputs, self.outputs)
        # Without batches, Triton's batcher would only be a thread more, except for its queue.
        if config.max_batch_size or self.batching.has_limits:
            _set_batching(config, self.batching)
        _set_instances(config, self.instances, self.kind)
        for key, value in self.parameters.items():
            config.parameters[key].string_value = value
        if self.tensorrt:
            accelerators = config.optimization.execution_accelerators
            accelerators.gpu_execution_accelerator.add(name="tensorrt", parameters=self.tensorrt)
        if self.warm_up:
            for batch in self.warm_up_batches:
                _add_warm_up(config, self.inputs[0], self.warm_up, batch)
        if self.explicit_batch:
            _add_batch_dimension(config)
        return config


@dataclass(frozen=True)
class EnsembleStep:
    """A step of an ensemble; the maps go from the part's tensor names to the ensemble's."""

    part: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Ensemble:
    """A chain of parts under one name. Only the parts have queues and batches.

    `max_batch_size` 0 tells that its own tensors have no batch dimension.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[EnsembleStep, ...]
    max_batch_size: int = MAX_BATCH_SIZE

    def to_protobuf(self) -> pb.ModelConfig:
        """Create the protobuf message that config.pbtxt holds."""
        config = pb.ModelConfig(
            name=self.name, platform="ensemble", max_batch_size=self.max_batch_size
        )
        _set_tensors(config, self.inputs, self.outputs)
        for step in self.steps:
            config.ensemble_scheduling.step.add(
                model_name=step.part,
                model_version=-1,
                input_map=step.inputs,
                output_map=step.outputs,
            )
        return config


def to_pbtxt(model: Part | Ensemble) -> str:
    """Write a model's configuration in the text format of config.pbtxt."""
    return text_format.MessageToString(model.to_protobuf())


def _set_tensors(
    config: pb.ModelConfig, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> None:
    for tensor in inputs:
        message = config.input.add(
            name=tensor.name,
            data_type=pb.DataType.Value(tensor.data_type),
            dims=tensor.dims,
            optional=tensor.optional,
        )
        if tensor.format:
            message.format = pb.ModelInput.Format.Value(tensor.format)
    for tensor in outputs:
        output = config.output.add(
            name=tensor.name,
            data_type=pb.DataType.Value(tensor.data_type),
            dims=tensor.dims,
            label_filename=tensor.labels,
        )
        if tensor.is_scalar:
            output.reshape.SetInParent()  # to no dimensions


def _add_batch_dimension(config: pb.ModelConfig) -> None:
    """Put the batch in front of all dimensions, where the tensors have it in the model's file."""
    for tensor in config.input:
        tensor.dims.insert(0, -1)
        tensor.format = pb.ModelInput.FORMAT_NONE  # the others need three dimensions
    for output in config.output:
        output.dims.insert(0, -1)
        if output.HasField("reshape"):
            output.reshape.shape.insert(0, -1)
    for warm_up in config.model_warmup:
        for sample in warm_up.inputs.values():
            sample.dims.insert(0, warm_up.batch_size)
        warm_up.batch_size = 0


def _set_batching(config: pb.ModelConfig, batching: Batching) -> None:
    config.dynamic_batching.SetInParent()
    if batching.preferred_size:
        config.dynamic_batching.preferred_batch_size.append(batching.preferred_size)
    policy = config.dynamic_batching.default_queue_policy
    if batching.max_queue_size:
        policy.max_queue_size = batching.max_queue_size
    if batching.max_wait_seconds:
        policy.timeout_action = pb.ModelQueuePolicy.TimeoutAction.REJECT
        policy.default_timeout_microseconds = round(batching.max_wait_seconds * 1e6)
        policy.allow_timeout_override = True


def _set_instances(config: pb.ModelConfig, count: int | None, kind: str) -> None:
    if count:
        config.instance_group.add(
            kind=pb.ModelInstanceGroup.Kind.Value(f"KIND_{kind}"), count=count
        )


def _add_warm_up(config: pb.ModelConfig, tensor: Tensor, dims: tuple[int, ...], batch: int) -> None:
    name = "one random image" if batch == 1 else f"{batch} random images"
    warm_up = config.model_warmup.add(name=name, batch_size=batch, count=1)
    sample = warm_up.inputs[tensor.name]
    sample.data_type = pb.DataType.Value(tensor.data_type)
    sample.dims.extend(dims)
    sample.random_data = True
