"""One nginx process: TLS on loopback, the same two order ids for every request.

Below `NOTHING_OPEN` it answers that nothing is open, so that a call that cancels until
it is told so takes one round; below `ANEW` it ends the connection after each answer.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

# From the system, or unpacked by scripts/bootstrap bench.
CANDIDATES = ["nginx", "/usr/sbin/nginx", "build/nginx/usr/sbin/nginx"]
REPLY = (
    '{"symbol":"ADAUSDM","order_ids":["550e8400-e29b-41d4-a716-446655440000",'
    '"6ba7b810-9dad-41d1-80b4-00c04fd430c8"]}'
)
LISTS = "/lists"
LISTS_REPLY = REPLY.replace('"symbol":"ADAUSDM",', "")  # fits every symbol
NOTHING_OPEN = "/nothing-open"
ANEW = "/anew"
NOTHING_REPLY = '{"error":"Order not found","code":4200}'
# Before 1.23.4 nginx offers TLS 1.3 only if it is told to; the default of all others.
# master_process off: one process, no workers, so its own pid ends all of it.
CONFIG = """
daemon off;
master_process off;
pid {prefix}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    server {{
        listen {host}:{port} ssl;
        ssl_certificate {prefix}/chain.pem;
        ssl_certificate_key {prefix}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        default_type application/json;
        location / {{ return 200 '{reply}'; }}
        location {anew}/ {{ keepalive_timeout 0; return 200 '{reply}'; }}
        location {lists}/ {{ return 200 '{lists_reply}'; }}
        location {nothing_open}/ {{ return 400 '{nothing_reply}'; }}
    }}
}}
"""
START_TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Server:
    """Where the server listens, its certificate authority, and its pid."""

    base_url: str
    ca_file: Path
    version: str
    pid: int


def find_nginx() -> str:
    for candidate in CANDIDATES:
        if path := shutil.which(candidate):
            return os.path.abspath(path)
    raise SystemExit("the benchmark needs nginx: run scripts/bootstrap bench")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def write_prefix(prefix: Path, host: str, port: int) -> None:
    """Fill nginx's own folder: an EC certificate for the host and the settings."""
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    leaf = authority.issue_cert(host, key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(str(prefix / "ca.pem"))
    leaf.private_key_pem.write_to_path(str(prefix / "key.pem"))
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(str(prefix / "chain.pem"), append=True)
    text = CONFIG.format(
        prefix=prefix,
        host=host,
        port=port,
        reply=REPLY,
        lists=LISTS,
        lists_reply=LISTS_REPLY,
        nothing_open=NOTHING_OPEN,
        nothing_reply=NOTHING_REPLY,
        anew=ANEW,
    )
    (prefix / "nginx.conf").write_text(text)


def wait_until_listening(process: subprocess.Popen[bytes], prefix: Path) -> None:
    """nginx writes its pid once its sockets listen; they may be in another network."""
    deadline = time.monotonic() + START_TIMEOUT
    pid = prefix / "nginx.pid"
    while process.poll() is None and time.monotonic() < deadline:
        if pid.exists():
            return
        time.sleep(0.02)
    raise SystemExit("nginx did not start; its message is above")


@contextlib.contextmanager
def nginx(
    folder: Path, host: str = "127.0.0.1", within: Sequence[str] = ()
) -> Iterator[Server]:
    """Run nginx from ``folder`` (there, and empty) until the block ends.

    ``within`` is a command that runs another one elsewhere, as ``ip netns exec`` does.
    """
    program = find_nginx()
    port = free_port()
    write_prefix(folder, host, port)
    named = subprocess.run([program, "-v"], text=True, capture_output=True)
    command = [program, "-p", str(folder), "-e", "stderr"]
    process = subprocess.Popen(
        [*within, *command, "-c", str(folder / "nginx.conf")],
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until_listening(process, folder)
        yield Server(
            base_url=f"https://{host}:{port}",
            ca_file=folder / "ca.pem",
            version=named.stderr.strip(),
            pid=process.pid,
        )
    finally:
        process.terminate()
        process.wait(timeout=10)
