"""What `imaging.load` may do with any bytes."""

import gc
import os
import resource
import time
from pathlib import Path

from scripts.repository.steps.preprocess import sharing
from scripts.repository.steps.preprocess.base64_text import file_content
from scripts.repository.steps.preprocess.imaging import Busy, ImageError, load
from scripts.repository.steps.preprocess.limits import MIB, Limits
from scripts.repository.steps.preprocess.recipe import square

# Smaller than the defaults, so that the files that reach a limit are decoded quickly.
LIMITS = Limits(max_bytes=4 * MIB, max_memory=64 * MIB, max_seconds=0.5)
RECIPE = square(40, 32)
MAX_SECONDS = 4 * LIMITS.max_seconds  # on a busy machine
MAX_MEMORY = LIMITS.max_memory + 32 * MIB  # what is not counted: the file, Python, the heap's gaps
MAX_KEPT = 8 * MIB


def check(data: bytes) -> bool:
    """Load bytes; tell whether they are an image that is classified.

    Raises:
        AssertionError: the result is not an RGB image of the recipe's size, or it took too long or
            too much memory, or it kept memory.
        Exception: any exception but `ImageError` and `Busy` is a defect, too.
    """
    before, peak, start = _memory(), _peak_memory(), time.process_time()
    try:
        image = load(file_content(data), RECIPE, LIMITS)
    except (ImageError, Busy):
        image = None
    seconds = time.process_time() - start
    assert seconds < MAX_SECONDS, f"took {seconds:.1f} s"
    if (after := _peak_memory()) > peak:
        assert after - before < MAX_MEMORY, f"took {(after - before) // MIB} MiB"
    if _memory() - before > MAX_KEPT:
        gc.collect()
        sharing.return_memory()
        kept = _memory() - before
        assert kept < MAX_KEPT, f"kept {kept // MIB} MiB"
    if image:
        assert (image.mode, image.size) == ("RGB", RECIPE.crop)
    return image is not None


def _memory() -> int:
    """Return this process's resident bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak_memory() -> int:
    """Return the most resident bytes that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
