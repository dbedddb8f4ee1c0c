"""The page "on the Internet in five minutes", word for word but for the ports: TLS, tokens, a key, strangers who are
refused, and a certificate that is replaced while clients are connected."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.harness import free_ports, wait_until
from tests.integration.test_pages import Browser
from tests.pages import Page, assert_says, free_offset, listening, ran, sh, told, up
from tests.programs import ROOT, program, serving

PAGE = Page("internet", free_offset())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the page has been followed up to `zim up`, which runs; the certificate is believed from then on."""
    program("openssl", "openssl")
    found = PAGE.begin(tmp_path_factory.mktemp("internet"), "A certificate, and secrets")
    (topology,) = PAGE.blocks("toml", "The topology")
    (found / "topology.toml").write_text(topology)
    (key,) = PAGE.blocks("sh", "The topology")
    assert key.endswith("zim up\n")
    assert "error " not in ran(key.removesuffix("zim up\n"), found)
    export, *_ = lines(0)
    assert export.startswith('export SSL_CERT_FILE="$PWD/push.crt"')
    with up(found) as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(found / "push.crt"))
        yield found
        said = log.read_text()
    assert not [name for name in ("jwt", "app.key") if (found / "secrets" / name).read_text().strip() in said]


def lines(number: int) -> list[str]:
    """The commands of a terminal."""
    return [command for command, _ in told(PAGE.blocks("sh", "Who gets in")[number])]


def pushing(*words: str) -> str:
    at = f"https://localhost:{PAGE.port(7172)}"
    return shlex.join(["zim", "push", "--http", at, "--key-file", "secrets/app.key", *words])


def push(folder: Path, *words: str) -> None:
    ran(pushing(*words), folder)


def test_who_has_what_it_takes_gets_in(folder: Path) -> None:
    _, verify, make, listen = lines(0)
    assert ran(verify, folder).strip() == "Verify return code: 0 (ok)"
    ran(make, folder)
    _, push_hello, over_tcp = lines(1)
    with listening(listen, folder) as out:
        ran(push_hello, folder)
        wait_until(lambda: '"hello"' in out.read_text(), "it comes over WebSocket")
    assert ran(over_tcp, folder) == "hello\n"


def test_strangers_get_nowhere(folder: Path) -> None:
    program("curl", "curl")
    for command, says in told(PAGE.blocks("sh", "Who gets in")[2]):
        done = sh(command, folder)
        assert_says((done.stdout + done.stderr).splitlines()[-1], says)


def test_a_browser_gets_in(folder: Path, tmp_path: Path) -> None:
    """It believes this one certificate, as if somebody whom it knows had signed it."""
    text = (ROOT / "docs" / "how-to" / "browser.md").read_text()
    token = ran("zim token make berta --room lobby", folder).strip()
    for name, language in (("zim.js", "js"), ("page.html", "html")):
        (block,) = re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        (tmp_path / name).write_text(block.replace("token: () => uid", f'token: () => "{token}"'))
    certificate = x509.load_pem_x509_certificate((folder / "push.crt").read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = base64.b64encode(hashlib.sha256(key).digest()).decode()
    (port,) = free_ports(1)
    page = f"http://localhost:{port}/page.html?uid=berta&comet=wss://localhost:{PAGE.port(8090)}/sub"
    with serving([sys.executable, "-m", "http.server", str(port), "--directory", str(tmp_path)], port, tmp_path):
        browser = Browser(tmp_path / "profile", f"--ignore-certificate-errors-spki-list={digest}")
        try:
            browser.driver.get(page)
            browser.wait_for_state("connected")
            push(folder, "user", "berta", '{"n":1}')
            push(folder, "room", "lobby", '{"n":2}')
            browser.wait_for('u:berta 1 {"n":1}', 'r:lobby 1 {"n":2}')
        finally:
            browser.driver.quit()


def test_who_comes_too_often_is_turned_away(folder: Path) -> None:
    """Who is there stays; 127.0.0.1, which floods, may not come for a while, so this is the last test but one."""
    program("curl", "curl")
    ran("zim token make dora > dora.token", folder)
    with listening(f"zim listen --token-file dora.token --address wss://localhost:{PAGE.port(8090)}", folder) as out:
        flood, seen = told(PAGE.blocks("sh", "Who gets in")[3])
        ran(flood[0], folder)
        shown = ran(seen[0], folder)
        assert_says(shown, seen[1])
        assert float(shown.rpartition(" ")[2]) > 0
        push(folder, "user", "dora", "still")
        wait_until(lambda: '"still"' in out.read_text(), "she is still there")


def test_a_certificate_is_replaced_while_somebody_listens(folder: Path) -> None:
    (another,) = PAGE.blocks("sh", "The real certificate")
    ran("zim token make carl > carl.token", folder)
    before = (folder / "push.crt").read_bytes()
    with listening(f"zim listen --token-file carl.token --address wss://localhost:{PAGE.port(8090)}", folder) as out:
        ran(another, folder)
        assert (folder / "push.crt").read_bytes() != before
        verify = f"sleep 1\n{lines(0)[1]}"  # no more often than an address may
        wait_until(lambda: sh(verify, folder).stdout.strip() == "Verify return code: 0 (ok)", "the new one is shown")
        wait_until(lambda: sh(pushing("user", "carl", "still"), folder).returncode == 0, "the logic shows it, too")
        wait_until(lambda: '"still"' in out.read_text(), "he is still there")
        assert out.read_text().count("connected to") == 1
