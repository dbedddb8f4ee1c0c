"""ZmqPublisher against ROUTER sockets that speak as logic does."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.unit.client.logic_peer import Logic, accept, logic
from tests.unit.client.peers import WAIT_S
from zim.client import (
    AddressError,
    PendingPush,
    PushConflict,
    PushError,
    PushRefused,
    PushUnavailable,
    PushUnknown,
    ZmqPublisher,
)
from zim.identity.link_keys import make_secret, public_of
from zim.protocol import codec
from zim.protocol.messages import Submit, Submitted


def encode(*answers: Submitted) -> bytes:
    """A frame of answers."""
    return codec.encode(answers)


def test_a_push_and_its_answer() -> None:
    with logic() as peer, ZmqPublisher(peer.endpoint) as publisher:
        pending = publisher.push(
            b"\xff", users=[7, "x"], rooms="a", keys=["9_1", "7_5"], everybody=True, op=100, ttl_s=1.5, id="k"
        )
        assert pending.result(WAIT_S).push_id == "pk"
        assert pending.id == "k"
        assert pending.done()
    (submit,) = peer.submits
    assert submit.streams == ["u:7", "u:x", "u:9", "r:a", "*"]
    assert submit.only == ("9_1",)
    assert (submit.key, submit.op, submit.body, submit.ttl_ms) == ("k", 100, b"\xff", 1500)


def test_many_pushes_go_in_few_frames_in_order_and_are_answered_each() -> None:
    with logic() as peer, ZmqPublisher(peer.endpoint) as publisher:
        pending = [publisher.push(b"%d" % number, users=number) for number in range(20_000)]
        assert publisher.flush(WAIT_S)
        assert publisher.in_flight == 0
        assert [found.result(0).push_id for found in pending] == ["p" + found.id for found in pending]
    assert [submit.body for submit in peer.submits] == [b"%d" % number for number in range(20_000)]
    assert peer.frames < 2_000


def test_a_process_with_more_files_than_select_can_wait_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    with contextlib.ExitStack() as files:
        for _ in range(1024):
            files.enter_context(open(os.devnull))
        peer = files.enter_context(logic())
        publisher = files.enter_context(ZmqPublisher(peer.endpoint))
        assert publisher.push(b"x", users=7).result(WAIT_S)


def test_frames_are_cut() -> None:
    with logic() as peer, ZmqPublisher(peer.endpoint) as publisher:
        for _ in range(10):
            publisher.push(bytes(100_000), users=7)
        publisher.push(bytes(1_000_000), users=7)
    assert len(peer.submits) == 11
    assert peer.frames >= 6


def test_no_more_than_so_many_are_under_way() -> None:
    with logic(lambda _: None) as peer, ZmqPublisher(peer.endpoint, max_in_flight=5) as publisher:
        done = threading.Event()

        def run() -> None:
            for _ in range(8):
                publisher.push(b"", users=7)
            done.set()

        thread = threading.Thread(target=run)
        thread.start()
        first = peer.wait_for(5)
        assert not done.is_set()
        assert publisher.in_flight == 5
        peer.answer = accept
        for submit in first:
            peer.say(encode(accept(submit)))
        thread.join(WAIT_S)
        assert done.is_set()
        assert publisher.flush(WAIT_S)


def test_bytes_are_bounded_too() -> None:
    with logic() as peer, ZmqPublisher(peer.endpoint, max_bytes=1000) as publisher:
        pending = [publisher.push(bytes(500), users=7) for _ in range(20)]
        publisher.push(bytes(5000), users=7).result(WAIT_S)
        assert all(found.result(WAIT_S) for found in pending)


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        ("conflict", PushConflict, "because"),
        ("invalid", PushRefused, "refused: because"),
        ("unavailable", PushUnavailable, "not accepted: because"),
        ("unknown", PushUnknown, "not known whether the push was accepted: because"),
    ],
)
def test_errors_say_what_is_wrong(status: str, error: type[PushError], text: str) -> None:
    def answer(submit: Submit) -> Submitted:
        return Submitted(submit.req, "", status, "because")  # type: ignore[arg-type]

    with logic(answer) as peer, ZmqPublisher(peer.endpoint, retry_s=0.0) as publisher:
        pending = publisher.push(b"", users=7)
        with pytest.raises(error, match=text) as caught:
            pending.result(WAIT_S)
        assert type(caught.value) is error
        assert caught.value.id == pending.id
        assert pending.outcome() is caught.value


@pytest.mark.parametrize("status", ["unavailable", "unknown"])
def test_what_fails_is_tried_again_with_the_same_key(status: str) -> None:
    seen = Counter[str]()

    def answer(submit: Submit) -> Submitted:
        seen[submit.key] += 1
        ok = seen[submit.key] == 3
        return accept(submit) if ok else Submitted(submit.req, "", status)  # type: ignore[arg-type]

    with logic(answer) as peer, ZmqPublisher(peer.endpoint, retry_s=60.0) as publisher:
        pending = [publisher.push(b"", users=7) for _ in range(3)]
        assert all(found.result(WAIT_S) for found in pending)
    assert seen == {found.id: 3 for found in pending}


def test_what_nobody_knows_stays_unknown() -> None:
    statuses = iter(["unknown", "unavailable"])

    def answer(submit: Submit) -> Submitted:
        return Submitted(submit.req, "", next(statuses, "unavailable"))  # type: ignore[arg-type]

    with (
        logic(answer) as peer,
        ZmqPublisher(peer.endpoint, retry_s=0.1) as publisher,
        pytest.raises(PushUnknown),
    ):
        publisher.push(b"", users=7).result(WAIT_S)


def test_the_next_logic_takes_over_when_one_is_killed() -> None:
    with (
        logic(lambda _: None) as one,
        logic() as two,
        ZmqPublisher([one.endpoint, two.endpoint], answer_s=60.0) as publisher,
    ):
        publisher.push(b"first", users=7)
        one.wait_for(1)
        pending = [publisher.push(b"%d" % number, users=7) for number in range(100)]
        one.wait_for(100)
        one.close()
        assert all(found.result(WAIT_S) for found in pending)
    assert [submit.key for submit in two.submits] == [submit.key for submit in one.submits]


def test_the_next_logic_takes_over_when_one_does_not_answer() -> None:
    with (
        logic(lambda _: None) as one,
        logic() as two,
        ZmqPublisher([one.endpoint, two.endpoint], answer_s=0.05) as publisher,
    ):
        assert publisher.push(b"1", users=7, id="a").result(WAIT_S)
        assert publisher.push(b"2", users=7, id="b").result(WAIT_S)
    assert [submit.key for submit in two.submits] == ["a", "b"]


def test_a_logic_that_comes_back() -> None:
    one = Logic()
    port = int(one.endpoint.rpartition(":")[2])
    with ZmqPublisher(one.endpoint) as publisher:
        assert publisher.push(b"", users=7).result(WAIT_S)
        one.close()
        pending = publisher.push(b"", users=7)
        two = Logic(port=port)
        assert pending.result(WAIT_S)
    two.close()


def test_a_logic_with_a_link_key_and_nobody_else() -> None:
    secret, other = make_secret(), make_secret()
    right = Logic(secret_key=bytes.fromhex(secret))
    mistaken = ZmqPublisher(right.endpoint, server_key=public_of(other), retry_s=1.0)
    with mistaken as publisher, pytest.raises(PushUnavailable):
        publisher.push(b"x", users=7).result(WAIT_S)
    with ZmqPublisher(right.endpoint, server_key=public_of(secret)) as publisher:
        assert publisher.push(b"y", users=7).result(WAIT_S)
    assert [submit.body for submit in right.submits] == [b"y"]
    right.close()


def test_a_logic_that_gets_its_link_key_later() -> None:
    secret = make_secret()
    plain = Logic()
    port = int(plain.endpoint.rpartition(":")[2])
    with ZmqPublisher(plain.endpoint, server_key=public_of(secret)) as publisher:
        pending = publisher.push(b"x", users=7)
        with pytest.raises(TimeoutError):
            pending.result(0.5)
        assert plain.submits == []
        plain.close()
        later = Logic(port=port, secret_key=bytes.fromhex(secret))
        assert pending.result(WAIT_S)
    later.close()


def test_nobody_is_there() -> None:
    with ZmqPublisher("tcp://127.0.0.1:1", answer_s=0.02, retry_s=0.02) as publisher:
        pending = publisher.push(b"", users=7)
        assert not publisher.flush(0)
        with pytest.raises(TimeoutError):
            pending.result(0)
        with pytest.raises(PushUnavailable, match="no logic node is connected"):
            pending.result(WAIT_S)


def test_close_settles_what_is_under_way() -> None:
    with logic(lambda _: None) as peer:
        publisher = ZmqPublisher([peer.endpoint, "tcp://127.0.0.1:1"])
        pending = publisher.push(b"", users=7)
        peer.wait_for(1)
        publisher.close()
        with pytest.raises(PushUnknown, match="closed"):
            pending.result(0)
        with pytest.raises(PushUnavailable, match="closed"):
            publisher.push(b"", users=7)
        publisher.close()
    publisher = ZmqPublisher("tcp://127.0.0.1:1")
    pending = publisher.push(b"", users=7)
    publisher.close()
    with pytest.raises(PushUnavailable, match="closed"):
        pending.result(0)


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"nonsense" * 1000, encode(Submitted(99, "x", "ok")), b"\x91\x91\xa1x"]
)
def test_garbage_from_a_logic_is_passed_over(garbage: bytes) -> None:
    with logic(lambda _: None) as peer, ZmqPublisher(peer.endpoint) as publisher:
        pending = publisher.push(b"", users=7)
        (submit,) = peer.wait_for(1)
        peer.say(garbage)
        peer.say(encode(accept(submit)))
        assert pending.result(WAIT_S)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"users": []},
        {"users": ""},
        {"users": "x" * 300},
        {"users": "\ud800"},
        {"users": 7, "id": "\ud800"},
        {"rooms": "*"},
        {"keys": "7"},
        {"keys": "7_0"},
        {"users": 7, "op": 6},
        {"users": 7, "op": 254},
        {"users": 7, "op": 1 << 31},
        {"users": 7, "ttl_s": -1.0},
        {"users": 7, "ttl_s": float("nan")},
        {"users": 7, "id": "x" * 256},
    ],
)
def test_what_cannot_be_pushed(options: dict[str, object]) -> None:
    publisher = ZmqPublisher("tcp://127.0.0.1:1")
    with pytest.raises(PushRefused):
        publisher.push(b"", **options)  # type: ignore[arg-type]
    assert publisher.in_flight == 0
    publisher.close()


@pytest.mark.parametrize(
    "endpoint", ["", "127.0.0.1:1", "tcp://127.0.0.1", "http://a:1", "tcp://127.0.0.1:99999999", []]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(AddressError):
        ZmqPublisher(endpoint)


def test_threads_share_one() -> None:
    with logic() as peer, ZmqPublisher(peer.endpoint, max_in_flight=50) as publisher:
        found: list[PendingPush] = []

        def run() -> None:
            for _ in range(500):
                pending = publisher.push(b"", users=7)
                found.append(pending)
                if len(found) % 10 == 0:
                    pending.result(WAIT_S)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
        assert publisher.flush(WAIT_S)
    assert len({pending.result(0).push_id for pending in found}) == 2000


PLAIN = """
import sys
from zim.client import ZmqPublisher
assert "gevent" not in sys.modules
with ZmqPublisher(sys.argv[1]) as publisher:
    pending = [publisher.push(b"%d" % number, users=number) for number in range(5000)]
    pending[-1].result(20)
print(len({found.result(0).push_id for found in pending}), len(sys.modules.get("gevent", "")))
"""


def test_in_a_process_that_nobody_has_patched() -> None:
    with logic() as peer:
        command = [sys.executable, "-c", PLAIN, peer.endpoint]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("5000 0\n", "")
    assert len(peer.submits) == 5000
