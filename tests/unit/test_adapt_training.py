"""Choosing images, and training a layer on their features."""

import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from scripts.adaptation import copies, features, report, training
from scripts.adaptation.copies import SIDE
from scripts.adaptation.errors import AdaptationError
from scripts.adaptation.examples import Examples, collect
from scripts.adaptation.parallel import in_order
from scripts.adaptation.process import Settings, Trial, doubts, run_trial
from scripts.adaptation.training import STRENGTHS, Scale
from scripts.evaluation.statistics import Share
from scripts.repository.original_file import pixels
from scripts.repository.steps.preprocess.recipe import Recipe
from tests.images import encode, noise, photo

WIDTH = 12
CLASSES = ("cat", "dog", "owl")


def clusters(*counts: int, distance: float = 1.5, seed: int = 0) -> Examples:
    """Normally distributed features around a centre for each class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = rng.standard_normal((len(counts), WIDTH)) * distance
    features = centres[labels] + rng.standard_normal((len(labels), WIDTH))
    features = features * rng.uniform(0.5, 20) + 7  # on a scale of their own
    names = tuple(str(number) for number in range(len(labels)))
    thumbnails = rng.integers(0, 256, (len(labels), SIDE**2), np.uint8)
    return Examples(features.astype(np.float32), labels, names, thumbnails)


@pytest.mark.parametrize("counts", [(30, 30), (30, 20, 10)])
@pytest.mark.parametrize("strength", [1e-3, 1.0])
def test_the_layer_predicts_as_scikit_learn_does_on_scaled_features(
    counts: tuple[int, ...], strength: float
) -> None:
    data = clusters(*counts, distance=0.5)
    layer = training.train(data.features, data.labels, strength)
    deviation = data.features.std(axis=0).mean()
    scaled = (data.features - data.features.mean(axis=0)) / deviation
    model = LogisticRegression(C=strength, max_iter=2000).fit(scaled.astype(float), data.labels)
    exponents = np.exp(layer.logits(data.features).astype(float))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, model.predict_proba(scaled), atol=2e-3)
    assert (probabilities.argmax(axis=1) == model.predict(scaled)).mean() > 0.98


def test_features_that_are_all_the_same_are_trained_on() -> None:
    features, labels = np.full((6, WIDTH), 3, np.float32), np.array([0, 0, 0, 0, 1, 1])
    layer = training.train(features, labels, 1.0)
    assert np.isfinite(layer.weights).all()
    assert layer.logits(features).argmax(axis=1).tolist() == [0] * 6


def test_the_scale_is_folded_into_the_layer() -> None:
    data = clusters(20, 20)
    scale = Scale.of(data.features)
    rng = np.random.default_rng(3)
    weights, bias = rng.standard_normal((2, WIDTH)), rng.standard_normal(2)
    scaled = scale.apply(data.features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(axis=0).mean(), 1, rtol=1e-4)
    folded = scale.fold(weights.astype(np.float32), bias.astype(np.float32))
    np.testing.assert_allclose(
        folded.logits(data.features), scaled @ weights.T + bias, rtol=1e-3, atol=1e-3
    )


def test_the_penalty_follows_the_data() -> None:
    noise = clusters(40, 40, 40, distance=0)
    clear = clusters(40, 40, 40, distance=3)
    weak, strong = (
        training.choose(data.features, data.labels, seed=0, cores=1) for data in (clear, noise)
    )
    assert strong < 0.1 < weak
    assert {strong, weak} <= set(STRENGTHS)


def test_the_choice_and_the_layer_do_not_depend_on_the_cores() -> None:
    data = clusters(30, 30, 30, distance=0.7)
    results = []
    for cores in (1, 3):
        strength = training.choose(data.features, data.labels, seed=4, cores=cores)
        layer = training.train(data.features, data.labels, strength)
        results.append((strength, layer.weights.tobytes(), layer.bias.tobytes()))
    assert results[0] == results[1]


def test_a_class_with_one_training_image_leaves_the_penalty_open(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = clusters(5, 1)
    assert training.choose(data.features, data.labels, seed=0, cores=1) == training.UNCHOSEN
    assert "one image to train on" in caplog.text


@pytest.mark.parametrize("share", [0.01, 0.2, 0.9])
def test_some_images_of_each_class_are_held_out_but_not_all(share: float) -> None:
    labels = np.repeat([0, 1, 2], [2, 10, 100])
    is_held_out = training.hold_out(labels, share, seed=0)
    counts = np.bincount(labels[is_held_out])
    expected = [min(max(1, round(share * count)), count - 1) for count in (2, 10, 100)]
    assert counts.tolist() == expected


def test_the_seed_chooses_the_held_out_images() -> None:
    labels = np.repeat([0, 1], 50)
    chosen = [training.hold_out(labels, 0.2, seed).tobytes() for seed in (1, 1, 2)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_accuracy_is_that_of_images_that_were_not_trained_on() -> None:
    """Random labels can be learnt by heart, but not predicted."""
    settings = Settings(0.3, 0, 1)
    right = total = 0
    for seed in range(3):
        random = clusters(60, 60, distance=0, seed=seed)
        accuracy = run_trial(random, ("a", "b"), settings, lambda *_: None).accuracy
        right, total = right + accuracy.count, total + accuracy.total
    assert total == 3 * 36
    assert Share(right, total).low < 0.5 < Share(right, total).high
    clear = clusters(100, 100, distance=3)
    assert run_trial(clear, ("a", "b"), settings, lambda *_: None).accuracy.low > 0.9


def test_held_out_images_that_are_almost_equal_to_others_are_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = clusters(10, 10)
    settings = Settings(0.5, 0, 1)
    run_trial(data, ("a", "b"), settings, lambda *_: None)
    assert "almost equal" not in caplog.text
    tested = training.hold_out(data.labels, 0.5, 0)
    copy, trained = np.flatnonzero(tested)[3], np.flatnonzero(~tested)[4]
    data.thumbnails[copy] = data.thumbnails[trained]
    run_trial(data, ("a", "b"), settings, lambda *_: None)
    assert "1 held-out image is almost equal to images that were trained on" in caplog.text
    assert f"'{copy} (as {trained})'" in caplog.text


def test_copies_of_another_size_or_quality_are_almost_equal() -> None:
    def seen(image: Image.Image, quality: int) -> copies.Thumbnails:
        return copies.thumbnail(pixels(encode(image, "JPEG", quality=quality), Recipe())[0])

    chelsea, pattern = photo(), noise(451, 300, seed=1)
    known = np.stack([seen(pattern, 95), seen(chelsea, 95)])
    images = np.stack([seen(photo(225, 150), 80), seen(chelsea, 50), seen(pattern, 90)])
    assert copies.nearest(images, known).tolist() == [1, 1, 0]
    assert copies.nearest(images, known[:1]).tolist() == [-1, -1, 0]


def trial(counts: list[int], right: list[int]) -> Trial:
    labels = np.repeat(np.arange(len(counts)), counts)
    predictions = labels.copy()
    starts = np.cumsum([0, *counts[:-1]])
    for start, count, good in zip(starts, counts, right, strict=True):
        predictions[start + good : start + count] += 1
    return Trial(labels, predictions % len(counts), len(counts), 1.0)


@pytest.mark.parametrize(
    ("counts", "right", "images", "words"),
    [
        ([200, 200, 200], [180, 180, 180], [1000, 1000, 1000], []),
        (
            [4, 4, 4],
            [4, 4, 3],
            [20, 20, 20],
            ["12 held-out images: the interval of the accuracy is wide"],
        ),
        ([300, 20, 20], [290, 19, 18], [1500, 100, 100], ["cat has 1500 images, dog 100"]),
        (
            [200, 200, 200],
            [70, 60, 70],
            [1000, 1000, 1000],
            ["not clearly above 33.3%, that of always answering cat"],
        ),
    ],
)
def test_reasons_to_doubt_the_accuracy_are_said(
    counts: list[int], right: list[int], images: list[int], words: list[str]
) -> None:
    said = doubts(trial(counts, right), np.array(images), CLASSES)
    assert len(said) == len(words)
    assert all(word in line for word, line in zip(words, said, strict=True))


@pytest.mark.parametrize(
    ("classes", "columns", "row"),
    [
        (2, ("", "1", "2", "right"), ("2 class 1", "1", "2", "66.7% [20.8%, 93.9%]")),
        (12, ("label", "predicted as", "images", "of the label"), None),
    ],
)
def test_few_classes_get_a_matrix_and_many_a_list(
    classes: int, columns: tuple[str, ...], row: tuple[str, ...] | None
) -> None:
    names = [f"class {number}" for number in range(classes)]
    sheet = report.table(trial([3] * classes, [2] * classes), names)
    assert tuple(sheet.columns) == columns
    assert row is None or row in sheet.rows


def image(name: str, label: int, content: str, reason: str = "") -> features.Image:
    if reason:
        return features.Image(name, label, reason=reason)
    thumbnail = np.zeros(SIDE**2, np.uint8)
    return features.Image(name, label, content, np.full(2, len(name), np.float32), thumbnail)


def test_copies_and_unreadable_images_are_left_out() -> None:
    images = [
        image("cat/1", 0, "a"),
        image("cat/2", 0, "b"),
        image("cat/3", 0, "a"),
        image("cat/4", 0, "c"),
        image("dog/1", 1, "c"),
        image("dog/2", 1, "d"),
        image("dog/3", 1, "e"),
        image("cat/5", 0, "", "broken image"),
        image("dog/5", 1, "", "empty"),
    ]
    collection = collect(images, ("cat", "dog"))
    assert collection.examples.names == ("cat/1", "cat/2", "dog/2", "dog/3")
    assert collection.examples.labels.tolist() == [0, 0, 1, 1]
    assert collection.warnings == [
        "left out 2 images that cannot be read: 'cat/5 (broken image)', 'dog/5 (empty)'",
        "left out 1 image with the content of another one of the class: 'cat/3'",
        "left out 2 images with the content of one of another class: 'cat/4', 'dog/1'",
    ]


def test_a_class_with_one_usable_image_is_refused() -> None:
    images = [
        image("cat/1", 0, "a"),
        image("cat/2", 0, "b"),
        image("dog/1", 1, "c"),
        image("dog/2", 1, "", "broken image"),
    ]
    with pytest.raises(AdaptationError) as error:
        collect(images, ("cat", "dog"))
    assert "dog (1)" in str(error.value)
    assert "dog/2 (broken image)" in str(error.value)
    assert "cat (" not in str(error.value)


def test_results_come_in_order_and_few_items_are_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    def slowly(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number

    results = in_order(slowly, items(), cores=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) < 20
    results.close()  # type: ignore[attr-defined] # of a generator
    assert list(in_order(slowly, range(20), cores=3)) == list(range(20))


def test_an_error_in_another_thread_ends_the_work() -> None:
    def fail(number: int) -> float:
        return 1 / (number - 5)

    with pytest.raises(ZeroDivisionError):
        list(in_order(fail, range(1000), cores=2))
