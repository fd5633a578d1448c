"""Downloads, against a real HTTP server that can be told to misbehave."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from scripts.repository import catalog, fetch
from scripts.repository.catalog import CATALOG, ZooModel
from scripts.repository.errors import BuildError
from tests.web import serving

CONTENT = bytes(range(256)) * 20_000
FILE = "resnet18-v1-7.onnx"


@dataclass
class Mirror:
    """What the server does: `cut_after` bytes it breaks off, as often as `cuts` says."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    ranges: bool = True
    cut_after: int = 0
    cuts: int = 0
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    mirror = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            mirror.requests.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if mirror.ranges else 0
            rest = mirror.content[start:]
            self.send_response(206 if start and mirror.status == 200 else mirror.status)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if mirror.cuts:
                mirror.cuts -= 1
                rest = rest[: mirror.cut_after]
            self.wfile.write(rest)

    with serving(Handler) as address:
        mirror.url = f"http://{address}"
        monkeypatch.setattr(catalog, "MIRRORS", (mirror.url + "/{file}.onnx",))
        monkeypatch.setattr(fetch, "PAUSE_SECONDS", 0)
        yield mirror


@pytest.fixture
def model() -> ZooModel:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    return replace(CATALOG["resnet18_v1"], size=len(CONTENT), sha256=sha256)


def leftovers(cache: Path) -> list[str]:
    return sorted(file.name for file in cache.iterdir() if file.suffix != ".lock")


def test_a_file_is_downloaded_once_and_then_taken_from_the_cache(
    mirror: Mirror, model: ZooModel, tmp_path: Path
) -> None:
    for _ in range(2):
        assert fetch.fetch(model, cache=tmp_path).read_bytes() == CONTENT
    assert len(mirror.requests) == 1
    assert leftovers(tmp_path) == [FILE]


def test_the_cache_is_below_xdg_cache_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_folder().parent == tmp_path


def test_progress_counts_up_to_the_whole_file(
    mirror: Mirror, model: ZooModel, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    fetch.fetch(model, cache=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (len(CONTENT), model.size)


@pytest.mark.parametrize("ranges", [True, False], ids=["resumable", "not resumable"])
def test_a_download_that_breaks_off_is_taken_up_again(
    mirror: Mirror, model: ZooModel, tmp_path: Path, ranges: bool
) -> None:
    mirror.cut_after, mirror.cuts, mirror.ranges = fetch.CHUNK * 9, 2, ranges
    assert fetch.fetch(model, cache=tmp_path).read_bytes() == CONTENT
    assert mirror.requests[0] == ""
    assert mirror.requests[1] == f"bytes={fetch.CHUNK * 9}-"


def test_the_next_call_goes_on_where_a_lost_connection_left_off(
    mirror: Mirror, model: ZooModel, tmp_path: Path
) -> None:
    (tmp_path / "resnet18-v1-7.part").write_bytes(CONTENT[:1_000_000])
    mirror.cuts = 10
    with pytest.raises(BuildError, match="run again to go on after 1000000 bytes"):
        fetch.fetch(model, cache=tmp_path)
    mirror.cuts, mirror.requests = 0, []
    assert fetch.fetch(model, cache=tmp_path).read_bytes() == CONTENT
    assert mirror.requests == ["bytes=1000000-"]


def test_a_cached_file_that_was_damaged_is_downloaded_again(
    mirror: Mirror, model: ZooModel, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_bytes(CONTENT[:-1] + b"?")
    assert fetch.fetch(model, cache=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("misbehaviour", "complaint"),
    [
        ({"content": CONTENT[:-1] + b"?"}, "sha256 is wrong"),
        ({"content": b"version https://git-lfs"}, "another file, of 23 bytes"),
        ({"content": CONTENT + b"more"}, "sha256 is wrong"),
        ({"status": 404, "content": b""}, "answered 404 Not Found"),
        ({"status": 503, "content": b""}, "answered 503"),
    ],
)
def test_a_wrong_answer_is_one_clear_line_and_leaves_nothing(
    mirror: Mirror,
    model: ZooModel,
    tmp_path: Path,
    misbehaviour: dict[str, object],
    complaint: str,
) -> None:
    for name, value in misbehaviour.items():
        setattr(mirror, name, value)
    with pytest.raises(BuildError, match=complaint) as caught:
        fetch.fetch(model, cache=tmp_path)
    assert f"resnet18_v1: cannot download {FILE}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == []


def test_without_a_network_nothing_is_left(
    model: ZooModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "MIRRORS", ("http://127.0.0.1:9/{file}.onnx",))
    with pytest.raises(BuildError, match=r"127\.0\.0\.1:9: no connection"):
        fetch.fetch(model, cache=tmp_path)
    assert leftovers(tmp_path) == []


def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    mirror: Mirror, model: ZooModel, tmp_path: Path
) -> None:
    # Every write to /dev/full fails as on a full disk.
    (tmp_path / "resnet18-v1-7.part").symlink_to("/dev/full")
    with pytest.raises(BuildError, match="No space left on device; free 5120000 bytes"):
        fetch.fetch(model, cache=tmp_path)
    assert leftovers(tmp_path) == []


def test_the_second_mirror_is_asked_where_the_first_fails(
    mirror: Mirror, model: ZooModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = ("http://127.0.0.1:9/{file}.onnx", mirror.url + "/{family}/{file}.onnx")
    monkeypatch.setattr(catalog, "MIRRORS", mirrors)
    assert fetch.fetch(model, cache=tmp_path).read_bytes() == CONTENT


def test_two_downloads_of_one_file_at_the_same_time_do_not_meet(
    mirror: Mirror, model: ZooModel, tmp_path: Path
) -> None:
    threads = [
        threading.Thread(target=fetch.fetch, args=(model,), kwargs={"cache": tmp_path})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(mirror.requests) == 1
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_folder_that_the_user_brought_is_verified(model: ZooModel, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"put the zoo's {FILE} there"):
        fetch.verified(model, tmp_path)
    (tmp_path / FILE).write_bytes(b"another")
    with pytest.raises(BuildError, match="its sha256 is another"):
        fetch.verified(model, tmp_path)
    (tmp_path / FILE).write_bytes(CONTENT)
    assert fetch.verified(model, tmp_path) == tmp_path / FILE
