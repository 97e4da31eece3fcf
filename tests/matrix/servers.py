"""Real servers in front of the sandbox, each a process of its own on loopback.

They come from the system, or out of Debian's packages by ``scripts/bootstrap
servers``. `why_not` says which one is missing.

Envoy is in no Debian package. What stands for it is HAProxy with Envoy's ways: an idle
time-out of the whole connection, and its text with a 503.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.children import PATIENCE, ROOT

IDLE_MS = 600  # after which each of them closes a connection
ENVOY_TEXT = (
    "upstream connect error or disconnect/reset before headers. "
    "reset reason: connection failure"
)
_TRIES = 5  # to find a port that nobody takes meanwhile

# master_process off: one process, no workers, so its own pid ends all of it. A POST
# that may have been carried out is not for nginx to repeat (that is its default, too).
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_timeout {idle}ms;
    upstream exchange {{ server 127.0.0.1:{behind}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/both.pem;
        ssl_certificate_key {folder}/both.pem;
        location / {{
            proxy_pass https://exchange;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""
_HAPROXY = """
global
    maxconn 200
defaults
    mode http
    retries 0
    timeout connect 2s
    timeout server 20s
    {timeouts}
frontend outside
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn http/1.1
    default_backend exchange
backend exchange
    {backend}
    server one 127.0.0.1:{behind} ssl verify none
"""
_HAPROXY_WAYS = {
    "haproxy": (
        "timeout client 20s\n    timeout http-keep-alive {idle}ms",
        "http-reuse safe",
    ),
    # Its famous 408 goes to whoever has not asked yet; to a connection that was idle
    # between two requests HAProxy 2.6 says nothing, and closes it.
    "haproxy with 408": ("timeout client 20s\n    timeout http-request {idle}ms", ""),
    "like envoy": (
        "timeout client {idle}ms",
        'http-error status 503 content-type text/plain string "' + ENVOY_TEXT + '"',
    ),
}
KINDS = ("nginx", *_HAPROXY_WAYS)


@dataclass(frozen=True)
class Gateway:
    """Where it listens, and what is to be trusted."""

    url: str
    ca_file: str


def _program_of(kind: str) -> str:
    name = "nginx" if kind == "nginx" else "haproxy"
    for place in (name, f"/usr/sbin/{name}", ROOT / f"build/{name}/usr/sbin/{name}"):
        if path := shutil.which(place):
            return path
    return ""


def why_not() -> str:
    """Which server this machine lacks; "": none."""
    missing = sorted({kind.split()[0] for kind in KINDS if not _program_of(kind)})
    return f"no {missing[0]} here: run scripts/bootstrap servers" if missing else ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _write(folder: Path, kind: str, port: int, behind: int) -> list[str]:
    """Its settings and certificate; the command that starts it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    leaf = authority.issue_cert("127.0.0.1")
    leaf.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    given = {"folder": folder, "port": port, "behind": behind, "idle": IDLE_MS}
    settings = folder / "settings"
    program = _program_of(kind)
    if kind == "nginx":
        settings.write_text(_NGINX.format(**given))
        return [program, "-p", str(folder), "-e", "stderr", "-c", str(settings)]
    timeouts, backend = _HAPROXY_WAYS[kind]
    given |= {"timeouts": timeouts.format(**given), "backend": backend}
    settings.write_text(_HAPROXY.format(**given))
    return [program, "-db", "-q", "-f", str(settings)]


def _environment(program: str) -> dict[str, str]:
    """With the libraries that were unpacked beside the program."""
    libraries = sorted(Path(program).parents[1].glob("lib/*-linux-gnu"))
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}


def _is_listening(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def running(kind: str, behind: int) -> Iterator[Gateway]:
    """A gateway of this kind before a port of loopback, until the block ends.

    Raises AssertionError, with its words, if it does not start.
    """
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryFile() as words:
        for _ in range(_TRIES):
            folder = Path(tempfile.mkdtemp(dir=name))
            port = _free_port()
            command = _write(folder, kind, port, behind)
            process = subprocess.Popen(
                command,
                env=_environment(command[0]),
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
            )
            try:
                if _is_listening(process, port):
                    yield Gateway(f"https://127.0.0.1:{port}", str(folder / "ca.pem"))
                    return
            finally:
                process.kill()
                process.wait(PATIENCE)
        words.seek(0)
        raise AssertionError(f"{kind} does not start: {words.read()!r}")
