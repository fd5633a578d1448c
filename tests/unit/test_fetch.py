"""Downloads, against a local HTTP server that plays the Hugging Face Hub."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from huggingface_hub import constants

from scripts.repository import fetch
from scripts.repository.catalog import CATALOG, ZooModel
from scripts.repository.errors import BuildError
from tests.conftest import ROOT
from tests.web import serving

CONTENT = bytes(range(256)) * 20_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = "resnet18-v1-7.onnx"
PATH = f"/onnxmodelzoo/resnet18-v1-7/resolve/main/{FILE}"
# Runs `fetch` in a process of its own, since the library reads its environment when imported.
FETCH = """
import json
import sys
from dataclasses import replace
from scripts.repository.catalog import CATALOG
from scripts.repository.errors import BuildError
from scripts.repository.fetch import fetch

model = replace(CATALOG["resnet18_v1"], sha256=sys.argv[1])
seen = []
try:
    print(fetch(model, progress=lambda done, total: seen.append((done, total))))
except BuildError as error:
    sys.exit(f"error: {error}")
print(json.dumps(seen))
"""


@dataclass
class Hub:
    """How the server behaves: it breaks off `cuts` downloads, each after `cut_after` bytes."""

    url: str = ""
    content: bytes = CONTENT
    status: int = 200
    get_status: int = 200
    ranges: bool = True
    cut_after: int = 0
    cuts: int = 0
    heads: int = 0
    ranges_requested: list[str] = field(default_factory=list)
    user_agent: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            hub.heads += 1
            hub.user_agent = self.headers["User-Agent"]
            self.start(hub.status, hub.content)

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            hub.ranges_requested.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if hub.ranges else 0
            rest = hub.content[start:]
            self.start(206 if start else hub.get_status, rest)
            if hub.cuts:
                hub.cuts -= 1
                rest = rest[: hub.cut_after]
            self.wfile.write(rest)

        def start(self, status: int, body: bytes) -> None:
            self.send_response(status if self.path == PATH else 404)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(hub.content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0123456789abcdef0123456789abcdef01234567")
            self.end_headers()

    with serving(Handler) as address:
        hub.url = f"http://{address}"
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """An environment whose hub is the local server and whose cache is empty."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return clean | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}


def run(
    environment: dict[str, str], *, sha256: str = SHA256, **changes: str
) -> "subprocess.CompletedProcess[str]":
    result = subprocess.run(
        [sys.executable, "-c", FETCH, sha256],
        cwd=ROOT,
        env=environment | changes,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in result.stderr
    return result


def fetched(environment: dict[str, str], *, sha256: str = SHA256, **changes: str) -> Path:
    """Fetch the file, and check that nothing but its path and the last progress is printed."""
    result = run(environment, sha256=sha256, **changes)
    assert (result.returncode, result.stderr) == (0, "")
    return Path(result.stdout.splitlines()[0])


def failure(environment: dict[str, str], **changes: str) -> str:
    """Fail to fetch the file, with one line."""
    result = run(environment, **changes)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith(f"error: resnet18_v1: cannot download {FILE}: ")
    return line


def files(cache: Path) -> list[Path]:
    """List the downloaded files, complete or not."""
    return [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_file_is_downloaded_once_and_then_read_from_the_cache(
    hub: Hub, environment: dict[str, str]
) -> None:
    for _ in range(2):
        assert fetched(environment).read_bytes() == CONTENT
    assert hub.ranges_requested == [""]
    requests = hub.heads
    assert fetched(environment, HF_HUB_OFFLINE="1").read_bytes() == CONTENT
    assert hub.heads == requests


def test_cache_follows_xdg_cache_home(environment: dict[str, str], tmp_path: Path) -> None:
    del environment["HF_HOME"]
    file = fetched(environment, XDG_CACHE_HOME=str(tmp_path))
    assert tmp_path / "huggingface" / "hub" in file.parents


def test_progress_grows_to_the_size_of_the_file(hub: Hub, environment: dict[str, str]) -> None:
    hub.content = CONTENT * 5
    result = run(environment, sha256=hashlib.sha256(hub.content).hexdigest())
    done, totals = zip(*json.loads(result.stdout.splitlines()[-1]), strict=True)
    assert list(done) == sorted(set(done))
    assert len(done) > 1
    assert {done[-1], *totals} == {len(hub.content)}


def test_no_telemetry_is_sent(hub: Hub, environment: dict[str, str]) -> None:
    fetched(environment)
    assert re.fullmatch(r"unknown/None; hf_hub/[^;]+; python/[^;]+", hub.user_agent)


@pytest.mark.parametrize("ranges", [True, False], ids=["resumable", "not resumable"])
def test_interrupted_download_is_resumed(
    hub: Hub, environment: dict[str, str], ranges: bool
) -> None:
    hub.content = CONTENT * 5
    hub.cut_after, hub.cuts, hub.ranges = constants.DOWNLOAD_CHUNK_SIZE + 1000, 2, ranges
    file = fetched(environment, sha256=hashlib.sha256(hub.content).hexdigest())
    assert file.read_bytes() == hub.content
    assert hub.ranges_requested == [
        "",
        "bytes=10485760-",
        "bytes=20971520-" if ranges else "bytes=10485760-",
    ]


def test_damaged_file_in_the_cache_is_downloaded_again(
    hub: Hub, environment: dict[str, str]
) -> None:
    fetched(environment).write_bytes(CONTENT[:-1] + b"?")
    assert fetched(environment).read_bytes() == CONTENT
    assert hub.ranges_requested == ["", ""]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ({"content": CONTENT[:-1] + b"?"}, "sent a file with a wrong sha256"),
        ({"content": b"version https://git-lfs"}, "sent a file with a wrong sha256"),
        ({"content": CONTENT + b"more"}, "sent a file with a wrong sha256"),
        ({"status": 404}, "answered 404 Not Found"),
        ({"status": 503}, "answered 503 Service Unavailable"),
        ({"status": 200, "get_status": 503}, "answered 503 Service Unavailable"),
    ],
)
def test_wrong_response_is_one_clear_line_and_leaves_no_file(
    hub: Hub,
    environment: dict[str, str],
    tmp_path: Path,
    behaviour: dict[str, object],
    message: str,
) -> None:
    for name, value in behaviour.items():
        setattr(hub, name, value)
    line = failure(environment)
    assert message in line
    assert hub.url in line
    assert "--weights synthetic" in line
    assert files(tmp_path) == []
    hub.content, hub.status, hub.get_status = CONTENT, 200, 200
    assert fetched(environment).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "changes",
    [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}],
    ids=["endpoint", "proxy"],
)
def test_without_a_network_the_error_says_what_to_do(
    environment: dict[str, str], tmp_path: Path, changes: dict[str, str]
) -> None:
    line = failure(environment, **changes)
    assert "the connection to http://127.0.0.1:" in line
    for advice in ("HTTPS_PROXY", "HF_ENDPOINT", "--weights DIR", "--weights synthetic"):
        assert advice in line
    assert files(tmp_path) == []


def test_offline_mode_with_an_empty_cache_is_one_clear_line(environment: dict[str, str]) -> None:
    line = failure(environment, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set and the file is not in the cache; unset it" in line


def test_cache_that_cannot_be_written_is_one_clear_line(environment: dict[str, str]) -> None:
    line = failure(environment, HF_HOME="/proc/1")
    assert "set HF_HOME to another folder" in line


def test_concurrent_downloads_of_one_file_do_not_interfere(
    hub: Hub, environment: dict[str, str]
) -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: fetched(environment), range(3)))
    assert len(set(found)) == 1
    assert found[0].read_bytes() == CONTENT
    assert len(hub.ranges_requested) == 1


@pytest.fixture
def model() -> ZooModel:
    return replace(CATALOG["resnet18_v1"], size=len(CONTENT), sha256=SHA256)


def test_file_in_a_folder_of_the_user_is_verified(model: ZooModel, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"put the zoo's {FILE} there"):
        fetch.verified(model, tmp_path)
    (tmp_path / FILE).write_bytes(b"another")
    with pytest.raises(BuildError, match="its sha256 is wrong"):
        fetch.verified(model, tmp_path)
    (tmp_path / FILE).write_bytes(CONTENT)
    assert fetch.verified(model, tmp_path) == tmp_path / FILE
