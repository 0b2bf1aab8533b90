"""The STUN benchmarks compare like with like, and count right answers only."""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest

from ice_punch.stun import XOR_MAPPED_ADDRESS, MessageClass, parse_message, response_to

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import stun_codec  # noqa: E402
import stun_load  # noqa: E402
import stun_server  # noqa: E402

linux = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="the load waits with Linux's epoll"
)
coturn = pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed")


@pytest.mark.parametrize("script", [stun_server, stun_load])
def test_a_script_says_what_it_measures(
    script: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    with pytest.raises(SystemExit):
        script.main()  # type: ignore[attr-defined]
    assert " ".join((script.__doc__ or "").split()) in " ".join(capsys.readouterr().out.split())
    assert f"{script.__name__}.py" in (BENCHMARKS / "README.md").read_text()  # type: ignore[attr-defined]


def test_both_codecs_answer_a_server_s_requests_with_the_same_bytes() -> None:
    plain = stun_codec.serve_plain_ours()
    assert plain == stun_codec.serve_queued_ours() == stun_codec.serve_plain_theirs()
    assert stun_codec.serve_fingerprint_ours() == stun_codec.serve_fingerprint_theirs()
    assert plain is not None
    assert parse_message(plain).get(XOR_MAPPED_ADDRESS) == stun_codec.SOURCE


def test_both_codecs_build_the_same_check_of_a_new_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = itertools.tee(itertools.islice(stun_codec.SESSIONS, 3))
    for ours, theirs in zip(first, second, strict=True):
        monkeypatch.setattr(stun_codec, "SESSIONS", iter([ours, theirs]))
        assert stun_codec.build_first_ours() == stun_codec.build_first_theirs()


def test_both_codecs_tell_stun_from_data() -> None:
    assert stun_codec.tell_check_ours() is stun_codec.tell_check_theirs() is True
    assert stun_codec.tell_data_ours() is stun_codec.tell_data_theirs() is False


def answer_one(sock: socket.socket, tell: tuple[str, int] | None) -> None:
    """Answer one request, with a lie if there is one to ``tell``."""
    data, source = sock.recvfrom(2048)
    response = response_to(parse_message(data), MessageClass.SUCCESS)
    response.add(XOR_MAPPED_ADDRESS, tell or source)
    sock.sendto(response.to_bytes(), source)


@linux
@pytest.mark.parametrize(("tell", "counted"), [(None, "right"), (("192.0.2.1", 1), "wrong")])
def test_the_load_counts_an_answer_only_if_it_tells_the_address_that_asked(
    tell: tuple[str, int] | None, counted: str
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        answering = threading.Thread(target=answer_one, args=(sock, tell))
        answering.start()
        said = stun_load.load(sock.getsockname(), 1, 1, 0.1)
        answering.join()
    assert {"right": said["right"], "wrong": said["wrong"]} == {"right": 0, "wrong": 0} | {
        counted: 1
    }


@linux
@coturn
def test_both_servers_answer_the_same_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stun_server, "OURS", {"ice-punch": ("0.0.0.0", "asyncio")})
    monkeypatch.setattr(stun_server, "LOADS", {"8 sources": (8, 2)})
    monkeypatch.setattr(sys, "argv", ["stun_server.py", "--rounds", "1", "--seconds", "0.3"])
    stun_server.main()
    printed = capsys.readouterr().out
    for name in ("coturn", "ice-punch"):
        found = re.search(rf"^{name} +(\d+) +(\d+) +\d+-\d+ +(\d+\.\d\d)$", printed, re.MULTILINE)
        assert found, printed
        assert int(found[1]) > 0
        assert int(found[2]) > 0


def test_without_coturn_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["stun_server.py"])
    with pytest.raises(SystemExit, match=r"^stun_server\.py: .*[^\n]$"):
        stun_server.main()


def test_a_table_holds_medians_and_ratios() -> None:
    results = {
        "coturn": [stun_server.Measured(9e4, per) for per in (1e5, 1.1e5, 9e4)],
        "ice-punch": [stun_server.Measured(8e4, per) for per in (9e4, 9.9e4, 8e4)],
    }
    assert stun_server.rows(results) == [
        ["coturn", "90", "100", "90-110", "1.00"],
        ["ice-punch", "80", "90", "80-99", "0.90"],
    ]
