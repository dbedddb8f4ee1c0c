"""Keys that a topology names: read from files and the environment, and never told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.identity.signers import ISSUER, OTHER_SECRET, SECRET, TokenSigner, issuer, pem, private_pem
from zim.identity.keys import verified_payload
from zim.identity.loading import MAX_FILE_BYTES, NoKey, file_problems, fixed_keys, read_private_key, signing_secret
from zim.topology.identity import Callout, Identity, Issuer, Secret

Write = Callable[[bytes], Secret]
PLANTED = b"hunter2-planted"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, which a topology then names."""

    def one(content: bytes) -> Secret:
        at = len(list(tmp_path.iterdir()))
        file = tmp_path / f"key-{at}"
        file.write_bytes(content)
        return Secret(f"issuer[0].secret_file[{at}]", file)

    return one


def with_secrets(*secrets: Secret, algorithms: tuple[str, ...] = ("HS256",)) -> Issuer:
    return Issuer(ISSUER, ("zim",), algorithms, secrets=secrets)


def with_public_keys(*keys: Secret, algorithms: tuple[str, ...] = ("RS256",)) -> Issuer:
    return Issuer(ISSUER, ("zim",), algorithms, public_keys=keys)


def why(by: Issuer) -> str:
    with pytest.raises(NoKey) as caught:
        fixed_keys(by)
    text = str(caught.value)
    assert PLANTED.decode() not in text
    assert SECRET.decode() not in text
    assert text.isprintable()
    return text


def test_secrets_of_files_and_of_the_environment(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZIM_TEST_SECRET", OTHER_SECRET.decode())
    keys = fixed_keys(with_secrets(write(SECRET + b"\n"), Secret("issuer[0].secret_env", variable="ZIM_TEST_SECRET")))
    assert [key.by_algorithm for key in keys] == [{"HS256": SECRET}, {"HS256": OTHER_SECRET}]
    for number in (0, 1):  # during a rotation
        assert verified_payload(TokenSigner("HS256", number=number).token(), "HS256", keys)


def test_public_keys_of_files(write: Write) -> None:
    keys = fixed_keys(with_public_keys(write(pem("RSA")), write(pem("RSA", 1))))
    for number in (0, 1):
        assert verified_payload(TokenSigner("RS256", number=number).token(), "RS256", keys)


def test_an_issuer_with_a_url_has_no_keys_of_its_own() -> None:
    assert fixed_keys(issuer(jwks="https://auth.example.com/keys")) == []


def test_a_variable_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"ZIM_TEST_SECRET", b"\xff" * 32)
    [key] = fixed_keys(with_secrets(Secret("issuer[0].secret_env", variable="ZIM_TEST_SECRET")))
    assert key.by_algorithm == {"HS256": b"\xff" * 32}


def test_a_file_that_is_not_there_is_named_with_the_key_of_the_topology(tmp_path: Path) -> None:
    text = why(with_secrets(Secret("issuer[0].secret_file", tmp_path / "nowhere")))
    assert text == f"issuer[0].secret_file: {tmp_path}/nowhere cannot be read: No such file or directory"


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in why(with_secrets(Secret("issuer[0].secret_file", tmp_path)))


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZIM_TEST_SECRET", raising=False)
    text = why(with_secrets(Secret("issuer[1].secret_env", variable="ZIM_TEST_SECRET")))
    assert text == "issuer[1].secret_env: the variable ZIM_TEST_SECRET is not set in the environment"


@pytest.mark.parametrize("name", ["", "é", "A=B", "a b"])
def test_a_variable_that_cannot_be_set_is_not_there(name: str) -> None:
    assert "is not set in the environment" in why(with_secrets(Secret("issuer[0].secret_env", variable=name)))


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_secret_is_none(write: Write, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"ZIM_TEST_SECRET", content)
    for secret in (write(content), Secret("issuer[0].secret_env", variable="ZIM_TEST_SECRET")):
        assert why(with_secrets(secret)).endswith(" is empty")


def test_a_short_secret_is_not_told(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environb, b"ZIM_TEST_SECRET", PLANTED)
    for secret in (write(PLANTED), Secret("issuer[0].secret_env", variable="ZIM_TEST_SECRET")):
        assert "32" in why(with_secrets(secret))


def test_a_file_that_is_no_key_but_something_large_is_not_read_to_its_end(write: Write) -> None:
    assert len(fixed_keys(with_secrets(write(b"s" * MAX_FILE_BYTES)))) == 1
    assert why(with_secrets(write(b"s" * (MAX_FILE_BYTES + 1)))).endswith("has more than 65536 bytes")
    assert why(with_secrets(Secret("issuer[0].secret_file", Path("/dev/zero")))).endswith("has more than 65536 bytes")


def test_one_wrong_key_among_right_ones_is_named(write: Write) -> None:
    wrong = write(PLANTED)
    text = why(with_secrets(write(SECRET), wrong))
    assert text.startswith(f"{wrong.where}: {wrong.file}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (private_pem("RSA"), "is a private key; zim verifies only, right is the public one"),
        (pem("ES256"), "cannot be used for RS256"),
        (pem("small RSA"), "2048"),
        (PLANTED, "is no public key in PEM"),
        (b"", "is no public key in PEM"),
    ],
    ids=["private", "of ES256", "too small", "something else", "nothing"],  # keys are made anew by each process
)
def test_what_is_no_public_key_is_named(write: Write, content: bytes, words: str) -> None:
    text = why(with_public_keys(write(content)))
    assert words in text
    assert text.startswith("issuer[0].")


def test_the_first_secret_of_an_issuer_signs(write: Write, tmp_path: Path) -> None:
    assert signing_secret(with_secrets(write(SECRET + b"\n"), write(OTHER_SECRET))) == SECRET
    for by, words in (
        (with_public_keys(write(pem("RSA"))), "signs with a private key, which the topology does not have"),
        (with_secrets(Secret("here", tmp_path / "nowhere")), "here: .*nowhere cannot be read"),
        (with_secrets(Secret("here", variable="ZIM_NOT_SET")), "here: the variable ZIM_NOT_SET is not set"),
    ):
        with pytest.raises(NoKey, match=words):
            signing_secret(by)


def test_a_private_key_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(private_pem("RSA"))
    assert read_private_key(file) == private_pem("RSA")
    for name, words in ((tmp_path / "nowhere", "cannot be read"), (Path("/dev/zero"), "has more than 65536 bytes")):
        with pytest.raises(NoKey, match=f"{name} {words}"):
            read_private_key(name)


@given(st.binary(max_size=80))
def test_whatever_stands_in_a_file_is_a_key_or_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "whatever"
    file.write_bytes(content)
    for by in (with_secrets(Secret("here", file)), with_public_keys(Secret("here", file))):
        try:
            assert fixed_keys(by)
        except NoKey as e:
            problem = str(e)
        else:
            continue
        assert problem.startswith(f"here: {file} ")


def test_all_files_that_are_wrong_are_named(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZIM_TEST_SECRET", raising=False)
    elsewhere = Secret("issuer[0].secret_env", variable="ZIM_TEST_SECRET")  # of another machine
    secrets = write(SECRET), write(b""), write(PLANTED), Secret("a", tmp_path), Secret("b", tmp_path / "nowhere")
    keys = with_public_keys(write(pem("RSA")), write(PLANTED))
    asked = Issuer(ISSUER, ("zim",), ("RS256",), jwks="https://auth.example.com/keys", ca=tmp_path / "no-ca")
    callout = Callout(connect="https://app.example.com/", ca=write(PLANTED).file)
    found = file_problems(Identity((with_secrets(elsewhere, *secrets), keys, asked), callout))
    assert PLANTED.decode() not in "".join(found)
    assert [words for words in found if "key-0" in words] == []
    wrong = ["is empty", "long", "Is a directory", "nowhere cannot", "is no public key", "no-ca", "callout.ca: "]
    assert [words in text for words, text in zip(wrong, found, strict=True)] == [True] * 7, found
    assert file_problems(Identity()) == []
