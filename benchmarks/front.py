"""A proxy of Debian's in front of one comet's WebSocket, which speaks TLS instead of it: nginx or HAProxy."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.certificate import make_certificate
from benchmarks.fabric import BenchmarkError, free_ports, listens

NAMES = ("nginx", "haproxy")
_OPEN_FILES = 19_000

_NGINX = """
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/log;
events {{ worker_connections {files}; }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        location / {{
            proxy_pass http://{comet};
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 300s;
        }}
    }}
}}
"""
_HAPROXY = """
global
    maxconn {half}
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout tunnel 300s
frontend push
    bind 127.0.0.1:{port} ssl crt {folder}/both.pem alpn http/1.1
    default_backend comets
backend comets
    server comet-1 {comet}
"""


class Front:
    """One that runs, with one thread, until it is left.

    Attributes:
        address: where clients connect; tls: whom they are to believe.
    """

    def __init__(self, name: str, comet: str, folder: Path) -> None:
        """
        Args:
            comet: its address for WebSocket.

        Raises:
            BenchmarkError: it is not installed.
        """
        where = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if where is None:
            raise BenchmarkError(f"{name} is not installed")
        self.tls: ssl.SSLContext = make_certificate(folder)
        (folder / "both.pem").write_bytes((folder / "certificate.pem").read_bytes() + (folder / "key.pem").read_bytes())
        port = free_ports(1)[0]
        self.address = f"127.0.0.1:{port}"
        file = folder / f"{name}.conf"
        text = _NGINX if name == "nginx" else _HAPROXY
        file.write_text(
            text.format(port=port, comet=comet, folder=folder, files=_OPEN_FILES, half=_OPEN_FILES // 2 - 100)
        )
        own = "daemon off;" + (" user root;" if os.getuid() == 0 else "")
        options = ["-p", str(folder), "-c", str(file), "-g", own] if name == "nginx" else ["-W", "-f", str(file)]
        self._process = subprocess.Popen([where, *options], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Front:
        until = time.monotonic() + 10
        while not listens(self.address):
            if self._process.poll() is not None or time.monotonic() > until:
                raise BenchmarkError("the proxy in front does not listen")
            time.sleep(0.05)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(20)

    def processes(self) -> list[psutil.Process]:
        """All of it."""
        process = psutil.Process(self._process.pid)
        return [process, *process.children(recursive=True)]
