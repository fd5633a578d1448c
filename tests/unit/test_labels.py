"""Labels in all the forms that people have them in."""

import json
from pathlib import Path

import pytest

from scripts.repository import labels
from scripts.repository.errors import BuildError

CAT_DOG = ("cat", "hot dog")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.txt", "cat\nhot dog\n"),
        ("labels.txt", "\ufeffcat\r\nhot dog\r\n\r\n"),
        ("labels.txt", "cat\rhot dog"),
        ("teachable_machine.txt", "0 cat\n1 hot dog\n"),
        ("labels.txt", "0: cat\n1: hot dog\n"),
        ("labels.txt", "0,cat\n1,hot dog"),
        ("coco.names", "cat\nhot dog\n"),
        ("labels.json", '["cat", "hot dog"]'),
        ("labels.json", '{"1": "hot dog", "0": "cat"}'),
        ("class_indices.json", '{"hot dog": 1, "cat": 0}'),
        ("config.json", '{"model_type": "vit", "id2label": {"0": "cat", "1": "hot dog"}}'),
        ("config.json", '{"id2label": null, "label2id": {"cat": 0, "hot dog": 1}}'),
        ("categories.json", '[{"id": 1, "name": "hot dog"}, {"id": 0, "name": "cat"}]'),
        ("labels.json", '[{"label": "cat"}, {"label": "hot dog"}]'),
        ("data.json", '{"nc": 2, "names": ["cat", "hot dog"]}'),
        ("labels.txt", "{0: 'cat',\n 1: 'hot dog'}"),
        ("labels.csv", "cat\nhot dog\n"),
        ("labels.csv", "label\ncat\nhot dog\n"),
        ("labels.csv", "id,name\n1,hot dog\n0,cat\n"),
        ("labels.csv", 'Name;Index\n"hot dog";1\ncat;0\n'),
        ("labels.csv", "0,cat\n1,hot dog\n"),
        ("labels.csv", '"cat",0\n"hot dog",1\n'),
        ("labels.tsv", "1\thot dog\n0\tcat\n"),
        ("labels.csv", ",class\n0,cat\n1,hot dog\n"),
    ],
)
def test_labels_are_read_in_the_order_of_their_ids(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, "utf-8", newline="")
    assert labels.read(file) == CAT_DOG


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Keras: keras.applications.imagenet_utils's imagenet_class_index.json
        (
            '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}',
            ("n01440764 tench", "n01443537 goldfish"),
        ),
        ('["café", "犬"]', ("café", "犬")),
        ("[3, 7]", ("3", "7")),
        (r'["two\nlines", "tab\tand \u0000 zero"]', ("two lines", "tab and   zero")),
        ("1 apple\n2 pears\n", ("1 apple", "2 pears")),
        ("3\n5\n", ("3", "5")),
        (f"{'0' * 5000} cat", (f"{'0' * 5000} cat",)),
        ("a\x85b\nc\u2028d\n", ("a b", "c d")),
    ],
)
def test_labels_keep_their_text_on_one_line(
    tmp_path: Path, text: str, expected: tuple[str, ...]
) -> None:
    file = tmp_path / "labels"
    file.write_text(text, "utf-8")
    assert labels.read(file) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.txt", "", "has an empty line or label, that of class 0"),
        ("labels.txt", "cat\n\ndog\n", "has an empty line or label, that of class 1"),
        ("labels.json", '["cat", " "]', "that of class 1; name it"),
        ("labels.json", '["cat", ', "is not JSON"),
        ("labels.txt", "{cat}\n{dog}\n", "is not JSON"),
        ("labels.json", "cat\ndog\n", "is not JSON"),
        ("labels.json", "{}", "has no labels in a known form"),
        ("labels.json", "[]", "has no labels in a known form"),
        ("labels.json", "7", "has no labels in a known form"),
        ("config.json", '{"model_type": "vit"}', "has no labels in a known form"),
        ("labels.json", '{"a": true, "b": false}', "has no labels in a known form"),
        ("labels.json", '{"1": "cat", "2": "dog"}', "has no label for class 0; number the classes"),
        ("labels.json", '{"0": "cat", "2": "dog"}', "has no label for class 1"),
        ("labels.json", '{"cat": 0, "dog": 0}', "has two labels for class 0, of which one is"),
        ("labels.json", '{"0": "cat", "0": "dog"}', "'0' is there twice"),
        ("labels.json", '[{"id": 0, "name": "cat"}, {"name": "dog"}]', "has no labels in a known"),
        ("labels.csv", "n1,tench, Tinca\nn2,goldfish\n", "put labels with commas in quotes"),
        ("labels.csv", "a,b\nc,d\n", "has no labels in a known form"),
        ("labels.csv", "", "has no labels in a known form"),
        ("labels.csv", '"' + "x" * 200_000, "is not CSV"),
        ("labels.json", '{"' + "9" * 5000 + '": "cat"}', "has no labels in a known form"),
        ("data.yaml", "names:\n  0: cat\n", "is YAML"),
    ],
)
def test_other_files_are_refused_with_one_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    with pytest.raises(BuildError) as caught:
        labels.read(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot read .*: No such file"):
        labels.read(tmp_path / "labels.txt")
    (tmp_path / "labels.txt").write_bytes("Katze\nHündin".encode("utf-16"))
    with pytest.raises(BuildError, match="is not UTF-8 text"):
        labels.read(tmp_path / "labels.txt")


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("[" * 100_000)
    with pytest.raises(BuildError):
        labels.read(tmp_path / "labels.json")


def test_many_labels_are_read(tmp_path: Path) -> None:
    many = tuple(f"class number {index}" for index in range(21_843))
    (tmp_path / "labels.json").write_text(json.dumps(dict(enumerate(many))))
    assert labels.read(tmp_path / "labels.json") == many


def test_a_device_without_an_end_is_refused() -> None:
    with pytest.raises(BuildError, match="/dev/zero is a device"):
        labels.read(Path("/dev/zero"))
