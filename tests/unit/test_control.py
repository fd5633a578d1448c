"""The socket through which `scripts.reload` reaches `scripts.serve`, in one process."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scripts import reload
from scripts.embedded import Endpoints, ServerError, control
from scripts.embedded.control import Answer, Control


@pytest.fixture
def requests(tmp_path: Path) -> Iterator[Control]:
    with control.listen(tmp_path) as requests:
        yield requests


def answer_next(requests: Control, reply: Answer | None) -> threading.Thread:
    """Answer the next client in a thread, or close its connection without an answer."""

    def run() -> None:
        while not (client := requests.request()):
            pass
        if reply:
            control.answer(client, reply)
        client.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.parametrize("reply", [Answer(True, "serving birds"), Answer(False, "no model")])
def test_a_client_gets_the_answer(requests: Control, tmp_path: Path, reply: Answer) -> None:
    thread = answer_next(requests, reply)
    assert control.reload(str(tmp_path / control.NAME)) == reply
    thread.join()


def test_a_server_that_ends_before_its_answer_is_an_error(
    requests: Control, tmp_path: Path
) -> None:
    thread = answer_next(requests, None)
    with pytest.raises(ServerError, match="the server ended while it reloaded"):
        control.reload(str(tmp_path / control.NAME))
    thread.join()


def test_a_client_that_has_gone_is_no_error(requests: Control, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / control.NAME))
        accepted = requests.request()
    assert accepted
    control.answer(accepted, Answer(True, "x" * 1_000_000))


def test_there_is_no_request_without_a_client(requests: Control) -> None:
    assert requests.request() is None


def test_a_folder_with_a_long_path_only_disables_reloads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with caplog.at_level(logging.WARNING), control.listen(folder) as requests:
        assert requests.request() is None
    assert "scripts.reload cannot reach this server" in caplog.text


def test_the_command_tells_what_serves(
    requests: Control,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(control, "find", lambda _: str(tmp_path / control.NAME))
    thread = answer_next(requests, Answer(True, "serving birds"))
    assert reload.main([]) == 0
    thread.join()
    assert capsys.readouterr().out.endswith("\nserving birds\n")
    thread = answer_next(requests, Answer(False, "birds does not load"))
    assert reload.main([]) == 1
    thread.join()
    assert capsys.readouterr().err == "error: the old version goes on: birds does not load\n"


def test_a_port_of_another_program_is_not_reloaded() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ServerError, match=f"no scripts.serve of this user .* port {port}"):
            control.find(port)
    with pytest.raises(ServerError, match="name its port with --http-port"):
        control.find(Endpoints.free().http)
