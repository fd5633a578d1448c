"""The fuzzer of the image decoding, for minutes."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT
from tests.reliability.rows import Row, Track

# Atheris's own process grows to gigabytes within minutes; the decoding alone does not.
RUNS = 3
SECONDS = 60
FINDINGS = ROOT / "build" / "fuzz"
DONE = re.compile(r"Done (\d+) runs in (\d+) second")  # by libFuzzer


def fuzz(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Run the fuzzer, each time with the corpus of the last run; it ends at a finding."""
    seconds = max(round(SECONDS * scale), 1)
    files, problems = 0, set[str]()
    with tempfile.TemporaryDirectory() as corpus:
        options = [f"--seconds={seconds}", f"--findings={FINDINGS}", f"--corpus={corpus}"]
        command = [sys.executable, "-m", "tests.fuzz.fuzz_imaging", *options]
        for _ in track(range(RUNS), RUNS, f"fuzzing, {seconds} s each"):
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            done = DONE.search(ended.stderr)
            files += int(done[1]) if done else 0
            if ended.returncode != 0 or not done:
                problems.add(f"see {FINDINGS.relative_to(ROOT)}")
    result = f"{files:,} files in {RUNS} runs of {seconds} s"
    yield Row("image files changed wherever that reaches new lines", result, tuple(problems))
