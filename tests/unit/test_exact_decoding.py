"""Exact decoding, compared with digests of the frameworks' pixels and with the reference."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from scripts.repository.steps.preprocess.imaging import load
from scripts.repository.steps.preprocess.recipe import Recipe
from tests import images, patterns
from tests.conftest import ROOT

FRAMEWORKS = json.loads(Path(ROOT, "tests/exports/pixels.json").read_text("utf-8"))["pixels"]
FILES = {
    " ".join(map(str, each)): images.encode(patterns.picture(*each), "BMP")
    for each in patterns.PICTURES
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_pixels_equal_those_of_the_framework(name: str) -> None:
    expected = FRAMEWORKS[name]
    recipe = Recipe.from_json(json.dumps(expected["recipe"] | {"decoding": "exact"}))
    digests = {}
    for picture, file in FILES.items():
        pixels = np.asarray(load(file, recipe))
        digests[picture] = hashlib.sha256(pixels.tobytes()).hexdigest()
    assert digests == expected["sha256"]
