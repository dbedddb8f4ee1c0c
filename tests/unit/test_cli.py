"""The command line as far as it needs no fabric: what it prints, its exit codes, what it imports."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner

from zim import __version__
from zim.cli import main
from zim.cli.drawing import draw
from zim.cli.machine import look_at_machine
from zim.cli.up import how_to_try, listening_text
from zim.program import zim_command
from zim.supervisor.keeping import RunningNode
from zim.supervisor.running import node_command
from zim.topology import Topology, load, parse

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "topology.toml"
TWO_OF_EACH = ROOT / "examples" / "two-of-each.toml"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("init", "up", "check", "node", "push", "listen", "who", "ledger", "api-key", "token", "explain"),
        *("backup", "restored", "completion"),
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    exit_code, out, _ = run(command, "--help")
    assert exit_code == 0
    assert f"  zim {command}" in out
    assert f"  {command} " in run("--help")[1]


def test_version() -> None:
    assert run("--version") == (0, f"zim, version {__version__}\n", "")


def test_check_draws() -> None:
    exit_code, out, err = run("check", str(TWO_OF_EACH))
    assert (exit_code, err) == (0, "")
    assert out.startswith("OK: ")
    assert "comet-3  tcp   127.0.0.1:8082" in out


ISSUER = """
[[issuer]]
issuer = "https://app.example.com"
audience = "zim"
algorithms = ["HS256"]
secret_file = "jwt"
"""


def test_check_notes_keys_that_cannot_be_used_here(tmp_path: Path) -> None:
    file, secret = tmp_path / "topology.toml", tmp_path / "jwt"
    file.write_text(DEFAULT.read_text() + ISSUER)
    for content, words in ((None, "cannot be read"), ("", "is empty"), ("short", "5 bytes long"), ("s" * 48, "")):
        if content is not None:
            secret.write_text(content)
        exit_code, out, err = run("check", str(file))
        assert (exit_code, err) == (0, "")
        assert ("note issuer[0].secret_file: " in " ".join(out.split())) == bool(words)
        assert words in " ".join(out.split())


def test_an_api_key_is_looked_for_in_the_file_alone(tmp_path: Path) -> None:
    file, key, other = tmp_path / "topology.toml", tmp_path / "key", tmp_path / "other"
    key.write_text("zim_" + "k" * 43)
    other.write_text("zim_" + "o" * 43)
    digest = sha256(key.read_bytes()).hexdigest()
    file.write_text(DEFAULT.read_text() + f'\n[[api_key]]\nid = "app"\nsha256 = "{digest}"\nscopes = ["push"]\n')
    exit_code, out, _ = run("api-key", "check", str(file), "--key-file", str(key))
    assert (exit_code, out.splitlines()[0]) == (0, f"by {file}, it is app's, and may")
    exit_code, _, err = run("api-key", "check", str(file), "--key-file", str(other))
    assert (exit_code, err) == (1, f"zim api-key: by {file}, the API key is not known\n")


def test_check_says_that_there_is_a_single_copy(tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    for single_copy in ("true", "false"):
        place = f'\n[log]\nurl = "postgresql://db/zim"\nsingle_copy = {single_copy}\n'
        file.write_text((ROOT / "topology.toml").read_text() + place)
        said = CliRunner().invoke(main, ["check", str(file)])
        assert said.exit_code == 0, said.output
        assert ("SINGLE COPY" in said.output) == (single_copy == "true")


def test_check_production(tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    file.write_text(DEFAULT.read_text())
    exit_code, out, err = run("check", "--production", str(file))
    assert (exit_code, err) == (1, "")
    assert out.startswith(f"{file} describes 4 nodes.\n\nerror    issuer\n         there is none")
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 80
    assert "\nwarning  fabric.data_dir\n" in out
    (tmp_path / "var").mkdir(mode=0o700)
    assert "fabric.data_dir" not in run("check", "--production", str(file))[1]


def test_modes_of_files_are_those_that_others_can_use(tmp_path: Path) -> None:
    """Below a folder that is closed to them they can use nothing. pytest makes such a folder."""
    open_folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        open_folder.chmod(0o755)
        (open_folder / "closed").mkdir(mode=0o700)
        for folder in (open_folder, open_folder / "closed"):
            file = folder / "topology.toml"
            file.write_text(DEFAULT.read_text())
            file.chmod(0o666)
        modes = look_at_machine(load(open_folder / "topology.toml")).modes
        assert modes == {open_folder / "topology.toml": 0o666, open_folder / "var": None}
        modes = look_at_machine(load(open_folder / "closed" / "topology.toml")).modes
        assert modes[open_folder / "closed" / "topology.toml"] == 0o660
    finally:
        shutil.rmtree(open_folder)


def test_check_lists_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "topology.toml"
    file.write_text(DEFAULT.read_text().replace("id = 1", "id = 0", 2))
    exit_code, out, err = run("check", str(file))
    assert (exit_code, out) == (1, "")
    assert [line.split(":")[1] for line in err.splitlines()] == [" router[0].id", " logic[0].id"]


@pytest.mark.parametrize("command", ["up", "check"])
def test_missing_file(command: str, tmp_path: Path) -> None:
    exit_code, out, err = run(command, str(tmp_path / "none.toml"))
    assert (exit_code, out) == (1, "")
    assert "there is no such file" in err
    assert len(err.splitlines()) == 1


def test_a_node_that_is_not_there() -> None:
    exit_code, _, err = run("node", "comet-9", "--topology", str(DEFAULT))
    assert exit_code == 2
    assert "has no node comet-9; there are router-1, job-1, logic-1, comet-1" in err


def test_a_host_that_is_not_there() -> None:
    exit_code, _, err = run("up", str(DEFAULT), "--host", "a")
    assert exit_code == 1
    assert "it names no hosts" in err


def check_picture(topology: Topology) -> str:
    picture = draw(topology)
    assert max(map(len, picture.splitlines())) <= 80
    boxes = [line for line in picture.splitlines() if line.startswith("│")]
    assert len({line.rindex("│") for line in boxes}) == 1
    return picture


def test_picture_of_one_of_each() -> None:
    picture = check_picture(load(DEFAULT))
    for address in ("127.0.0.1:7172", "127.0.0.1:8080", "127.0.0.1:8090", "127.0.0.1:7270"):
        assert address in picture
    assert "Each arrow" not in picture


def test_picture_of_three_of_each_with_any_addresses() -> None:
    """Each kind of address once at its widest; then all of them, which makes names stand above addresses."""
    lines = ['[fabric]\nname = "x"\ndata_dir = "var"']
    for n, (kind, keys) in enumerate(
        (
            ("router", ("admin",)),
            ("logic", ("http", "admin")),
            ("job", ("admin",)),
            ("comet", ("tcp", "ws", "admin")),
        )
    ):
        for i in (1, 2, 3):
            ports = iter(range(60_000 + n * 1000 + i * 10, 65_536))
            lines.append(f'[[{kind}]]\nid = {i}\nbind = "tcp://127.0.0.1:{next(ports)}"')
            lines += [f'{key} = "127.0.0.1:{next(ports)}"' for key in keys]
    beside = "\n".join(lines)
    assert "comet-3  tcp   127.0.0.1:63031" in check_picture(parse(beside, DEFAULT))
    above = re.sub(
        r'"((?:tcp://)?)127\.0\.0\.1(:\d+)"', r'{address = "\g<1>192.168.100.100\2", insecure = true}', beside
    )
    picture = check_picture(parse(above, DEFAULT))
    assert "│ comet-3                         │" in picture
    assert "│   admin 192.168.100.100:63033 ! │" in picture
    hosts = re.sub(r"id = (\d)\n", r'id = 111111111\1\nhost = "frankfurt-\1"\n', above)
    assert "│ comet-1111111113 @fr…urt-3      │" in check_picture(parse(hosts, DEFAULT))


def test_picture_with_long_names_hosts_and_open_listeners() -> None:
    text = DEFAULT.read_text()
    text = text.replace("id = 1\n", 'id = 1\nhost = "rack-4711-in-frankfurt"\n')
    text = text.replace('"127.0.0.1:8080"', f'{{ address = "{"x" * 60}.example:8080", insecure = true }}')
    text = text.replace('"tcp://127.0.0.1:7470"', f'"ipc:///run/{"y" * 80}"')
    picture = check_picture(parse(text, DEFAULT))
    assert "x.example:8080 !" in picture
    assert "insecure = true" in " ".join(picture.split())


def test_picture_says_insecure_where_the_file_does() -> None:
    """Not where an issuer lets a listener be beyond loopback."""
    issuer = '[[issuer]]\nissuer = "a"\naudience = "zim"\nalgorithms = ["HS256"]\nsecret_env = "A"\n'
    text = DEFAULT.read_text().replace('"127.0.0.1:8080"', '"0.0.0.0:8080"')
    picture = check_picture(parse(issuer + text, DEFAULT))
    assert "0.0.0.0:8080" in picture
    assert "insecure" not in picture
    assert " !" not in picture


def test_picture_tells_who_is_out_of_reach() -> None:
    text = DEFAULT.read_text().replace("id = 1\n", 'id = 1\nhost = "a"\n', 3).replace("id = 1\n\nhost", "id = 1")
    head, _, comet = text.rpartition("id = 1\n")
    picture = check_picture(parse(f'{head}id = 1\nhost = "b"\n{comet}', DEFAULT))
    assert "Note: comet-1 is at tcp://127.0.0.1:8092, out of reach from a." in " ".join(picture.split())


def test_picture_and_list_have_every_listener() -> None:
    text = DEFAULT.read_text()
    several = 'ws = ["127.0.0.1:8090", { address = "0.0.0.0:8099", insecure = true, ws_frames = "object" }]'
    picture = check_picture(parse(text.replace('ws = "127.0.0.1:8090"', several), DEFAULT))
    assert "ws    127.0.0.1:8090" in picture
    assert "ws    0.0.0.0:8099 !" in picture
    listening = {"bind": ["tcp://127.0.0.1:1"], "ws": ["127.0.0.1:8090", "0.0.0.0:8099"]}
    assert listening_text(listening) == "ws   127.0.0.1:8090\nws   0.0.0.0:8099\nbind tcp://127.0.0.1:1"


def ready(topology: Topology) -> tuple[RunningNode, RunningNode]:
    """Its comet and its logic."""
    comet = RunningNode(topology.comets[0], 1, {"tcp": ["0.0.0.0:8081"], "ws": ["127.0.0.1:8090"]})
    return comet, RunningNode(topology.logics[0], 2, {"http": ["[::]:80"]})


def elsewhere(tls: str = "") -> str:
    """The default topology with other addresses. tls: of those that are other ones."""
    text = DEFAULT.read_text()
    text = text.replace('"127.0.0.1:8080"', f'{{ address = "0.0.0.0:8081", insecure = true{tls} }}')
    return text.replace('"127.0.0.1:7172"', f'{{ address = "[::]:80", insecure = true{tls} }}')


def test_how_to_try() -> None:
    topology = parse(elsewhere(), DEFAULT)
    comet, logic = ready(topology)
    assert how_to_try([comet, logic], topology, is_found=False) == [
        "Try it:",
        f"  {zim_command()} listen --uid 7 --address 127.0.0.1:8081",
        """  curl -d '{"test":1}' 'http://[::1]:80/1/push?uid=7'""",
        "Ctrl-C stops it.",
    ]
    assert how_to_try([comet], topology, is_found=True)[1] == f"  {zim_command()} listen --uid 7"
    ws = RunningNode(topology.comets[0], 1, {"ws": ["127.0.0.1:8090"]})
    found = how_to_try([ws], topology, is_found=False)
    assert found[1] == f"  {zim_command()} listen --uid 7 --address ws://127.0.0.1:8090"
    assert how_to_try([], topology, is_found=True) == ["Ctrl-C stops it."]


def test_how_to_try_with_tls() -> None:
    tls = ', tls = { certificate = "c.pem", key = "k.pem" }'
    topology = parse(elsewhere(tls), DEFAULT)
    found = how_to_try(ready(topology), topology, is_found=False)
    assert found[1] == f"  {zim_command()} listen --uid 7 --address tls://127.0.0.1:8081"
    assert found[2] == """  curl -d '{"test":1}' 'https://[::1]:80/1/push?uid=7'"""


HS = '[[issuer]]\nissuer = "https://a.example.com"\naudience = "zim"\nalgorithms = ["HS256"]\nsecret_env = "A"\n'
EDDSA = '[[issuer]]\nissuer = "b"\naudience = "zim"\nalgorithms = ["EdDSA"]\npublic_key_file = "b.pem"\n'
CALLOUT = '[callout]\nconnect = "https://app.example.com"\n'
API_KEY = f'[[api_key]]\nid = "app"\nsha256 = "{"0" * 64}"\nscopes = ["push"]\n'
MAKE, SHOW = "token make anna > anna.token", "listen --token-file anna.token"


@pytest.mark.parametrize(
    ("tables", "lines"),
    [
        (HS, [MAKE, SHOW, "push user anna hello"]),
        (HS + API_KEY, [MAKE, SHOW, "push --key-file FILE user anna hello"]),
        (EDDSA + HS, ["token make anna --issuer https://a.example.com > anna.token", SHOW, "push user anna hello"]),
        (EDDSA, ["listen --token-file FILE", "push user anna hello"]),
        (CALLOUT, ["listen --token-file FILE", "push user anna hello"]),
        (API_KEY, ["listen --uid 7", "push --key-file FILE user 7 hello"]),
        ("[anonymous]\n", ["push user anna hello"]),
    ],
)
def test_how_to_try_where_not_everybody_is_believed(tables: str, lines: list[str]) -> None:
    topology = parse(tables + DEFAULT.read_text(), DEFAULT)
    found = how_to_try(ready(topology), topology, is_found=True)
    assert found == ["Try it:", *(f"  {zim_command()} {line}" for line in lines), "Ctrl-C stops it."]


def test_how_to_try_elsewhere() -> None:
    topology = parse(HS + API_KEY + elsewhere(), Path("/srv/my fabric.toml"))
    assert [line.strip().partition(" ")[2] for line in how_to_try(ready(topology), topology, is_found=False)[1:-1]] == [
        "token make anna --topology '/srv/my fabric.toml' > anna.token",
        "listen --token-file anna.token --address 127.0.0.1:8081",
        "push --key-file FILE --http [::1]:80 user anna hello",
    ]


def test_node_command_is_one_that_the_cli_takes() -> None:
    topology = load(DEFAULT)
    command = node_command(topology, "-v")(topology.comets[0], 5)
    assert command[:4] == [sys.executable, "-m", "zim", "node"]
    assert command[4:] == ["comet-1", "--topology", str(DEFAULT), "--in-force", "--lifeline", "5", "-v"]
