"""What must hold when the faults are over: everything has arrived, and every view agrees."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, TypeVar

from tests.simulation.disk import STREAMS, ShardDisk, is_live
from tests.simulation.nodes import CometNode, LogicNode
from zim.fabric.answers import InRoom, RoomSizes
from zim.fabric.questions import LargestRooms, RoomCount
from zim.nodes.router.counting import Steps, count_in_rooms, find_largest

R = TypeVar("R")

CALM_S = 20.0  # all faults are over for so long that a key has a last answer

if TYPE_CHECKING:
    from tests.simulation.people import Person
    from tests.simulation.world import World


def check_all(world: World) -> None:
    """Looks at everybody."""
    _check_owners(world)
    _check_answers(world)
    _check_order(world)
    _check_people(world)
    _check_directory(world)
    _check_receipts(world)


def _check_receipts(world: World) -> None:
    """What a router has kept since its last start has a receipt, and all of it is decided."""
    for (stream, push_id), at in world.appended_at.items():
        shard = world.shard_of(stream)
        if at <= world.died_at[shard] or at > world.settled_at:
            continue
        found = _disk_of(world, shard).receipts.find(world.receipt_of[push_id])
        if not found:
            world.fail(f"{shard} has no receipt of {push_id}")
        for receipt in found:
            if receipt.tally.pending:
                world.fail(f"{shard} still does not know what became of {push_id}: {receipt}")


def _disk_of(world: World, shard: str) -> ShardDisk:
    """As its owner has it open."""
    (found,) = [disk for router in world.routers() for disk in router.disks.values() if disk.name == shard]
    return found


def _check_owners(world: World) -> None:
    """Each shard has one owner, and everybody knows which."""
    for shard in world.vaults:
        speakers = [router.name for router, runner in world.owners() if runner.shard.name == shard]
        if speakers != [world.owner_of(shard)]:
            world.fail(f"{shard} is at {speakers}, and the rows say {world.owner_of(shard)}")
        for node in world.kernel.nodes.values():
            placement = node.hub.links.placement if isinstance(node, CometNode) else None
            placement = node.runner._placement if isinstance(node, LogicNode) else placement
            if placement is not None and placement.router_of(shard) != speakers[0]:
                world.fail(f"{node.name} believes that {shard} is at {placement.router_of(shard)}, not {speakers[0]}")


def _check_answers(world: World) -> None:
    for push_id in world.backend.pushes:
        statuses = world.backend.statuses(push_id)
        kept = [s for s in world.streams_of(push_id) if (s, push_id) in world.places]
        # Its key is at its home, and it was refused where memory is all there is: nobody can tell from then on.
        is_forgotten = "limited" in statuses and world.backend.is_in_memory(push_id)
        if push_id.startswith("last") and "ok" not in statuses and not is_forgotten:
            world.fail(f"{push_id}: still no success, after the faults are over: {statuses}")
        is_memory = all(map(is_live, world.streams_of(push_id)))  # its key is gone with the home of it
        if statuses == {"conflict"} and kept and not is_memory:
            world.fail(f"{push_id} got 422 and is in {kept}")
        asked_at = max((at for at, _ in world.backend.asked_at.get(push_id, ())), default=0.0)
        is_asked = asked_at > CALM_S and world.backend.is_told(push_id) and not world.is_restored
        if is_asked and statuses == {"unknown"} and not world.backend.is_in_memory(push_id):
            world.fail(f"{push_id} is asked for again and again, and nobody ever knows")
        if statuses <= {"unavailable", "limited"} and statuses and kept and world.backend.is_told(push_id):
            world.fail(f"{push_id} got 503 or 429 and is in {kept}")


def _check_order(world: World) -> None:
    """A publisher's pushes are in each stream in its order; what ended as unknown may have come later."""
    for sent in world.publisher.sent.values():
        for stream in STREAMS:
            mine = [p for p in sent if stream in world.streams_of(p) and (stream, p) not in world.lost]
            kept = [p for p in mine if world.backend.statuses(p) == {"ok"}]
            for one, other in itertools.pairwise(kept):
                if world.first[stream, one] > world.first[stream, other]:
                    world.fail(f"{other} came into {stream} before {one}, which its publisher had sent first")


def _check_people(world: World) -> None:
    world.authority.check_kicks()
    for person in world.people:
        world.authority.check(person)
        if world.authority.is_banned(person.uid) is not False:
            continue
        if not person.is_ready:
            world.fail(f"{person.name} is not back")
        for stream in person.streams:
            head = _disk_of(world, world.shard_of(stream)).storage.streams.heads([stream])[stream]
            if person.is_zim and person.have.get(stream) != (head.epoch, head.head):
                world.fail(f"{person.name} has {stream} {person.have.get(stream)} of {head}")
        if not person.is_zim:
            _check_goim(world, person)


def _check_goim(world: World, person: Person) -> None:
    """What was asked for after its auth reply has come, on this connection."""
    wire = person.wire
    assert wire is not None
    if wire.has_dropped:
        return
    for (stream, push_id), at in world.appended_at.items():
        shard = world.shard_of(stream)
        push, asked_at = world.backend.pushes[push_id]
        is_for_it = stream in person.streams and person.is_meant(push, stream)
        if not is_for_it or asked_at < person.since.get(stream, world.settled_at):
            continue
        if is_live(stream) and (world.has_small_limits or at <= world.began_at[shard]):
            continue  # gone with the router's memory, or out of it: it keeps little
        if push_id not in person.got and not world.backend.pushes[push_id][0].ttl_s:
            world.fail(f"{person.name} lacks {push_id} of {stream}, kept at {at:.3f}")


def _check_directory(world: World) -> None:
    _check_rooms(world)
    for router, runner in world.owners():
        shard = runner.shard
        if shard.is_rebuilding:
            world.fail(f"{shard.name} is rebuilding still")
        for comet in (world.kernel.nodes[c] for c in world.kernel.layout.comets):
            assert isinstance(comet, CometNode)
            feed = shard.directory.feeds[comet.name]
            sessions = list(comet.hub.sessions.values())
            want = {
                d.conn: (d.uid, d.seq, set(d.rooms)) for d in sessions if world.shard_of("u:" + d.uid) == shard.name
            }
            have = {s.conn: (s.uid, s.seq, set(s.rooms)) for s in feed.sessions.values()}
            if want != have:
                world.fail(f"{router.name} believes {have} of {comet.name}, which has {want}")
            rooms: dict[str, int] = {}
            for room in (room for d in sessions for room in d.rooms if world.shard_of("r:" + room) == shard.name):
                rooms[room] = rooms.get(room, 0) + 1
            if rooms != {r: n for r, n in feed.rooms.items() if r != "*"}:
                world.fail(f"{router.name} believes rooms {feed.rooms} of {comet.name}, which has {rooms}")
            if feed.behind_bytes or feed.admitted_bytes:
                world.fail(f"{router.name} keeps {feed.behind_bytes} bytes for {comet.name}")
            if feed.rows:
                world.fail(f"{router.name} waits for results of {len(feed.rows)} entries from {comet.name}")
            if comet.hub.links[shard.name].reports.waiting:
                world.fail(f"{comet.name} keeps results for {shard.name}")


def _check_rooms(world: World) -> None:
    """What routers say to who asks who is in a room, and which rooms are the largest."""
    hubs = [node.hub for node in world.kernel.nodes.values() if isinstance(node, CometNode)]
    sessions = [session for hub in hubs for session in hub.sessions.values()]
    there = {room: [d.uid for d in sessions if room in d.rooms] for room in {r for d in sessions for r in d.rooms}}
    want = {room: InRoom(room, len(uids), len(set(uids))) for room, uids in there.items()}
    directories = {runner.shard.name: runner.shard.directory for _, runner in world.owners()}
    counted = {name: _all_of(count_in_rooms(directory, set(want))) for name, directory in directories.items()}
    for room in want:
        found = RoomCount(room).merge({name: of_it[room] for name, of_it in counted.items()}, [])
        if found != want[room]:
            world.fail(f"routers count {found}, there are {want[room]}")
    parts = {name: RoomSizes(_all_of(find_largest(directory, 9))) for name, directory in directories.items()}
    largest = [(size.room, size.sessions) for size in LargestRooms(9).merge(parts, []).rooms]
    if largest != sorted(((room, w.sessions) for room, w in want.items()), key=lambda size: (-size[1], size[0]))[:9]:
        world.fail(f"routers say that {largest} are the largest rooms, and there are {want}")


def _all_of(steps: Steps[R]) -> R:
    """What comes out of steps, one after the other."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
