"""Many requests, good and bad: whether every answer is right, and what the server keeps."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

from client import Classifier, ImageFile
from tests.faults import serving
from tests.reliability import files
from tests.reliability.files import Tally
from tests.reliability.rows import Row, Track
from tests.reliability.usage import Usage, slopes, usage

PROTOCOLS = ("grpc", "http")
CONCURRENCY = 16
MUTATIONS = 10_000
REQUESTS = 200_000
BAD_EVERY = 5  # one request in so many is a mutated file
# The same ones again and again, so that each Python process soon has seen the costliest of them.
BAD_FILES = 500
SAMPLES = 50
WARM = 10  # samples at the start, in which pools and allocators reach their size
PER = 10_000  # requests, for slopes
ENOUGH = 50_000  # requests that tell growth from reaching the size
UNITS = {"memory": "MiB", "shared_memory": "MiB", "descriptors": "open"}
# Growth per 10,000 requests that a table reports as a problem, beyond noise.
MOST = Usage(memory=2, shared_memory=0.5, descriptors=1)


def bad_files(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Send valid images of unusual kinds, then mutated files with good images in between."""
    odd = [ImageFile(name, data) for name, data in files.odd_images().items()]
    count = round(MUTATIONS * scale)
    with serving(repository) as served:
        for protocol in PROTOCOLS:
            with Classifier(served.url(protocol), model=served.model) as classifier:
                results = list(classifier.stream(track(odd, len(odd), "odd images")))
                failed = tuple(f"{each.source}: {each.error}" for each in results if each.error)
                answered = f"{len(odd) - len(failed)} answered, {len(failed)} refused"
                yield Row(f"{len(odd)} odd valid images over {protocol}", answered, failed)

                mutated = (ImageFile(f"mutation {n}", files.mutated(n)) for n in range(count))
                sources = files.with_good_images(track(mutated, count, "mutations"), every=10)
                tally = Tally(files.expected_answers(classifier))
                for result in classifier.stream(sources, concurrency=CONCURRENCY):
                    tally.add(result)
                yield Row(f"{count:,} mutated files over {protocol}", str(tally), tally.found())


def steady(repository: Path, scale: float, track: Track) -> Iterator[Row]:
    """Send good and bad images over both protocols in turns, and sample what the server uses."""
    total = round(REQUESTS * scale)
    chunk = total // SAMPLES
    done, samples = [], []
    with serving(repository) as served, ExitStack() as stack:
        classifiers = [
            stack.enter_context(Classifier(served.url(protocol), model=served.model))
            for protocol in PROTOCOLS
        ]
        tally = Tally(files.expected_answers(classifiers[0]))
        for number in track(range(SAMPLES), SAMPLES, "steady load"):
            classifier = classifiers[number % len(classifiers)]
            for result in classifier.stream(_mixed(number * chunk, chunk), concurrency=CONCURRENCY):
                tally.add(result)
            done.append((number + 1) * chunk)
            samples.append(usage(served.process.pid))
    yield Row(f"{total:,} requests, one in {BAD_EVERY} bad", str(tally), tally.found())
    yield from growth(done, samples)


def growth(done: Sequence[int], samples: Sequence[Usage]) -> Iterator[Row]:
    """Describe how the samples grow with the number of requests that were done at each."""
    done, samples = done[WARM:], samples[WARM:]
    slope = slopes(done, samples, PER)
    for field in fields(Usage):
        first, last, each = (getattr(u, field.name) for u in (samples[0], samples[-1], slope))
        name, unit = field.name.replace("_", " "), UNITS[field.name]
        result = f"{first:.1f} to {last:.1f} {unit}, {each:+.2f} per {PER:,} requests"
        grows = done[-1] - done[0] >= ENOUGH and each > getattr(MOST, field.name)
        yield Row(f"{name} of the server's processes", result, ("grows",) if grows else ())


def _mixed(start: int, count: int) -> Iterator[ImageFile]:
    good = files.good_images()
    for number in range(start, start + count):
        if number % BAD_EVERY:
            yield good[number % len(good)]
        else:
            yield ImageFile("bad", files.mutated(number // BAD_EVERY % BAD_FILES))
