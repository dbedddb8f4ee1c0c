"""Link keys in files: what is made, what stays, what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zim.identity.link_keys import (
    Found,
    NoLinkKey,
    is_seen_by_others,
    make_keys,
    make_secret,
    own_secret,
    public_of,
    read_secret,
)
from zim.topology.file import read_list
from zim.topology.links import Links, is_key

NAMES = ("router-1", "comet-1")


@pytest.fixture
def links(tmp_path: Path) -> Links:
    return Links(tmp_path / "keys")


def contents(links: Links) -> dict[str, str]:
    assert links.keys is not None
    return {file.name: file.read_text() for file in links.keys.iterdir()}


def test_what_is_missing_is_made_once(links: Links) -> None:
    made = make_keys(links, NAMES)
    assert made.found == dict.fromkeys(NAMES, Found.MADE)
    assert read_list(links) == (made.links.public, [])
    assert set(contents(links)) == {"public.toml", "router-1.secret", "comet-1.secret"}
    for name in NAMES:
        assert public_of(own_secret(made.links, name)) == made.links.public[name]
        assert stat.S_IMODE(links.secret_file(name).stat().st_mode) == 0o600
    before = contents(links)
    again = make_keys(made.links, [*NAMES, "comet-2"])
    assert again.found == {**dict.fromkeys(NAMES, Found.KEPT), "comet-2": Found.MADE}
    assert before.items() - {("public.toml", before["public.toml"])} <= contents(links).items()
    assert again.links.public.items() >= made.links.public.items()


def test_the_mode_of_a_secret_does_not_rest_on_the_umask(links: Links) -> None:
    before = os.umask(0)
    try:
        make_keys(links, NAMES)
    finally:
        os.umask(before)
    assert not is_seen_by_others(links.secret_file("comet-1"))
    links.secret_file("comet-1").chmod(0o644)
    assert is_seen_by_others(links.secret_file("comet-1"))


def test_a_secret_without_its_line_is_listed_and_a_line_without_its_secret_stays(links: Links) -> None:
    made = make_keys(links, NAMES)
    links.secret_file("router-1").unlink()
    found = make_keys(Links(links.keys, {"router-1": made.links.public["router-1"]}), NAMES)
    assert found.found == {"router-1": Found.ELSEWHERE, "comet-1": Found.LISTED}
    assert found.links.public == made.links.public
    assert not links.secret_file("router-1").exists()


def test_what_does_not_fit_is_refused_and_nothing_is_written(links: Links) -> None:
    made = make_keys(links, NAMES)
    links.secret_file("comet-1").write_text(make_secret())
    before = contents(links)
    with pytest.raises(NoLinkKey, match=r"comet-1\.secret: is not the secret of the key that .*public\.toml has for"):
        make_keys(made.links, [*NAMES, "comet-2"])
    assert contents(links) == before


def test_a_link_to_nothing_is_not_written_through(links: Links, tmp_path: Path) -> None:
    assert links.keys is not None
    links.keys.mkdir()
    links.secret_file("comet-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NoLinkKey, match="there is no such file"):
        make_keys(links, NAMES)
    assert not (tmp_path / "elsewhere").exists()


@given(content=st.binary(max_size=200) | st.just(b"ab" * 32 + b"\n"))
def test_whatever_is_in_a_file_is_a_key_or_refused_without_being_shown(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    links = Links(tmp_path_factory.mktemp("keys"))
    file = links.secret_file("comet-1")
    file.write_bytes(content)
    if is_key(content.decode("ascii", "replace").strip()):
        assert is_key(read_secret(links, "comet-1"))
        return
    with pytest.raises(NoLinkKey) as e:
        read_secret(links, "comet-1")
    said = "is no secret link key; right is 64 hexadecimal digits, as zim link-key make writes them"
    assert str(e.value) == f"{file}: {said}"


def test_what_cannot_be_had(links: Links) -> None:
    made = make_keys(links, NAMES)
    with pytest.raises(NoLinkKey, match=r"public\.toml: has no key of comet-1, so no other node lets it in"):
        own_secret(links, "comet-1")
    with pytest.raises(NoLinkKey, match=r"comet-2\.secret: there is no such file, and comet-2 needs its secret"):
        own_secret(made.links, "comet-2")
    links.secret_file("comet-1").unlink()
    links.secret_file("comet-1").mkdir()
    with pytest.raises(NoLinkKey, match=r"comet-1\.secret: cannot be read: Is a directory"):
        own_secret(made.links, "comet-1")
