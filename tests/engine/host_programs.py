"""Programs that embed an engine, each in its own manner, end it in one of several ways and look at what is left.

``python host_programs.py HOST ENDING FOLDER`` prints ``ready`` when orders flow and, once its engine has ended, one
line of JSON: what was raised, and every thread, descriptor, child process, shared memory or task that was not there
before.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from trio_nt import SimulatedBroker, Strategy, buy, ema, open_engine, sell
from trio_nt.bridge import open_asyncio_bridge, open_thread_bridge, run_in_asyncio
from trio_nt.storage.durable import open_journal

# Trio keeps a worker thread for 10 seconds in case it is needed again.
trio._core._thread_cache.IDLE_TIMEOUT = 0.01  # type: ignore[attr-defined]

FOLDER = Path(sys.argv[3]) if len(sys.argv) > 3 else Path.cwd()


class Quotes:
    """A quote every millisecond; fails after ``fail_after`` of them."""

    def __init__(self, fail_after: int | None = None) -> None:
        self.fail_after = fail_after

    async def run(self, send: Any, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        number = 0
        while number != self.fail_after:
            number += 1
            await send.quotes(instrument="ABC", ts_event=0, bid=10, ask=10, bid_size=100, ask_size=100)
            await trio.sleep(0.001)
        raise ConnectionError("the vendor hung up")


class Trades(Strategy):
    """Buys and sells in turn."""

    def __init__(self) -> None:
        self.seen = 0

    def features(self) -> Any:
        return {"average": ema(3)}

    def on_quote(self, quote: Any, context: Any) -> Any:
        self.seen += 1
        return buy("ABC", 1) if self.seen % 2 else sell("ABC", 1)


@asynccontextmanager
async def engine_of(ending: str) -> AsyncIterator[Any]:
    """An engine with a journal in a process of its own and features compiled in a thread."""
    feed = Quotes(fail_after=300 if ending == "crash" else None)
    async with (
        open_journal(FOLDER / "journal.sqlite", account="host", lock_folder=FOLDER) as journal,
        open_engine(feeds=[feed], broker=SimulatedBroker(), strategies=Trades(), journal=journal) as engine,
    ):
        yield engine


READY = threading.Event()


def say_ready() -> None:
    print("ready", flush=True)
    READY.set()


async def until_filled(events: Any) -> None:
    async for event in events:
        if type(event).__name__ == "Filled":
            return


# -- the hosts --


async def in_trio(ending: str) -> None:
    async with engine_of(ending) as engine:
        events = engine.events()
        await engine.start()
        await until_filled(events)
        say_ready()
        if ending == "error":
            raise ValueError("of the host")
        if ending == "cancel":
            trio.lowlevel.current_task().parent_nursery.cancel_scope.cancel()  # type: ignore[union-attr]
        if ending == "end":
            engine.stop()
            assert (await engine.wait()).ok
        else:
            await trio.sleep_forever()


async def with_asyncio_bridge(ending: str) -> None:
    async with open_asyncio_bridge(lambda: engine_of(ending)) as engine:
        events = await engine.events()
        await engine.start()
        await until_filled(events)
        say_ready()
        if ending == "error":
            raise ValueError("of the host")
        if ending == "end":
            await engine.stop()
            assert (await engine.wait()).ok
        else:
            await asyncio.sleep(3600)


def run_trio(ending: str) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_trio, ending)

    trio.run(main)


def run_asyncio(function: Callable[[str], Any], ending: str) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(function(ending))
        if ending == "cancel":
            while not READY.is_set():
                await asyncio.sleep(0.01)
            task.cancel()
        try:
            await task
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, others
            assert not asyncio.get_running_loop()._ready  # type: ignore[attr-defined]

    asyncio.run(main())


def run_guest(ending: str) -> None:
    run_asyncio(lambda ending: run_in_asyncio(in_trio, "forever" if ending == "cancel" else ending), ending)


def run_thread(ending: str) -> None:
    with open_thread_bridge(lambda: engine_of(ending)) as engine:
        events = engine.events()
        engine.start()
        for event in events:
            if type(event).__name__ == "Filled":
                break
        say_ready()
        if ending == "error":
            raise ValueError("of the host")
        if ending == "end":
            engine.stop()
            assert engine.wait().ok
        elif ending == "cancel":
            waiting = engine.submit(_wait_for_ever)
            assert waiting.cancel()
        else:
            for _ in events:
                pass
            engine.wait()


async def _wait_for_ever(engine: Any) -> None:
    await trio.sleep_forever()


HOSTS: dict[str, Callable[[str], None]] = {
    "trio": run_trio,
    "guest": run_guest,
    "asyncio": lambda ending: run_asyncio(with_asyncio_bridge, ending),
    "thread": run_thread,
}


# -- what is left --


def look() -> dict[str, list[str]]:
    """What a process holds that could outlive a block."""
    return {
        "threads": [thread.name for thread in threading.enumerate()],
        "system threads": os.listdir("/proc/self/task"),
        "descriptors": sorted(filter(None, map(_target, os.listdir("/proc/self/fd")))),
        "children": children(),
        "shared memory": sorted(os.listdir("/dev/shm")),
    }


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # the one that listed them
        return ""


def children(parent: int | None = None) -> list[str]:
    parent = os.getpid() if parent is None else parent
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{entry}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(text.rpartition(")")[2].split()[1]) == parent:
            found.append(entry)
    return found


def more(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there now and was not before."""
    left = {}
    for kind, found in after.items():
        found = found.copy()
        for each in before[kind]:
            if each in found:
                found.remove(each)
        if found:
            left[kind] = found
    return left


def names(error: BaseException | None) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [name for each in error.exceptions for name in names(each)]
    return [] if error is None else [type(error).__name__]


def main(host: str, ending: str) -> None:
    before, raised = look(), None
    try:
        HOSTS[host](ending)
    except BaseException as error:  # noqa: BLE001 - what it raises is what is asked
        raised = error
    shown = names(raised)
    if os.environ.get("SHOW") and raised is not None:
        import traceback

        traceback.print_exception(raised)
    raised = None
    gc.collect()
    for _ in range(50):  # Trio's idle worker threads go
        left = more(before, look())
        if not left:
            break
        threading.Event().wait(0.02)
    print(json.dumps({"raised": shown, "left": left}))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background starts it ignored
    main(sys.argv[1], sys.argv[2])
