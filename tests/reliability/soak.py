"""Many requests, good and bad: whether every answer is right, and what the server keeps."""

from collections.abc import Iterator
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
GOOD_SHARE = 5  # one request in so many is a bad or an odd image
SAMPLES = 50
PER = 10_000  # requests, for slopes
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
    yield Row(f"{total:,} requests, one in {GOOD_SHARE} bad", str(tally), tally.found())
    warm = SAMPLES // 5  # pools and allocators reach their size first
    growth = slopes(done[warm:], samples[warm:], PER)
    units = {"memory": "MiB", "shared_memory": "MiB", "descriptors": "open"}
    for field in fields(Usage):
        name, unit = field.name.replace("_", " "), units[field.name]
        first, last, slope = (
            getattr(each, field.name) for each in (samples[warm], samples[-1], growth)
        )
        change = f"{first:.1f} to {last:.1f} {unit}, {slope:+.2f} per {PER:,} requests"
        grows = total >= PER and slope > getattr(MOST, field.name)
        yield Row(f"{name} of the server's processes", change, ("grows",) if grows else ())


def _mixed(start: int, count: int) -> Iterator[ImageFile]:
    good = files.good_images()
    for number in range(start, start + count):
        is_bad = number % GOOD_SHARE == 0
        yield ImageFile("bad", files.mutated(number)) if is_bad else good[number % len(good)]
