"""What a classifier says of an image."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """One class, its probability in 0..1 and its label."""

    class_id: int
    probability: float
    label: str


@dataclass(frozen=True)
class Classification:
    """The best classes of one image, best first.

    `source` names the image: its path, or what else it came from.
    """

    source: str
    model: str
    predictions: tuple[Prediction, ...]

    @property
    def top(self) -> Prediction:
        """The best of them."""
        return self.predictions[0]
