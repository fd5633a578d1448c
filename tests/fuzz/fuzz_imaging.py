"""Fuzzes `imaging.load` with coverage: `python -m tests.fuzz.fuzz_imaging`."""

import argparse
import multiprocessing
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]

from scripts import cli
from scripts.arguments import seconds

COMMAND = "tests.fuzz.fuzz_imaging"
TIMEOUT_SECONDS = 10
MEMORY_MB = 2048  # of the process, the corpus and the records of coverage included
MAX_LENGTH = 64 * 1024

EXAMPLES = f"""\
  python -m {COMMAND} --seconds 60
  python -m {COMMAND} --seconds 3600 --corpus fuzz-corpus --findings fuzz-findings"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = cli.parser(
        COMMAND,
        "Decode random image files that are changed wherever that reaches new lines of Python: of "
        "the preprocessing step and of Pillow's plugins. Pillow's C code and its libraries are "
        "run, and not measured. Ends with exit code 0 if nothing was found, and else with another "
        "one and a file in the folder of findings.",
        examples=EXAMPLES,
    )
    parser.add_argument(
        "--seconds", type=seconds, default=60, help="how long to run (default: %(default)s)"
    )
    parser.add_argument("--corpus", type=Path, help="folder that keeps the files of new coverage")
    parser.add_argument(
        "--findings", type=Path, default=Path(), help="folder for files that show a defect"
    )
    return parser


def main() -> int:
    """Run the command."""
    options = parser().parse_args()
    return cli.run(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    """Fuzz in a child process, since libFuzzer ends the process that it runs in."""
    options.findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        corpus = options.corpus or Path(temporary)
        corpus.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("fork")
        process = context.Process(target=fuzz, args=(corpus, options.findings, options.seconds))
        process.start()
        process.join()
    return process.exitcode or 0


def fuzz(corpus: Path, findings: Path, duration: float) -> None:
    """Run libFuzzer for some seconds, and end the process."""
    with atheris.instrument_imports(
        include=["scripts.repository.steps.preprocess", "PIL"], enable_loader_override=False
    ):
        from tests.fuzz import mutations, oracle  # noqa: PLC0415 - instruments what it imports
    for name, data in mutations.seeds().items():
        (corpus / f"seed-{name.replace(' ', '-')}").write_bytes(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        return mutations.with_checksums(atheris.Mutate(data, len(data) + 64))[:max_size]

    arguments = [
        COMMAND,
        str(corpus),
        f"-max_total_time={round(duration)}",
        f"-timeout={TIMEOUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={MAX_LENGTH}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, oracle.check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
