"""The text of a new topology.toml: a node of each kind on each machine. Pure."""

from __future__ import annotations

import re

from zim.fabric.retention import Retention
from zim.topology import Comet, Job, Logic, Router, Topology

MAX_MACHINES = 99
MAX_OFFSET = 50_000

_PORT = re.compile(r":([0-9]{4,5})(?=\")")

Line = tuple[str, str, str]  # a key, its value in TOML, a comment

_ROLES = {
    "router": "the memory: who is online where, and every stream",
    "logic": "the front desk: HTTP API and authentication",
    "job": "the fan-out",
    "comet": "the edge: TCP and WebSocket clients",
}
_BINDS = {"router": 7270, "logic": 7170, "job": 7470, "comet": 8092}
_ADMINS = {"router": 7271, "logic": 7171, "job": 7471, "comet": 8093}
_LISTENERS: dict[str, list[Line]] = {
    "logic": [("http", '"127.0.0.1:7172"', ""), ("publish", '"tcp://127.0.0.1:7176"', "pushes over ZeroMQ")],
    "comet": [("tcp", '"127.0.0.1:8080"', ""), ("ws", '"127.0.0.1:8090"', "")],
}

_MACHINES = """\
#
# Put in your machines' names or addresses for machine-1 and so on; the others connect to them. On each machine, with
# this same file: zim up --host machine-1
# Links between nodes are not encrypted: insecure = true says that you know. Let nobody else reach their ports. Or take
# it out of every bind, write [links] with keys = "link-keys" below, and let zim link-key make write the keys.
# Routers cannot be added once there are logs; other nodes can. The rest is in docs/several-machines.md.
"""
_STRANGERS = """\
#
# HTTP, TCP and WebSocket are for this machine alone. For others let zim speak TLS, as in docs/how-to/internet.md:
# tcp = { address = "0.0.0.0:8080", tls = { certificate = "push.crt", key = "push.key" } }
# or put a proxy there, as in docs/how-to/proxy.md, and name it, and the pages that may use it:
# ws = { address = "127.0.0.1:8090", hosts = ["push.example.com"], origins = ["https://app.example.com"] }
# What is left to do before strangers come: zim check --production
"""
# What begins with # and no blank is to be switched on.
_WHO = """
# Who may come in: until this is switched on, zim believes everybody. See docs/how-to/jwt.md. In this folder:
#   (umask 077; mkdir -p secrets; python3 -c 'import secrets; print(secrets.token_urlsafe(48))' > secrets/jwt)
#[[issuer]] # who signs tokens of clients: your application, with the same secret
#issuer = "https://app.example.com" # iss of its tokens
#audience = "zim" # aud
#algorithms = ["HS256"] # or EdDSA, with public_key_file
#secret_file = "secrets/jwt"

# How many a user may have at once. Without an issuer many may be one user: for goim, who has no number is user 0.
#[sessions]
#per_user = 20

# What backends may do: a key for each of them, which this makes, at the end of this file. The other half stays with it.
#   (umask 077; zim api-key make app --scope push --scope count > secrets/app.key 2>> FILE)
"""


_ALLOWED = """
# How much somebody may do: a bucket holds `burst`, and gets `per_s` of it a second. See docs/topology.md.
[limits]
# Behind a proxy that the listener's `proxies` does not name, all have the proxy's address. Else switch these on:
#connects_per_address = { per_s = 5, burst = 50 }
#connects_per_network = { per_s = 50, burst = 500 } # of a /24, or /64 of IPv6
logins_per_user = { per_s = 0.2, burst = 20 }
packets_per_connection = { per_s = 20, burst = 200 } # from a client
bytes_per_connection = { per_s = 65536, burst = 524288 }
rooms_per_session = 100
pushes_per_key = { per_s = 500, burst = 5000 } # of each API key; an [[api_key]] may have its own
bytes_per_key = { per_s = 4194304, burst = 33554432 }
pushes_per_stream = { per_s = 50, burst = 500 } # into each user's or room's stream
"""


def render(
    machines: int = 1,
    is_production: bool = False,
    offset: int = 0,
    data_dir: str = "var",
    file: str = "topology.toml",
) -> str:
    """A topology, as it stands in a file.

    Args:
        machines: on how many it runs. On one, all is on loopback.
        is_production: its data is in /var/lib/zim, `zim up` has an `admin` address, the limits that are changed first
            are there, with their defaults, who may come in, to be switched on, and how much somebody may do.
        offset: is added to every port.
        data_dir: where its data is, unless it is for production; relative to the file.
        file: its name, for commands in its comments.
    """
    ports = f"goim's ports plus {offset}" if offset else "goim's ports"
    where = f"on {ports}. `zim up` starts all of it" if machines == 1 else f"on each of {machines} machines"
    parts = [f"# One node of each kind, {where}. Every key is in docs/topology.md.\n"]
    parts += [_MACHINES] * (machines > 1) + [_STRANGERS] * (machines > 1 or is_production)
    parts.append("\n" + _table("[fabric]", "", _production_fabric() if is_production else _fabric(data_dir)))
    parts += ["\n" + _table("[retention]", "of each stream the newest messages stay", _retention())] * is_production
    parts += [_WHO.replace("FILE", file)] * is_production
    parts += [_ALLOWED] * is_production
    for kind, role in _ROLES.items():
        for n in range(1, machines + 1):
            lines = _node(kind, n) if machines == 1 else _node_of_several(kind, n)
            lines += _LIMITS[kind] if is_production else []
            parts.append("\n" + _table(f"[[{kind}]]", role if n == 1 else "", lines))
    return _PORT.sub(lambda port: f":{int(port[1]) + offset}", "".join(parts))


def _table(head: str, comment: str, lines: list[Line]) -> str:
    rows = [(head, comment), *((f"{key} = {value}", note) for key, value, note in lines)]
    return "".join(row + (f" # {note}" if note else "") + "\n" for row, note in rows)


def _fabric(data_dir: str) -> list[Line]:
    return [("name", '"demo"', ""), ("data_dir", f'"{data_dir}"', "relative to this file")]


def _production_fabric() -> list[Line]:
    return [
        ("name", '"production"', ""),
        ("data_dir", '"/var/lib/zim"', "has the routers' logs: a disk that lasts"),
        ("admin", '"127.0.0.1:7070"', "/metrics and /healthz of `zim up`: which nodes are ready"),
        ("max_body_bytes", f"{Topology.max_body_bytes}", "of one push"),
        ("idempotency_s", f"{Topology.idempotency_s:.0f}", "how long a publisher's key is known"),
        ("receipts_s", f"{Topology.receipts_s:.0f}", "how long it can be asked what became of a push"),
    ]


def _retention() -> list[Line]:
    rules = {"users": Retention.users, "rooms": Retention.rooms, "everybody": Retention.everybody}
    return [(of, f"{{ count = {rule.count}, age_s = {rule.age_s:.0f} }}", "") for of, rule in rules.items()]


def _node(kind: str, n: int) -> list[Line]:
    bind = f'"tcp://127.0.0.1:{_BINDS[kind]}"'
    return [("id", f"{n}", ""), *_LISTENERS.get(kind, []), ("bind", bind, ""), _admin(kind, n)]


def _node_of_several(kind: str, n: int) -> list[Line]:
    port = _BINDS[kind]
    return [
        ("id", f"{n}", ""),
        ("host", f'"machine-{n}"', ""),
        *_LISTENERS.get(kind, []),
        ("bind", f'{{ address = "tcp://0.0.0.0:{port}", insecure = true }}', ""),
        ("advertise", f'"tcp://machine-{n}:{port}"', "what the others connect to" if n == 1 else ""),
        _admin(kind, n),
    ]


def _admin(kind: str, n: int) -> Line:
    return "admin", f'"127.0.0.1:{_ADMINS[kind]}"', "/metrics and /healthz" if (kind, n) == ("router", 1) else ""


_LIMITS: dict[str, list[Line]] = {
    "router": [
        ("max_behind_bytes", f"{Router.max_behind_bytes}", "of what a comet has not handled; above it, 503"),
        ("ballast_bytes", f"{Router.ballast_bytes}", "given up when the disk is full, to make room"),
    ],
    "logic": [("http_idle_s", f"{Logic.http_idle_s:.0f}", "longer than the proxy in front keeps a connection")],
    "job": [("queue_bytes", f"{Job.queue_bytes}", "for one comet; above it the comet fetches")],
    "comet": [
        ("max_connections", f"{Comet.max_connections}", "each is an open file: ulimit -Hn"),
        ("heartbeat_s", f"{Comet.heartbeat_s:.0f}", "a client silent for longer is closed"),
        ("outbox_bytes", f"{Comet.outbox_bytes}", "of what waits for one client"),
        ("max_memory_bytes", f"{4 << 30}", "above it nobody new comes in: most of what the machine has"),
        ("slow_consumer", f'"{Comet.slow_consumer}"', 'who has more is closed; or "drop": its oldest messages go'),
    ],
}
