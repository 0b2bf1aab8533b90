"""The real nginx, on a port of the test's and with nothing outside its directory."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

_MAIN = """\
{user}daemon off;
worker_processes 1;
pid {where}/pid;
error_log {where}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log {where}/access.log;
    client_body_temp_path {where}/body;
    proxy_temp_path {where}/proxy;
    fastcgi_temp_path {where}/fastcgi;
    uwsgi_temp_path {where}/uwsgi;
    scgi_temp_path {where}/scgi;
    include {where}/conf.d/*.conf;
}}
"""


def configure(where: Path, **files: str) -> list[str]:
    """Write ``files`` where ``nginx.conf`` of Debian would include them; the command to run it."""
    assert NGINX is not None
    (where / "conf.d").mkdir(parents=True)
    for name, text in files.items():
        (where / "conf.d" / f"{name}.conf").write_text(text)
    user = "user root;\n" if getpass.getuser() == "root" else ""
    (where / "nginx.conf").write_text(_MAIN.format(where=where, user=user))
    return [NGINX, "-p", str(where), "-c", str(where / "nginx.conf"), "-e", str(where / "early")]


@contextlib.contextmanager
def nginx(where: Path, port: int, **files: str) -> Iterator[None]:
    """Serves on ``port`` of 127.0.0.1 by the ``files``, which ``nginx -t`` finds good first."""
    command = configure(where, **files)
    judged = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stderr
    assert "warn" not in judged.stderr, judged.stderr
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                log = where / "error.log"
                assert time.monotonic() < deadline, log.read_text() if log.exists() else ""
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(5)
