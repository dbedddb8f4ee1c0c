"""What the README and the docs claim, as far as a machine can tell."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import re
import runpy
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

from tests.simulation.plans import PROFILES
from tests.simulation.rules import RULES
from tests.unit.nodes.router.log.sqlite_support import opened
from tests.wires import ZIM_TEXT
from zim import json_text
from zim.cli import main
from zim.cli.template import render as template_of_production
from zim.errors import NodeError
from zim.fabric import limits
from zim.fabric.ceilings import Ceilings
from zim.fabric.principals import SCOPES
from zim.fabric.push import PUSH_OP, TEST_OPS
from zim.fabric.retention import Retention, Rule
from zim.net import handshakes, http1, proxy
from zim.nodes.comet.doorkeeper import Doorkeeper
from zim.nodes.comet.edge import ANSWER_S
from zim.nodes.comet.gate import PER_SESSION
from zim.nodes.comet.history import ANSWER_BYTES
from zim.nodes.comet.inflow import Inflow
from zim.nodes.logic.fabric import HISTORY_BYTES
from zim.nodes.logic.logging_in import LoginLimit
from zim.nodes.logic.quotas import Quotas
from zim.nodes.router.log import Log
from zim.nodes.router.stream_limit import StreamLimit
from zim.protocol import frame
from zim.protocol.endings import Ending
from zim.protocol.frame import Op, Packet
from zim.protocol.framings.text import parse_text
from zim.protocol.pushes import Content, Encoded
from zim.protocol.vocabularies import zim as zim_words
from zim.protocol.vocabularies.base import Missed
from zim.protocol.vocabularies.zim import ZIM
from zim.topology import Comet, Job, ListenAddress, Logic, LogPlace, Node, Router, Topology, parse
from zim.topology.identity import Callout, Issuer
from zim.web import batch, reading, server

ROOT = Path(__file__).parents[2]
TOP = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"]
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    """A page of the docs."""
    return (ROOT / "docs" / f"{name}.md").read_text()


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language: page and text."""
    return [
        (page.name, text)
        for page in PAGES
        for text in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for path in re.findall(r"`((?:zim|tests|docs|examples|benchmarks|ops)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_words_that_have_another_name_are_not_used(page: Path) -> None:
    assert not re.findall(r"dialect|gatherer", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_lead_to_one(page: Path) -> None:
    for path, anchor in re.findall(r"\]\(([^)#]*)#([^)]+)\)", page.read_text()):
        target = (page.parent / path).read_text() if path else page.read_text()
        headings = re.findall(r"^#+ (.*)", target, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings], anchor


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_examples_compile(page: str, text: str) -> None:
    compile(text, page, "exec")


def commands() -> list[str]:
    """Every zim command line of the pages' shell blocks."""
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    return [line for line in lines if line.startswith((".venv/bin/zim ", "zim "))]


def mentions() -> list[str]:
    """Every zim command that running text speaks of, perhaps without what it takes."""
    spans = [span for page in PAGES for span in re.findall(r"`(zim [^`\n]+)`", page.read_text())]
    return sorted(set(spans))


def find(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words call, and its arguments."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(main), words[0])
        assert found is not None, f"no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with keys that they name are there."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(re.split(r"\s\d?>", line)[0], comments=True)
    for option, file in pairwise(words):
        if option.endswith("-file"):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).write_text("zim_key")
    command, arguments = find(words[1:])
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("mention", mentions())
def test_options_that_are_mentioned_exist(mention: str) -> None:
    command, arguments = find(mention.split()[1:])
    known = {"--help"} | {option for parameter in command.params for option in parameter.opts}
    assert {a for a in arguments if a.startswith("-")} <= known


def programs() -> list[str]:
    """Every command line of the pages' shell blocks that runs a module."""
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    return [line for line in lines if line.startswith(".venv/bin/python -m ")]


@pytest.mark.parametrize("line", programs())
def test_programs_exist_and_have_these_options(line: str) -> None:
    module, *arguments = shlex.split(line, comments=True)[2:]
    if module == "pytest":
        for argument in arguments:
            path, _, name = argument.partition("::")
            if path.startswith("tests"):
                assert (ROOT / path).exists(), path
                assert not name or f"def {name}(" in (ROOT / path).read_text(), name
        return
    spec = importlib.util.find_spec(module)
    assert spec is not None
    if spec.submodule_search_locations:
        spec = importlib.util.find_spec(f"{module}.__main__")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text()
    for option in (a for a in arguments if a.startswith("--")):
        assert f'"{option}"' in text, option


def test_names_in_contributing_are_in_the_code() -> None:
    names = set(re.findall(r"`(_?[A-Za-z]\w+)`", (ROOT / "CONTRIBUTING.md").read_text())) - {"make"}
    code = "\n".join(path.read_text() for folder in ("zim", "tests") for path in (ROOT / folder).rglob("*.py"))
    assert names <= set(re.findall(r"\w+", code))


def test_a_key_is_of_one_push_on_all_pages() -> None:
    """Whoever follows them in order gets no 422."""
    keys: dict[str, set[str]] = {}
    for name, text in blocks("sh"):
        for line in text.replace("\\\n", "").splitlines():
            for key in re.findall(r'"id":"([^"…]+)"|Idempotency-Key: ([^\s\'"]+)|--id (\S+)', line):
                keys.setdefault("".join(key), set()).add(name)
    assert len(keys) > 2
    assert all(len(names) == 1 for names in keys.values()), keys


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for _, text in blocks("sh"):
        for target in re.findall(r"^make (\w+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_key_of_the_topology_is_documented() -> None:
    text = (ROOT / "docs" / "topology.md").read_text()
    kinds = (Router, Logic, Job, Comet)
    of_fabric = {"name", "data_dir", "max_body_bytes", "idempotency_s", "receipts_s"}
    of_streams = {f.name for f in dataclasses.fields(Retention)} - {"classes"} | {"count", "age_s"}
    for key in {f.name for kind in kinds for f in dataclasses.fields(kind)} | of_fabric | of_streams:
        assert f"`{key}`" in text, key


def test_documented_defaults_of_the_fabric_are_true() -> None:
    text, _, _ = (ROOT / "docs" / "topology.md").read_text().partition("## Who may come in")
    defaults = {f.name: f.default for f in dataclasses.fields(Topology)}
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.MULTILINE)
    assert [key for key, _ in rows] == ["max_body_bytes", "idempotency_s", "receipts_s", "shards"]
    defaults["shards"] = LogPlace.shards
    for key, default in rows:
        assert defaults[key] == int(default), key
    for key, count, days in re.findall(r"^\| `(\w+)` \| (\d+), (\d+) days? \|", text, re.MULTILINE):
        assert getattr(Retention(), key) == Rule(int(count), int(days) * 86_400.0), key


@pytest.mark.parametrize("kind", [Router, Logic, Job, Comet])
def test_documented_defaults_are_true(kind: type[Node]) -> None:
    rows = re.findall(
        rf"^\| {kind.kind} \| (.*?) \| (.*?) \|", (ROOT / "docs" / "topology.md").read_text(), re.MULTILINE
    )
    fields = {f.name: f.default for f in dataclasses.fields(kind)}
    for keys, defaults in rows:
        for key, default in zip(re.findall(r"`(\w+)`", keys), defaults.split(", "), strict=False):
            if default in ("required", "at least one"):
                continue
            if default == "–":
                assert not fields[key], key
                continue
            number, _, unit = default.strip('`"').partition(" ")
            want = fields[key]
            assert want == number or want == float(number) * {"": 1, "MiB": 1 << 20}[unit], key


def test_documented_defaults_of_who_may_come_in_are_true() -> None:
    _, _, text = (ROOT / "docs" / "topology.md").read_text().partition("## Who may come in")
    for kind, keys in ((Issuer, ["leeway_s"]), (Callout, ["timeout_s", "max_requests"])):
        defaults = {f.name: f.default for f in dataclasses.fields(kind)}
        for key in keys:
            (said,) = re.findall(rf"^\| `{key}` \| (\d+) \|", text, re.MULTILINE)
            assert defaults[key] == int(said), key
    for scope in SCOPES:
        assert f"`{scope}`" in text


def test_every_limit_is_on_all_pages_that_have_a_table_of_them() -> None:
    refused = {*Doorkeeper().refusals.by_limit, *Inflow().refusals.by_limit, PER_SESSION}
    refused |= {*Quotas().refusals.by_limit, *LoginLimit().refusals.by_limit, *StreamLimit().refusals.by_limit}
    names = {f.name for f in dataclasses.fields(Ceilings)}
    assert refused == names | {"max_memory_bytes"}
    for name in ("topology", "limits", "operations"):
        rows = "\n".join(line for line in page(name).splitlines() if line.startswith("|"))
        assert [limit for limit in refused if f"`{limit}`" not in rows] == [], name
    template = template_of_production(is_production=True)
    assert [limit for limit in names if not re.search(rf"^#?{limit} = ", template, re.MULTILINE)] == []


def test_the_example_of_a_topology_says_what_it_does() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", page("topology"), re.DOTALL)
    t = parse(text, Path("/etc/zim/topology.toml"))
    rule = t.retention.rule
    assert (rule("u:7").age_s, rule("r:chat"), rule("*")) == (30 * 86_400, Retention().rooms, Retention().everybody)
    assert rule("r:ticker-1") == Rule(1, Retention().rooms.age_s)
    assert rule("r:7-cursors").is_live_only
    assert t.idempotency_s == 3 * 86_400
    assert t.routers[0].admin == (ListenAddress("127.0.0.1:7271"),)
    assert t.comets[0].slow_consumer == "drop"


# ---------------------------------------------------------------- architecture

ORDINALS = ["First", "Second", "Third", "Fourth", "Fifth", "Last"]


def test_numbers_are_those_of_the_code() -> None:
    row = r"^\| `(zim\.[\w.]+)\.([A-Z_]+)` \| ([\d.]+)(?: (\w+))? \|"
    rows = re.findall(row, page("architecture"), re.MULTILINE)
    assert len(rows) > 20
    for module, name, number, unit in rows:
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        value = runpy.run_path(spec.origin)[name]  # the module's own: the simulator makes some shorter
        assert value == float(number) * {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit], name


def test_the_interface_of_the_log_is_whole() -> None:
    section = page("architecture").partition("## The log")[2].partition("\n## ")[0]
    for name in (n for n in vars(Log) if not n.startswith("_")):
        assert re.search(rf"^\| .*`{name}[(`].* \|", section, re.MULTILINE), name


def test_the_simulator_is_as_it_says() -> None:
    text = " ".join(page("architecture").split())
    assert re.findall(r"`(\w+)`", text.partition("profiles: ")[2].partition(". A seed")[0]) == list(PROFILES)
    assert f" {len(RULES)} rules of the design" in text


def test_runners_and_drivers_are_where_the_table_says() -> None:
    rows = re.findall(r"^\| (\w+) \| `(zim/nodes/\w+)/runner\.py` \|(.*)\|$", page("architecture"), re.MULTILINE)
    assert {kind for kind, _, _ in rows} == {"comet", "logic", "router", "job"}
    for _, folder, rest in rows:
        for name in re.findall(r"`([\w/]+\.py)`", rest):
            assert (ROOT / name).exists() or (ROOT / folder / name).exists(), name


def test_each_stop_of_a_push_says_that_it_is_one() -> None:
    section = page("architecture").partition("## The path of a push")[2].partition("\n## ")[0]
    stops = re.findall(r"^\d\. (`[^:]*`):", section, re.MULTILINE)
    assert len(stops) == len(ORDINALS)
    at = {
        path: ordinal for ordinal, paths in zip(ORDINALS, stops, strict=True) for path in re.findall(r"`(.*?)`", paths)
    }
    for path in (ROOT / "zim").rglob("*.py"):
        docstring = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        said = re.findall(r"(\w+) stop of a push", docstring)
        assert said == [at[name]] if (name := str(path.relative_to(ROOT))) in at else not said, path


# ---------------------------------------------------------------- glossary

WORDS = """
    acknowledge, beat, change, connection, cursor, delivered, directory, drain, driver, effect, entry, epoch, feed,
    framing, gap, head, idempotency key, incarnation, lease, ledger, live only, locate, node, offset, outbox, owner,
    pass, position, push, receipt, resume, room, runner, session, session key, shard, slow consumer, start, stream,
    term, user, vocabulary
"""


def test_the_glossary_explains_each_word_once_and_shortly() -> None:
    rows = re.findall(r"^\| (?!word |-)(.+?) \| (.+) \|$", page("glossary"), re.MULTILINE)
    words = [word for words, _ in rows for word in words.split(", ")]
    assert len(words) == len(set(words))
    assert set(re.findall(r"[a-z]+(?: [a-z]+)*", WORDS)) <= set(words)
    for words, meaning in rows:
        assert 1 <= len(re.findall(r"[.!?](?: |$)", meaning)) <= 3, words


# ---------------------------------------------------------------- the client's wire


def sessions() -> tuple[list[str], list[str]]:
    """The lines of the two example sessions, each whole."""
    pages = [text for name, text in blocks("text") if name == "client-protocol.md"]
    joined = [re.sub(r"\n    ", "", text).splitlines() for text in pages]
    assert len(joined) == 2
    return joined[0], joined[1]


def test_the_session_on_tcp_is_right_to_the_byte() -> None:
    packets = []
    for line in sessions()[0]:
        found = re.fullmatch(r"([CS])((?: [0-9a-f]{4,16})+) ?(.*)", line)
        assert found, line
        who, numbers, rest = found.groups()
        head = bytes.fromhex(numbers)
        if len(head) > frame.HEADER_BYTES:
            rest = rest.replace(" ", "", 1)  # behind the stream's name
        data = head + rest.encode()
        parsed = frame.parse(data, 0, 65_536, extended=who == "S")
        assert parsed is not None, line
        packet, end = parsed
        assert (end, frame.encode(packet)) == (len(data), data), line
        packets.append((who, packet))
    check_session(packets)


def test_the_session_on_websocket_is_right() -> None:
    packets = []
    for line in sessions()[1]:
        who, text = line[0], line[2:]
        for item in [json.loads(text)] if who == "C" else json.loads(text):
            stream, offset = item.get("stream", ""), item.get("offset", 0)
            body = json.dumps(item.get("body", {}), separators=(",", ":")).encode()
            packet = Packet(item["op"], item["seq"], item["ver"], body, stream, offset)
            packets.append((who, packet))
            if who == "C":
                assert parse_text(text.encode()).op == packet.op
            elif stream:
                pushed = Encoded(Content(packet.op, body), stream, offset)
                assert pushed.part(ZIM_TEXT).decode() in text
            else:
                assert text.encode() in ZIM_TEXT.framing.encode(packet)
    check_session(packets)


def check_session(packets: list[tuple[str, Packet]]) -> None:
    """What each says is what the server takes, and what it would say."""
    asked: dict[int, int] = {}
    parsers = {
        Op.AUTH: ZIM.parse_login,
        Op.JOIN: zim_words.parse_join,
        Op.LEAVE: zim_words.parse_leave,
        Op.ACKNOWLEDGE: zim_words.parse_cursors,
    }
    for who, packet in packets:
        assert packet.version == frame.VERSION
        if who == "C":
            asked[packet.seq] = packet.op
            if packet.op in parsers:
                parsers[packet.op](packet.body)
            continue
        body = json.loads(packet.body or b"{}")
        if packet.stream or packet.op in (Op.GAP, Op.DISCONNECT):
            assert packet.seq == 0
        else:
            assert asked[packet.seq] == packet.op - 1
        for start in body.get("streams", {}).values() if packet.op in (Op.AUTH_REPLY, Op.JOINED) else ():
            assert set(start) in ({"epoch", "offset", "recovered"}, {"error"})
        if packet.op == Op.GAP:
            gap = Missed(body["stream"], body["epoch"], body["from"], body["to"], body["reason"])
            assert ZIM.encode_missed(gap).body == packet.body
        if packet.op == Op.DISCONNECT:
            (ending,) = [one for one in Ending if one.word == body["reason"]]
            assert ZIM.encode_farewell(body["reason"], ending).body == packet.body


def test_zims_own_protocol_is_as_it_says() -> None:
    text = page("client-protocol").partition("## zim's own protocol")[2]
    assert text
    for words in (zim_words.NOT_ALLOWED, zim_words.RETRYING, zim_words.JOINED_ALREADY):
        assert f'`{{"error":"{words}"}}`' in text
    first_cells = re.findall(r"^\| ([\d /]+?)(?:, or 100 and up)? \|", text, re.MULTILINE)
    ops = {int(op) for cell in first_cells for op in cell.split(" / ")}
    assert ops >= {value for name, value in vars(Op).items() if not name.startswith("_")}
    assert f"{limits.ROOMS:,} rooms" in text
    assert f"1 to {limits.NAME_BYTES} bytes" in text
    assert f"at most {ANSWER_S:.0f} s" in " ".join(text.split())


# ---------------------------------------------------------------- operations


LOGGERS = {"debug", "info", "warning", "error", "critical", "exception"}  # log.info("event", …)
NOTES = {"Note", "note"}  # a runner's: Note(LEVEL, "event", …), self.note(LEVEL, "event", …)


def name_of(function: ast.expr) -> str:
    """What is called: `warning` of `log.warning`, `Note` of `Note`."""
    return ast.unparse(function).rpartition(".")[2]


def events_in(code: str) -> set[str]:
    """The constant events that a module logs, or has its driver log."""
    found: set[str] = set()
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        name, args = name_of(call.func), call.args
        if name == "spawn" and args:  # gevent.spawn(log.error, "event", …)
            name, args = name_of(args[0]), args[1:]
        event = args[:1] if name in LOGGERS else args[1:2] if name in NOTES else []
        found |= {e.value.partition("\n")[0] for e in event if isinstance(e, ast.Constant) and isinstance(e.value, str)}
    return found


def test_events_that_are_explained_are_logged() -> None:
    logged = set[str]().union(*(events_in(path.read_text()) for path in (ROOT / "zim").rglob("*.py")))
    section = page("operations").partition("## Logs")[2].partition("\n## ")[0]
    rows: list[str] = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert len(rows) > 10
    for event in (event for row in rows for event in re.findall(r"`([^`]+)`", row)):
        assert event in logged, event


def test_an_event_is_only_what_is_logged() -> None:
    code = """
log.warning("by a driver", extra={})
gevent.spawn(log.error, "from another greenlet")
out.append(Note(INFO, "by a runner", {}))
self.note(WARNING, "by a shard", comet=comet)
unavailable("of an error")
log.info(text)
"""
    assert events_in(code) == {"by a driver", "from another greenlet", "by a runner", "by a shard"}


LIMITS = {
    "a user's or room's name": [limits.NAME_BYTES],
    "an idempotency key": [limits.KEY_BYTES],
    "body of a push": [Topology.max_body_bytes],
    "`ttl_s`": [limits.TTL_S / 86_400],
    "`wait_s`": [limits.WAIT_S],
    "`op`": [PUSH_OP, 100, (1 << 31) - 1, *TEST_OPS],
    "JSON": [json_text.MAX_DEPTH],
    "an offset": [limits.OFFSET],
    "request line and headers, at logics, comets and `admin`": [http1.MAX_HEAD_BYTES],
    "headers": [http1.MAX_HEADERS],
    "query parameters": [reading.MAX_PARAMETERS],
    "recipients of a push, and of a batch": [limits.RECIPIENTS],
    "sessions of one user that a push names": [limits.SESSIONS],
    "a batch": [batch.MAX_LINES, batch.MAX_BATCH_BYTES],
    "time to send a request": [Logic.http_timeout_s],
    "time between two requests on a connection": [Logic.http_idle_s],
    "bodies that a logic holds at once": [http1.MAX_BODIES_BYTES, http1.SMALL_BODY_BYTES],
    "answers that nobody reads": [server.MAX_ANSWERS_BYTES, server.OTHER_ANSWERS_BYTES],
    "connections of a logic": [server.MAX_CONNECTIONS],
    "messages of a piece of history": [limits.MESSAGES, HISTORY_BYTES >> 20],
    "rooms of `GET /api/rooms`": [limits.LARGEST],
    "connections of a comet": [Comet.max_connections],
    "a packet or message from a client": [Comet.max_packet_bytes],
    "time from the connection to the auth reply": [Comet.handshake_timeout_s],
    "TLS handshakes, and introductions by a proxy, under way at one listener": [handshakes.UNDER_WAY],
    "a header of the PROXY protocol": [proxy.MAX_HEADER_BYTES],
    "silence": [Comet.heartbeat_s],
    "what waits for one client": [Comet.outbox_bytes >> 20],
    "messages, and bytes of bodies, in one answer about history": [limits.MESSAGES, ANSWER_BYTES >> 10],
    "rooms of a session, streams of a `resume`": [limits.ROOMS],
}


def test_limits_are_those_of_the_code() -> None:
    told = {}
    for line in page("limits").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and re.search(r"\d", cells[1]):
            told[cells[0]] = [int(number.replace(",", "")) for number in re.findall(r"(?<!-)\b[\d,]*\d", cells[1])]
    assert told == LIMITS


def test_what_a_router_says_is_quoted_right(tmp_path: Path) -> None:
    quoted = [" ".join(text.split()) for name, text in blocks("text") if name == "operations.md"]
    opened(tmp_path, routers=["router-1"]).close()
    said = []
    for routers, content in ((("router-1", "router-2"), None), (("router-1",), b"x" * 4096)):
        if content is not None:
            (tmp_path / "log.db").write_bytes(content)
        with pytest.raises(NodeError) as error:
            opened(tmp_path, routers=routers)
        said.append("router-1: " + str(error.value).replace(str(tmp_path), "…"))
    assert sorted(quoted) == sorted(said)
