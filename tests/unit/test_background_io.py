"""Reading ahead and writing behind: order, errors, and no thread left waiting."""

import threading
from collections.abc import Callable, Iterator

import pytest

from regstream.storage.background_io import WriteBehind, read_ahead


def counted(made: list[int], *, number: int = 10) -> Iterator[int]:
    for index in range(number):
        made.append(index)
        yield index


def failing(index: int) -> Iterator[int]:
    yield from range(index)
    raise OSError("the disk is gone")


def test_items_come_in_their_order() -> None:
    assert list(read_ahead(range(100))) == list(range(100))


def test_nothing_to_read_is_nothing_read() -> None:
    assert list(read_ahead(())) == []


def test_one_item_is_made_ahead_and_no_more() -> None:
    made: list[int] = []
    items = read_ahead(counted(made))
    assert next(items) == 0
    getattr(items, "close")()  # noqa: B009  an iterator to the type checker; waits for what is being made
    assert made == [0, 1]


def test_items_are_made_in_another_thread() -> None:
    threads = set(read_ahead(threading.get_ident() for _ in range(3)))
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("index", [0, 1, 5])
def test_an_error_surfaces_where_its_item_would_have_come(index: int) -> None:
    items = read_ahead(failing(index))
    assert [next(items) for _ in range(index)] == list(range(index))
    with pytest.raises(OSError, match="disk is gone"):
        next(items)


def test_a_consumer_that_leaves_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    items = read_ahead(counted([]))
    next(items)
    getattr(items, "close")()  # noqa: B009  an iterator to the type checker, a generator in fact
    assert threading.active_count() == before


def test_an_error_in_the_consumer_passes_and_leaves_no_thread_behind() -> None:
    before = threading.active_count()

    def consume() -> None:
        for item in read_ahead(counted([])):
            if item == 3:
                raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        consume()
    assert threading.active_count() == before


def test_writes_happen_in_their_order_and_all_before_leaving() -> None:
    written: list[int] = []

    def write(index: int) -> Callable[[], None]:
        def work() -> None:
            assert written == list(range(index))
            written.append(index)

        return work

    with WriteBehind() as behind:
        for index in range(5):
            behind.submit(write(index))
    assert written == list(range(5))


def test_at_most_one_write_is_ahead_of_the_caller() -> None:
    release, started = threading.Event(), []

    def slow() -> None:
        started.append("first")
        release.wait(5)

    with WriteBehind() as behind:
        behind.submit(slow)
        second = threading.Thread(target=lambda: behind.submit(lambda: started.append("second")))
        second.start()
        second.join(0.05)
        assert second.is_alive()
        assert started == ["first"]
        release.set()
        second.join(5)
    assert started == ["first", "second"]


def refuse() -> None:
    raise OSError("no space left")


def submit_and_fail(write: Callable[[], None]) -> None:
    with WriteBehind() as behind:
        behind.submit(write)
        raise KeyError("mine")


def test_a_failed_write_is_raised_by_the_next() -> None:
    with WriteBehind() as behind:
        behind.submit(refuse)
        with pytest.raises(OSError, match="no space"):
            behind.submit(lambda: None)


def test_a_failed_last_write_is_raised_on_leaving() -> None:
    with pytest.raises(OSError, match="no space"), WriteBehind() as behind:
        behind.submit(refuse)


def test_an_error_of_the_caller_is_not_hidden_by_one_of_the_write() -> None:
    with pytest.raises(KeyError, match="mine"):
        submit_and_fail(refuse)


def test_leaving_on_an_error_still_waits_for_what_is_being_written() -> None:
    leaving, written = threading.Event(), []

    def write() -> None:
        assert leaving.wait(60)
        written.append(True)

    threading.Timer(0.02, leaving.set).start()
    with pytest.raises(KeyError, match="mine"):
        submit_and_fail(write)
    assert written
