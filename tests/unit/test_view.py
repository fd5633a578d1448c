"""What a server loads of a repository, without a server."""

import json
from pathlib import Path

import pytest

from scripts.embedded import ServerError
from scripts.embedded.view import view
from scripts.repository import builder, sources
from tests.descriptions import said

ENSEMBLE = """
name: "pets" platform: "ensemble"
ensemble_scheduling { step { model_name: "decode" } step { model_name: "network" } }
"""


@pytest.fixture
def built(graph: Path, tmp_path: Path) -> Path:
    """A repository of two classifiers."""
    repository = tmp_path / "model_repository"
    for name in ("birds", "planes"):
        builder.add(repository, sources.from_file(graph, name))
    return repository


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A repository without a manifest: an ensemble of two steps, and one more model."""
    repository = tmp_path / "foreign"
    for name in ("pets", "decode", "network", "other"):
        (repository / name).mkdir(parents=True)
        text = ENSEMBLE if name == "pets" else f'name: "{name}"'
        (repository / name / "config.pbtxt").write_text(text)
    (repository / ".staging").mkdir()
    (repository / ".staging" / "config.pbtxt").touch()
    return repository


def test_all_parts_in_the_manifest_are_loaded_and_nothing_else(built: Path) -> None:
    (built / "stray").mkdir()
    (built / "stray" / "config.pbtxt").touch()
    chosen = view(built)
    assert set(chosen.parts) == {each.name for each in built.iterdir() if each.is_dir()} - {"stray"}
    assert chosen.ensembles == ("birds", "planes")


def test_a_classifier_is_loaded_with_the_parts_that_it_needs(built: Path) -> None:
    chosen = view(built, ["birds"])
    assert {"birds", "birds_pixels", "birds_onnx"} < set(chosen.parts)
    assert "planes" not in chosen.parts
    assert view(built, ["birds_onnx"]).parts == ("birds_onnx",)


def test_ten_crops_are_loaded_with_the_classifier_or_alone(built: Path, graph: Path) -> None:
    builder.add(built, sources.from_file(graph, "birds"), crops=10)
    steps = {"birds_preprocess_10crop", "birds_pixels", "birds_postprocess_10crop"}
    assert {"birds", "birds_onnx", "birds_10crop", *steps} < set(view(built, ["birds"]).parts)
    alone = view(built, ["birds_10crop"])
    assert set(alone.parts) == {"birds_10crop", *steps}


@pytest.mark.parametrize("name", ["owls", "stray"])
def test_an_unknown_model_is_an_error(built: Path, name: str) -> None:
    with pytest.raises(ServerError, match=f"'{name}': model not found"):
        view(built, [name])


def test_a_view_links_to_the_models(built: Path, tmp_path: Path) -> None:
    chosen = view(built, ["birds"])
    chosen.link(tmp_path / "view")
    assert {each.name for each in (tmp_path / "view").iterdir()} == set(chosen.parts)
    assert (tmp_path / "view" / "birds" / "config.pbtxt").read_bytes()


def test_a_view_is_not_current_after_another_build(built: Path, graph: Path) -> None:
    chosen = view(built)
    assert chosen.is_current()
    builder.add(built, sources.from_file(graph, "birds", said(resize=64)))
    assert not chosen.is_current()
    assert view(built) != chosen


def test_models_without_a_manifest_are_loaded_with_the_steps_of_ensembles(foreign: Path) -> None:
    assert view(foreign).parts == ("decode", "network", "other", "pets")
    assert view(foreign, ["pets"]).parts == ("decode", "network", "pets")
    assert view(foreign).ensembles == ()


def test_what_cannot_be_verified_is_a_warning(
    built: Path, foreign: Path, caplog: pytest.LogCaptureFixture
) -> None:
    view(foreign).verify()
    assert "has no manifest.json and is not verified" in caplog.text
    manifest = built / "manifest.json"
    old = json.loads(manifest.read_text())
    del old["parts"], old["version"]
    manifest.write_text(json.dumps(old))
    view(built, ["birds_onnx"]).verify()
    assert "cannot verify birds_onnx, which an older version built" in caplog.text
