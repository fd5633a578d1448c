"""Several ways to do the same, measured in turn."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """A way to do it; `rate` does it once and returns how much of it a second."""

    name: str
    rate: Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """Variants measured round after round, each beside the others, against the first of them.

        comparison = Comparison([Variant("before", old), Variant("after", new)])
        for name in comparison.run(rounds=5): ...
        print(comparison.ratio("after"))

    A machine's speed changes from minute to minute; the ratio of neighbours does not.
    """

    variants: Sequence[Variant]
    rates: dict[str, list[float]] = field(default_factory=dict)

    def run(self, rounds: int) -> Iterator[str]:
        """Measure, and name each variant when it has been."""
        for _ in range(rounds):
            for variant in self.variants:
                self.rates.setdefault(variant.name, []).append(variant.rate())
                yield variant.name

    def rate(self, name: str) -> float:
        """The median of a variant's rates."""
        return statistics.median(self.rates[name])

    def ratio(self, name: str) -> float:
        """The median of a variant's ratios to the first, round by round."""
        return statistics.median(self.ratios(name))

    def ratios(self, name: str) -> list[float]:
        """A variant's ratio to the first in each round."""
        first = self.rates[self.variants[0].name]
        return [one / other for one, other in zip(self.rates[name], first, strict=True)]
