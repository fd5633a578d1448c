"""Classifiers from the hub, against a local HTTP server that plays it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import onnx
import pytest

from tests.conftest import ROOT
from tests.web import serving

REPOSITORY = "birds/finch"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Downloads in a process of its own, since the library reads its environment when imported.
DOWNLOAD = """
import json
import sys
from scripts.repository.errors import BuildError
from scripts.repository.metadata import folder, hub

for arguments in json.loads(sys.argv[1]):
    seen = []
    try:
        file = hub.download(*arguments[:1], revision=(arguments + [None])[1],
                            progress=lambda *done: seen.append(done))
    except BuildError as error:
        print(json.dumps({"error": str(error)}))
    else:
        origins = [each.origin for each in folder.describe(file.parent, file)]
        print(json.dumps({"file": str(file), "seen": seen, "origins": origins}))
"""


def graph_with_external_data() -> bytes:
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    node = onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])).SerializeToString()


FILES = {
    "README.md": b"# Finches",
    "config.json": json.dumps({"id2label": {"0": "finch", "1": "sparrow"}}).encode(),
    "preprocessor_config.json": b'{"image_processor_type": "ViTImageProcessor"}',
    "pytorch_model.bin": bytes(1000),
    "onnx/model.onnx": graph_with_external_data(),
    "onnx/model_fp16.onnx": onnx.ModelProto(ir_version=8).SerializeToString(),
    "onnx/weights.bin": bytes(range(16)),
}


@dataclass
class Hub:
    """What the server has, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: dict(FILES))
    status: int = 200
    error: str = ""
    token: str = ""
    requests: list[str] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        self.hub.requests.append(self.path)
        path = unquote(self.path.partition("?")[0])
        if self.hub.status != 200:
            return self.start(self.hub.status, error=self.hub.error)
        if self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self.start(401, error="RepoNotFound")
        if path.startswith(f"/api/models/{REPOSITORY}"):
            return self.describe(path.partition("/revision/")[2] or "main")
        if path.startswith(f"/{REPOSITORY}/resolve/"):
            return self.file(path.split("/", 5)[5])
        return self.start(404, error="RepoNotFound")

    def describe(self, revision: str) -> bytes:
        if revision not in ("main", "v1"):
            return self.start(404, error="RevisionNotFound")
        siblings = [{"rfilename": name} for name in self.hub.files]
        content = {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}
        return self.start(200, json.dumps(content).encode())

    def file(self, name: str) -> bytes:
        if self.command == "GET":
            self.hub.downloads.append(name)
        return self.start(200, self.hub.files[name])

    def start(self, status: int, body: bytes = b"", error: str = "") -> bytes:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        return body


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with serving(type("Bound", (Handler,), {"hub": hub})) as address:
        hub.url = f"http://{address}"
        yield hub


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """An environment whose hub is the local server and whose cache is empty."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return clean | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}


def run(
    environment: dict[str, str], *downloads: tuple[str, ...], warning: str = "", **changes: str
) -> list[dict[str, Any]]:
    """Download one after the other in one process."""
    result = subprocess.run(
        [sys.executable, "-c", DOWNLOAD, json.dumps(downloads)],
        cwd=ROOT,
        env=environment | changes,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, warning)
    return [json.loads(line) for line in result.stdout.splitlines()]


def errors(environment: dict[str, str], *downloads: tuple[str, ...], **changes: str) -> list[str]:
    """Fail to download, with one line each."""
    lines = [answer["error"] for answer in run(environment, *downloads, **changes)]
    assert not any("\n" in line for line in lines)
    return lines


def test_only_the_files_of_the_chosen_graph_are_downloaded(
    hub: Hub, environment: dict[str, str]
) -> None:
    first, again = run(environment, (REPOSITORY,), (REPOSITORY,))
    file = Path(first["file"])
    assert file.parts[-2:] == ("onnx", "model.onnx")
    assert first["file"] == again["file"]
    assert first["origins"] == ["preprocessor_config.json", "config.json"]
    assert (file.parent / "weights.bin").read_bytes() == FILES["onnx/weights.bin"]
    assert sorted(hub.downloads) == [
        "config.json",
        "onnx/model.onnx",
        "onnx/weights.bin",
        "preprocessor_config.json",
    ]
    sizes = [len(FILES[f"onnx/{name}"]) for name in ("model.onnx", "weights.bin")]
    assert first["seen"] == [[size, size] for size in sizes]


def test_one_of_several_files_is_downloaded_by_its_path(
    hub: Hub, environment: dict[str, str]
) -> None:
    (answer,) = run(environment, (f"{REPOSITORY}/onnx/model_fp16.onnx",))
    assert Path(answer["file"]).name == "model_fp16.onnx"
    assert "onnx/model.onnx" not in hub.downloads


def test_cache_is_used_offline_and_if_the_hub_is_not_reachable(
    hub: Hub, environment: dict[str, str]
) -> None:
    (answer,) = run(environment, (REPOSITORY, "v1"))
    requests = len(hub.requests)
    file = f"{REPOSITORY}/onnx/model_fp16.onnx"
    cached, *missing = run(
        environment, (REPOSITORY, "v1"), (REPOSITORY,), (file, "v1"), HF_HUB_OFFLINE="1"
    )
    assert cached["file"] == answer["file"]
    for other in missing:
        assert "HF_HUB_OFFLINE is set and the cache lacks it; unset it" in other["error"]
    away = "http://127.0.0.1:9"
    warning = f"{away} is not reachable; {REPOSITORY} is that of the cache\n"
    (cached,) = run(environment, (REPOSITORY, "v1"), warning=warning, HF_ENDPOINT=away)
    assert cached["file"] == answer["file"]
    assert len(hub.requests) == requests


def test_token_is_sent(hub: Hub, environment: dict[str, str]) -> None:
    hub.token = "hf_secret"  # noqa: S105
    (line,) = errors(environment, (REPOSITORY,))
    assert "has no such model, or it is private: then set HF_TOKEN" in line
    assert run(environment, (REPOSITORY,), HF_TOKEN="hf_secret")[0]["file"]  # noqa: S106


def test_wrong_names_are_one_clear_line(environment: dict[str, str]) -> None:
    expected = {
        ("birds/swift",): "has no such model, or it is private",
        (REPOSITORY, "v9"): "it has no revision v9; give a branch, tag or commit",
        (f"{REPOSITORY}/model.onnx",): "has no file model.onnx; its ONNX files: onnx/model.onnx,",
        ("not a name",): "this is not a name on the hub; give OWNER/NAME",
        ("",): "this is not a name on the hub; give OWNER/NAME",
    }
    for line, message in zip(errors(environment, *expected), expected.values(), strict=True):
        assert message in line


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (403, "GatedRepo", "its owner controls access; accept the conditions at http://127.0.0.1:"),
        (503, "", "answered 503 Service Unavailable. Use a proxy (HTTPS_PROXY), a mirror"),
    ],
)
def test_refusal_of_the_hub_is_one_clear_line(
    hub: Hub, environment: dict[str, str], status: int, error: str, message: str
) -> None:
    hub.status, hub.error = status, error
    assert message in errors(environment, (REPOSITORY,))[0]


def test_repository_without_an_onnx_file_says_how_to_export_one(
    hub: Hub, environment: dict[str, str]
) -> None:
    hub.files = {name: data for name, data in FILES.items() if "onnx" not in name}
    (line,) = errors(environment, (REPOSITORY,))
    assert f"optimum-cli export onnx --model {REPOSITORY} FOLDER" in line
    assert hub.downloads == []


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9"},
            ["the connection to http://127.0.0.1:9 failed", "HF_ENDPOINT", "--onnx"],
        ),
        ({"HF_HOME": "/proc/1"}, ["set HF_HOME to another folder"]),
    ],
    ids=["network", "cache"],
)
def test_without_a_network_or_a_cache_the_error_says_what_to_do(
    environment: dict[str, str], changes: dict[str, str], messages: list[str]
) -> None:
    (line,) = errors(environment, (REPOSITORY,), **changes)
    for message in messages:
        assert message in line
