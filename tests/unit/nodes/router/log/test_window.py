from hypothesis import given
from hypothesis import strategies as st

from zim.nodes.router.log.window import Window


def within(window: Window, times: list[int]) -> list[int]:
    """Of times, the newest first."""
    return [time_ms for time_ms in times if window.has(time_ms)]


def test_what_came_shortly_before_or_after_a_time() -> None:
    assert within(Window(100, 10), [150, 101, 100, 91, 90, 89, 0]) == [150, 101, 100, 91, 90]
    assert within(Window(100, 0), [100, 99]) == [100]


def test_a_jump_where_the_owner_changed_takes_no_time() -> None:
    times = [1_000_009, 1_000_005, 100, 97, 96]
    assert within(Window(1_000_009, 7, [1_000_009, 100]), times) == [1_000_009, 1_000_005, 100, 97]
    assert within(Window(1_000_009, 7), times) == [1_000_009, 1_000_005]
    assert within(Window(50, 7, [1_000_009, 100]), [*times, 44, 42]) == [*times, 44]


@given(
    st.lists(st.tuples(st.integers(0, 40), st.lists(st.integers(0, 5), max_size=6)), min_size=1, max_size=5),
    st.integers(0, 20),
)
def test_all_that_the_owners_have_appended_within_that_time(terms: list[tuple[int, list[int]]], for_ms: int) -> None:
    """Each term begins with a jump; then so much time goes by before each append."""
    takes, appended, at, real = [0], [], 0, 0
    for jump, gaps in terms:
        takes.append(at)
        at += jump
        for gap in gaps:
            at, real = at + gap, real + gap
            appended.append((at, real))
    found = within(Window(at, for_ms, takes[::-1]), [time_ms for time_ms, _ in reversed(appended)])
    assert len(found) >= sum(real - when <= for_ms for _, when in appended)
