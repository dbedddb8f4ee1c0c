"""Each rule of the design, and zim's code with that rule broken. See test_rules."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from tests.simulation.people import Wire
from tests.simulation.router import RouterNode
from zim.fabric.audience import ALL
from zim.fabric.buckets import Bucket, Buckets
from zim.nodes.comet import joining
from zim.nodes.comet.draining import LastWords
from zim.nodes.comet.feed import Link
from zim.nodes.comet.history import HistoryReader
from zim.nodes.comet.hub import Hub
from zim.nodes.comet.outbox import Outbox
from zim.nodes.comet.passes import Passes
from zim.nodes.comet.results import Reports
from zim.nodes.comet.views import Catchup, Subscribers, View
from zim.nodes.logic import runner
from zim.nodes.logic.lanes import Lane
from zim.nodes.logic.shares import Share, Splitter
from zim.nodes.placement import Placement
from zim.nodes.remote_clock import RemoteClock
from zim.nodes.router import log, owning
from zim.nodes.router.control import Control
from zim.nodes.router.directory import stream_of
from zim.nodes.router.feed import Feed
from zim.nodes.router.intake import Intake
from zim.nodes.router.log import clock
from zim.nodes.router.log.memory import MemoryLog
from zim.nodes.router.owning import Owning
from zim.nodes.router.questions import Questions
from zim.nodes.router.receipts import RouterLedger
from zim.nodes.router.shard import Shard
from zim.nodes.router.shard_runner import ShardRunner
from zim.nodes.router.streams import Streams
from zim.protocol import messages


class Rule(NamedTuple):
    """How it is broken: what takes the place of which attribute, and in which profiles that shows soonest."""

    owner: Any
    name: str
    broken: Any
    profiles: str


def _nothing(*args: Any, **kwargs: Any) -> Any:
    return None


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> Any:
    """A method that is handed the original one first."""
    original = getattr(owner, name)
    return lambda *args, **kwargs: around(original, *args, **kwargs)


# -- comets that are drained


def _without_asking(last: LastWords) -> bool:
    link = last._link
    is_told = not link.is_registering and link.is_told
    return not link.term or (is_told and link.is_settled(link.taken))


# -- router


def _new_ones_alone(original: Any, control: Control, now: float, now_ms: int) -> None:
    directory = control._directory
    directory.came = [came for came in directory.came if came[2]]
    original(control, now, now_ms)


def _once_alone(original: Any, feed: Feed, now: float, again_s: float, most: int) -> Any:
    return original(feed, now, 1e9, most)


def _without_orders(original: Any, feed: Feed) -> None:
    original(feed)
    feed.orders.clear()


def _of_everybody(original: Any, reader: HistoryReader, m: Any, now: float) -> Any:
    records = [msgspec.structs.replace(r, only=()) for r in m.records]
    return original(reader, msgspec.structs.replace(m, records=records), now)


def _up_to_the_head(original: Any, reader: HistoryReader, m: Any, now: float) -> Any:
    return original(reader, msgspec.structs.replace(m, last=m.head), now)


def _remember_alone(control: Control, ban: Any) -> int:
    control.bans[ban.banned] = ban
    return 0


def _stale_heads(receive: Any, node: RouterNode, src: str, run: int, m: Any) -> Any:
    if not isinstance(m, messages.Changes):
        return receive(node, src, run, m)
    if m.shard not in node.disks or m.shard not in node.runner.shards:
        return receive(node, src, run, m)
    heads = node.disks[m.shard].storage.streams.heads([stream for c in m.changes if (stream := stream_of(c))])
    shard = node.runner.shards[m.shard].shard

    def apply() -> None:
        applied = shard.changes(m, node.now)
        node.send(src, shard.answers(m.inc, applied, heads, dict.fromkeys(heads, 0)))

    return node.later(0.05, apply)


def _uncommitted_heads(on_heads: Any, questions: Questions, effect: Any, result: Any) -> Any:
    heads, cursors = result
    for changes in effect.changes:
        for a in changes.applied:
            coming = [c for c in questions._shard.intake._coming.values() if a.stream in c.push.streams]
            if a.stream in heads and coming:
                heads = {**heads, a.stream: heads[a.stream]._replace(head=heads[a.stream].head + len(coming))}
    return on_heads(questions, effect, (heads, cursors))


def _forget_keys(acquire: Any, memory: MemoryLog, owner: str) -> Any:
    memory._store.keys.clear()
    return acquire(memory, owner)


def _no_memory(publish: Any, intake: Intake[Any], *args: Any) -> Any:
    intake._recent.clear()
    return publish(intake, *args)


def _any_term(publish: Any, intake: Intake[Any], peer: Any, m: Any, *args: Any) -> Any:
    return publish(intake, peer, msgspec.structs.replace(m, term=intake.term), *args)


def _kept_too(is_within: Any, intake: Intake[Any], admission: Any, now: float) -> bool:
    """It is refused, and on its way into the log."""
    if is_within(intake, admission, now):
        return True
    twin = copy(admission)
    twin.askers = []
    intake._enter(twin)
    return False


def _deny(intake: Intake[Any], admission: Any) -> None:
    intake._answer(admission, "unavailable")


def _enter_uncounted(intake: Intake[Any], admission: Any) -> bool:
    return intake.commits.put(admission, admission.size)


def _fresh_numbers(init: Any, feed: Feed, comet: str, inc: int, begin: int, count: int, made: int, end: float) -> None:
    init(feed, comet, inc, begin, count, 0, end)


def _no_standstill(tick: Any, shard: Shard[Any], now: float) -> Any:
    shard._seen = now
    return tick(shard, now)


def _trim_at_once(before: Any, shard: Shard[Any], now: float, now_ms: int) -> Any:
    shard._spare_until = 0.0
    return before(shard, now, now_ms)


# -- comet


def _jump(view: View, head: int) -> Any:
    view.position = head
    return view.catchups


def _take_any(link: Link, max_bytes: int) -> list[Any]:
    found = [link._held.pop(n) for n in sorted(link._held)] if not link.is_registering else []
    link.taken = max([link.taken, *(e.n for e in found)])
    link._held_bytes = 0
    return found


def _start_at_once(link: Link) -> bool:
    was, link.is_registering = link.is_registering, False
    if was:
        link.taken = link.handled = link._made = link._base
    return was


def _keep_handled(register: Any, link: Link, term: int, changes: Any, now: float) -> Any:
    handled = link.handled
    numbers = register(link, term, changes, now)
    link.handled = handled
    return numbers


def _any_inc(entry: Any, link: Link, e: Any) -> None:
    entry(link, msgspec.structs.replace(e, inc=link._inc))


def _any_answer(told: Any, hub: Hub, stream: str, answer: Any, now: float) -> None:
    view = hub._views.get(stream)
    if view is not None and view.asked:
        view.asked = answer.n
    told(hub, stream, answer, now)


def _late_positions(entry_pass: Any, passes: Passes, now: float) -> Any:
    before = {view: view.position for view in passes._views.values()}
    done = entry_pass(passes, now)
    moved = {view: view.position for view in before if view.position != before[view]}
    for view in moved:
        view.position = before[view]

    def late(over: Any, at: float) -> Any:
        for view, position in moved.items():
            view.position = position
        delattr(passes, "end")
        return passes.end(over, at)

    setattr(passes, "end", late)  # noqa: B010 mypy would object to the assignment
    return done


def _no_repeats(handle: Any, passes: Passes, link: Link, entry: Any, fresh: Any, now: float) -> None:
    for stream, offset in entry.items:
        view = passes._views.get(stream)
        if view is not None and view.position is not None and offset <= view.position:
            view.position = offset - 1
    handle(passes, link, entry, fresh, now)


def _never_ahead(start: Any, view: View, session: Any, offset: int) -> Any:
    return start(view, session, view.at if offset > view.at else offset)


def _say_once(say: Any, reports: Reports, renew: int) -> Any:
    found = say(reports, renew)
    reports.waiting.clear()
    return found


def _unmentioned(wire: Wire, gap: Any, is_kept: bool) -> None:
    """Goes on as if nothing was missing."""


def _any_503(published: Any, of: Any) -> Any:
    p = published(of)
    return replace(p, status="unavailable") if any(s.status == "unavailable" for s in of) else p


def _forget_attempts(share: Share, why: str) -> None:
    share.why = why


def _keep_positions(register: Any, hub: Hub, link: Link, term: int, now: float) -> None:
    before = {view: view.position for view in hub._views.values()}
    register(hub, link, term, now)
    for view, position in before.items():
        view.position = position


def _key_of_each_log(split: Any, splitter: Splitter, push: Any, push_id: str, *args: Any) -> list[Share]:
    found: list[Share] = split(splitter, push, push_id, *args)
    for share in found:
        share.home, share.followers = None, []
    return found


def _by_digest(seen: Any, key: Any, found: Any, *args: Any) -> Any:
    return seen(key, found, *args) if found is None or found.digest == key.digest else None


def _at_any_time(head: Any, outbox: Outbox, now: float) -> Any:
    return head(outbox, 0.0)


def _from_now_on(publication: Any, share: Share, now: float, clock: Any = None) -> Any:
    ttl_ms = share._publication.ttl_ms if share._publication is not None else 0
    return msgspec.structs.replace(publication(share, now, clock), ttl_ms=ttl_ms, expires_ms=0)


def _any_run(seen: Any, key: Any, found: Any, now_ms: int, window_ms: int, is_lasting: bool) -> Any:
    return seen(key, found, now_ms, window_ms, True)


def _at_once(put: Any, lane: Lane, share: Share) -> None:
    lane._last.clear()
    put(lane, share)


def _uncut(split: Any, splitter: Splitter, *args: Any) -> list[Share]:
    splitter._part_streams = 1 << 30
    found: list[Share] = split(splitter, *args)
    return found


def _for_everybody(groups: Any, subscribers: Subscribers, audience: Any = ALL) -> Any:
    return groups(subscribers, ALL)


def _lose_receipts(ledger: RouterLedger, receipts: Any, most: int) -> int:
    ledger.stored(receipts)
    return len(receipts)


def _as_if_nothing_was(recall: Any, intake: Intake[Any], ids: Any, *args: Any) -> Any:
    return recall(intake, (), *args)


def _for_ever_owner(init: Any, streams: Streams, *args: Any) -> None:
    init(streams, *args)
    streams._is_owner = lambda: True


RULES: dict[str, Rule] = {
    "a key has one home": Rule(Splitter, "split", _wrap(Splitter, "split", _key_of_each_log), "calm,storm"),
    "a key is one push": Rule(log, "seen", _wrap(log, "seen", _by_digest), "calm"),
    "memory cannot tell what an earlier run had": Rule(log, "seen", _wrap(log, "seen", _any_run), "clocks,stale"),
    "who shares a stream waits": Rule(Lane, "put", _wrap(Lane, "put", _at_once), "loss,storm"),
    "a start moves log time by an hour at most": Rule(clock, "MOST_AHEAD_MS", 1 << 60, "clocks"),
    "what may be late is not sent": Rule(RemoteClock, "until", lambda *_: float("inf"), "pause,slow,loss"),
    "nor out of an outbox": Rule(Outbox, "head", _wrap(Outbox, "head", _at_any_time), "slow"),
    "a ttl is a moment that logic fixes": Rule(
        Share, "publication", _wrap(Share, "publication", _from_now_on), "pause,storm"
    ),
    "the head is committed": Rule(
        Questions, "on_heads", _wrap(Questions, "on_heads", _uncommitted_heads), "loss,fence,crash"
    ),
    "the head is read after the change is applied": Rule(
        RouterNode, "receive", _wrap(RouterNode, "receive", _stale_heads), "crash,loss"
    ),
    "keys outlive the router": Rule(MemoryLog, "acquire", _wrap(MemoryLog, "acquire", _forget_keys), "crash,stale"),
    "a push id is known": Rule(Intake, "publish", _wrap(Intake, "publish", _no_memory), "loss,pause"),
    "a retry without a key needs the same term": Rule(
        Intake, "publish", _wrap(Intake, "publish", _any_term), "disk,clocks"
    ),
    "a push with a key is looked up before it is refused": Rule(Intake, "_refuse", _deny, "slow,storm,disk"),
    "behind means 503": Rule(Intake, "_is_behind", lambda *_: False, "slow,pause"),
    "what is admitted counts as behind": Rule(Intake, "_enter", _enter_uncounted, "slow,pause"),
    "leases end": Rule(Shard, "tick", lambda shard, now: [*shard._end_rebuilding(now)], "crash,stale"),
    "entry numbers go on after a lease": Rule(
        Feed, "__init__", _wrap(Feed, "__init__", _fresh_numbers), "forged,stale,storm"
    ),
    "a standstill extends all deadlines": Rule(Shard, "tick", _wrap(Shard, "tick", _no_standstill), "shards,limits"),
    "young messages are kept": Rule(Shard, "trim_before", lambda shard, now, now_ms: now_ms, "retention"),
    "no trimming after a start": Rule(Shard, "trim_before", _wrap(Shard, "trim_before", _trim_at_once), "retention"),
    "an attempt without an answer may be stored": Rule(Share, "on_silence", _forget_attempts, "loss,storm"),
    "missing entries are fetched": Rule(Link, "_is_missing", lambda link: False, "loss"),
    "entries are handled in order": Rule(Link, "take", _take_any, "loss,pause"),
    "entries that are handled are confirmed": Rule(Link, "passed", _nothing, "calm"),
    "registering forgets what was handled": Rule(
        Link, "register", _wrap(Link, "register", _keep_handled), "crash,stale"
    ),
    "no entry is handled while registering": Rule(Link, "complete_registration", _start_at_once, "crash,stale,storm"),
    "an entry is of this incarnation": Rule(Link, "entry", _wrap(Link, "entry", _any_inc), "crash,stale,fence"),
    "answers are matched by number": Rule(Hub, "_told", _wrap(Hub, "_told", _any_answer), "clocks,drains,fence"),
    "a jump waits for the pass": Rule(Passes, "when_over", lambda *_: False, "stale,crash,pause"),
    "the position moves before the pass": Rule(
        Passes, "_entry_pass", _wrap(Passes, "_entry_pass", _late_positions), "pause,calm"
    ),
    "positions drop repeats": Rule(Passes, "_handle", _wrap(Passes, "_handle", _no_repeats), "crash,stale"),
    "registration compares heads": Rule(View, "catch_up", _jump, "crash,pause"),
    "who resumes queues what is live": Rule(Catchup, "put", _nothing, "loss,calm"),
    "a jump aims resumes later": Rule(Catchup, "aim", _nothing, "clocks,crash,stale"),
    "a client may be ahead of its comet": Rule(View, "start", _wrap(View, "start", _never_ahead), "crash,loss,slow"),
    "another epoch of a live-only stream is read from its start": Rule(
        View, "move_to", lambda view, offset: None, "crash,stale"
    ),
    "a read is asked until it is answered": Rule(Passes, "tick", _nothing, "loss,pause"),
    "results are told until they are heard": Rule(Reports, "say", _wrap(Reports, "say", _say_once), "loss"),
    "a client that cannot be told of a gap is closed": Rule(Wire, "_miss", _unmentioned, "retention"),
    "503 speaks for all shards": Rule(runner, "published", _wrap(runner, "published", _any_503), "slow,storm,disk"),
    "a router speaks for its own streams alone": Rule(Shard, "owns", lambda *_: True, "differ"),
    "another epoch is another history": Rule(Hub, "_start_anew", _nothing, "restored"),
    "a session's message is for nobody else": Rule(
        Subscribers, "groups", _wrap(Subscribers, "groups", _for_everybody), "calm"
    ),
    "receipts that the disk refuses are stored later": Rule(RouterLedger, "put_back", _lose_receipts, "disk"),
    "a push to very many is cut into parts": Rule(Splitter, "split", _wrap(Splitter, "split", _uncut), "huge"),
    "who joins very many rooms asks for some at a time": Rule(joining, "AT_ONCE", 1 << 30, "huge"),
    "a ban outlives its router": Rule(Control, "load", _nothing, "people"),
    "who registers is looked at": Rule(Control, "look", _wrap(Control, "look", _new_ones_alone), "people"),
    "orders are repeated until they are obeyed": Rule(
        Feed, "due_orders", _wrap(Feed, "due_orders", _once_alone), "people"
    ),
    "a stream takes no more than its limit": Rule(Buckets, "wait_s", lambda *_: 0.0, "limits"),
    "a backend pushes no more than its limit": Rule(Bucket, "wait_s", lambda *_: 0.0, "limits"),
    "what is one too many is in no stream": Rule(
        Intake, "_is_within", _wrap(Intake, "_is_within", _kept_too), "limits"
    ),
    "orders outlive a lease": Rule(Feed, "end", _wrap(Feed, "end", _without_orders), "people"),
    "who is banned is closed at once": Rule(Control, "put", _remember_alone, "people"),
    "a history is of who may see it": Rule(
        HistoryReader, "on_records", _wrap(HistoryReader, "on_records", _of_everybody), "people"
    ),
    "a history is told up to where it was read": Rule(
        HistoryReader, "on_records", _wrap(HistoryReader, "on_records", _up_to_the_head), "people"
    ),
    "who is drained waits until routers know that all are gone": Rule(LastWords, "is_heard", lambda _: True, "drains"),
    "and what became of all that was made before they knew": Rule(LastWords, "is_heard", _without_asking, "drains"),
    "a comet that was added may register": Rule(ShardRunner, "know", _nothing, "growth"),
    "a router that was added is asked what it owns": Rule(Placement, "know", _nothing, "growth"),
    "past its deadline an owner is silent": Rule(Owning, "may_speak", lambda *_: True, "shards,engine"),
    "nobody is dead before its deadline": Rule(owning, "DEAD_S", 0.3, "shards,engine"),
    "a shard that could not be opened is taken anew": Rule(Owning, "_has_dropped", lambda *_: False, "handover,engine"),
    "a new owner knows what was stored last": Rule(
        Intake, "recall", _wrap(Intake, "recall", _as_if_nothing_was), "shards,engine"
    ),
    "nothing is kept in memory by who may not be the owner": Rule(
        Streams, "__init__", _wrap(Streams, "__init__", _for_ever_owner), "shards,engine"
    ),
    "registering forgets positions that no answer confirmed": Rule(
        Hub, "_register", _wrap(Hub, "_register", _keep_positions), "limits,drains,stale"
    ),
}
