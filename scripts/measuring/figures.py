"""What is measured in one round, and how long."""

from dataclasses import dataclass

MODEL_ONLY = "model only"
ENSEMBLE = "ensemble"
LIMIT = "limit"
PLAIN = "plain loop"


@dataclass(frozen=True)
class Settings:
    """How long a turn is, how many rounds there are, and how many clients ask at a time."""

    seconds: float = 4
    rounds: int = 5
    clients: tuple[int, ...] = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Load:
    """A turn of so many clients, each of which sends its next image when it has its answer.

    `rate` is in images a second, `p50` and `p99` are of an image's time at the client, in ms.
    """

    clients: int
    rate: float
    p50: float
    p99: float

    @property
    def power(self) -> float:
        """Images a second for each second that one takes, which here is `clients / rate`."""
        return self.rate**2 / self.clients


@dataclass(frozen=True)
class Bare:
    """A turn of worker processes without a server.

    `rate` is in images a second, all workers together; `graph_rate` is what it were if they did
    nothing but run the graph. `p50` is of an image's whole time in ms, and `imaging_ms` the mean
    CPU time in ms that decoding and resizing one takes.
    """

    workers: int
    rate: float
    graph_rate: float
    p50: float
    imaging_ms: float


@dataclass(frozen=True)
class Step:
    """What Triton's statistics say of a step, in ms an image.

    `queue` is the waiting for an instance, `input`, `compute` and `output` are the time in it, and
    `batch` is the mean number of images that were run together.
    """

    queue: float
    input: float
    compute: float
    output: float
    batch: float


@dataclass(frozen=True)
class Inside:
    """What went on in the server during the ensemble's turn of so many clients.

    `steps` are in the ensemble's order, preprocessing first.
    `cpu_ms` is the CPU time of each of its processes in ms an image, and empty where they are not
    to be seen.
    """

    clients: int
    steps: dict[str, Step]
    cpu_ms: dict[str, float]


@dataclass(frozen=True)
class Overload:
    """A turn with more images offered than can be answered: several times as many as at the knee.

    `offered` and `rate`, of those answered, are in images a second. `refused` is the share that got
    503, `failed` the share that got anything else or no answer. `p50`, `p99` and `refusal_p50` are
    in ms; None where there was no such answer.
    """

    offered: float
    rate: float
    refused: float
    failed: float
    p50: float | None
    p99: float | None
    refusal_p50: float | None


@dataclass(frozen=True)
class Photograph:
    """Milliseconds that a large photograph takes: in the step's code, and in the zoo's."""

    step_ms: float
    reference_ms: float


@dataclass(frozen=True)
class Round:
    """All that is measured of one model before the next one has its turn.

    `limit` is every core at work with the step's own code, `plain` with Pillow's alone; `alone` and
    `plain_alone` are a single worker. `loads` are by what is asked, MODEL_ONLY or ENSEMBLE, over
    HTTP or gRPC.
    """

    limit: Bare
    plain: Bare
    alone: Bare
    plain_alone: Bare
    loads: dict[str, tuple[Load, ...]]
    inside: Inside
    overload: Overload
    photograph: Photograph
