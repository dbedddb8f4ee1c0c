"""`zim up`: the whole fabric, or what of it runs on this machine."""

from __future__ import annotations

import io
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote

import click
from rich import box
from rich.console import Console
from rich.table import Table

from zim import logs
from zim.cli.where import reachable, topology_argument, topology_file, topology_option
from zim.errors import NodeError
from zim.program import zim_command
from zim.supervisor.admin import Admins
from zim.supervisor.control import ControlSocket, NobodyThere, Order, ask, control_path
from zim.supervisor.here import nodes_here
from zim.supervisor.keeping import RunningNode
from zim.supervisor.open_files import raise_open_files
from zim.supervisor.operating import Operator
from zim.supervisor.ports import unusable
from zim.supervisor.reloading import Reloader
from zim.supervisor.running import Supervisor, node_command
from zim.supervisor.systemd import Manager
from zim.topology import Node, Topology, load, pack

log = logging.getLogger(__name__)

_OTHER_PORTS = """\
until then `zim push`, `zim listen` and the others reach whoever listens there, if they are given this topology
for a second fabric on this machine: {zim} init --offset 10000 FILE writes one with other ports"""

ANSWER_S = 3.0  # of another zim up

# Before an address, without and with TLS.
_SCHEMES = {"http": ("http", "https"), "tcp": ("", "tls"), "ws": ("ws", "wss"), "admin": ("http", "https")}


@click.command()
@topology_argument
@topology_option()
@click.option("--host", metavar="HOST", help="Start the nodes of this host only.")
@click.option("-v", "--verbose", is_flag=True, help="Log details, the nodes' too.")
def up(file: Path | None, topology: Path | None, host: str | None, verbose: bool) -> None:
    """Start every node of a topology, and keep it running.

    Prints what listens where once all are ready. A node that dies is started again. Ctrl-C or SIGTERM stops them all,
    a second Ctrl-C at once.

    \b
    zim up                                  $ZIM_TOPOLOGY, or ./topology.toml
    zim up examples/two-of-each.toml
    zim up --host a cluster.toml            what the file has for host a
    """
    path = topology_file(topology, file)
    fabric = load(path)
    nodes = nodes_here(fabric, host)
    _refuse_second(fabric, host)
    if busy := unusable(nodes, fabric.admin):
        hint = [_OTHER_PORTS.format(zim=zim_command())] if any("in use" in line for line in busy) else []
        raise NodeError("\n".join([*busy, *hint]))
    logs.setup("zim-up", fabric.log_level, is_verbose=verbose)
    shortage = raise_open_files(nodes)
    if shortage and shortage.is_bad:
        shortage.tell()
    manager = Manager(os.environ, os.getpid())
    command = node_command(fabric, *(["-v"] if verbose else []))
    # What `zim listen` finds by itself is the first comet of that file.
    is_found = host is None and fabric.path == topology_file(None).absolute()
    pass_on = logs.writer(logs.STDERR).put

    def on_complete(running: list[RunningNode]) -> None:
        manager.ready()
        _tell(fabric, running, is_found)
        if shortage and not shortage.is_bad:
            shortage.tell()

    supervisor = Supervisor(nodes, command, on_complete, pass_on)
    supervisor.in_force = pack(fabric)
    admins = Admins(supervisor, fabric)

    def follow(changed: Topology, added: list[Node]) -> None:
        if shortage := raise_open_files(added):
            shortage.tell()
        supervisor.in_force = pack(changed)
        logs.set_level(changed.log_level)
        operator.topology = changed

    operator = Operator(fabric, supervisor, host)
    reloader = Reloader(fabric, host, supervisor, admins, follow, manager)
    supervisor.on_hangup, supervisor.on_stop = reloader.on_signal, manager.stopping
    control = _take_orders(control_path(fabric.data_dir, host), {"reload": reloader.on_order, **operator.orders})
    supervisor.spawn(manager.follow, supervisor.missing)
    code = supervisor.run()
    admins.close()
    if control is not None:
        control.close()
    sys.exit(code)


def _refuse_second(fabric: Topology, host: str | None) -> None:
    """Raises: NodeError: another `zim up` runs these nodes."""
    with suppress(NobodyThere):
        said = ask(control_path(fabric.data_dir, host), "status", ANSWER_S)
        pid, path, zim = said.get("pid", "?"), said.get("topology", "another file"), zim_command()
        if path != str(fabric.path):
            raise NodeError(f"{fabric.data_dir} is the data_dir of {path} as well, which zim up runs (pid {pid})")
        raise NodeError(
            f"{fabric.path}: zim up runs it already (pid {pid}): {zim} status shows how it is, and"
            f" {zim} reload lets changes of the file take effect"
        )


def _take_orders(path: Path, orders: Mapping[str, Order]) -> ControlSocket | None:
    """A socket for `zim reload` and others; none where it cannot be made, as on a full disk."""
    try:
        return ControlSocket(path, orders)
    except OSError as e:
        log.warning("no orders can be taken, SIGHUP reloads", extra={"path": str(path), "reason": e.strerror or str(e)})
        return None


def _tell(fabric: Topology, running: list[RunningNode], is_found: bool) -> None:
    """Prints what listens where, and how to try it."""
    table = Table("node", "pid", "listens", box=box.SIMPLE_HEAD)
    for one in running:
        table.add_row(one.node.name, str(one.pid), listening_text(one.listening))
    if fabric.admin:
        table.add_row("zim up", str(os.getpid()), listening_text({"admin": [at.address for at in fabric.admin]}))
    console = Console(highlight=False, markup=False, file=io.StringIO(), width=shutil.get_terminal_size().columns)
    with console.capture() as captured:
        console.print(f"{fabric.name} is up", soft_wrap=True)
        console.print(table)
        for line in how_to_try(running, fabric, is_found):
            console.print(line, soft_wrap=True)
    text = captured.get().encode(sys.stdout.encoding, "replace")
    logs.writer(logs.STDOUT).put(text)  # whoever does not read it holds up nobody


def listening_text(listening: Mapping[str, Sequence[str]]) -> str:
    """One address a line, what is for people first."""
    order: list[str] = [what for what in ("http", "tcp", "ws") if what in listening]
    order += [what for what in listening if what not in order]
    wide = max([4, *map(len, order)])
    return "\n".join(f"{what:<{wide}} {where}" for what in order for where in listening[what])


def how_to_try(running: Iterable[RunningNode], fabric: Topology, is_found: bool) -> list[str]:
    """The lines that let an operator see a message arrive, as far as these nodes have what it takes.

    Args:
        running: the nodes that are ready.
        is_found: `zim listen` finds the comet, and `zim token` the file, without being told.
    """
    first: dict[str, str] = {}
    for one in running:
        for what, listeners in one.node.listeners.items():
            if what in one.listening and not listeners[0].proxy_protocol:  # only a proxy could speak to it
                plain, tls = _SCHEMES[what]
                first.setdefault(what, reachable(listeners[0], fabric.path.parent, plain, tls))
    identity, zim = fabric.identity, zim_command()
    user = "anna" if identity.knows_clients else "7"
    lines = []
    if {"tcp", "ws"} & first.keys() and (who := _who_listens(fabric, is_found)):
        *before, shown = who
        way = " --ws" if "tcp" not in first and is_found else ""
        if not is_found:
            way += f" --address {first['tcp']}" if "tcp" in first else f" --address {first['ws']}"
        lines += [f"  {zim} {command}" for command in (*before, f"listen {shown}{way}")]
    if "http" in first:
        if identity.api_keys or identity.knows_clients:
            way = " --key-file FILE" if identity.api_keys else ""
            way += "" if is_found else f" --http {first['http'].removeprefix('http://')}"
            lines.append(f"  {zim} push{way} user {user} hello")
        else:
            lines.append(f"""  curl -d '{{"test":1}}' '{first["http"]}/1/push?uid={user}'""")
    return [*(["Try it:", *lines] if lines else []), "Ctrl-C stops it."]


def _who_listens(fabric: Topology, is_found: bool) -> list[str]:
    """What makes a token, if zim can, and how `zim listen` shows one; nothing if nobody has any."""
    identity = fabric.identity
    if not identity.knows_clients:
        return ["--uid 7"]
    if not identity.knows_tokens:
        return []
    issuer = next((one for one in identity.issuers if one.secrets), None)
    if issuer is None:
        return ["--token-file FILE"]
    options = f" --issuer {quote(issuer.issuer)}" if len(identity.issuers) > 1 else ""
    options += "" if is_found else f" --topology {quote(str(fabric.path))}"
    return [f"token make anna{options} > anna.token", "--token-file anna.token"]
