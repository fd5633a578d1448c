"""The fuzzer of the image decoding, for minutes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT
from tests.reliability.rows import Row, Track

SECONDS = 240
FINDINGS = ROOT / "build" / "fuzz"
DONE = re.compile(r"Done (\d+) runs in (\d+) second")  # by libFuzzer


def fuzz(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Run the fuzzer, which ends with an error at its first finding."""
    seconds = max(round(SECONDS * scale), 1)
    options = [f"--seconds={seconds}", f"--findings={FINDINGS}"]
    command = [sys.executable, "-m", "tests.fuzz.fuzz_imaging", *options]
    for _ in track([command], 1, f"fuzzing for {seconds} s"):
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    done = DONE.search(ended.stderr)
    runs = f"{int(done[1]):,} files in {done[2]} s" if done else "ended early"
    failed = ended.returncode != 0 or not done
    problems = (f"see {FINDINGS.relative_to(ROOT)}",) if failed else ()
    yield Row("image files changed wherever that reaches new lines", runs, problems)
