"""Data sets in every layout: which images they have, and the class of each."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from scripts.evaluation.datasets import open_dataset, open_folders, open_unlabelled
from scripts.evaluation.errors import EvaluationError
from scripts.repository.ensemble import IMAGENET_LABELS
from tests.datasets import (
    ANIMALS,
    FIRST_IDS,
    FIRST_ILSVRC,
    FIRST_INDICES,
    IDS,
    fill,
    labels_of,
    picture,
    validation_names,
    write_tar,
)

FLAT = validation_names()
EXPECTED = dict(zip(FLAT, FIRST_INDICES, strict=True))
IMAGENET_IDS = [label.split()[0] for label in IMAGENET_LABELS]


def ilsvrc_numbering() -> dict[int, str]:
    """The devkit's numbers of the first images' classes; the others are not in the usual order."""
    numbers = dict(zip(FIRST_ILSVRC, FIRST_IDS, strict=True))
    others = [name for name in reversed(IMAGENET_IDS) if name not in FIRST_IDS]
    free = (number for number in range(1, 1001) if number not in numbers)
    return dict(sorted({**numbers, **dict(zip(free, others, strict=True))}.items()))


def write_ground_truth(folder: Path, form: str) -> None:
    numbering = ilsvrc_numbering()
    numbers = "".join(f"{number}\n" for number in FIRST_ILSVRC)
    devkit = folder / "ILSVRC2012_devkit_t12" / "data"
    if form == "meta.mat":
        devkit.mkdir(parents=True)
        (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
        kind = [("ILSVRC2012_ID", "O"), ("WNID", "O")]
        synsets = np.array(list(numbering.items()), kind)[:, None]
        scipy.io.savemat(devkit / "meta.mat", {"synsets": synsets})
    elif form == "map_clsloc.txt":
        (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
        lines = [f"{name} {number} some_words\n" for number, name in numbering.items()]
        (folder / "map_clsloc.txt").write_text("".join(lines))
    elif form == "synset labels":
        file = folder / "imagenet_2012_validation_synset_labels.txt"
        file.write_text("".join(f"{name}\n" for name in FIRST_IDS))
    elif form == "kaggle":
        rows = [
            f"{name[:-5]},{wordnet_id} 85 1 499 272 {wordnet_id} 1 2 3 4 \n"
            for name, wordnet_id in zip(FLAT, FIRST_IDS, strict=True)
        ]
        rows.reverse()
        (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    else:
        rows = [f"{name} {index}\n" for name, index in EXPECTED.items()]
        (folder / "val.txt").write_text("".join(rows))


FORMS = ["map_clsloc.txt", "synset labels", "kaggle", "val.txt"]


@pytest.mark.parametrize(
    ("form", "place"),
    [("meta.mat", "around"), *((form, place) for form in FORMS for place in ("beside", "around"))],
)
def test_the_flat_validation_set_is_labelled_by_each_kind_of_file(
    tmp_path: Path, form: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fill(tmp_path / "val", FLAT)
    write_ground_truth(folder if place == "beside" else tmp_path, form)
    dataset = open_dataset(folder, IMAGENET_LABELS)
    assert labels_of(dataset) == EXPECTED
    assert (dataset.is_labelled, len(dataset)) == (True, 5)
    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize("form", FORMS)
def test_the_untouched_tar_is_labelled_by_each_kind_of_file(tmp_path: Path, form: str) -> None:
    members = {name: picture(number) for number, name in enumerate(FLAT)}
    archive = write_tar(tmp_path / "ILSVRC2012_img_val.tar", dict(reversed(members.items())))
    write_ground_truth(tmp_path, form)
    dataset = open_dataset(archive, IMAGENET_LABELS)
    assert labels_of(dataset) == EXPECTED
    assert {sample.name: sample.source for sample in dataset.samples()} == members


def test_a_part_of_the_validation_set_takes_its_lines_of_the_ground_truth(tmp_path: Path) -> None:
    folder = fill(tmp_path / "val", [FLAT[1], FLAT[4]])
    numbers = [*FIRST_ILSVRC, *[1] * (50_000 - len(FIRST_ILSVRC))]
    file = tmp_path / "ILSVRC2012_validation_ground_truth.txt"
    file.write_text("".join(f"{number}\n" for number in numbers))
    lines = [f"{name} {number}\n" for number, name in ilsvrc_numbering().items()]
    (tmp_path / "map_clsloc.txt").write_text("".join(lines))
    dataset = open_dataset(folder, IMAGENET_LABELS)
    assert labels_of(dataset) == {FLAT[1]: 970, FLAT[4]: 516}


def test_kaggles_archive_is_labelled_by_the_file_at_its_top(tmp_path: Path) -> None:
    folder = fill(tmp_path / "ILSVRC" / "Data" / "CLS-LOC" / "val", FLAT)
    write_ground_truth(tmp_path, "kaggle")
    assert labels_of(open_dataset(folder, IMAGENET_LABELS)) == EXPECTED


def test_both_files_can_be_given_from_elsewhere(tmp_path: Path) -> None:
    folder = fill(tmp_path / "images", FLAT)
    other = tmp_path / "a" / "b"
    other.mkdir(parents=True)
    write_ground_truth(other, "map_clsloc.txt")
    truth = other / "ILSVRC2012_validation_ground_truth.txt"
    synsets = (other / "map_clsloc.txt").rename(tmp_path / "numbers.txt")
    dataset = open_dataset(folder, IMAGENET_LABELS, ground_truth=truth, synsets=synsets)
    assert labels_of(dataset) == EXPECTED
    assert dataset.layout == (
        "labels in the order of the file names, "
        "from ILSVRC2012_validation_ground_truth.txt and numbers.txt"
    )


@pytest.mark.parametrize("folder", ["", "val/", "./", "data/val/"])
@pytest.mark.parametrize("is_tar", [False, True])
def test_a_folder_for_each_wordnet_id(tmp_path: Path, folder: str, is_tar: bool) -> None:
    names = [
        f"{folder}{IDS[0]}/b.JPEG",
        f"{folder}{IDS[1]}/images/a.PNG",
        f"{folder}{IDS[0]}/a.jpg",
    ]
    if is_tar:
        path = write_tar(tmp_path / "val.tar", {name: picture() for name in names})
    else:
        path = fill(tmp_path / "val", names)
    dataset = open_dataset(path, ANIMALS)
    shown = [name.removeprefix("./") for name in names]
    assert labels_of(dataset) == dict(zip(shown, (0, 1, 0), strict=True))
    assert dataset.layout == "one folder for each class"


def test_one_class_alone_is_not_taken_for_a_folder_around_the_classes(tmp_path: Path) -> None:
    folder = fill(tmp_path, [f"{IDS[2]}/images/a.jpg", f"{IDS[2]}/images/b.jpg"])
    assert set(labels_of(open_dataset(folder, ANIMALS)).values()) == {2}


def test_file_names_that_begin_with_wordnet_ids(tmp_path: Path) -> None:
    folder = fill(tmp_path, [f"{IDS[1]}_10026.JPEG", f"{IDS[0]}_1.jpg", f"more/{IDS[2]}.png"])
    assert labels_of(open_dataset(folder, ANIMALS)) == {
        f"more/{IDS[2]}.png": 2,
        f"{IDS[0]}_1.jpg": 0,
        f"{IDS[1]}_10026.JPEG": 1,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "a.png,tabby\nb.png,Chihuahua\n"),
        ("labels.csv", "file,label\na.png,tabby\nb.png,Chihuahua\n"),
        ("labels.csv", "\ufefffile,label\r\na.png,tabby\r\nb.png,Chihuahua\r\n\r\n"),
        (
            "labels.csv",
            'label;Filename\n"tabby, tabby cat";val/a.png\nchihuahua;val\\b.png\n',
        ),
        ("labels.csv", '"a.png","tabby, tabby cat"\n"b.png","Chihuahua"'),
        ("labels.csv", f",image,class\n0,/data/images/a.png,{IDS[0]}\n1,./b.png,{IDS[2]}\n"),
        ("labels.tsv", "a.png\ttabby, tabby cat\nb.png\tChihuahua\n"),
        ("labels.tsv", "path\tlabel\na\t0\nb\t2\n"),
        ("val.txt", f"a.jpeg {IDS[0]}\nb.jpeg {IDS[2]}\n"),
        ("val.txt", "a.png 0\r\nb.png\t2\r\n"),
        ("val.txt", "somewhere/else/b.png 2\nsomewhere/else/a.png 0"),
    ],
)
def test_a_csv_or_text_file_names_images_and_their_labels(
    tmp_path: Path, name: str, text: str
) -> None:
    folder = fill(tmp_path / "images", ["a.png", "b.png"])
    (tmp_path / name).write_text(text, "utf-8", newline="")
    assert labels_of(open_dataset(folder, ANIMALS)) == {"a.png": 0, "b.png": 2}


def test_a_csv_names_images_by_their_last_folders(tmp_path: Path) -> None:
    folder = fill(tmp_path / "data", ["x/1/a.png", "x/2/a.png", "x/2/b.png"])
    (folder / "labels.csv").write_text("1/a.png,tabby\ndata/x/2/a.png,Chihuahua\nb,tabby\n")
    expected = {"x/1/a.png": 0, "x/2/a.png": 2, "x/2/b.png": 0}
    assert labels_of(open_dataset(folder, ANIMALS)) == expected


@pytest.mark.parametrize("synsets", ["synsets.txt", "synset_words.txt", "classes.json"])
def test_numbers_mean_what_the_list_of_classes_says(tmp_path: Path, synsets: str) -> None:
    folder = fill(tmp_path / "val", ["a.png", "b.png"])
    (tmp_path / "val.txt").write_text("a.png 0\nb.png 2\n")
    given = None
    if synsets == "classes.json":
        given = tmp_path / synsets
        given.write_text('["Chihuahua", "Egyptian cat", "tabby"]')
    else:
        text = "" if synsets == "synsets.txt" else " words, more words"
        (tmp_path / synsets).write_text("".join(f"{name}{text}\n" for name in reversed(IDS)))
    assert labels_of(open_dataset(folder, ANIMALS, synsets=given)) == {"a.png": 2, "b.png": 0}


def test_caffes_numbers_are_those_of_imagenet_whatever_the_classifiers_order(
    tmp_path: Path,
) -> None:
    folder = fill(tmp_path / "val", FLAT)
    write_ground_truth(tmp_path, "val.txt")
    backwards = IMAGENET_LABELS[::-1]
    expected = {name: 999 - index for name, index in EXPECTED.items()}
    assert labels_of(open_dataset(folder, backwards)) == expected
    with_background = ("background", *IMAGENET_LABELS)
    expected = {name: index + 1 for name, index in EXPECTED.items()}
    assert labels_of(open_dataset(folder, with_background)) == expected


def test_images_without_labels(tmp_path: Path) -> None:
    folder = fill(tmp_path, ["b.png", "deep/er/a.JPG", ".hidden.png", ".trash/c.png", "notes.txt"])
    dataset = open_unlabelled(folder)
    samples = list(dataset.samples())
    assert [sample.name for sample in samples] == ["b.png", "deep/er/a.JPG"]
    assert [sample.source for sample in samples] == [folder / "b.png", folder / "deep/er/a.JPG"]
    assert ({sample.label for sample in samples}, dataset.is_labelled) == ({None}, False)


def test_a_users_own_folders_are_the_classes(tmp_path: Path) -> None:
    folder = fill(tmp_path, ["tulip/1.png", "rose/1.png", "rose/2.png", "daisy/deep/1.png"])
    dataset = open_folders(folder)
    assert dataset.classes == ("daisy", "rose", "tulip")
    assert labels_of(dataset) == {
        "daisy/deep/1.png": 0,
        "rose/1.png": 1,
        "rose/2.png": 1,
        "tulip/1.png": 2,
    }


def test_folders_in_the_folder_of_a_class_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["all/cats/black/1.png", "all/cats/grey/1.png", "all/dogs/1.png"]
    assert open_folders(fill(tmp_path, names)).classes == ("cats", "dogs")
    assert (
        "images of 1 class are in several folders, such as 'all/cats/black', 'all/cats/grey', "
        "which are taken for 'cats'"
    ) in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        *(["1.png"], ["a/1.png", "a/2.png"], ["train/1.png", "val/1.png"]),
        ["Train/cat/1.png", "extra/2.png", "val/cat/1.png"],
    ],
)
def test_folders_that_are_not_classes_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(EvaluationError, match="give a folder that has a folder for each class"):
        open_folders(fill(tmp_path, names))


def test_what_is_skipped_is_not_read(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", {name: picture() for name in FLAT})
    dataset = open_unlabelled(archive)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: whole.index(FLAT[2].encode())])  # the rest cannot be read
    assert [sample.name for sample in dataset.samples(skip=FLAT[2:])] == FLAT[:2]
    with pytest.raises(EvaluationError, match="has changed"):
        list(dataset.samples())


def test_the_digest_changes_with_names_and_labels_only(tmp_path: Path) -> None:
    folder = fill(tmp_path / "a", [f"{IDS[0]}/1.png", f"{IDS[1]}/2.png"])
    digest = open_dataset(folder, ANIMALS).sha256
    (folder / IDS[0] / "1.png").write_bytes(b"other pixels")
    assert open_dataset(folder, ANIMALS).sha256 == digest
    assert open_dataset(folder, ANIMALS[::-1]).sha256 != digest
    assert open_unlabelled(folder).sha256 != digest
    (folder / IDS[0] / "1.png").rename(folder / IDS[0] / "3.png")
    assert open_dataset(folder, ANIMALS).sha256 != digest
