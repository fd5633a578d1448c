"""Trains a fully connected layer on features: softmax regression with an L2 penalty.

scikit-learn's LogisticRegression minimises the loss with L-BFGS. It needs no learning rate, always
gives the same result, and was at least as accurate as stochastic gradient descent with the learning
rates, momentum and weight decay of ResNet's and MobileNet's training (docs/adapting.md).
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from scripts.adaptation.examples import Labels
from scripts.adaptation.features import Rows
from scripts.adaptation.parallel import in_order

logger = logging.getLogger(__name__)

# Values of `C`, LogisticRegression's inverse of the penalty's weight, from which one is chosen.
STRENGTHS = tuple(10.0**power for power in range(-4, 4))
UNCHOSEN = 1.0  # where a class has too few images to choose: LogisticRegression's default
FOLDS = 5
MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class Layer:
    """A fully connected layer: `weights`, FP32 [classes, features], and `bias`, FP32 [classes]."""

    weights: Rows
    bias: Rows

    def logits(self, features: Rows) -> Rows:
        """Compute the logits, FP32 [N, classes]."""
        with _reproducibly():
            return features @ self.weights.T + self.bias


@dataclass(frozen=True)
class Scale:
    """Brings features to mean 0, and to a mean standard deviation of 1.

    One factor for all features, since those that vary little matter little. It makes the penalty
    mean the same for every network.
    """

    mean: Rows
    factor: np.float32

    @classmethod
    def of(cls, features: Rows) -> "Scale":
        """Measure features [N, width]."""
        deviation = np.float32(features.std(axis=0).mean())
        return cls(features.mean(axis=0), 1 / deviation if deviation else np.float32(1))

    def apply(self, features: Rows) -> Rows:
        """Scale features [N, width]."""
        return (features - self.mean) * self.factor

    def fold(self, weights: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Layer:
        """Make the layer that takes features as they are of one that takes scaled features."""
        folded = weights.astype(np.float64) * self.factor
        shifted = bias - folded @ self.mean.astype(np.float64)
        return Layer(folded.astype(np.float32), shifted.astype(np.float32))


def hold_out(labels: Labels, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose the images [N] to test on: a share of each class, at least one image, but not all."""
    rng = np.random.default_rng(seed)
    is_held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = min(max(1, round(share * len(places))), len(places) - 1)
        is_held_out[rng.permutation(places)[:count]] = True
    return is_held_out


def train(features: Rows, labels: Labels, strength: float) -> Layer:
    """Train a layer.

    Args:
        features: FP32 [N, width].
        labels: the class of each row [N]; every class occurs.
        strength: one of `STRENGTHS`.
    """
    scale = Scale.of(features)
    with _reproducibly():
        model = _fit(_model(strength), scale.apply(features), labels)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # of two classes it gives the difference
        weights, bias = np.vstack([-weights, weights]) / 2, np.hstack([-bias, bias]) / 2
    return scale.fold(weights, bias)


def choose(
    features: Rows,
    labels: Labels,
    *,
    seed: int,
    cores: int,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Choose the strength with the smallest log loss in a stratified cross-validation.

    `progress` is called with the number of folds that are done, and their total. The result does
    not depend on the number of cores.
    """
    folds = min(FOLDS, int(np.bincount(labels).min()))
    if folds < 2:  # noqa: PLR2004
        logger.warning(
            "a class has one image to train on, so the penalty is not chosen: C is %g", UNCHOSEN
        )
        return UNCHOSEN
    scaled = Scale.of(features).apply(features)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(scaled, labels)
    losses = np.zeros(len(STRENGTHS))
    with _reproducibly():
        results = in_order(lambda split: _losses(scaled, labels, *split), splits, cores)
        for done, result in enumerate(results, 1):
            losses += result
            if progress:
                progress(done, folds)
    return STRENGTHS[int(losses.argmin())]


def _losses(
    features: Rows, labels: Labels, training: Labels, testing: Labels
) -> npt.NDArray[np.float64]:
    """Compute the log loss of each strength; each fit starts at the result of the last one."""
    model, losses = _model(STRENGTHS[0]), []
    for strength in STRENGTHS:
        model.C = strength
        _fit(model, features[training], labels[training])
        predicted = model.predict_proba(features[testing])
        losses.append(log_loss(labels[testing], predicted, labels=model.classes_))
    return np.array(losses)


def _model(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, warm_start=True)


def _fit(model: LogisticRegression, features: Rows, labels: Labels) -> LogisticRegression:
    model.fit(features, labels)
    if model.n_iter_.max() >= MAX_ITERATIONS:
        logger.warning("the layer is not fully trained after %d iterations", MAX_ITERATIONS)
    return model


@contextmanager
def _reproducibly() -> Iterator[None]:
    """Compute on one thread, since sums of several depend on how many there are."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `_fit` says it
        # Classes are classes, however few images each has.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        yield
