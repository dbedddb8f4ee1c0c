"""`[links]` and the list of public keys: what is right, what is said of what is not, what a reload takes over."""

from __future__ import annotations

import string
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.topology.test_file import small, text_of
from zim.errors import TopologyError
from zim.topology import compare, load, pack, parse, unpack
from zim.topology.file import MAX_LIST_BYTES, load_alone
from zim.topology.links import LIST, Links, is_key, list_text, parse_list

PATH = Path("/srv/zim/topology.toml")
FILE = Path("/srv/zim/link-keys/public.toml")
NAMES = ("router-1", "logic-1", "job-1", "comet-1")
PUBLIC = {name: f"{i:064x}" for i, name in enumerate(NAMES, 10)}

names = st.builds("{}-{}".format, st.sampled_from(["router", "logic", "job", "comet"]), st.integers(1, 2**31 - 1))
keys = st.text("0123456789abcdef", min_size=64, max_size=64)
lists = st.lists(st.tuples(names, keys), unique_by=(lambda item: item[0], lambda item: item[1])).map(dict)


@given(lists)
def test_a_list_is_read_as_it_was_written(public: dict[str, str]) -> None:
    assert parse_list(list_text(public), FILE) == (public, [])


@given(st.text())
def test_any_text_is_a_list_or_says_what_is_wrong(content: str) -> None:
    found, problems = parse_list(content, FILE)
    assert all(is_key(key) for key in found.values())
    assert all(problem.startswith(f"{FILE}: ") and "\n" not in problem for problem in problems)


@given(st.dictionaries(names | st.text(string.ascii_letters + "-", min_size=1), keys | st.text("abc", max_size=70)))
def test_each_line_is_right_or_named(values: dict[str, str]) -> None:
    content = "".join(f'"{name}" = "{key}"\n' for name, key in values.items())
    found, problems = parse_list(content, FILE)
    assert found.items() <= values.items()
    assert len(found) + len(problems) == len(values)
    assert len(set(found.values())) == len(found)


WRONG_LISTS = {
    "no TOML": ("comet-1", "is not TOML"),
    "a node twice": (f'comet-1 = "{"a" * 64}"\ncomet-1 = "{"b" * 64}"', "is not TOML"),
    "deep": ("a = " + "[" * 5_000, "is not TOML"),
    "no node": (f'proxy-1 = "{"a" * 64}"', '"proxy-1" is not the name of a node; right is a name such as comet-1'),
    "node 0": (f'comet-0 = "{"a" * 64}"', "is not the name of a node"),
    "a short key": (
        f'comet-1 = "{"a" * 63}"',
        "what stands for comet-1 is no link key; right is 64 ",
    ),
    "capitals": (f'comet-1 = "{"A" * 64}"', "is no link key"),
    "a line too much": (f'comet-1 = "{"a" * 64}\\n"', "is no link key"),
    "a number": ("comet-1 = 7", "is no link key"),
    "one key for two": (f'comet-1 = "{"a" * 64}"\ncomet-2 = "{"a" * 64}"', "comet-2 has the key of comet-1; right is"),
}


@pytest.mark.parametrize(("content", "said"), WRONG_LISTS.values(), ids=WRONG_LISTS)
def test_wrong_lists(content: str, said: str) -> None:
    _, (problem,) = parse_list(content, FILE)
    assert said in problem
    assert "aaaa" not in problem.lower()  # it may be a secret that somebody has mistaken for the other half


def problems_of(tables: dict[str, Any]) -> list[str]:
    with pytest.raises(TopologyError) as e:
        parse(text_of(tables), PATH)
    return e.value.problems


def test_links_have_no_keys_unless_it_is_said() -> None:
    assert parse(text_of(small()), PATH).links == Links(None, {})
    found = parse(text_of(small() | {"links": {"keys": "link-keys"}}), PATH).links
    assert (found.keys, found.list_file) == (PATH.parent / "link-keys", FILE)
    assert found.secret_file("comet-1") == PATH.parent / "link-keys" / "comet-1.secret"
    assert parse(text_of(small() | {"links": {"keys": "/etc/zim/keys"}}), PATH).links.keys == Path("/etc/zim/keys")


WRONG_TABLES: dict[str, tuple[Any, str]] = {
    "no table": (5, 'links: is 5; right is one table [links], with keys = "link-keys"'),
    "empty": ({}, "links.keys: is missing; right is the folder of link keys"),
    "a number": ({"keys": 5}, 'links.keys: is 5; right is the folder of link keys, such as "link-keys"'),
    "nothing": ({"keys": ""}, "links.keys: is"),
    "another key": ({"keys": "k", "key": 1}, "links.key: is not a key; did you mean keys?"),
    "nobody's folder": ({"keys": "~nobody-of-this-name/k"}, "there is no such user"),
}


@pytest.mark.parametrize(("table", "said"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_wrong_tables(table: Any, said: str) -> None:
    assert any(said in problem for problem in problems_of(small() | {"links": table}))


def far() -> dict[str, Any]:
    """The small topology, with links that others reach."""
    tables = small()
    tables["router"][0]["bind"] = "tcp://10.0.0.1:7270"
    return tables


def test_links_beyond_loopback_need_keys_or_a_word() -> None:
    (problem,) = problems_of(far())
    assert problem.startswith("router[0].bind: tcp://10.0.0.1:7270 can be reached from other machines, and links")
    assert '[links] with keys = "link-keys", and zim link-key make' in problem
    assert "insecure = true" in problem
    parse(text_of(far() | {"links": {"keys": "link-keys"}}), PATH)


def test_keys_of_links_open_nothing_else() -> None:
    tables = small() | {"links": {"keys": "link-keys"}}
    tables["logic"][0] |= {"http": "10.0.0.1:80", "publish": "tcp://10.0.0.1:81", "admin": "10.0.0.1:82"}
    assert [problem.split(":")[0] for problem in problems_of(tables)] == [
        "logic[0].http",
        "logic[0].publish",
        "logic[0].admin",
    ]


# ---------------------------------------------------------------- files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "topology.toml").write_text(text_of(small() | {"links": {"keys": "link-keys"}}))
    (tmp_path / "link-keys").mkdir()
    (tmp_path / "link-keys" / LIST).write_text(list_text(PUBLIC))
    return tmp_path / "topology.toml"


def test_a_topology_has_the_list_that_it_names(file: Path) -> None:
    found = load(file)
    assert found.links.public == PUBLIC
    assert unpack(pack(found)) == found
    assert load_alone(file).links.public == {}


def refused(file: Path) -> str:
    with pytest.raises(TopologyError) as e:
        load(file)
    (problem,) = e.value.problems
    assert problem.startswith(f"links.keys: {file.parent}/link-keys/public.toml: ")
    return problem


def test_a_list_that_cannot_be_had(file: Path) -> None:
    listed = file.parent / "link-keys" / LIST
    listed.write_bytes(b"# \xff")
    assert "is not UTF-8 from byte 2 on" in refused(file)
    listed.write_bytes(b"#" * (MAX_LIST_BYTES + 1))
    assert f"has more than {MAX_LIST_BYTES} bytes" in refused(file)
    listed.unlink()
    assert "there is no such file; " in refused(file)
    assert "link-key make writes it" in refused(file)
    listed.mkdir()
    assert "cannot be read: Is a directory" in refused(file)


def test_a_node_without_a_key_is_no_mistake_of_the_file(file: Path) -> None:
    (file.parent / "link-keys" / LIST).write_text(list_text({"comet-9": "b" * 64}))
    assert load(file).links.public == {"comet-9": "b" * 64}


# ---------------------------------------------------------------- a reload


def with_keys(folder: str = "link-keys", **public: str) -> Any:
    from dataclasses import replace

    found = parse(text_of(far() | {"links": {"keys": folder}}), PATH)
    return replace(found, links=Links(found.links.keys, {name.replace("_", "-"): key for name, key in public.items()}))


def test_another_list_is_taken_over() -> None:
    old, new = with_keys(comet_1="a" * 64, comet_2="b" * 64), with_keys(comet_1="c" * 64, comet_3="d" * 64)
    changes = compare(old, new)
    assert changes.topology == new
    assert changes.taken == (
        "links.keys: the key of comet-1, replaced",
        "links.keys: the key of comet-2, taken away",
        "links.keys: the key of comet-3, added",
    )
    assert changes.waiting == ()


def test_another_folder_waits() -> None:
    old, new = with_keys(comet_1="a" * 64), with_keys("others", comet_1="b" * 64)
    changes = compare(old, new)
    assert (changes.topology.links, changes.taken, changes.waiting) == (old.links, (), ("links.keys",))


def test_keys_for_links_that_have_none_wait() -> None:
    plain = parse(text_of(small()), PATH)
    keyed = parse(text_of(small() | {"links": {"keys": "link-keys"}}), PATH)
    assert compare(plain, keyed).waiting == compare(keyed, plain).waiting == ("links.keys",)
    assert compare(plain, keyed).topology.links.keys is None


def test_the_list_is_toml_for_others_too() -> None:
    assert tomllib.loads(list_text(PUBLIC)) == PUBLIC
