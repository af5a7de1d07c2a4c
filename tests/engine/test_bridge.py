"""An engine in a thread of its own: what crosses, in which direction, and that nothing stays behind."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from engine_scripts import EndlessFeed, Listening, ScriptedFeed, pause, quote

from scheduler import Lagged
from trio_nt import EngineConfig, Filled, SimulatedBroker, buy, open_engine
from trio_nt.bridge import EngineEnded, open_asyncio_bridge, open_thread_bridge, run_in_asyncio

pytestmark = pytest.mark.slow


def buying(event: Any, context: Any) -> Any:
    return buy("ABC", 1)


def engine(*steps: Any, **config: Any) -> Any:
    feed = ScriptedFeed(*steps) if steps else EndlessFeed()
    return partial(
        open_engine, EngineConfig(**config), feeds=[feed], broker=SimulatedBroker(), strategies=Listening(buying)
    )


def fails(after_s: float = 0.05) -> Any:
    async def step(send: Any) -> None:
        await trio.sleep(after_s)
        raise ConnectionError("the vendor hung up")

    return engine(step)


@pytest.fixture(autouse=True)
def no_thread_stays() -> Any:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "trio-nt engine"] == []


# -- threads --


def test_events_and_the_report_cross_in_order() -> None:
    with open_thread_bridge(engine(*[quote("ABC", 10.0), pause()] * 5)) as bridged:
        events = bridged.events()
        bridged.start()
        heard = list(events)  # ends with the engine
        report = bridged.wait()
    assert report.ok, report.checks
    assert len([event for event in heard if isinstance(event, Filled)]) == 5
    assert [event for event in heard if isinstance(event, Filled)] == sorted(
        (event for event in heard if isinstance(event, Filled)), key=lambda event: event.ts_ns
    )


def test_calls_from_many_threads_are_answered() -> None:
    with open_thread_bridge(engine()) as bridged:
        bridged.start()
        found: list[int] = []
        threads = [threading.Thread(target=lambda: found.append(bridged.statistics().rows)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        bridged.add_strategy("late", Listening())
        with pytest.raises(ValueError, match="there already"):
            bridged.add_strategy("late", Listening())
        with pytest.raises(KeyError):
            bridged.stop_strategy("nobody")
        bridged.stop_strategy("late")
        assert bridged.statistics().strategies["late"] == "stopped"
        bridged.halt()
        with pytest.raises(TimeoutError):
            bridged.wait(timeout_s=0.01)
        assert bridged.statistics().gateway.submitted > 0


def test_a_listener_waits_only_as_long_as_it_says_and_loses_nothing() -> None:
    with open_thread_bridge(engine(pause(0.3), quote("ABC", 10.0), pause(0.05))) as bridged:
        events = bridged.events()
        bridged.start()
        names = []
        while "Filled" not in names:
            try:
                names.append(type(events.receive(timeout_s=0.001)).__name__)
            except TimeoutError:
                names.append("nothing")
    assert [name for name in names if name != "nothing"] == [
        "StrategyState", "FeedState", "FeedState", "Accepted", "Filled"
    ]  # fmt: skip
    assert "nothing" in names


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_request_for_events_may_follow_a_cancelled_one_at_once(is_waiting: bool) -> None:
    async def ask_twice(_: Any) -> Any:
        first = events.fetch()
        assert first is not None
        if is_waiting:
            await trio.testing.wait_all_tasks_blocked()
        assert first.cancel()  # where it waits not yet: before its turn
        return events.fetch()

    with open_thread_bridge(engine()) as bridged:
        events = bridged.events()._events
        for _ in range(30):
            again = bridged.submit(ask_twice).result()
            bridged.submit(pause(0.001)).result()
            assert not again.done()
            again.cancel()


def test_a_listener_that_falls_behind_is_told_once_and_goes_on() -> None:
    with open_thread_bridge(engine(*[quote("ABC", 10.0)] * 50, event_capacity=10)) as bridged:
        events = bridged.events()
        bridged.start()
        bridged.wait()
        with pytest.raises(Lagged) as lagged:
            events.receive()
        assert len(list(events)) == 10
    assert lagged.value.missed > 80


def test_the_engines_error_comes_out_of_the_block_and_ends_every_call() -> None:
    with pytest.raises(ExceptionGroup) as caught, open_thread_bridge(fails()) as bridged:  # noqa: PT012
        bridged.start()
        with pytest.raises(EngineEnded):
            bridged.wait()
        with pytest.raises(EngineEnded):
            bridged.statistics()
        bridged.wait()
    assert caught.group_contains(ConnectionError)
    assert not caught.group_contains(EngineEnded)


def test_where_both_fail_both_are_raised() -> None:
    with pytest.raises(BaseExceptionGroup) as caught, open_thread_bridge(fails()) as bridged:  # noqa: PT012
        bridged.start()
        with pytest.raises(EngineEnded):
            bridged.wait()
        raise ValueError("the host's own")
    assert caught.group_contains(ConnectionError)
    assert caught.group_contains(ValueError)


def test_an_error_while_opening_is_raised_on_entering() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        raise ConnectionError("no venue")
        yield

    with pytest.raises(ConnectionError, match="no venue"), open_thread_bridge(broken):
        raise AssertionError


def test_a_call_that_its_caller_cancels_is_cancelled_there() -> None:
    began, cancelled = threading.Event(), threading.Event()

    async def waits(_: Any) -> None:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    with open_thread_bridge(engine()) as bridged:
        bridged.start()
        waiting = bridged.submit(waits)
        assert began.wait(60)
        assert waiting.cancel()
        assert cancelled.wait(60)


# -- asyncio --


def test_asyncio_awaits_the_engine_and_its_loop_goes_on() -> None:
    async def main() -> None:
        async with open_asyncio_bridge(engine(*[quote("ABC", 10.0), pause()] * 5)) as bridged:
            events = await bridged.events()
            await bridged.start()
            waiting = asyncio.ensure_future(bridged.wait())
            heard = [event async for event in events]
            report = await waiting
        assert report.ok, report.checks
        assert len([event for event in heard if isinstance(event, Filled)]) == 5

    asyncio.run(main())


def test_a_listener_that_is_cancelled_loses_nothing() -> None:
    async def main() -> list[str]:
        names = []
        async with open_asyncio_bridge(engine(*[quote("ABC", 10.0), pause()] * 20)) as bridged:
            events = await bridged.events()
            await bridged.start()
            while True:
                try:
                    names.append(type(await asyncio.wait_for(events.receive(), 0.002)).__name__)
                except TimeoutError:
                    continue
                except trio.EndOfChannel:
                    return names

    names = asyncio.run(main())
    assert names.count("Accepted") == names.count("Filled") == 20


def test_an_engine_that_fails_interrupts_the_block() -> None:
    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with open_asyncio_bridge(fails()) as bridged:
                await bridged.start()
                await asyncio.sleep(3600)
        assert caught.group_contains(ConnectionError)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)  # the task itself is not cancelled

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("where", ["body", "call", "closing", "opening"])
def test_a_cancelled_task_ends_the_engine_and_stays_cancelled(where: str) -> None:
    reached = threading.Event()

    @asynccontextmanager
    async def slow() -> AsyncIterator[Any]:
        if where == "opening":
            reached.set()
            await trio.sleep_forever()
        async with engine(on_exit="keep")() as opened:
            try:
                yield opened
            finally:
                if where == "closing":
                    reached.set()
                    await trio.sleep_forever()

    async def host() -> None:
        async with open_asyncio_bridge(slow) as bridged:
            await bridged.start()
            if where == "closing":
                return
            reached.set()
            if where == "call":
                await bridged.wait()
            await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.ensure_future(host())
        while not reached.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_guest_shares_the_loops_thread_and_its_error_is_raised_as_it_is() -> None:
    threads = set()

    async def fine(value: int) -> int:
        threads.add(threading.get_ident())
        async with engine(quote("ABC", 10.0))() as opened:
            await opened.start()
            assert (await opened.wait()).ok
        return value

    async def broken() -> None:
        await trio.sleep(0)
        raise LookupError("of the guest")

    async def main() -> int:
        with pytest.raises(LookupError, match="of the guest"):
            await run_in_asyncio(broken)
        return await run_in_asyncio(fine, 7)

    assert asyncio.run(main()) == 7
    assert threads == {threading.get_ident()}
