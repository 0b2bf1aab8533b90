"""A server by either engine, over TLS with a certificate authority of one's own."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest
from cli_support import HERE, only_line, run
from cryptography import x509

from support.certificates import Authority
from support.commands import Command


@pytest.mark.parametrize("engine", ["websockets", "picows"])
def test_two_peers_meet_over_tls_whose_authority_they_were_told(
    engine: str, tmp_path: Path
) -> None:
    pytest.importorskip("uvloop")
    pytest.importorskip(engine)
    authority = Authority(tmp_path)
    certificate, key = authority.make("server", x509.IPAddress(ip_address("127.0.0.1")))
    serving = ("serve", "--host", "127.0.0.1", "--port", "0", "--no-stun", "--engine", engine)
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key))
    trust = ("--ca-file", str(authority.cafile))
    with Command(*serving, *tls, "--json") as server:
        url = server.event("serving")["url"]
        assert url.startswith("https://127.0.0.1:")
        with Command("listen", "--server", url, *HERE, *trust, "--json") as listener:
            link = listener.event("listening")["link"]
            with Command("connect", link, *HERE, *trust, "--json") as connector:
                connector.event("connected")
                connector.send(b"over TLS")
                listener.received(b"over TLS")
        stranger = run("listen", "--server", url)
        assert stranger.returncode == 1
        assert "is not trusted" in only_line(stranger.stderr)


def test_an_engine_that_is_none_is_one_line() -> None:
    done = run("serve", "--port", "0", "--no-stun", "--engine", "steam")
    assert done.returncode != 0
    assert "steam" in only_line(done.stderr)


def test_a_file_that_holds_no_certificate_is_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    done = run("listen", "--ca-file", str(empty))
    assert done.returncode == 2
    assert "holds no PEM certificate" in only_line(done.stderr)
