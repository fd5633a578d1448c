"""What strangers can do to a server, and what holders of the administrator's key can do."""

import base64
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, shared_memory

from client import SAMPLE, Classifier, ServerUnavailable, Tls
from scripts import serve
from scripts.embedded import EmbeddedServer, Endpoints
from scripts.embedded.access import GRPC_HEADER, HEADER, RESTRICTED
from scripts.errors import UserError
from tests import namespaces, tls
from tests.conftest import ROOT
from tests.integration.conftest import ADMIN, ADMIN_KEY, HASTE, process_of, url

HEADERS = {"http": HEADER, "grpc": GRPC_HEADER}
TRITON: dict[str, Any] = {"http": tritonclient.http, "grpc": tritonclient.grpc}

# The name of each restricted request in tritonclient, its arguments, and the answer to a holder of
# the key: no error, or one that contains this text.
RESTRICTED_CALLS: dict[str, tuple[tuple[Any, ...], str]] = {
    "get_model_repository_index": ((), ""),
    "load_model": (("birds",), "explicit model load / unload is not allowed"),
    "unload_model": (("birds",), "explicit model load / unload is not allowed"),
    "get_system_shared_memory_status": ((), ""),
    "register_system_shared_memory": (("r", "/no-such-region", 8), "Unable to open shared memory"),
    "unregister_system_shared_memory": (("r",), ""),
    "get_cuda_shared_memory_status": ((), ""),
    "register_cuda_shared_memory": (("r", base64.b64encode(bytes(64)), 0, 8), "failed to register"),
    "unregister_cuda_shared_memory": (("r",), ""),
    "get_trace_settings": ((), ""),
    "update_trace_settings": (("birds", {"trace_rate": "7"}), ""),
    "get_log_settings": ((), ""),
    "update_log_settings": (({"log_verbose_level": 0},), ""),
}
OPEN_CALLS: dict[str, tuple[Any, ...]] = {
    "is_server_live": (),
    "is_server_ready": (),
    "is_model_ready": ("birds",),
    "get_server_metadata": (),
    "get_model_metadata": ("birds",),
    "get_model_config": ("birds",),
    "get_inference_statistics": (),
}


@pytest.fixture
def closed(small_server: EmbeddedServer) -> EmbeddedServer:
    """A server without a key, as by default."""
    return small_server


@contextmanager
def triton(server: EmbeddedServer, protocol: str) -> Iterator[Any]:
    with TRITON[protocol].InferenceServerClient(server.endpoints.at(protocol)) as client:
        yield client


def answer(
    server: EmbeddedServer, protocol: str, call: str, *arguments: Any, key: str | None = None
) -> str:
    """Send a request as tritonclient does; return the error, or nothing."""
    headers = {} if key is None else {HEADERS[protocol]: key}
    with triton(server, protocol) as client:
        try:
            getattr(client, call)(*arguments, headers=headers)
        except InferenceServerException as error:
            return str(error.message())
    return ""


@pytest.mark.parametrize("call", RESTRICTED_CALLS)
@pytest.mark.parametrize("key", [None, "wrong", ADMIN_KEY + "x", ADMIN_KEY[:-1]])
def test_each_restricted_request_is_refused_without_the_right_key(
    keyed: EmbeddedServer, protocol: str, call: str, key: str | None
) -> None:
    arguments, _ = RESTRICTED_CALLS[call]
    error = answer(keyed, protocol, call, *arguments, key=key)
    assert f"is restricted, expecting header '{HEADERS[protocol]}'" in error


@pytest.mark.parametrize("call", RESTRICTED_CALLS)
def test_each_restricted_request_reaches_the_server_with_the_key(
    keyed: EmbeddedServer, protocol: str, call: str
) -> None:
    arguments, expected = RESTRICTED_CALLS[call]
    error = answer(keyed, protocol, call, *arguments, key=ADMIN_KEY)
    assert "restricted" not in error
    assert expected in error
    assert bool(error) == bool(expected)


@pytest.mark.parametrize("call", RESTRICTED_CALLS)
@pytest.mark.parametrize("key", [None, "", "guess"])
def test_without_a_key_each_restricted_request_is_refused_to_everybody(
    closed: EmbeddedServer, protocol: str, call: str, key: str | None
) -> None:
    arguments, _ = RESTRICTED_CALLS[call]
    assert "without an administrator's key" in answer(closed, protocol, call, *arguments, key=key)


@pytest.mark.parametrize("call", OPEN_CALLS)
@pytest.mark.parametrize("fixture", ["keyed", "closed"])
def test_health_metadata_configuration_and_statistics_stay_open(
    request: pytest.FixtureRequest, fixture: str, protocol: str, call: str
) -> None:
    server: EmbeddedServer = request.getfixturevalue(fixture)
    with triton(server, protocol) as client:
        assert getattr(client, call)(*OPEN_CALLS[call])


@pytest.mark.parametrize("fixture", ["keyed", "closed"])
def test_inference_stays_open(request: pytest.FixtureRequest, fixture: str, protocol: str) -> None:
    server: EmbeddedServer = request.getfixturevalue(fixture)
    with Classifier(url(server, protocol), model="birds") as classifier:
        assert classifier.image(SAMPLE).top


def restriction(server: EmbeddedServer) -> tuple[str, str]:
    """Read the restricted header's name and value as every user of the machine can."""
    (option,) = (
        word for word in process_of(server).cmdline() if word.startswith("--http-restricted-api=")
    )
    apis, _, header = option.partition("=")[2].partition(":")
    assert apis.split(",") == list(RESTRICTED)
    name, _, value = header.partition("=")
    return name, value


def send(address: str, data: bytes) -> bytes:
    """Send bytes and return what arrives until the server is silent for a second."""
    host, port = address.split(":")
    received = b""
    with socket.create_connection((host, int(port))) as connection:
        connection.settimeout(1)
        connection.sendall(data)
        try:
            while part := connection.recv(1 << 16):
                received += part
        except TimeoutError:
            pass
    return received


def over_http(server: EmbeddedServer, name: str, value: str) -> bytes:
    """Request the repository index with a header that an HTTP client would refuse to send."""
    request = (
        f"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n{name}: {value}"
    )
    return send(server.endpoints.at("http"), f"{request}\r\n\r\n".encode())


def over_grpc(server: EmbeddedServer, name: str, value: str) -> bytes:
    """Request the repository index with a header that a gRPC client would refuse to send."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:  # RFC 9113, 4.1
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        return head + payload

    def literal(text: str) -> bytes:  # RFC 7541, 5.1 and 5.2, for up to 254 characters
        size = len(text)
        return bytes([size] if size < 127 else [127, size - 127]) + text.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/RepositoryIndex",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
        f"triton-grpc-protocol-{name}": value,
    }
    fields = b"".join(b"\0" + literal(each) + literal(it) for each, it in headers.items())
    return send(
        server.endpoints.at("grpc"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")  # SETTINGS
        + frame(1, 4, 1, fields)  # HEADERS, the last ones
        + frame(0, 1, 1, bytes(5)),  # DATA, the last one: an empty message
    )


def test_options_in_the_process_list_do_not_help_a_stranger(
    closed: EmbeddedServer, keyed: EmbeddedServer
) -> None:
    name, value = restriction(closed)
    with ThreadPoolExecutor() as pool:  # each waits for a second of silence
        allowed = [pool.submit(send, keyed, *restriction(keyed)) for send in (over_http, over_grpc)]
        over_http_refused = pool.submit(over_http, closed, name, value)
        over_grpc_refused = [pool.submit(over_grpc, closed, each, value) for each in (name, HEADER)]
    # The bytes are well-formed, since they reach a server whose key they carry.
    assert b"200 OK" in allowed[0].result()
    assert b"birds" in allowed[1].result()
    assert b"403 Forbidden" in over_http_refused.result()
    assert all(b"birds" not in each.result() for each in over_grpc_refused)


STRANGERS_CODE = """
import os
open({file!r}, "w").write("uid " + str(os.getuid()))
class TritonPythonModel:
    def execute(self, requests):
        return []
"""


@pytest.mark.parametrize("models", [[], ["birds"]])
def test_a_web_page_cannot_make_the_server_load_its_code(
    small_repository: Path, tmp_path: Path, models: list[str]
) -> None:
    written = tmp_path / "written"
    code = base64.b64encode(STRANGERS_CODE.format(file=str(written)).encode()).decode()
    tensors = {
        each: [{"name": each[0], "data_type": "TYPE_FP32", "dims": [1]}]
        for each in ("input", "output")
    }
    config = json.dumps({"name": "evil", "backend": "python", **tensors})
    body = json.dumps({"parameters": {"config": config, "file:1/model.py": code}})
    at = Endpoints.free()
    with EmbeddedServer(small_repository, models=models, endpoints=at, arguments=HASTE):
        # A browser sends this to any address without asking it first.
        page = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
        load = f"http://{at.at('http')}/v2/repository/models/evil/load"
        assert requests.post(load, body, headers=page, timeout=20).status_code == 403
        assert not requests.get(f"http://{at.at('http')}/v2/models/evil/ready", timeout=5).ok
    assert not written.exists()


@pytest.mark.parametrize(
    ("call", "setting"),
    [("update_trace_settings", "trace_file"), ("update_log_settings", "log_file")],
)
def test_nobody_can_make_the_server_write_a_file(
    keyed: EmbeddedServer, protocol: str, tmp_path: Path, call: str, setting: str
) -> None:
    file = tmp_path / "written"
    settings = {setting: str(file)}
    arguments = (None, settings) if call == "update_trace_settings" else (settings,)
    assert "restricted" in answer(keyed, protocol, call, *arguments)
    # It is refused to the administrator too.
    assert "can not be updated" in answer(keyed, protocol, call, *arguments, key=ADMIN_KEY)
    with Classifier(url(keyed, protocol), model="birds") as classifier:
        classifier.image(SAMPLE)
    assert not file.exists()


@pytest.fixture
def region() -> Iterator[Any]:
    """Shared memory of another program."""
    name = "triton-imagenet-test-foreign"
    handle = shared_memory.create_shared_memory_region(name, f"/{name}", 64)
    shared_memory.set_shared_memory_region(handle, [np.frombuffer(bytes(range(64)), np.uint8)])
    yield name
    shared_memory.destroy_shared_memory_region(handle)


def test_a_stranger_cannot_map_the_shared_memory_of_another_program(
    keyed: EmbeddedServer, closed: EmbeddedServer, protocol: str, region: str
) -> None:
    call = ("register_system_shared_memory", region, f"/{region}", 64)
    for server in (keyed, closed):
        assert "restricted" in answer(server, protocol, *call)
    with triton(keyed, protocol) as client:
        status = client.get_system_shared_memory_status(headers=ADMIN)
    assert region not in str(status)


def test_a_stranger_cannot_read_or_remove_the_images_of_another_client(
    keyed: EmbeddedServer, protocol: str
) -> None:
    with Classifier(
        url(keyed, protocol), model="birds", shared_memory=True, headers=ADMIN
    ) as classifier:
        expected = classifier.image(SAMPLE).predictions
        with triton(keyed, protocol) as client:
            for call in ("get_system_shared_memory_status", "unregister_system_shared_memory"):
                assert "restricted" in answer(keyed, protocol, call)
            # The name of a region is a random number; an error does not tell which ones there are.
            image = TRITON[protocol].InferInput("IMAGE", [1, 1], "BYTES")
            image.set_shared_memory("triton-imagenet-0", 64)
            with pytest.raises(InferenceServerException) as caught:
                client.infer("birds", [image])
        message = str(caught.value.message())
        assert "Unable to find shared memory region: 'triton-imagenet-0'" in message
        assert message.count("triton-imagenet-") == 1
        assert classifier.image(SAMPLE).predictions == expected


def test_further_arguments_cannot_open_a_restricted_api(small_repository: Path) -> None:
    opening = ["--http-restricted-api=trace:key=known"]
    server = EmbeddedServer(small_repository, endpoints=Endpoints.free(), arguments=opening)
    with pytest.raises(UserError, match="restricted api 'trace' can not be specified"), server:
        pass


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificates:
    return tls.issue(tmp_path_factory.mktemp("certificates"))


@contextmanager
def command(*prefix: str, options: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run `python -m scripts.serve` until it is ready, and stop it afterwards."""
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "scripts.serve", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    try:
        assert any("Ctrl-C" in line for line in process.stdout)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def listening(process: "subprocess.Popen[str]") -> dict[int, str]:
    """Return the ports on which the processes of its network listen, with their IPv4 addresses."""
    network = Path(f"/proc/{process.pid}/net")
    rows = [
        line.split()
        for file in ("tcp", "tcp6")
        for line in (network / file).read_text().splitlines()[1:]
    ]
    sockets = [row[1].split(":") for row in rows if row[3] == "0A"]  # TCP_LISTEN
    # An IPv4 address ends an IPv6 address that stands for it, and is in the order of the machine.
    return {
        int(port, 16): socket.inet_ntoa(bytes.fromhex(address[-8:])[::-1])
        for address, port in sockets
    }


def test_beyond_the_loopback_address_serve_warns_and_keeps_metrics_private(
    small_repository: Path,
) -> None:
    # In a network namespace of its own, no other machine reaches the server.
    prefix = namespaces.inside("ip link set lo up", kind="net")
    options = [f"--model-repository={small_repository}", "--address=0.0.0.0", "--", *HASTE]
    with command(*prefix, options=options) as process:
        addresses = listening(process)
    assert process.stderr
    assert serve.EXPOSED in process.stderr.read()
    assert addresses[8002] == "127.0.0.1"
    assert {port for port in addresses if addresses[port] != "127.0.0.1"} == {8000, 8001}


def test_tls_options_secure_grpc_and_keep_http_within_the_machine(
    small_repository: Path, certificates: tls.Certificates
) -> None:
    at = Endpoints.free()
    server, client = certificates.server, certificates.client
    options = [
        f"--model-repository={small_repository}",
        "--address=127.0.0.2",  # stands for the address of a network
        *(f"--{protocol}-port={port}" for protocol, port in at.ports.items()),
        f"--tls-certificate={server.certificate}",
        f"--tls-key={server.key}",
        f"--tls-client-ca={certificates.ca}",
        *("--", *HASTE),
    ]
    with command(options=options) as process:
        addresses = listening(process)
        assert addresses[at.http] == "127.0.0.1"
        assert addresses[at.grpc] == "127.0.0.2"
        known = Tls(certificates.ca, client.certificate, client.key)
        with Classifier(f"grpcs://127.0.0.2:{at.grpc}", model="birds", tls=known) as classifier:
            assert classifier.image(SAMPLE).top
        with Classifier(f"http://127.0.0.1:{at.http}", model="birds") as classifier:
            assert classifier.image(SAMPLE).top
        for refused in (f"grpc://127.0.0.2:{at.grpc}", f"http://127.0.0.2:{at.http}"):
            with (
                Classifier(refused, model="birds", retries=0) as classifier,
                pytest.raises(ServerUnavailable),
            ):
                classifier.image(SAMPLE)


@pytest.fixture
def https(keyed: EmbeddedServer, certificates: tls.Certificates, tmp_path: Path) -> Iterator[str]:
    """The proxy of SECURITY.md in front of a server."""
    haproxy = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if not haproxy:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    text = (ROOT / "SECURITY.md").read_text()
    (configuration,) = re.findall(r"(?s)```haproxy\n(.*?)```", text)
    port = Endpoints.free().http
    for documented, actual in {
        "bind :443 ": f"bind 127.0.0.1:{port} ",
        "/etc/haproxy/triton.pem": str(certificates.server.both),
        "127.0.0.1:8000": keyed.endpoints.at("http"),
    }.items():
        assert documented in configuration
        configuration = configuration.replace(documented, actual)
    file = tmp_path / "haproxy.cfg"
    file.write_text(configuration)
    with subprocess.Popen([haproxy, "-q", "-db", "-f", str(file)]) as process:
        yield f"https://127.0.0.1:{port}"
        process.terminate()


def test_the_documented_proxy_serves_https_and_rejects_what_triton_does_not_limit(
    https: str, certificates: tls.Certificates
) -> None:
    files = Tls(certificates.ca)
    with Classifier(https, model="birds", tls=files, retries=10) as classifier:
        assert classifier.image(SAMPLE).top
    context = ssl.create_default_context(cafile=certificates.ca)
    for name, value, status in [
        ("Transfer-Encoding", "chunked", 400),
        ("Content-Length", str((64 << 20) + 1), 413),
    ]:
        connection = HTTPSConnection(https.removeprefix("https://"), context=context, timeout=5)
        with closing(connection):
            connection.putrequest("POST", "/v2/models/birds/infer")
            connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().status == status
