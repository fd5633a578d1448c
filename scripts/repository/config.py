"""What Triton has to know of a model: dataclasses, printed as config.pbtxt."""

from dataclasses import dataclass, field

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

MAX_BATCH_SIZE = 32


@dataclass(frozen=True)
class Tensor:
    """An input or output without its batch dimension; -1 stands for any size.

    `data_type` is one of the protobuf's, such as `TYPE_FP32`. An input that is `optional` need not
    be sent.
    """

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class Batching:
    """How requests that wait are run together, unless a request brings more images by itself.

    `preferred` is what is run at a time at most, or None for all that waits. Beyond `queue`
    waiting requests others are refused as unavailable; None lets any number wait.
    """

    preferred: int | None = None
    queue: int | None = None


@dataclass(frozen=True)
class Part:
    """A model that a backend runs: one step of an ensemble.

    `instances` is None where Triton decides. Where `on_cpu` does not keep them on the CPU, so many
    are made for each GPU. `warm_up` runs it once on random data before it counts as ready, at these
    sizes where its inputs leave them open.
    """

    name: str
    backend: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batching: Batching = Batching()
    parameters: dict[str, str] = field(default_factory=dict)
    instances: int | None = None
    on_cpu: bool = False
    warm_up: tuple[int, ...] = ()

    def to_protobuf(self) -> pb.ModelConfig:
        """Make the message that config.pbtxt holds."""
        config = pb.ModelConfig(name=self.name, backend=self.backend, max_batch_size=MAX_BATCH_SIZE)
        _set_tensors(config, self.inputs, self.outputs)
        _set_batching(config, self.batching)
        _set_instances(config, self.instances, on_cpu=self.on_cpu)
        for key, value in self.parameters.items():
            config.parameters[key].string_value = value
        if self.warm_up:
            _set_warm_up(config, self.inputs[0], self.warm_up)
        return config


@dataclass(frozen=True)
class Step:
    """Where an ensemble's step stands: `inputs` and `outputs` map the part's tensors to its own."""

    part: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Ensemble:
    """A chain of parts under one name. It has no batching of its own: only its parts batch."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]

    def to_protobuf(self) -> pb.ModelConfig:
        """Make the message that config.pbtxt holds."""
        config = pb.ModelConfig(name=self.name, platform="ensemble", max_batch_size=MAX_BATCH_SIZE)
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
    """Print a model's configuration as Triton reads it."""
    return text_format.MessageToString(model.to_protobuf())


def _set_tensors(
    config: pb.ModelConfig, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]
) -> None:
    for tensors, messages in ((inputs, config.input), (outputs, config.output)):
        for tensor in tensors:
            data_type = pb.DataType.Value(tensor.data_type)
            message = messages.add(name=tensor.name, data_type=data_type, dims=tensor.dims)
            if tensor.optional:
                message.optional = True


def _set_batching(config: pb.ModelConfig, batching: Batching) -> None:
    config.dynamic_batching.SetInParent()
    if batching.preferred:
        config.dynamic_batching.preferred_batch_size.append(batching.preferred)
    if batching.queue:
        config.dynamic_batching.default_queue_policy.max_queue_size = batching.queue


def _set_instances(config: pb.ModelConfig, count: int | None, *, on_cpu: bool) -> None:
    kind = pb.ModelInstanceGroup.KIND_CPU if on_cpu else pb.ModelInstanceGroup.KIND_AUTO
    if count:
        config.instance_group.add(kind=kind, count=count)


def _set_warm_up(config: pb.ModelConfig, tensor: Tensor, dims: tuple[int, ...]) -> None:
    warm_up = config.model_warmup.add(name="one random image", batch_size=1, count=1)
    sample = warm_up.inputs[tensor.name]
    sample.data_type = pb.DataType.Value(tensor.data_type)
    sample.dims.extend(dims)
    sample.random_data = True
