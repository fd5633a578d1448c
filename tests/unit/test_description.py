"""Which source is believed when several describe a classifier."""

from scripts.repository.description import Description, merge

OPTION = Description("--mean", {"mean": (0.5,)})
FOLDER = Description("config.json", {"mean": (0.4,), "std": (0.2,)}, labels=("cat", "dog"))
FILE = Description("the file", {"crop": (32, 32)}, labels=("a", "b"), scores="logits")


def test_the_first_source_that_says_something_is_believed() -> None:
    said, origins = merge([OPTION, FOLDER, FILE])
    assert said.recipe == {"mean": (0.5,), "std": (0.2,), "crop": (32, 32)}
    assert (said.labels, said.scores) == (("cat", "dog"), "logits")
    assert origins == {
        "mean": "--mean",
        "std": "config.json",
        "crop": "the file",
        "labels": "config.json",
        "scores": "the file",
    }


def test_what_no_source_says_has_no_origin() -> None:
    said, origins = merge([OPTION])
    assert (said.labels, said.scores) == (None, None)
    assert origins == {"mean": "--mean"}
