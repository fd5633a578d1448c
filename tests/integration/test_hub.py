"""Classifiers from the hub, against a local HTTP server that plays it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

import onnx
import pytest
from huggingface_hub import constants

from scripts.repository.errors import BuildError
from scripts.repository.metadata.folder import describe
from scripts.repository.metadata.hub import download
from tests.web import serving

REPOSITORY = "birds/finch"
AWAY = "http://127.0.0.1:9"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


@pytest.fixture(autouse=True)
def library(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library use the local server, an empty cache and no token."""
    settings = {
        "ENDPOINT": hub.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN_PATH": str(tmp_path / "token"),
        "HF_HUB_OFFLINE": False,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def failure(repository: str, revision: str | None = None) -> str:
    """Fail to download, with one line."""
    with pytest.raises(BuildError) as caught:
        download(repository, revision=revision)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_only_the_files_of_the_chosen_graph_are_downloaded(hub: Hub) -> None:
    seen: list[tuple[int, int]] = []
    file = download(REPOSITORY, progress=lambda *done: seen.append(done))
    assert file.parts[-2:] == ("onnx", "model.onnx")
    assert (file.parent / "weights.bin").read_bytes() == FILES["onnx/weights.bin"]
    assert sorted(hub.downloads) == [
        "config.json",
        "onnx/model.onnx",
        "onnx/weights.bin",
        "preprocessor_config.json",
    ]
    sizes = [len(FILES[f"onnx/{name}"]) for name in ("model.onnx", "weights.bin")]
    assert seen == [(size, size) for size in sizes]
    assert download(REPOSITORY) == file
    assert len(hub.downloads) == 4


def test_downloaded_folder_describes_the_classifier() -> None:
    file = download(REPOSITORY)
    recipe, model = describe(file.parent, file)
    assert (recipe.origin, model.labels) == ("preprocessor_config.json", ("finch", "sparrow"))


def test_one_of_several_files_is_downloaded_by_its_path(hub: Hub) -> None:
    assert download(f"{REPOSITORY}/onnx/model_fp16.onnx").name == "model_fp16.onnx"
    assert "onnx/model.onnx" not in hub.downloads


def test_cache_is_used_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    file = download(REPOSITORY, revision="v1")
    requests = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download(REPOSITORY, revision="v1") == file
    for line in (failure(REPOSITORY), failure(f"{REPOSITORY}/onnx/model_fp16.onnx", revision="v1")):
        assert "HF_HUB_OFFLINE is set and the cache lacks it; unset it" in line
    assert len(hub.requests) == requests


def test_cache_is_used_with_a_warning_if_the_hub_is_not_reachable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = download(REPOSITORY)
    monkeypatch.setattr(constants, "ENDPOINT", AWAY)
    assert download(REPOSITORY) == file
    assert f"{AWAY} is not reachable; {REPOSITORY} is that of the cache" in caplog.text


def test_token_of_the_environment_is_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.token = "hf_secret"  # noqa: S105
    assert "has no such model, or it is private: then set HF_TOKEN" in failure(REPOSITORY)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert download(REPOSITORY).is_file()


@pytest.mark.parametrize(
    ("repository", "revision", "message"),
    [
        ("birds/swift", "main", "has no such model, or it is private"),
        (REPOSITORY, "v9", "it has no revision v9; give a branch, tag or commit"),
        (f"{REPOSITORY}/x.onnx", "main", "has no file x.onnx; its ONNX files: onnx/model.onnx,"),
        ("not a name", "main", "this is not a name on the hub; give OWNER/NAME"),
        ("", "main", "this is not a name on the hub; give OWNER/NAME"),
    ],
)
def test_wrong_names_are_one_clear_line(repository: str, revision: str, message: str) -> None:
    assert message in failure(repository, revision=revision)


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (403, "GatedRepo", "its owner controls access; accept the conditions at http://127.0.0.1:"),
        (503, "", "answered 503 Service Unavailable. Use a proxy (HTTPS_PROXY), a mirror"),
    ],
)
def test_refusal_of_the_hub_is_one_clear_line(
    hub: Hub, status: int, error: str, message: str
) -> None:
    hub.status, hub.error = status, error
    assert message in failure(REPOSITORY)


def test_repository_without_an_onnx_file_says_how_to_export_one(hub: Hub) -> None:
    hub.files = {name: data for name, data in FILES.items() if "onnx" not in name}
    assert f"optimum-cli export onnx --model {REPOSITORY} FOLDER" in failure(REPOSITORY)
    assert hub.downloads == []


def test_damaged_graph_is_left_to_its_reader(hub: Hub) -> None:
    hub.files["onnx/model.onnx"] = b"version https://git-lfs"
    assert download(REPOSITORY).read_bytes() == b"version https://git-lfs"


@pytest.mark.parametrize(
    ("setting", "value", "messages"),
    [
        ("ENDPOINT", AWAY, [f"the connection to {AWAY} failed", "HF_ENDPOINT", "--onnx"]),
        ("HF_HUB_CACHE", "/proc/1/hub", ["set HF_HOME to another folder"]),
    ],
)
def test_without_a_network_or_a_cache_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, messages: list[str]
) -> None:
    monkeypatch.setattr(constants, setting, value)
    line = failure(REPOSITORY)
    for message in messages:
        assert message in line
