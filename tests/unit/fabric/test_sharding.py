import sys

from zim.fabric.sharding import CACHED, Shards, rank


def test_everybody_agrees_and_for_ever() -> None:
    shards = Shards(["router-1", "router-2", "router-3"])
    assert [shards.of(s) for s in ("u:7", "r:1", "*")] == ["router-3", "router-2", "router-1"]


def test_keys_are_spread_and_few_move() -> None:
    two, three = Shards(["router-1", "router-2"]), Shards(["router-1", "router-2", "router-3"])
    keys = [f"u:{i}" for i in range(3000)]
    counts = [sum(three.of(k) == r for k in keys) for r in three.names]
    assert min(counts) > 900
    moved = [k for k in keys if two.of(k) != three.of(k)]
    assert all(three.of(k) == "router-3" for k in moved)
    assert len(moved) == counts[2]


def test_the_stand_in_is_the_owner_without_the_first() -> None:
    jobs = ["job-1", "job-2", "job-3"]
    first, second, _ = rank("comet-1", jobs)
    assert rank("comet-1", [j for j in jobs if j != first])[0] == second


def test_few_names_are_kept() -> None:
    """They would keep alive the memory of whatever they came with."""
    for routers, most in ((["router-1"], 0), (["router-1", "router-2"], CACHED)):
        shards = Shards(routers)
        names = [f"r:room {n}" for n in range(3 * CACHED)]
        before = sys.getrefcount(names[0])
        for at in range(len(names)):
            shards.of(names[at])
        assert sum(sys.getrefcount(names[at]) > before for at in range(len(names))) == most
