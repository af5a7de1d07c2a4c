"""An engine inside a host that does not run on Trio: asyncio, a GUI, plain threads.

- ``run_in_asyncio``: a Trio function inside a running asyncio loop, in its own thread (Trio's guest mode). The engine's
  callbacks and the host's take turns, so each waits for the other.
- ``open_asyncio_bridge``: the engine in a thread of its own, its methods awaited from asyncio.
- ``open_thread_bridge``: the same from plain threads and from GUIs: its methods block.

Nothing outlives its block: leaving it closes the engine in order and ends its thread; an error or a cancellation in it
cancels the engine at once. What fails in the engine is raised by the block.
"""

from trio_nt.bridge.aio import AsyncioEngine, AsyncioEvents, open_asyncio_bridge
from trio_nt.bridge.guest import run_in_asyncio
from trio_nt.bridge.portal import EngineEnded
from trio_nt.bridge.threads import ThreadEngine, ThreadEvents, open_thread_bridge

__all__ = [
    "AsyncioEngine",
    "AsyncioEvents",
    "EngineEnded",
    "ThreadEngine",
    "ThreadEvents",
    "open_asyncio_bridge",
    "open_thread_bridge",
    "run_in_asyncio",
]
