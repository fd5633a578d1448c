"""Makes the exports and the answers anew: `python -m tests.exports.make [NAME ...]`.

It needs the frameworks of requirements.txt, or, with --keras, those of requirements-keras.txt.
"""

import argparse
import importlib
import shutil
import sys
import warnings

from tests.exports import photographs
from tests.exports.rows import ANSWERS, FILES, rows

TORCH = ("exporters", "recipes", "hub")


def main() -> int:
    """Make the exports that are named, or all of this environment."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("names", nargs="*", metavar="NAME")
    options.add_argument("--keras", action="store_true")
    chosen = options.parse_args()
    warnings.filterwarnings("ignore")
    FILES.mkdir(exist_ok=True)
    ANSWERS.mkdir(exist_ok=True)
    modules = ("keras_exports",) if chosen.keras else TORCH
    if not chosen.keras:
        photographs.draw()
    for module in modules:
        _make(importlib.import_module(f"tests.exports.{module}"), chosen.names)
    return 0


def _make(module: object, names: list[str]) -> None:
    from tests.exports import reference  # noqa: PLC0415 - needs onnxruntime

    if hasattr(module, "write_labels"):
        module.write_labels()
    by_name = {row.name: row for row in rows()}
    references = {}
    for name, maker in module.MAKERS.items():  # type: ignore[attr-defined]
        if names and name not in names:
            continue
        folder = FILES / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        made = maker(folder)
        if not any(folder.iterdir()):
            folder.rmdir()
        references[name] = made
        if name in by_name and not by_name[name].refused and by_name[name].compared:
            reference.write(by_name[name], made)
        print(name, sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))


if __name__ == "__main__":
    sys.exit(main())
