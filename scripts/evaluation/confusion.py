"""Which classes a classifier confuses: counts, the most confused pairs, and a picture."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from scripts.evaluation.sheet import Sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Counts = npt.NDArray[np.int64]

PAIRS = 10  # in tables
BARS = 12  # in the picture
MAX_NUMBERED = 16  # classes; with more, numbers in the cells are too small to read
MAX_NAMED = 60  # classes; with more, the labels are too small, and classes share cells
MAX_CELLS = 100
MAX_LABEL = 24  # characters
WORDNET_ID = re.compile(r"n\d{8} ")


@dataclass(frozen=True)
class Pair:
    """Two classes: `count` of the `total` images of the class `label` got the class `predicted`."""

    label: int
    predicted: int
    count: int
    total: int


@dataclass(frozen=True)
class Confusion:
    """The pairs of label and prediction that occur, and how often.

    `labels`, `predictions` and `counts` [pairs] are sorted by label, then prediction. `classes` is
    the number of classes.
    """

    labels: Counts
    predictions: Counts
    counts: Counts
    classes: int

    @classmethod
    def of(cls, labels: npt.ArrayLike, predictions: npt.ArrayLike, classes: int) -> Confusion:
        """Count the pairs.

        Args:
            labels: the right class of each image [images].
            predictions: the best class of each image [images].
            classes: the number of classes; labels and predictions are from 0 to `classes` - 1.
        """
        codes = np.asarray(labels, np.int64) * classes + np.asarray(predictions, np.int64)
        pairs, counts = np.unique(codes, return_counts=True)
        return cls(pairs // classes, pairs % classes, counts.astype(np.int64), classes)

    @property
    def totals(self) -> Counts:
        """The number of images of each class [classes]."""
        return np.bincount(self.labels, self.counts, self.classes).astype(np.int64)

    def most_confused(self, count: int = PAIRS) -> list[Pair]:
        """Return the pairs of different classes with the most images, the most frequent first.

        Of pairs with as many images, those of a label with fewer images come first.
        """
        totals = self.totals
        (places,) = np.nonzero(self.labels != self.predictions)
        counts = self.counts[places]
        places = places[np.lexsort((-counts / totals[self.labels[places]], -counts))][:count]
        return [
            Pair(
                int(self.labels[place]),
                int(self.predictions[place]),
                int(self.counts[place]),
                int(totals[self.labels[place]]),
            )
            for place in places
        ]

    def to_sheet(self, labels: Sequence[str], title: str, count: int = PAIRS) -> Sheet:
        """Return the most confused pairs as a table."""
        rows = [
            (
                labels[pair.label],
                labels[pair.predicted],
                str(pair.count),
                f"{pair.count / pair.total:.1%}",
            )
            for pair in self.most_confused(count)
        ]
        return Sheet(title, ("label", "predicted as", "images", "of the label"), rows, right=2)

    def matrix(self, cells: int) -> Counts:
        """Return counts [cells, cells], labels in rows; neighbouring classes share a cell."""
        size = -(-self.classes // cells)
        counts = np.zeros((cells, cells), np.int64)
        np.add.at(counts, (self.labels // size, self.predictions // size), self.counts)
        return counts


def draw(confusion: Confusion, labels: Sequence[str], file: Path) -> None:
    """Write a PNG file: the confusion matrix, and beside it the most confused pairs.

    Args:
        confusion: what was counted.
        labels: the label of each class.
        file: the file to write.
    """
    import matplotlib as mpl  # noqa: PLC0415 - slow to import
    from matplotlib import pyplot as plt  # noqa: PLC0415

    mpl.use("Agg")
    names = [_short(label) for label in labels]
    side = float(np.clip(0.28 * confusion.classes, 5.5, 11))  # inches
    pairs = confusion.most_confused(BARS)
    columns = 2 if pairs else 1
    with warnings.catch_warnings():
        # The font of the picture lacks the characters of some languages.
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        figure, axes = plt.subplots(
            1,
            columns,
            figsize=(side + 1.5 + 5.5 * (columns - 1), side + 0.5),
            width_ratios=(side + 1, 5)[:columns],
            squeeze=False,
            layout="constrained",
        )
        _matrix(axes[0, 0], confusion, names)
        if pairs:
            _bars(axes[0, 1], pairs, names)
        figure.savefig(file, dpi=120, format="png")
        plt.close(figure)


def _matrix(axes: Axes, confusion: Confusion, names: Sequence[str]) -> None:
    """Draw the share of each label's images that each class got; small shares are visible, too."""
    from matplotlib.colors import PowerNorm  # noqa: PLC0415
    from matplotlib.ticker import PercentFormatter  # noqa: PLC0415

    size = 1 if confusion.classes <= MAX_NAMED else -(-confusion.classes // MAX_CELLS)
    counts = confusion.matrix(-(-confusion.classes // size))
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    axes.set_facecolor("lightgrey")  # labels without images
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.4, 0, 1), interpolation="nearest")
    scale = axes.figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    scale.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    scale.set_label("of the images of a label")
    if size == 1:
        _name(axes, names)
    else:
        _number(axes, confusion.classes, size)
    if confusion.classes <= MAX_NUMBERED:
        _fill(axes, counts, shares)


def _name(axes: Axes, names: Sequence[str]) -> None:
    axes.set(xlabel="predicted", ylabel="label")
    places = range(len(names))
    font = 9 if len(names) <= MAX_NUMBERED else 7
    turn = 90 if len(names) > 3 else 0  # noqa: PLR2004 - so many fit side by side
    axes.set_xticks(places, names, fontsize=font, rotation=turn, parse_math=False)
    axes.set_yticks(places, names, fontsize=font, parse_math=False)


def _number(axes: Axes, classes: int, size: int) -> None:
    """Write the numbers of the classes at ten cells."""
    of = f" (each cell: {size} x {size} classes)"
    axes.set(xlabel="predicted class" + of, ylabel="class of the label" + of)
    cells = -(-classes // size)
    places = list(range(0, cells, max(1, cells // 10)))
    axes.set_xticks(places, [str(place * size) for place in places])
    axes.set_yticks(places, [str(place * size) for place in places])


def _fill(axes: Axes, counts: Counts, shares: npt.NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"  # noqa: PLR2004 - of 1
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=9)


def _bars(axes: Axes, pairs: Sequence[Pair], names: Sequence[str]) -> None:
    """Draw the images of the most confused pairs."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    texts = [f"{names[pair.label]}\nas {names[pair.predicted]}" for pair in pairs]
    places = range(len(pairs))
    bars = axes.barh(places, [pair.count for pair in pairs], color="tab:orange", height=0.6)
    axes.bar_label(bars, [f"{pair.count} of {pair.total}" for pair in pairs], padding=3, fontsize=9)
    axes.set_yticks(places, texts, fontsize=9, parse_math=False)
    axes.set_ylim(max(len(pairs), 6) - 0.5, -0.5)
    axes.set(title="most confused pairs", xlabel="images")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.2)
    axes.spines[["top", "right"]].set_visible(False)


def _short(label: str) -> str:
    """Return the first name in a label, without the WordNet id that ImageNet's labels have."""
    name = WORDNET_ID.sub("", label, count=1).split(",")[0]
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"
