"""Publishers that number their pushes and write down what they were answered: singly, in batches, over ZeroMQ.

Half of the pushes over HTTP carry a key where the fabric takes one, all over ZeroMQ do; those are asked again, at
another logic, until the answer is certain. Those without are asked once: an answer that does not come leaves them
unknown. Some have a ttl; some have the key of an earlier push, which must not be taken.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gevent

from tests.fault.backend import Answer, Backend, body_of, recipients
from tests.fault.history import Push
from zim.client import Accepted, PushConflict, PushError, PushRefused, PushUnavailable, ZmqPublisher

ATTEMPTS = 40
LAST_ATTEMPTS = 80
PAUSE_S = 0.25  # before an attempt is repeated
LIVE_KEYS_S = 40.0  # a key of a live-only stream is known for a minute, and an attempt may take a while
TRAIN = 20  # pushes, at most, of a batch or of what goes over ZeroMQ at once
WITH_TTL, WITH_OLD_KEY = 0.15, 0.05

Clock = Callable[[], float]


@dataclass(frozen=True)
class World:
    """Whom publishers push to.

    Attributes:
        rooms: numbers in text, as goim wants them.
        has_keys: the fabric takes pushes with a key, and so in batches and with a ttl.
        weights: how often a push goes to a user, some users, a room, everybody, and (with a key) to users and a room.
        live: streams that are live only: keys of pushes to them are known for a short time.
        is_varied: some pushes have a ttl, and some the key of another one.
    """

    uids: Sequence[int]
    rooms: Sequence[str]
    has_keys: bool
    weights: tuple[int, int, int, int, int] = (3, 2, 6, 1, 2)
    live: tuple[str, ...] = ()
    is_varied: bool = False


class Publisher:
    """Pushes for ever, one after the other.

    Args:
        numbers: gives each push its number; one for all publishers.
        record: where the pushes go.
        rate: pushes a second; 0 for as fast as it can.
    """

    def __init__(
        self,
        logics: Mapping[str, str],
        world: World,
        numbers: Iterator[int],
        record: list[Push],
        clock: Clock,
        rng: random.Random,
        rate: float,
    ) -> None:
        self.answers: Counter[int] = Counter()
        self._backend = Backend(dict(logics))
        self._world, self._numbers, self._record = world, numbers, record
        self._clock, self._rng, self._rate = clock, rng, rate
        self._is_stopping = False
        self._latest: Push | None = None  # that was accepted, with a key
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Ends it, once its last push is answered, or given up. `last()` may still be asked for."""
        self._is_stopping = True
        self._greenlet.get()
        self._close()

    def kill(self) -> None:
        """Ends it at once."""
        self._greenlet.kill()
        self._close()

    def _close(self) -> None:
        self._backend.close()

    def _run(self) -> None:
        while not self._is_stopping:
            count = self._push_some()
            gevent.sleep(sum(self._rng.expovariate(self._rate) for _ in range(count)) if self._rate else 0)

    def _push_some(self) -> int:
        """Pushes once, and says how many that were."""
        if self._latest and self._world.is_varied and self._rng.random() < WITH_OLD_KEY:
            self._push_with_old_key(self._latest)
        else:
            self.push(self._streams())
        return 1

    def last(self, *streams: str) -> Push:
        """Pushes to streams until a push is accepted, or there is no hope. After it nothing more comes."""
        for _ in range(LAST_ATTEMPTS):
            push = self.push(streams, is_urgent=True)
            if push.verdict == "accepted":
                break
            gevent.sleep(PAUSE_S)
        self._backend.close()
        return push

    def push(self, streams: tuple[str, ...], is_urgent: bool = False) -> Push:
        """One push, until its answer is certain or it is given up.

        Args:
            is_urgent: it is for good, and a refusal is not accepted: it is asked again.
        """
        push = self._new(streams, 1.0 if is_urgent else 0.5, is_for_good=is_urgent)
        self._ask(push, is_urgent)
        return push

    def _new(self, streams: tuple[str, ...], keyed: float, is_for_good: bool = False) -> Push:
        """The next push. keyed: how often it has a key; what has several kinds of streams always has one."""
        number, rng, world = next(self._numbers), self._rng, self._world
        has_key = world.has_keys and (len({s[0] for s in streams}) > 1 or rng.random() < keyed)
        push = Push(number, streams, self._clock(), key=f"chaos-{number}" if has_key else "")
        if world.is_varied and not is_for_good and rng.random() < WITH_TTL:
            push.ttl_s = round(rng.uniform(0.2, 4.0), 2)
        self._record.append(push)
        return push

    def _note(self, push: Push, answer: Answer) -> None:
        """One attempt is over."""
        push.attempts += 1
        self.answers[answer.status] += 1
        push.answered_at = self._clock()
        push.push_id = answer.push_id or push.push_id
        if push.reuses:
            assert answer.status in (0, 200, 422, 503, 504), f"{push} is answered {answer}"
        else:
            assert not 400 <= answer.status < 500, f"{push} is answered {answer}"
        if answer.status == 200:
            push.verdict = "accepted"
            if isinstance(answer.json, dict) and "streams" in answer.json:
                push.push_id, push.offsets = answer.json["id"], answer.json["streams"]
            if push.key and not push.reuses and not set(push.streams) & set(self._world.live):
                self._latest = push
        elif answer.status in (422, 503) and (push.attempts == 1 or push.verdict == "refused"):
            push.verdict = "refused"
        else:
            push.verdict = "unknown"

    def _ask(self, push: Push, is_urgent: bool = False) -> None:
        """Asks until it is certain, if it has a key: what is surely refused is asked again now and then."""
        for logic in itertools.islice(self._logics(), ATTEMPTS - push.attempts):
            self._note(push, self._backend.push(push, logic))
            if not self._is_asked_again(push, is_urgent):
                return
            gevent.sleep(PAUSE_S)

    def _is_asked_again(self, push: Push, is_urgent: bool = False) -> bool:
        if push.verdict == "accepted" or not push.key:
            return False
        if set(push.streams) & set(self._world.live) and self._clock() - push.asked_at > LIVE_KEYS_S:
            return False
        if push.verdict == "refused" and not is_urgent and self._rng.random() < 0.5:
            return False
        return is_urgent or not self._is_stopping or push.attempts <= 4

    def _logics(self) -> Iterator[str]:
        """All in turn, from any on."""
        return itertools.cycle(self._rng.sample(self._backend.names, len(self._backend.names)))

    def _push_with_old_key(self, old: Push) -> None:
        """Another push under the key of one that was accepted, to the same streams or to others."""
        streams = old.streams if self._rng.random() < 0.5 else self._streams()
        push = self._new(streams, 0.0, is_for_good=True)
        push.key, push.reuses = old.key, old.number
        self._note(push, self._backend.push(push, next(self._logics())))

    def _streams(self) -> tuple[str, ...]:
        world, rng = self._world, self._rng
        users = [f"u:{uid}" for uid in world.uids]
        rooms = [f"r:{room}" for room in world.rooms]
        weights = world.weights if world.has_keys else (*world.weights[:4], 0)
        match rng.choices(("user", "users", "room", "all", "mixed"), weights)[0]:
            case "user":
                return (rng.choice(users),)
            case "users":
                return tuple(rng.sample(users, min(len(users), rng.randint(2, 5))))
            case "room":
                return (rng.choice(rooms),)
            case "all":
                return ("*",)
            case _:
                return (*rng.sample(users, 2), rng.choice(rooms))


class BatchPublisher(Publisher):
    """Pushes batches. A batch is a train; of what failed, what has a key is asked again by itself."""

    def _push_some(self) -> int:
        pushes = [self._new(self._streams(), 0.5) for _ in range(self._rng.randint(2, TRAIN))]
        for push in pushes:
            push.train = f"batch of push {pushes[0].number}"
        for push, answer in zip(pushes, self._backend.push_batch(pushes, next(self._logics())), strict=True):
            self._note(push, answer)
        for push in pushes:
            if self._is_asked_again(push):
                self._ask(push)
        return len(pushes)


class TrainPublisher(Publisher):
    """Pushes over ZeroMQ, with zim's own client, to one logic: all of it is one train. What failed is asked again over
    HTTP, with its key.

    Args:
        endpoint: of a logic.
        server_key: its public link key; "" without link keys.
    """

    def __init__(self, endpoint: str, server_key: str, *args: Any) -> None:
        self._zeromq = ZmqPublisher(endpoint, retry_s=0, server_key=server_key)
        self._name = f"ZeroMQ publisher {id(self)}"
        super().__init__(*args)

    def _close(self) -> None:
        super()._close()
        self._zeromq.close()

    def _push_some(self) -> int:
        pushes = [self._new(self._streams(), 1.0) for _ in range(self._rng.randint(1, TRAIN))]
        pending = []
        for push in pushes:
            push.train = self._name
            pending.append(self._zeromq.push(body_of(push), **recipients(push), ttl_s=push.ttl_s, id=push.key))
        for push, one in zip(pushes, pending, strict=True):
            self._note(push, _answer(one.outcome()))
        for push in pushes:
            if self._is_asked_again(push):
                self._ask(push)
        return len(pushes)


def _answer(outcome: Accepted | PushError) -> Answer:
    """What HTTP would have said."""
    match outcome:
        case Accepted():
            return Answer(200, None, outcome.push_id)
        case PushUnavailable():
            return Answer(503)
        case PushConflict():
            return Answer(422)
        case PushRefused():
            return Answer(400)
        case _:
            return Answer(504)
