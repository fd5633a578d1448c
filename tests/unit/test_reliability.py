"""The parts of the reliability measurements that need no server."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from client import Classification, ClientError, InvalidImage, Prediction, ServerFailed
from scripts.measuring.markers import replaced
from tests.reliability import files, rows, soak
from tests.reliability.__main__ import SECTIONS, main, parser
from tests.reliability.files import GOOD, Tally
from tests.reliability.rows import Row, Track
from tests.reliability.usage import Usage, peak_memory, slopes, usage

CAT = (Prediction(1, 0.9, "cat"),)
DOG = (Prediction(2, 0.9, "dog"),)


def result(
    name: str, error: ClientError | None = None, answer: tuple[Prediction, ...] = ()
) -> Classification:
    return Classification(name, "birds", answer, error=error)


def test_answers_and_clear_refusals_are_counted() -> None:
    tally = Tally({f"{GOOD} 0": CAT})
    tally.add(result("mutation 1", answer=DOG))
    tally.add(result("mutation 2", InvalidImage("not an image (8 bytes): JPEG, PNG or WebP")))
    tally.add(result(f"{GOOD} 0", answer=CAT))
    assert (tally.answered, tally.refused, tally.good, tally.found()) == (1, 1, 1, ())


@pytest.mark.parametrize(
    "wrong",
    [
        result(f"{GOOD} 0", answer=DOG),
        result(f"{GOOD} 0", InvalidImage("not an image")),
        result("mutation", ServerFailed("internal error")),
        result("mutation", InvalidImage("cannot open /tmp/triton-1/model.py")),
        result("mutation", InvalidImage("not an image\nTraceback")),
        result("mutation", InvalidImage("ValueError in model.py")),
    ],
)
def test_everything_else_is_a_problem(wrong: Classification) -> None:
    tally = Tally({f"{GOOD} 0": CAT})
    tally.add(wrong)
    tally.add(wrong)
    (problem,) = tally.found()
    assert problem.startswith("2 times ")
    assert "2 wrong" in str(tally)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_odd_images_are_valid_and_mutations_are_reproducible(tmp_path: Path) -> None:
    odd = files.odd_images()
    assert len(odd) > 80
    mutations = [files.mutated(seed) for seed in range(200)]
    assert mutations == [files.mutated(seed) for seed in range(200)]
    assert len({*mutations} - {*odd.values()}) > 180

    def is_whole(data: bytes) -> bool:
        (tmp_path / "image").write_bytes(data)
        try:
            with Image.open(tmp_path / "image") as image:
                image.load()
        except (OSError, UnidentifiedImageError, SyntaxError, ValueError):
            return False
        return True

    assert all(map(is_whole, odd.values()))
    assert 20 < sum(map(is_whole, mutations)) < 180


def test_slopes_are_growth_per_requests() -> None:
    samples = [Usage(100 + n, 8, 50 - n) for n in range(5)]
    found = slopes([0, 1_000, 2_000, 3_000, 4_000], samples, per=10_000)
    assert found.memory == pytest.approx(10)
    assert found.shared_memory == pytest.approx(0)
    assert found.descriptors == pytest.approx(-10)


@pytest.mark.parametrize(("per_request", "grows"), [(0.0001, False), (0.001, True)])
def test_growth_beyond_noise_is_a_problem(per_request: float, grows: bool) -> None:
    done = [4_000 * number for number in range(soak.SAMPLES)]
    warm = [Usage(500 * number, 8, 50) for number in range(soak.WARM)]
    steady = [Usage(5_000 + per_request * each, 8, 50) for each in done[soak.WARM :]]
    memory, shared, descriptors = soak.growth(done, [*warm, *steady])
    assert bool(memory.problems) == grows
    assert f"{10_000 * per_request:+.2f} per 10,000 requests" in memory.result
    assert not shared.problems
    assert not descriptors.problems


def test_usage_counts_memory_and_descriptors_of_child_processes() -> None:
    before = usage(os.getpid())
    context = multiprocessing.get_context("spawn")
    with peak_memory(os.getpid()) as peak, context.Pool(1) as pool:
        block = 50 << 20
        assert pool.apply(len, [bytes(block)]) == block
        during = usage(os.getpid())
    assert during.descriptors > before.descriptors
    assert peak[0] > before.memory + 50


def test_a_table_replaces_its_own_section_of_the_page_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A\n<!-- one -->\nold\n<!-- end of one -->\n<!-- two -->\n<!-- end of two -->\n"
    )
    monkeypatch.setattr(rows, "PAGE", page)
    rows.write("one", [Row("this | that", "fine"), Row("more", "bad", ("grows",))], "today")
    text = page.read_text()
    assert "old" not in text
    assert "| this \\| that | fine |\n| more | bad; **grows** |\n" in text
    assert "`python -m tests.reliability one`, today\n<!-- end of one -->\n<!-- two -->" in text
    with pytest.raises(ValueError, match="0 places for the section three"):
        rows.write("three", [], "today")


@pytest.mark.parametrize("scale", ["1", "0.5"])
@pytest.mark.parametrize("problems", [(), ("grows",)])
def test_the_command_writes_the_page_in_full_scale_only_and_fails_on_a_problem(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    scale: str,
    problems: tuple[str, ...],
) -> None:
    def section(repository: Path, scale: float, track: Track) -> Iterator[Row]:
        assert (repository / "birds" / "config.pbtxt").exists()
        for each in track([scale], 1, "measuring"):
            yield Row("something", f"at {each:g}", problems)

    monkeypatch.setattr(rows, "PAGE", tmp_path / "page.md")
    rows.PAGE.write_text("<!-- soak --><!-- end of soak -->")
    monkeypatch.setitem(SECTIONS, "soak", section)
    assert main(parser().parse_args(["soak", "--scale", scale])) == len(problems)
    assert ("| something | at 1" in rows.PAGE.read_text()) == (scale == "1")
    assert f"| something | at {scale}" in capsys.readouterr().out


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_a_place_for_each_section(section: str) -> None:
    assert replaced(rows.PAGE.read_text("utf-8"), section, "text").count("text")
