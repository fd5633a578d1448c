"""How the labels of a data set become class indices, and which are refused."""

from pathlib import Path

import pytest

from scripts.evaluation.datasets import open_dataset
from scripts.evaluation.datasets.classes import Classes
from scripts.evaluation.errors import EvaluationError
from scripts.repository.ensemble import IMAGENET_LABELS
from tests.datasets import ANIMALS, IDS, fill, labels_of, validation_names

IMAGENET = Classes(IMAGENET_LABELS)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("n02124075", 285),
        ("n02124075 Egyptian cat", 285),
        ("Egyptian cat", 285),
        ("egyptian_cat", 285),
        ("Egyptian-Cat ", 285),
        ("tabby", 281),
        ("tabby cat", 281),
        ("tabby, tabby cat", 281),
        ("Tabby,_tabby_cat", 281),
        ("Cardigan", 264),  # a dog
        ("cardigan", 474),  # clothes
        ("missile", 657),
        ("projectile, missile", 744),
        ("maillot", 638),
        ("maillot, tank suit", 639),
        ("tiger", 292),
        ("tiger cat", 282),
        ("n02012849", 134),
    ],
)
def test_a_name_finds_its_class(name: str, index: int, caplog: pytest.LogCaptureFixture) -> None:
    assert IMAGENET.match([name], origin="data") == {name: index}
    assert not caplog.records


@pytest.mark.parametrize("name", ["crane", "Crane", "MISSILE", "CARDIGAN"])
def test_a_name_of_several_classes_is_refused(name: str) -> None:
    with pytest.raises(EvaluationError, match=f"data: '{name}' may be each of the classes 'n0"):
        IMAGENET.match([name, "tabby"], origin="data")


def test_names_of_no_class_are_refused_and_the_first_are_quoted() -> None:
    names = ["n00000001", "tabby", "unicorn", "wyvern", "yeti", "zombie"]
    with pytest.raises(EvaluationError) as raised:
        IMAGENET.match(names, origin="data")
    assert str(raised.value) == (
        "data: 5 of 6 labels fit no class of the classifier, such as 'n01440764 tench, Tinca "
        "tinca': 'n00000001', 'unicorn', 'wyvern' and 2 more; rename or remove them"
    )


def test_a_first_word_finds_its_class_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    known = Classes(("red fox", "grey wolf", "A7 cat", "B7 cat"))
    names = {"red": 0, "A7": 2, "grey wolf, Canis lupus": 1}
    assert known.match(names, origin="data") == names
    assert [record.getMessage() for record in caplog.records] == [
        "data: matched by the first word only: 'red (red fox)'"
    ]


def test_two_names_of_one_class_are_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    IMAGENET.match(["tabby", "tabby cat", "n02123045"], origin="data")
    assert "data: 'n02123045', 'tabby', 'tabby cat' are one class, 'n02123045 tab" in caplog.text


def test_numbers_are_class_indices_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert IMAGENET.match(["007", "285"], origin="data") == {"007": 7, "285": 285}
    assert caplog.messages == [
        "data: the labels are numbers, taken for class indices from 0; 007 is 'n01514668 cock'"
    ]


def test_numbers_are_labels_if_the_classifier_has_such() -> None:
    digits = Classes(("1", "2", "0"))
    assert digits.match(["0", "1"], origin="data") == {"0": 2, "1": 0}
    with pytest.raises(EvaluationError, match="1 of 2 labels fit no class"):
        digits.match(["0", "3"], origin="data")


@pytest.mark.parametrize("number", ["1000", "999999999"])
def test_numbers_beyond_the_classes_are_refused(number: str) -> None:
    with pytest.raises(EvaluationError, match=f"0 to 999, but the data has {number}; number them"):
        IMAGENET.match(["1", number], origin="data")


@pytest.mark.parametrize("number", ["-1", "1.0", "\uff11", "9999999999"])
def test_what_only_looks_like_a_number_is_refused(number: str) -> None:
    with pytest.raises(EvaluationError, match="fit no class of the classifier"):
        IMAGENET.match([number], origin="data")


def test_a_list_in_another_order_is_matched_by_name() -> None:
    names = [label.split()[0] for label in reversed(IMAGENET_LABELS)]
    assert IMAGENET.match_list(names, [0, 999], origin="list") == {0: 999, 999: 0}


def test_a_list_of_other_classes_is_not_matched_by_position() -> None:
    names = [f"thing {number}" for number in range(1000)]
    with pytest.raises(EvaluationError, match="1 of 1 label fit no class"):
        IMAGENET.match_list(names, [3], origin="list")
    shuffled = [label.partition(" ")[2] for label in IMAGENET_LABELS]
    shuffled[0], shuffled[1] = shuffled[1], shuffled[0]
    with pytest.raises(EvaluationError, match="'crane' may be each of"):
        IMAGENET.match_list(shuffled, [134], origin="list")


def test_wordnet_ids_need_labels_that_say_what_they_are() -> None:
    with pytest.raises(EvaluationError, match="fit no class of the classifier"):
        Classes(("class 0", "class 1")).match(["n02124075"], origin="data")
    few = Classes(("Egyptian cat", "crane", "tench"))
    assert few.match(["n02124075", "n01440764"], origin="data") == {"n02124075": 0, "n01440764": 2}
    with pytest.raises(EvaluationError, match="1 of 2 labels fit no class"):
        few.match(["n02124075", "n02012849"], origin="data")  # the bird or the machine?


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"{IDS[0]}/a.png", "n99999999/a.png"], "1 of 2 labels fit no class"),
        (["roses/a.png"], "none of its folders, 'roses', is a class of the classifier"),
        (["train/n01/a.png", "val/n01/a.png"], "has the folders 'train', 'val'; give one of them"),
        (["a.png"], "no labels were found for its images; give one folder for each class"),
        (["0/a.png", "3/a.png"], "the classes 0 to 2, but the data has 3"),
        ([f"{IDS[0]}_1.png", "n99999999_1.png"], "1 of 2 labels fit no class"),
        ([], "has no images"),
        (["a.txt", "b.tiff"], "has no images"),
    ],
)
def test_folders_that_do_not_fit_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message) as raised:
        open_dataset(fill(tmp_path, names), ANIMALS)
    assert "\n" not in str(raised.value)


TRUTH = "ILSVRC2012_validation_ground_truth.txt"
CLSLOC = "".join(f"{name} {number} words\n" for number, name in enumerate(IDS, 1))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({TRUTH: "1\n2\n"}, "has ILSVRC's own class numbers; give meta.mat or map_clsloc.txt"),
        ({TRUTH: "1\n", "map_clsloc.txt": CLSLOC}, "has 1 line for 2 images"),
        ({TRUTH: "1\n2\n3\n", "map_clsloc.txt": CLSLOC}, "has 3 lines for 2 images"),
        ({TRUTH: "1\n\n2\n", "map_clsloc.txt": CLSLOC}, "line 2 is empty"),
        ({TRUTH: "1\nx\n", "map_clsloc.txt": CLSLOC}, "line 2 is 'x', unlike line 1"),
        ({TRUTH: "0\n2\n", "map_clsloc.txt": CLSLOC}, "has the numbers 0, which"),
        ({TRUTH: "1\n4\n", "map_clsloc.txt": CLSLOC}, "has the numbers 4, which"),
        ({TRUTH: "1\n2\n", "map_clsloc.txt": CLSLOC + CLSLOC}, "has a number twice"),
        ({TRUTH: "1\n2\n", "meta.mat": "no"}, "is not meta.mat .*devkit, or is damaged: scipy"),
        ({TRUTH: ""}, "is empty; write a file and its label"),
        ({TRUTH: "cat\ndog\n"}, "line 1 is 'cat', no number or WordNet id"),
        ({TRUTH: "\0\0"}, "is not text"),
        ({TRUTH: "\udcff\udcfe1\n"}, "is not UTF-8 text"),
        ({"val.txt": f"{validation_names()[0]} 1000\n"}, "from 0 to 999, but the data has 1000"),
        (
            {"val.txt": "a.png 1\nb.png 2\n"},
            "has labels for 'a.png', 'b.png', but",
        ),
        ({"val.txt": "a.png 1\nb.png red\n"}, "line 2 is 'b.png red', not a file and a number"),
        (
            {"labels.csv": "a,b,c\n1,2,3\n"},
            "has the columns 'a', 'b', 'c'; name the one of",
        ),
        ({"labels.csv": ",,\n , ,"}, "has no labels; write a file and its label on each line"),
        ({"labels.csv": "file,label\n"}, "has no labels; write a file and its label on each line"),
        ({"labels.csv": "file,label\nx,tabby, tabby cat\n"}, "line 2 has 3 columns, the first has"),
        ({"labels.csv": 'file,label\n"x,tabby\n'}, "line 2 is not CSV"),
        ({"labels.csv": "ILSVRC2012_val_00000001,yeti\n"}, "1 of 1 label fit no class"),
        (
            {"labels.csv": "ILSVRC2012_val_00000001,tabby\nval/ILSVRC2012_val_00000001.png,dog\n"},
            "has two labels for 'ILSVRC2012_val_00000001.JPEG', 'tabby' and 'dog'; leave one",
        ),
        (
            {
                "labels.csv": "train/ILSVRC2012_val_00000001,tabby\n"
                "val/ILSVRC2012_val_00000002,dog\n"
            },
            "has labels for 'train', 'val'; keep those of one of them",
        ),
        (
            {"LOC_val_solution.csv": "ImageId,PredictionString\na,n02123045 1 2 3 4 n02124075 1 2"},
            "an image has several classes",
        ),
    ],
)
def test_ground_truth_that_does_not_fit_is_refused(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    folder = fill(tmp_path / "images", validation_names(2))
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8", "surrogateescape", newline="")
    with pytest.raises(EvaluationError, match=message) as raised:
        open_dataset(folder, ANIMALS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.png", "2.png", "10.png"], "'10.png' or '2.png' may come first; write"),
        (["a 9 b.png", "a 10 a.png"], "'a 10 a.png' or 'a 9 b.png' may come"),
        (["a.png", "B.png"], "'B.png' or 'a.png' may come first"),
        (["01.png", "02.png", "10.png"], None),
        (["b.png", "a.png", "c 10.png"], None),
    ],
)
def test_labels_in_order_need_names_whose_order_is_clear(
    tmp_path: Path, names: list[str], message: str | None
) -> None:
    folder = fill(tmp_path / "images", names)
    (tmp_path / TRUTH).write_text("".join(f"{each}\n" for each in IDS[: len(names)]))
    if message is None:
        labels = labels_of(open_dataset(folder, ANIMALS))
        assert labels == {name: place for place, name in enumerate(sorted(names))}
        return
    with pytest.raises(EvaluationError, match=message):
        open_dataset(folder, ANIMALS)


def test_a_list_in_alphabetical_order_is_not_taken_for_ilsvrcs_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path / "images", validation_names(2))
    (tmp_path / TRUTH).write_text("1\n2\n")
    synsets = tmp_path / "synsets.txt"
    synsets.write_text("".join(f"{name}\n" for name in sorted(IDS)))
    with pytest.raises(EvaluationError, match="is in alphabetical order, which is not that of"):
        open_dataset(folder, ANIMALS, synsets=synsets)
    synsets.write_text("".join(f"{name}\n" for name in (IDS[1], IDS[0], IDS[2])))
    assert list(labels_of(open_dataset(folder, ANIMALS, synsets=synsets)).values()) == [1, 0]
    assert caplog.messages == [
        f"{synsets}: taken for the list of ILSVRC's numbers in {tmp_path / TRUTH}, from 1; "
        f"1 is '{IDS[1]}'"
    ]


def test_the_devkit_is_found_before_it_is_unpacked(tmp_path: Path) -> None:
    folder = fill(tmp_path / "my images", validation_names(2))
    (tmp_path / "ILSVRC2012_devkit_t12.tar.gz").touch()
    with pytest.raises(EvaluationError, match=r"run: tar -xzf \S+/ILSVRC2012_devkit_t12.tar.gz -C"):
        open_dataset(folder, ANIMALS)


def test_options_that_would_not_be_used_are_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "images", ["a.png"])
    (tmp_path / "labels.csv").write_text("a.png,tabby\n")
    (tmp_path / "synsets.txt").write_text("\n".join(IDS))
    with pytest.raises(EvaluationError, match="has no numbers as labels; leave out --synsets"):
        open_dataset(folder, ANIMALS, synsets=tmp_path / "synsets.txt")


def test_what_is_left_out_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = fill(tmp_path / "images", ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "labels.csv").write_text("a,tabby\na,tabby\nb,\nx,tabby\ny,unicorn\n")
    assert labels_of(open_dataset(folder, ANIMALS)) == {"a.png": 0}
    assert [message.replace(str(tmp_path), "") for message in caplog.messages] == [
        "/labels.csv: 2 labels without an image in /images: 'x', 'y'",
        "/labels.csv: 1 label listed again, for /images: 'a'",
        "/images: left out 3 images without a label: 'b.png', 'c.png', 'd.png'",
    ]


def test_folders_can_be_written_in_other_ways_than_labels(tmp_path: Path) -> None:
    folder = fill(tmp_path, ["AC_DC/1.png", "cafe\u0301/1.png", "Straße 7/1.png"])
    labels = ("café", "AC/DC", "strasse 7")
    assert list(labels_of(open_dataset(folder, labels)).values()) == [1, 2, 0]


def test_a_file_beside_the_images_is_used_before_folders_of_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path, ["0/a.png", "1/b.png"])
    assert list(labels_of(open_dataset(folder, ANIMALS)).values()) == [0, 1]
    assert "taken for class indices from 0; 0 is 'n02123045 tabby, tabby cat'" in caplog.text
    (folder / "labels.csv").write_text("a.png,Chihuahua\nb.png,tabby\n")
    assert list(labels_of(open_dataset(folder, ANIMALS)).values()) == [2, 0]


def test_paths_of_two_parts_are_kept_apart_if_the_data_has_both(tmp_path: Path) -> None:
    folder = fill(tmp_path, ["train/a.png", "val/a.png"])
    (folder / "labels.csv").write_text("train/a.png,Chihuahua\nval/a.png,tabby\n")
    assert list(labels_of(open_dataset(folder, ANIMALS)).values()) == [2, 0]
