"""Parquet files as Hugging Face's `datasets` writes them, and others."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.evaluation.datasets import open_dataset, open_unlabelled
from scripts.evaluation.errors import EvaluationError
from scripts.repository.ensemble import IMAGENET_LABELS
from tests.datasets import ANIMALS, IDS, fill, labels_of, picture

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
NAMES = ["tabby, tabby cat", "Egyptian cat", "Chihuahua"]


def rows_of(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": picture(first + i), "path": f"{i}.png"} for i in range(count)]


def write(
    file: Path,
    labels: Sequence[Any],
    *,
    names: Sequence[str] | None = NAMES,
    column: str = "label",
    group: int = 100,
    first: int = 0,
) -> Path:
    """Write a shard whose images are pictures `first`, `first + 1` …"""
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if names is not None:
        features[column] = {"_type": "ClassLabel", "names": list(names)}
    table = pa.table({"image": pa.array(rows_of(len(labels), first), IMAGE), column: labels})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=group)
    return file


def test_labels_mean_what_the_schema_names(tmp_path: Path) -> None:
    file = write(tmp_path / "test.parquet", [2, 0, 1, 2], names=NAMES[::-1])
    dataset = open_dataset(file, ANIMALS)
    assert labels_of(dataset) == {
        "test.parquet:0": 0,
        "test.parquet:1": 2,
        "test.parquet:2": 1,
        "test.parquet:3": 0,
    }
    assert [sample.source for sample in dataset.samples()] == [picture(i) for i in range(4)]
    assert dataset.layout == "parquet, column label, classes named in the schema"


@pytest.mark.parametrize("pattern", ["", "data", "data/validation-*.parquet"])
def test_all_shards_of_a_folder_are_one_data_set(tmp_path: Path, pattern: str) -> None:
    for shard in range(3):
        name = f"validation-{shard:05}-of-00003.parquet"
        write(tmp_path / "data" / name, [shard, 0], group=1, first=2 * shard)
    dataset = open_dataset(tmp_path / pattern, ANIMALS)
    assert list(labels_of(dataset).values()) == [0, 0, 1, 0, 2, 0]
    assert [sample.source for sample in dataset.samples()] == [picture(i) for i in range(6)]
    names = list(labels_of(dataset))
    assert names[3].endswith("validation-00001-of-00003.parquet:1")
    kept = [sample.name for sample in dataset.samples(skip=[*names[:3], names[5]])]
    assert kept == names[3:5]


def test_shards_of_several_parts_are_refused(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        write(tmp_path / "data" / name, [0])
    with pytest.raises(EvaluationError, match=r"of 2 data sets.*--data '.*/data/test\*.parquet'"):
        open_dataset(tmp_path, ANIMALS)


def test_missing_shards_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "test-00001-of-00014.parquet", [0])
    open_dataset(tmp_path, ANIMALS)
    assert "has 1 of 14 shards" in caplog.text


def test_imagenets_names_may_differ_in_a_few_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [label.partition(" ")[2] for label in IMAGENET_LABELS]
    assert names[134] == names[517] == "crane"
    names[517] = "crane2"  # `datasets` wants names that differ
    file = write(tmp_path / "validation.parquet", [134, 517, 638, 639, 657, 744], names=names)
    labels = labels_of(open_dataset(file, IMAGENET_LABELS)).values()
    assert list(labels) == [134, 517, 638, 639, 657, 744]
    assert "matched by position, not name: 'crane2 (n03126707 crane)'" in caplog.text


@pytest.mark.parametrize(
    "labels",
    [
        tuple(label.partition(" ")[2] for label in IMAGENET_LABELS),
        tuple(label.partition(" ")[0] for label in IMAGENET_LABELS),
        tuple(label.partition(" ")[2].partition(",")[0] for label in IMAGENET_LABELS),
    ],
    ids=["texts", "ids", "first words"],
)
def test_wordnet_ids_and_texts_of_imagenet_find_each_other(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    ids = [label.split()[0] for label in IMAGENET_LABELS]
    texts = [label.partition(" ")[2] for label in IMAGENET_LABELS]
    for names in (ids, texts):
        file = write(tmp_path / "test.parquet", [0, 134, 517, 999], names=names)
        assert list(labels_of(open_dataset(file, labels)).values()) == [0, 134, 517, 999]


def test_labels_can_be_text_or_numbers_without_names(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = write(tmp_path / "a.parquet", ["Chihuahua", IDS[0]], names=None)
    assert list(labels_of(open_dataset(text, ANIMALS)).values()) == [2, 0]
    assert not caplog.records
    numbers = write(tmp_path / "b.parquet", [2, 0], names=None)
    assert list(labels_of(open_dataset(numbers, ANIMALS)).values()) == [2, 0]
    assert "taken for class indices from 0" in caplog.text


def test_the_label_column_is_that_with_as_many_names_as_classes(tmp_path: Path) -> None:
    file = tmp_path / "test.parquet"
    names = {"fine_label": NAMES, "coarse_label": ["cat", "dog"]}
    features = {key: {"_type": "ClassLabel", "names": value} for key, value in names.items()}
    table = pa.table({"img": [picture()], "coarse_label": [1], "fine_label": [2]})
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    pq.write_table(table, file)
    dataset = open_dataset(file, ANIMALS)
    assert (labels_of(dataset), dataset.layout) == (
        {"test.parquet:0": 2},
        "parquet, column fine_label, classes named in the schema",
    )


def test_rows_without_label_are_left_out_and_rows_without_image_are_empty(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "test.parquet"
    images = [rows_of(1)[0], None, {"bytes": None, "path": "/etc/passwd"}, rows_of(1)[0]]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE), "label": [0, 1, 2, -1]}), file)
    dataset = open_dataset(file, ANIMALS)
    assert [sample.source for sample in dataset.samples()] == [picture(), b"", b""]
    assert "left out 1 image without a label: 'test.parquet:3'" in caplog.text
    assert len(open_unlabelled(file)) == 4


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [0]}, "has no column of images"),
        ({"image": ["a"], "label": [0]}, "has no column of images"),
        ({"im\nage": [picture()], "label": [0]}, r"it has 'im\\nage', 'label'"),
        ({"image": [picture()]}, "has no column of labels named label; it has 'image'"),
        ({"image": [picture()], "label": [0.5]}, "are double; write numbers or text"),
        ({"image": [picture()], "label": [7]}, "the classes 0 to 2, but the data has 7"),
        ({"image": [picture()], "label": [-1]}, "no image has a label"),
        ({"image": [picture()], "label": [-2]}, "fit no class of the classifier"),
        ({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}, "have no rows"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, columns: Any, message: str) -> None:
    file = tmp_path / "test.parquet"
    pq.write_table(pa.table(columns), file)
    with pytest.raises(EvaluationError, match=message) as raised:
        open_dataset(file, ANIMALS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("repeated", ["image", "label"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, repeated: str) -> None:
    columns = {"image": pa.array([picture()]), "label": pa.array([0])}
    names = [*columns, repeated]
    file = tmp_path / "test.parquet"
    pq.write_table(pa.Table.from_arrays([columns[name] for name in names], names=names), file)
    with pytest.raises(EvaluationError, match=f"has several columns named '{repeated}'; leave one"):
        open_dataset(file, ANIMALS)


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "pages"])
def test_damaged_files_are_refused(tmp_path: Path, damage: str) -> None:
    file = write(tmp_path / "test.parquet", [0] * 50)
    data = file.read_bytes()
    pages = data[:4] + b"\xff" * 396 + data[400:]
    file.write_bytes({"empty": b"", "cut": data[:2000], "text": b"PAR1 no", "pages": pages}[damage])
    with pytest.raises(EvaluationError, match="copy or download it again") as raised:
        list(open_unlabelled(file).samples())
    assert "\n" not in str(raised.value)


def test_memory_does_not_grow_with_the_shard(tmp_path: Path) -> None:
    file, size = tmp_path / "large.parquet", 10_000
    schema = pa.schema([("image", IMAGE), ("label", pa.int64())])
    with pq.ParquetWriter(file, schema, compression="NONE", use_dictionary=False) as writer:
        rows = [{"bytes": bytes(size), "path": None} for _ in range(4096)]
        table = pa.table({"image": pa.array(rows, IMAGE), "label": [0] * len(rows)}, schema)
        writer.write_table(table)  # one row group
    del rows, table
    assert file.stat().st_size > 4096 * size
    sizes, peak, before = set(), 0, pa.total_allocated_bytes()
    for sample in open_dataset(file, ANIMALS).samples():
        sizes.add(len(bytes(sample.source)))
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert sizes == {size}
    assert peak < file.stat().st_size / 3


def test_images_come_before_parquet_files_beside_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "more" / "test.parquet", [0])
    assert len(open_dataset(tmp_path, ANIMALS)) == 1
    fill(tmp_path, [f"{IDS[2]}/a.png"])
    assert labels_of(open_dataset(tmp_path, ANIMALS)) == {f"{IDS[2]}/a.png": 2}
    assert f"ignored 1 parquet file beside the images; give them as --data '{tmp_path}/more/" in (
        caplog.text
    )


def test_an_even_part_of_a_data_set_can_be_taken(tmp_path: Path) -> None:
    file = write(tmp_path / "test.parquet", [0, 1, 2, 0, 1, 2, 0, 1, 2, 0], group=3)
    whole = open_dataset(file, ANIMALS)
    part = whole.limited(4)
    assert [sample.name for sample in part.samples()] == [
        f"test.parquet:{row}" for row in (0, 2, 5, 7)
    ]
    assert [sample.label for sample in part.samples()] == [0, 2, 2, 1]
    assert (len(part), part.sha256 == whole.sha256) == (4, False)
    assert whole.limited(99).sha256 == whole.sha256
