"""One HTTP address for several logics: HAProxy, on a machine of its own.

It asks each logic twice a second whether it is ready, and gives what it cannot connect to another one. What a logic has
been sent it never sends again: then only the logic knows what became of a push. So its own 503 means what zim's means.
`on-marked-down shutdown-sessions` would break that, for HAProxy says 503 of what it cuts short, too.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.fault.machines import Machine
from tests.programs import WHERE

PORT = 7172

_CONFIGURATION = """\
defaults
    mode http
    timeout connect 1s
    timeout client 30s
    timeout server 20s           # longer than zim's own answer takes, 504 included
    timeout http-keep-alive 60s
    retries 2
    option redispatch 1          # who cannot be connected to is not asked again: another one is

frontend push
    bind :{port}
    default_backend logics

backend logics
    balance leastconn
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host balancer
    timeout check 1s
    default-server check inter 500ms fastinter 200ms fall 2 rise 2
{servers}
"""


def haproxy() -> str:
    """Where it is; "" if it is not there."""
    return shutil.which("haproxy", path=WHERE) or ""


def configuration(logics: Mapping[str, str]) -> str:
    """HAProxy's, for logics at `host:port`."""
    servers = "\n".join(f"    server {name} {address}" for name, address in logics.items())
    return _CONFIGURATION.format(port=PORT, servers=servers)


def balance(machine: Machine, logics: Mapping[str, str]) -> str:
    """Starts it on a machine that is on, and whenever its power comes back; returns its address."""
    file = machine.folder / "haproxy.cfg"
    file.write_text(configuration(logics))
    machine.services.append(lambda there: _start(there, file))
    _start(machine, file)
    return f"{machine.ip}:{PORT}"


def _start(machine: Machine, file: Path) -> None:
    with (machine.folder / "haproxy.log").open("ab") as log:
        subprocess.Popen(
            machine.command(haproxy(), "-db", "-f", str(file)), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
