"""The fuzzer of the image decoding, for minutes."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT
from tests.reliability.rows import Row, Track

SECONDS = 240
DONE = re.compile(r"Done (\d+) runs in (\d+) second")


def fuzz(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Run the fuzzer, whose last lines tell what it found."""
    seconds = max(round(SECONDS * scale), 1)
    command = [sys.executable, "-m", "tests.fuzz", f"-max_total_time={seconds}"]
    for _ in track([command], 1, f"fuzzing for {seconds} s"):
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    done = DONE.search(ended.stderr)
    runs = f"{int(done[1]):,} runs in {done[2]} s" if done else "ended early"
    problems = () if done and not ended.returncode else (ended.stderr.strip().splitlines()[-1],)
    yield Row("mutations of image files, guided by coverage", runs, problems)
