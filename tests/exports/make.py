"""Makes the exports and the answers anew: `python -m tests.exports.make [NAME ...]`.

It needs the frameworks of requirements.txt, or, with --keras, those of requirements-keras.txt.
The files come out byte by byte as they were, but for those of Keras, whose tensors get other names.
With --real-weights it makes EfficientNet-Lite0, which is too large to be committed, in
build/exports.
"""

import argparse
import importlib
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType

from tests.exports import photographs, reference
from tests.exports.rows import ANSWERS, FILES, REAL_WEIGHTS, rows

TORCH = ("exporters", "by_hand", "recipes", "hub")


def main() -> int:
    """Make the exports that are named, or all of this environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--keras", action="store_true")
    parser.add_argument("--real-weights", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.real_weights:
        _make("real_weights", REAL_WEIGHTS, REAL_WEIGHTS, options.names)
        return 0
    if not options.keras:
        photographs.draw()
    for module in ("keras_exports",) if options.keras else TORCH:
        _make(module, FILES, ANSWERS, options.names)
    return 0


def _make(module: str, files: Path, answers: Path, names: list[str]) -> None:
    makers: ModuleType = importlib.import_module(f"tests.exports.{module}")
    paths = {row.name: row.path for row in rows() if not row.refused and row.compared}
    for name, maker in makers.MAKERS.items():
        if names and name not in names:
            continue
        folder = files / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        made = maker(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if not size:  # the row uses the file of another
            folder.rmdir()
        path = folder if files == REAL_WEIGHTS else paths.get(name)
        if path:
            reference.write(path, made, answers / f"{name}.json")
        print(f"{name}: {size} bytes")


if __name__ == "__main__":
    sys.exit(main())
