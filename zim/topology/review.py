"""What a security review would say of a topology: what must change before strangers come, and what may. Pure.

What the file alone cannot tell, modes of files and how many of them may be open, is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from zim.fabric.patterns import ANY
from zim.fabric.principals import SCOPES
from zim.fabric.retention import DAY_S, Rule
from zim.topology.identity import FAMILIES, Issuer, Secret
from zim.topology.log import concerns
from zim.topology.nodes import ListenAddress, Logic, Node, Topology

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

LONG_COUNT, LONG_AGE_S = 10_000_000, 366 * DAY_S  # what is kept longer and in larger numbers is hardly bounded
WIDE_LEEWAY_S = 60.0

_TLS = 'tls = { certificate = "…", key = "…" }, docs/how-to/internet.md'
_READ, _WRITE, _ENTER = 0o4, 0o2, 0o1  # by others than owner and group


class Finding(NamedTuple):
    """One thing to say.

    Attributes:
        severity: an error must change before strangers come, a warning should; a note is to be known.
        key: of the topology.
        what: is wrong.
        right: would be.
    """

    severity: Severity
    key: str
    what: str
    right: str


@dataclass(frozen=True)
class Machine:
    """What this machine says of a topology.

    Attributes:
        modes: permissions of files and folders that the topology names, and its own; None for one that is not there.
            One that cannot be looked at is not in it.
        clients: for how many connections open files are enough; None for as many as the comets take.
    """

    modes: Mapping[Path, int | None] = field(default_factory=dict)
    clients: int | None = None


def named_files(topology: Topology) -> list[Path]:
    """The files and folders whose permissions matter."""
    issuers = topology.identity.issuers
    named = [secret.file for each in issuers for secret in (*each.secrets, *each.public_keys)]
    named += [each.ca for each in issuers]
    named += [secret.file for secret in _certificate_keys(topology)]
    if topology.links.keys is not None:
        named += [topology.links.keys, topology.links.list_file]
        named += [topology.links.secret_file(node.name) for node in topology.nodes]
    if topology.log is not None:
        named.append(topology.log.passfile)
    return [topology.path, topology.data_dir, *(file for file in named if file is not None)]


def review(topology: Topology, machine: Machine) -> list[Finding]:
    """All there is to say, errors first; within a severity in the order of the file."""
    parts: tuple[Callable[[Topology, Machine], Iterable[Finding]], ...] = (
        _clients, _backends, _issuers, _anonymous, _listeners, _limits, _links, _log, _keeping, _files, _sizes,
    )  # fmt: skip
    found = [finding for part in parts for finding in part(topology, machine)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


# ---------------------------------------------------------------- who may come in


def _clients(topology: Topology, _: Machine) -> Iterator[Finding]:
    identity = topology.identity
    if not identity.knows_clients:
        what = "there is none, nor a [callout]: goim's token handler believes everybody, and lets them join any room"
        yield Finding("error", "issuer", what, "an [[issuer]], docs/how-to/jwt.md")
    if not identity.sessions.per_user and not identity.sessions.per_device:
        yield Finding("note", "sessions", "a user may have any number of sessions", "[sessions] with per_user = 20")


def _backends(topology: Topology, _: Machine) -> Iterator[Finding]:
    keys = topology.identity.api_keys
    if not keys:
        what = "there is none: whoever reaches the HTTP API may push, read, kick and ban; so may all on this machine"
        yield Finding("error", "api_key", what, "an [[api_key]] for each backend, zim api-key make")
    seen: dict[str, str] = {}
    for i, key in enumerate(keys):
        for digest in key.sha256:
            if (other := seen.setdefault(digest, key.id)) != key.id:
                what = f"it is the key of {other}, too: the last one with it decides what it may"
                yield Finding("error", f"api_key[{i}].sha256", what, "a key of its own")
        if len(key.scopes) == len(SCOPES) and all(patterns == ANY for patterns in key.scopes.values()):
            what = f"{key.id} may do all, to everybody: who has this key has the fabric"
            yield Finding("warning", f"api_key[{i}].scopes", what, 'what it needs, such as ["push", "count"]')
    if len(keys) == 1 and len(keys[0].scopes) > 2:
        what = "it is one key for all: it cannot be taken from one backend without the others"
        yield Finding("note", "api_key[0]", what, "a key for each, with the scopes that it needs")


def _issuers(topology: Topology, _: Machine) -> Iterator[Finding]:
    for i, issuer in enumerate(topology.identity.issuers):
        if issuer.algorithms[0] in FAMILIES["HS"]:
            what = "who can verify with this secret can also sign: each logic, and who reads its files"
            right = 'a public key, such as algorithms = ["EdDSA"] with public_key_file'
            yield Finding("note", f"issuer[{i}].algorithms", what, right)
        if issuer.leeway_s > WIDE_LEEWAY_S:
            what = f"a token is taken for {issuer.leeway_s:g} s after its end"
            yield Finding("note", f"issuer[{i}].leeway_s", what, "some seconds, and clocks that are set by NTP")


def _anonymous(topology: Topology, _: Machine) -> Iterator[Finding]:
    free = topology.identity.anonymous
    if free is None:
        return
    where = [key for key, _, one in _of_clients(topology) if one.anonymous]
    if not where:
        yield Finding("note", "anonymous", "no listener has anonymous = true: nobody comes in by it", "none of the two")
    for key in where:
        rooms = " ".join((*free.rooms, *free.join)) or "none"
        yield Finding(
            "note", f"{key}.anonymous", f"strangers come in without a token; rooms: {rooms}", "as you want it"
        )
    for name in ("join", "read"):
        if where and "*" in getattr(free, name):
            what = "strangers may be in every room" if name == "join" else "strangers may read every user's stream"
            yield Finding("warning", f"anonymous.{name}", what, 'patterns of what is public, such as ["public-*"]')


# ---------------------------------------------------------------- listeners


def _listeners(topology: Topology, _: Machine) -> Iterator[Finding]:
    identity = topology.identity
    for key, kind, one in _of_clients(topology):
        yield from _reach(key, one, identity.knows_clients, "tokens and messages")
        if kind == "ws":
            yield from _pages(key, one)
    for key, one in _of_backends(topology):
        yield from _reach(key, one, bool(identity.api_keys), "API keys and messages")
        if not one.parsed.is_local and not one.hosts:
            what = "it answers by whatever name it is called, and so pages that have made a name point here"
            yield Finding("warning", f"{key}.hosts", what, 'hosts = ["push.example.com"]')
        if "*" in one.origins:
            yield Finding("warning", f"{key}.origins", "pages from anywhere may read the answers", "named pages")
    for key, one in _of_operators(topology):
        yield from _reach(key, one, bool(identity.api_keys), "API keys and numbers")


def _is_reached(one: ListenAddress) -> bool:
    """From other machines, perhaps through a proxy."""
    return one.is_reachable or bool(one.hosts or one.origins)


def _limits(topology: Topology, _: Machine) -> Iterator[Finding]:
    """Of what can be reached from other machines: how much somebody may do."""
    limits = topology.limits
    if any(_is_reached(one) for _, _, one in _of_clients(topology)):
        yield from _limits_of_clients(topology)
    if any(_is_reached(one) for _, one in _of_backends(topology)):
        keys = topology.identity.api_keys
        if limits.pushes_per_key is None and not (keys and all(key.pushes is not None for key in keys)):
            what = "a backend may push without end, and leave no room for others"
            yield Finding("warning", "limits.pushes_per_key", what, "{ per_s = 500, burst = 2000 }, say")
        if limits.pushes_per_stream is None:
            what = "a user or a room may get any number of pushes"
            yield Finding("note", "limits.pushes_per_stream", what, "{ per_s = 20, burst = 200 }, say")


def _limits_of_clients(topology: Topology) -> Iterator[Finding]:
    limits = topology.limits
    if limits.connects_per_address is None and limits.connects_per_network is None:
        what = "an address may connect as often as it likes"
        right = "{ per_s = 5, burst = 50 }, say, if comets see the addresses of clients; else a limit in the proxy"
        yield Finding("warning", "limits.connects_per_address", what, right)
    if limits.packets_per_connection is None and limits.bytes_per_connection is None:
        what = "a client may send without end"
        yield Finding("warning", "limits.packets_per_connection", what, "{ per_s = 20, burst = 200 }, say")
    if limits.logins_per_user is None:
        yield Finding(
            "note", "limits.logins_per_user", "a user may come and go without end", "{ per_s = 0.2, burst = 20 }"
        )
    for i, comet in enumerate(topology.comets):
        if not comet.max_memory_bytes:
            what = "new clients come in until the machine has no memory left"
            yield Finding("note", f"comet[{i}].max_memory_bytes", what, "what it may have, such as 4294967296")


def _reach(key: str, one: ListenAddress, is_guarded: bool, goes: str) -> Iterator[Finding]:
    """Who can come to a listener. goes: what is sent there."""
    if one.insecure and (is_guarded or not one.is_reachable):
        what = "insecure = true has no use here, and would let zim start without what guards it"
        yield Finding("warning", key, what, f'"{one.address}" without it')
    if not one.is_reachable:
        return
    if not is_guarded:
        what = "strangers can reach it, and it believes everybody (insecure = true)"
        yield Finding("error", key, what, f"127.0.0.1, or what issuer and api_key say above, and then {_TLS}")
    elif one.parsed.is_local:
        return
    elif one.proxies and not one.tls:
        what = f"{goes} come in clear from the proxy: nobody else may be on that network"
        yield Finding("note", key, what, "a network of its own, and a firewall that lets nobody but the proxy in")
    elif not one.tls:
        what = f"it can be reached from other machines, and has no TLS: {goes} go in clear"
        yield Finding("warning", key, what, f"{_TLS}; or 127.0.0.1 behind a proxy, docs/how-to/proxy.md")


def _pages(key: str, one: ListenAddress) -> Iterator[Finding]:
    if "*" in one.origins:
        yield Finding("warning", f"{key}.origins", "pages from anywhere may connect", "named pages")
    elif not one.origins and not one.parsed.is_local and not one.hosts:
        what = "no pages are named, so pages from anywhere may connect"
        yield Finding("warning", f"{key}.origins", what, 'origins = ["https://app.example.com"]')
    elif not one.origins and not one.hosts:
        what = "no pages are named, so none can connect but those of this machine, also through a proxy"
        yield Finding("warning", f"{key}.origins", what, 'origins = ["https://app.example.com"], and hosts')
    if one.cookie:
        what = f"the cookie {one.cookie} is a token: scripts and plain HTTP must not get it"
        yield Finding("note", f"{key}.cookie", what, "HttpOnly, Secure and SameSite on it")


def _links(topology: Topology, _: Machine) -> Iterator[Finding]:
    for kind, nodes in _by_kind(topology):
        for i, node in enumerate(nodes):
            if topology.links.keys is not None:
                yield from _keyed(f"{kind}[{i}]", node, topology)
                continue
            if not node.bind.parsed.is_local:
                what = "links between nodes are not encrypted, and who reaches this address may say anything"
                yield Finding("error", f"{kind}[{i}].bind", what, "link keys, [links] and zim link-key make")
            if isinstance(node, Logic) and node.publish is not None and not node.publish.parsed.is_local:
                what = "publishers' API keys and messages go from machine to machine in clear"
                yield Finding("error", f"{kind}[{i}].publish", what, "link keys, [links]; else https:// by a proxy")


def _keyed(key: str, node: Node, topology: Topology) -> Iterator[Finding]:
    """A node whose links are encrypted."""
    if node.name not in topology.links.public:
        what = f"{topology.links.list_file} has no key of {node.name}: no other node lets it in, and it does not start"
        yield Finding("error", key, what, "zim link-key make, or a topology without this node")
    if node.bind.insecure:
        what = "insecure = true has no use here: links are encrypted, by [links]"
        yield Finding("warning", f"{key}.bind", what, f'"{node.bind.address}" without it')


# ---------------------------------------------------------------- what is kept, and where


def _log(topology: Topology, machine: Machine) -> Iterator[Finding]:
    if topology.log is not None:
        yield from (Finding(*one) for one in concerns(topology.log, len(topology.routers), machine.modes))


def _keeping(topology: Topology, _: Machine) -> Iterator[Finding]:
    retention = topology.retention
    rules: list[tuple[str, Rule]] = [
        ("retention.users", retention.users),
        ("retention.rooms", retention.rooms),
        ("retention.everybody", retention.everybody),
        *((f"room_class[{i}]", each.rule) for i, each in enumerate(retention.classes)),
    ]
    for key, rule in rules:
        if rule.count > LONG_COUNT and rule.age_s > LONG_AGE_S:
            what = f"{rule.count:,} messages of each stream stay, for {rule.age_s / DAY_S:.0f} days: hardly an end"
            yield Finding("warning", key, what, "as much as the disk holds, and as long as the law lets you")
    if len(topology.routers) == 1 and topology.log is None:
        what = "one router has the only copy of every stream, and nobody can push while it is away"
        yield Finding("note", "router", what, "backups, docs/how-to/backups.md; several routers")


def _files(topology: Topology, machine: Machine) -> Iterator[Finding]:
    modes = machine.modes
    if (modes.get(topology.path) or 0) & _WRITE:
        what = f"{topology.path} can be changed by everybody on this machine"
        yield Finding("error", "topology", what, f"chmod o-w {topology.path}")
    if topology.data_dir in modes:
        yield from _data(topology.data_dir, modes[topology.data_dir])
    for i, issuer in enumerate(topology.identity.issuers):
        yield from _keys(f"issuer[{i}]", issuer, modes)
    for secret in _certificate_keys(topology):
        yield from _key(secret, _READ | _WRITE, "read", modes, "can then be this server")
    if topology.links.keys is not None:
        yield from _link_keys(topology, modes)


def _certificate_keys(topology: Topology) -> Iterator[Secret]:
    """The private keys of listeners, each once."""
    seen: set[Path] = set()
    everywhere = [*_of_clients(topology), *((key, "", one) for key, one in _of_backends(topology))]
    everywhere += [(key, "", one) for key, one in _of_operators(topology)]
    for key, _, one in everywhere:
        for pair in one.tls:
            file = topology.path.parent / pair.key
            if file not in seen:
                seen.add(file)
                yield Secret(f"{key}.tls.key", file=file)


def _link_keys(topology: Topology, modes: Mapping[Path, int | None]) -> Iterator[Finding]:
    links = topology.links
    for file in (links.keys, links.list_file):
        if file is not None and (modes.get(file) or 0) & _WRITE:
            what = f"{file} can be changed by everybody on this machine, who can then let in any node"
            yield Finding("error", "links.keys", what, f"chmod o-w {file}")
    for node in topology.nodes:
        file = links.secret_file(node.name)
        if (modes.get(file) or 0) & (_READ | _WRITE):
            what = f"{file} can be read by everybody on this machine, who can then be {node.name}"
            yield Finding("error", "links.keys", what, f"chmod 600 {file}")


def _data(folder: Path, mode: int | None) -> Iterator[Finding]:
    right = f"mkdir -m 750 {folder}" if mode is None else f"chmod o-rwx {folder}"
    if mode is None:
        what = f"{folder} is not there yet; as zim makes it, others may read it"
        yield Finding("warning", "fabric.data_dir", what, right)
    elif mode & _WRITE:
        yield Finding("error", "fabric.data_dir", f"{folder} can be changed by everybody on this machine", right)
    elif mode & (_READ | _ENTER):
        what = f"{folder} can be read by everybody on this machine, and has all messages as they are"
        yield Finding("warning", "fabric.data_dir", what, right)


def _keys(key: str, issuer: Issuer, modes: Mapping[Path, int | None]) -> Iterator[Finding]:
    for secret in issuer.secrets:
        yield from _key(secret, _READ | _WRITE, "read", modes)
    for public in (*issuer.public_keys, Secret(f"{key}.ca", file=issuer.ca)):
        yield from _key(public, _WRITE, "changed", modes)


def _key(
    secret: Secret, bad: int, can: str, modes: Mapping[Path, int | None], then: str = "can then sign as any user"
) -> Iterator[Finding]:
    if secret.file is None or secret.file not in modes:
        return
    mode = modes[secret.file]
    if mode is None:
        yield Finding(
            "error", secret.where, f"{secret.file} is not there: nothing starts", "the file; a secret with mode 600"
        )
    elif mode & bad:
        what = f"{secret.file} can be {can} by everybody on this machine, who {then}"
        yield Finding("error", secret.where, what, f"chmod o-rwx {secret.file}")


def _sizes(topology: Topology, machine: Machine) -> Iterator[Finding]:
    for i, comet in enumerate(topology.comets):
        if machine.clients is not None and machine.clients < comet.max_connections:
            what = f"open files are enough for {machine.clients:,} here (ulimit -Hn), and not for all of these"
            right = f"LimitNOFILE={comet.max_connections + 200} for systemd, or fewer connections"
            yield Finding("warning", f"comet[{i}].max_connections", what, right)


# ---------------------------------------------------------------- keys


def _by_kind(topology: Topology) -> Iterator[tuple[str, tuple[Node, ...]]]:
    """Nodes by the key of the file."""
    yield "router", topology.routers
    yield "logic", topology.logics
    yield "job", topology.jobs
    yield "comet", topology.comets


def _at(key: str, listeners: tuple[ListenAddress, ...]) -> Iterator[tuple[str, ListenAddress]]:
    for i, one in enumerate(listeners):
        yield key if len(listeners) == 1 else f"{key}[{i}]", one


def _of_clients(topology: Topology) -> Iterator[tuple[str, str, ListenAddress]]:
    for i, comet in enumerate(topology.comets):
        for kind, listeners in (("tcp", comet.tcp), ("ws", comet.ws)):
            for key, one in _at(f"comet[{i}].{kind}", listeners):
                yield key, kind, one


def _of_backends(topology: Topology) -> Iterator[tuple[str, ListenAddress]]:
    for i, logic in enumerate(topology.logics):
        yield from _at(f"logic[{i}].http", logic.http)


def _of_operators(topology: Topology) -> Iterator[tuple[str, ListenAddress]]:
    yield from _at("fabric.admin", topology.admin)
    for kind, nodes in _by_kind(topology):
        for i, node in enumerate(nodes):
            yield from _at(f"{kind}[{i}].admin", node.admin)
