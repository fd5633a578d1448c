"""Describes how a classifier was adapted, and how well."""

from collections.abc import Iterator, Sequence

import numpy as np

from scripts.adaptation.process import Adaptation, Trial
from scripts.evaluation.sheet import Sheet
from scripts.evaluation.statistics import Share

MOST_COLUMNS = 10  # classes; with more, the table has the most confused pairs


def lines(adapted: Adaptation, classes: Sequence[str]) -> Iterator[str]:
    """Describe the images, the accuracy, and what the written layer was trained on."""
    trial, total = adapted.trial, len(adapted.examples.labels)
    held_out = trial.accuracy.total
    counts = np.bincount(adapted.examples.labels, minlength=len(classes))
    least, most = int(counts.min()), int(counts.max())
    each = f"{least} of each class" if least == most else f"{least} to {most} of a class"
    width = adapted.examples.features.shape[1]
    yield f"{len(classes)} classes, {total:,} images, {each}, {width:,} features for an image"
    yield (
        f"accuracy {_percent(trial.accuracy)} of {held_out:,} held-out images, by a layer trained "
        f"on the other {total - held_out:,} (C = {trial.strength:g})"
    )
    mean = float(np.mean([share.value for share in trial.accuracies]))
    yield (
        f"mean accuracy of the classes {mean:.1%}; always answering the most frequent class would "
        f"be right for {trial.most_frequent.value:.1%}"
    )
    yield f"the layer that is written was then trained in the same way on all {total:,} images"


def table(trial: Trial, classes: Sequence[str]) -> Sheet:
    """Make the confusion matrix of few classes, or a table of the most confused pairs."""
    if len(classes) > MOST_COLUMNS:
        return trial.confusion.to_sheet(classes, "Most confused pairs of held-out images")
    counts = trial.confusion.matrix(len(classes)).tolist()
    numbers = [str(number) for number in range(1, len(classes) + 1)]
    rows = [
        (f"{number} {name}", *map(str, row), _percent(share))
        for number, name, row, share in zip(numbers, classes, counts, trial.accuracies, strict=True)
    ]
    return Sheet(
        "Held-out images of each class, and as what they are predicted",
        ("", *numbers, "right"),
        rows,
    )


def _percent(share: Share) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
