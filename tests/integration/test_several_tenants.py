"""The page "several tenants", word for word but for the ports."""

from __future__ import annotations

import re
from pathlib import Path

from tests.harness import wait_until
from tests.pages import Page, assert_says, follow, free_offset, ran, sh, up
from tests.programs import program

OFFSET = free_offset()
PAGE, JWT = Page("several-tenants", OFFSET), Page("jwt", OFFSET)


def test_from_top_to_bottom(tmp_path: Path) -> None:
    program("curl", "curl")
    _, setup, *_ = JWT.blocks("sh", "zim")
    folder = JWT.begin(tmp_path)
    ran(JWT.setup(setup), folder)
    (keys,) = PAGE.blocks("sh", "A key for each")
    (table,), (reload,) = PAGE.blocks("toml", "So much for each"), PAGE.blocks("sh", "So much for each")
    floods, notices, reaches = PAGE.blocks("sh", "What it looks like")
    line, refused = PAGE.blocks("text", "Who was it")
    topology = folder / "topology.toml"
    with up(folder) as log:
        follow(keys, folder)
        text = topology.read_text()
        for scopes in PAGE.blocks("toml", "A key for each"):
            text, count = re.subn(r'^scopes = \["push"\]\n', scopes, text, count=1, flags=re.MULTILINE)
            assert count == 1
        topology.write_text(f"{text}\n{table}")
        follow(reload, folder)
        for block in (floods, notices, reaches):
            follow(block, folder)
        assert len((folder / "pushed.txt").read_text().splitlines()) == 5
        wait_until(lambda: "more than a limit allows" in log.read_text(), "the log has it")
        said = re.findall(r"WARNING more than a limit .*", log.read_text())
        assert_says(said[0], line)
        assert_says(re.findall(r"AUDIT pushes refused .*", log.read_text())[0], refused)
        (issuers,), (tokens,) = PAGE.blocks("toml", "Tokens of each"), PAGE.blocks("sh", "Tokens of each")
        text, count = re.subn(r"^\[\[issuer]]\n(.+\n)*", issuers, topology.read_text(), flags=re.MULTILINE)
        assert count == 1
        topology.write_text(text)
        follow(tokens, folder)
        done = sh("zim listen --token-file forged.token --timeout 10", folder)
        assert "this issuer may sign for 'beta-*'" in done.stderr, done
        assert sh("zim listen --token-file acme.token --count 1", folder).stdout == "1\n"
