"""Every example does what its first lines say, against a real fabric, and ends when it should."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gevent import socket
from prometheus_client.parser import text_string_to_metric_families

from tests.harness import Fabric, free_ports, running, wait_until
from tests.pages import free_offset
from tests.programs import serving, started
from tests.unit.client.comet import Fabric as Repeating
from tests.unit.client.comet import ws_comet
from zim.topology import load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
TIMEOUT_S = 60


@pytest.fixture(scope="module")
def fabric() -> Iterator[Fabric]:
    up = f"127.0.0.1:{free_ports(1)[0]}"
    with running(has_admin=True, fabric={"admin": up}) as found:
        found.admin["zim-up"] = up
        yield found


def needs(*modules: str) -> None:
    """Skips where one of these is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def needs_curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl in PATH")


def node() -> list[str]:
    """How to run Node with WebSocket, which it has from 22 on; earlier behind a flag."""
    for flags in ([], ["--experimental-websocket"]):
        command = ["node", *flags]
        if shutil.which("node") and not subprocess.run([*command, "-e", "WebSocket"], capture_output=True).returncode:
            return command
    pytest.skip("there is no Node with WebSocket in PATH")


def line(example: str, start: str) -> list[str]:
    """The first command of an example's first lines that begins so, to be run from here."""
    head = (FOLDER / example).read_text().split("\n\n\n")[0]
    found = re.findall(rf"^(?://)? {{4,}}({re.escape(start)}.*)$", head, re.MULTILINE)
    words = shlex.split(found[0], comments=True)
    known = {".venv/bin/python": [sys.executable], ".venv/bin/zim": [sys.executable, "-m", "zim"]}
    return known.get(words[0], words[:1]) + words[1:]


def run(command: list[str], cwd: Path = ROOT) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def messages(fabric: Fabric, stream: str) -> list[Any]:
    """The bodies of a stream."""
    return [message["body"] for message in fabric.get(f"/api/streams/{stream}?after=0")["messages"]]


# ---------------------------------------------------------------- backends


def test_flask(fabric: Fabric, tmp_path: Path) -> None:
    needs_curl()
    (port,) = free_ports(1)
    command = [*line("flask_backend.py", ".venv/bin/python"), "--fabric", fabric.http["logic-1"], "--port", str(port)]
    curl = [word.replace(":5000/", f":{port}/") for word in line("flask_backend.py", "curl")]
    cake = ["item=cake" if word == "item=tea" else word for word in curl]
    with serving(command, port, tmp_path):
        answers = [run([*words, "-H", "Idempotency-Key: order-1"]) for words in (curl, curl, cake)]
        code, out, err = run(cake)
        assert code == 0, err
    first, again, other = (json.loads(out) for _, out, _ in answers)
    assert first == again
    assert json.loads(out)["offsets"]["u:7"] == first["offsets"]["u:7"] + 1
    assert "its key was used before" in other["error"]
    told = [body for body in messages(fabric, "u:7") if "ordered" in body]
    assert told == [{"ordered": "tea"}, {"ordered": "cake"}]


def test_fastapi(fabric: Fabric, tmp_path: Path) -> None:
    needs("fastapi", "uvicorn")
    needs_curl()
    (port,) = free_ports(1)
    command = [*line("fastapi_backend.py", ".venv/bin/python"), "--fabric", fabric.http["logic-1"]]
    with serving([*command, "--port", str(port)], port, tmp_path):
        curl = [word.replace(":8000/", f":{port}/") for word in line("fastapi_backend.py", "curl")]
        code, out, err = run(curl)
        assert code == 0, err
        assert json.loads(out)["offsets"] == {"r:tea": 1}
    assert messages(fabric, "r:tea") == [{"text": "hello"}]


def test_flask_tokens(tmp_path: Path) -> None:
    """Its first lines from top to bottom, with a topology of its own, in a folder like this one: anna is let in."""
    needs_curl()
    offset = free_offset()
    (tmp_path / "examples").mkdir()
    for name in ("flask_tokens.py", "tokens.toml"):
        text = (FOLDER / name).read_text()
        (tmp_path / "examples" / name).write_text(re.sub(r"(?<=127\.0\.0\.1:)\d{4}", moved_by(offset), text))
    head = (tmp_path / "examples" / "flask_tokens.py").read_text().split("\n\n\n")[0]
    lines = [line.partition("  #")[0].strip() for line in re.findall(r"^ {4}(\S.*)$", head, re.MULTILINE)]
    known = {".venv/bin/zim": f"{sys.executable} -m zim", ".venv/bin/python": sys.executable}
    secret, up, backend, login, fetch, listen, push = (
        re.sub(r"^\.venv/bin/\w+", lambda found: known[found[0]], line) for line in lines
    )

    def sh(command: str) -> str:
        done = subprocess.run(["sh", "-ec", command], cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert done.returncode == 0, done.stderr
        return done.stdout

    sh(secret)
    logs, port = tmp_path / "logs", 5000 + offset
    logs.mkdir()
    python, *files = backend.split()
    at = [python, *(str(tmp_path / file) for file in files)]
    with (
        started([*up.split()[:-1], str(tmp_path / "examples" / "tokens.toml")], logs) as (_, out, _),
        serving([*at, "--port", str(port)], port, tmp_path),
    ):
        wait_until(lambda: "is up" in out.read_text(), "it is up")
        with pytest.raises(AssertionError):
            sh(fetch.partition(" | ")[0].replace("-s ", "-sf "))  # nobody is logged in
        assert json.loads(sh(login)) == {"user": "anna"}
        sh(fetch)
        (logs / "anna").mkdir()
        shutil.copy(tmp_path / "anna.token", logs / "anna")
        with started([*listen.split(), "--count", "1"], logs / "anna") as (process, heard, said):
            wait_until(lambda: "connected to" in said.read_text(), "anna is there")
            sh(push.replace(" push ", f" push --http 127.0.0.1:{7172 + offset} "))
            assert process.wait(TIMEOUT_S) == 0, said.read_text()
            assert heard.read_text() == "hello\n"
            assert "nothing of" not in said.read_text()


def moved_by(offset: int) -> Callable[[re.Match[str]], str]:
    """Adds it to a port."""
    return lambda found: str(int(found[0]) + offset)


@pytest.mark.parametrize("example", ["flask_backend.py", "fastapi_backend.py"])
def test_a_backend_says_that_the_fabric_is_away(example: str, tmp_path: Path) -> None:
    needs(*["fastapi", "uvicorn"] if example.startswith("fastapi") else ["flask"])
    needs_curl()
    port, nobody = free_ports(2)
    command = [*line(example, ".venv/bin/python"), "--fabric", f"127.0.0.1:{nobody}", "--port", str(port)]
    with serving(command, port, tmp_path):
        curl = [re.sub(r":(5000|8000)/", f":{port}/", word) for word in line(example, "curl")]
        code, out, _ = run([*curl, "-s", "-w", "\n%{http_code}"])
    text, _, status = out.rpartition("\n")
    assert (code, status) == (0, "503")
    assert "nothing listens" in json.loads(text)["error"]


def test_requests(fabric: Fabric) -> None:
    needs("requests")
    command = line("push_with_requests.py", ".venv/bin/python")
    command[-2] = "1031"
    code, out, err = run([*command, "--fabric", f"http://{fabric.http['logic-1']}"])
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert (answer["status"], answer["streams"], answer["receipt"]["offline"]) == ("accepted", {"u:1031": 1}, 1)
    assert messages(fabric, "u:1031") == [{"test": 1}]
    command[-2] = ""
    code, out, _ = run([*command, "--fabric", f"http://{fabric.http['logic-1']}"])
    assert code == 1
    assert json.loads(out)["key"] == "to.users[0]"


def test_requests_gives_up() -> None:
    needs("requests")
    command = line("push_with_requests.py", ".venv/bin/python")
    code, out, err = run([*command, "--fabric", f"http://127.0.0.1:{free_ports(1)[0]}", "--try-for", "0.6"])
    assert (code, out) == (3, "")
    assert err.count("no answer: ") == 2


def test_zeromq(fabric: Fabric) -> None:
    command = [*line("zmq_publisher.py", ".venv/bin/python"), "--endpoint"]
    code, out, err = run([*command, fabric.publish["logic-1"]])
    assert (code, err) == (0, "")
    assert out.startswith("100 of 100 accepted in ")
    assert {"hello": 99} in messages(fabric, "u:99")
    code, out, err = run([*command, f"tcp://127.0.0.1:{free_ports(1)[0]}", "--try-for", "0.1"])
    assert code == 1
    assert out.startswith("0 of 100 accepted in ")
    assert err.startswith("user 0: ")


# ---------------------------------------------------------------- clients

# A page's script with as much of a browser as it uses: what it shows is printed. Before Node 22 a WebSocket that cannot
# be opened does not say that it is closed; browsers always do.
PAGE = """
const html = await (await fetch(process.argv[1])).text()
const script = html.match(/<script>(.*)<\\/script>/s)[1]
const document = {createElement: () => ({}), getElementById: () => ({append: li => console.log(li.textContent)})}
class Browsers extends WebSocket {
  constructor(url) {
    super(url)
    let isClosed = false
    this.addEventListener("close", () => { isClosed = true })
    this.addEventListener("error", () => setTimeout(() => isClosed || this.dispatchEvent(new Event("close")), 100))
  }
}
new Function("document", "location", "WebSocket", script)(document, new URL(process.argv[1]), Browsers)
"""


def browser(fabric: Fabric, port: int) -> list[str]:
    comet = f"ws://{fabric.ws['comet-1']}/sub"
    return [*line("browser.py", ".venv/bin/python"), "--comet", comet, "--port", str(port)]


def test_the_page_is_let_in_by_its_origin(fabric: Fabric, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    host, _, ws = fabric.ws["comet-1"].rpartition(":")
    with serving(browser(fabric, port), port, tmp_path) as log:
        wait_until(lambda: f"the page is at http://127.0.0.1:{port}/?uid=7" in log.read_text(), "it says where")
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as s:
            s.sendall(b"GET /?uid=7 HTTP/1.0\r\n\r\n")
            page = b"".join(iter(lambda: s.recv(65_536), b"")).decode()
        assert f'new WebSocket("ws://{fabric.ws["comet-1"]}/sub")' in page
        script = page.partition("<script>\n")[2].partition("</script>")[0]
        assert len(script.splitlines()) <= 25
        with socket.create_connection((host, int(ws)), timeout=TIMEOUT_S) as s:
            s.sendall(
                f"GET /sub HTTP/1.1\r\nHost: {host}:{ws}\r\nOrigin: http://127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
                "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                "\r\n".encode()
            )
            assert s.recv(4096).startswith(b"HTTP/1.1 101 ")


def test_the_page_shows_what_is_pushed_and_goes_on_after_a_loss(fabric: Fabric, tmp_path: Path) -> None:
    command, (port,) = node(), free_ports(1)
    url = f"http://127.0.0.1:{port}/?uid=1041"
    with (
        serving(browser(fabric, port), port, tmp_path),
        started([*command, "--input-type=module", "-e", PAGE, url], tmp_path) as (_, out, _),
    ):

        def shown(count: int) -> str:
            wait_until(lambda: out.read_text().count("\n") >= count, f"{count} lines")
            return out.read_text().splitlines()[count - 1]

        fabric.post("/1/push?uid=1041", b'{"test":1}')
        assert shown(1) == 'u:1041 1 {"test":1}'
        fabric.push({"to": {"rooms": ["lobby"]}, "body": "<b>"})
        assert shown(2) == 'r:lobby 1 "<b>"'
        fabric.kill("comet-1")
        fabric.post("/1/push?uid=1041", b'{"test":2}')
        assert shown(3) == 'u:1041 2 {"test":2}'


def test_node(fabric: Fabric, tmp_path: Path) -> None:
    """It resumes after a lost connection and when it is started again, and says what it could not recover."""
    command = [*node(), *line("listen.mjs", "node")[1:], "--comet", f"ws://{fabric.ws['comet-1']}/sub"]
    command = [word.replace("examples/", f"{FOLDER}/") for word in command]
    command[command.index("--uid") + 1] = "1051"
    fabric.post("/1/push?uid=1051", b"1")
    with started([*command, "--count", "2"], tmp_path) as (process, out, err):
        wait_until(lambda: out.read_text() == "u:1051 1 1\n", "the first message")
        fabric.kill("comet-1")
        wait_until(lambda: "; again in " in err.read_text(), "it notices")
        fabric.post("/1/push?uid=1051", b"2")
        assert process.wait(TIMEOUT_S) == 0, err.read_text()
        assert out.read_text() == "u:1051 1 1\nu:1051 2 2\n"
    fabric.post("/1/push?uid=1051", b"3")
    with started([*command, "--count", "1"], tmp_path) as (process, out, _):
        assert process.wait(TIMEOUT_S) == 0
        assert out.read_text() == "u:1051 3 3\n"
    (tmp_path / "zim-1051.json").write_text(json.dumps({"u:1051": ["another", 9]}))
    with started([*command, "--count", "1"], tmp_path) as (process, out, err):
        lost = "could not recover u:1051: what came after 9; it goes on after 3\n"
        wait_until(lambda: lost in err.read_text(), "it says what is lost")
        fabric.post("/1/push?uid=1051", b"4")
        assert process.wait(TIMEOUT_S) == 0
        assert out.read_text() == "u:1051 4 4\n"


@pytest.mark.parametrize("example", ["browser.py", "listen.mjs"])
def test_a_message_that_comes_again_is_dropped(example: str, tmp_path: Path) -> None:
    behind, (port,) = Repeating(), free_ports(1)
    behind.repeats = 1
    with ExitStack() as stack:
        comet = f"{stack.enter_context(ws_comet(behind))}/sub"
        command = [*node(), f"{FOLDER}/listen.mjs", "--uid", "7", "--comet", comet]
        if example == "browser.py":
            page = [*line(example, ".venv/bin/python"), "--comet", comet, "--port", str(port)]
            stack.enter_context(serving(page, port, tmp_path))
            command = [*node(), "--input-type=module", "-e", PAGE, f"http://127.0.0.1:{port}/?uid=7"]
        _, out, _ = stack.enter_context(started(command, tmp_path))
        behind.wait_for(lambda: behind.connections)
        for n in (b"1", b"2", b"3"):
            behind.push("u:7", n)
        wait_until(lambda: "u:7 3 3\n" in out.read_text(), "the last one")
        assert out.read_text() == "u:7 1 1\nu:7 2 2\nu:7 3 3\n"


# ---------------------------------------------------------------- watching


def test_prometheus_scrapes_every_node_of_the_example() -> None:
    text = (FOLDER / "prometheus.yml").read_text()
    jobs = dict(re.findall(r"job_name: (\S+).*\n    static_configs:\n      - targets: (\[.*\])", text))
    topology = load(FOLDER / "two-of-each.toml")
    told: dict[str, list[str]] = {"zim-up": [at.address for at in topology.admin]}
    for one in topology.nodes:
        told.setdefault(one.kind, []).extend(at.address for at in one.admin)
    assert {job: json.loads(targets) for job, targets in jobs.items()} == told


def test_what_the_dashboard_shows_is_told(fabric: Fabric) -> None:
    labels: dict[str, set[str]] = {}
    for name in fabric.admin:
        for family in text_string_to_metric_families(fabric.metrics(name)):
            for sample in family.samples:
                labels.setdefault(sample.name, set()).update(sample.labels)
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    assert len(panels) == 8
    for target in (target for panel in panels for target in panel["targets"]):
        names = set(re.findall(r"zim_\w+", target["expr"]))
        assert names
        assert names <= labels.keys()
        grouped = {
            label for text in re.findall(r"(?:by|without) \((.*?)\)", target["expr"]) for label in text.split(", ")
        }
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"instance"}
        assert grouped | shown <= set().union(*(labels[name] for name in names))


def test_the_readme_lists_every_example() -> None:
    listed = re.findall(r"^\| \[`(.+?)`\]\((.+?)\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    files = {path.name for path in FOLDER.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name, _ in listed} == {link for _, link in listed} == files
