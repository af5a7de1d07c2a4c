"""``open_engine``: what an engine stands on, made before it and ended after it."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain

import trio

from scheduler import Scheduler, open_scheduler
from trio_nt.clock import wall_clock_ns
from trio_nt.engine import Engine
from trio_nt.engine_config import EngineConfig
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.features.specs import fields_of_kinds
from trio_nt.feeds.base import Feed
from trio_nt.model.broker import Broker
from trio_nt.model.memory import MemorySource
from trio_nt.storage.journal import Journal, MemoryJournal
from trio_nt.strategies.base import Strategy
from trio_nt.strategies.naming import by_id
from trio_nt.strategies.requirements import check_features, find_instruments


@asynccontextmanager
async def open_engine(
    config: EngineConfig | None = None,
    *,
    feeds: Iterable[Feed] = (),
    broker: Broker | None = None,
    strategies: Strategy | Iterable[Strategy] | Mapping[str, Strategy] = (),
    scheduler: Scheduler | None = None,
    journal: Journal | None = None,
    memory: MemorySource | None = None,
    now_ns: Callable[[], int] = wall_clock_ns,
) -> AsyncIterator[Engine]:
    """Open an engine; nothing flows before ``await engine.start()``, and nothing outlives the block.

    Args:
        feeds: sources of market data.
        broker: None for ``SimulatedBroker()``, a venue in this process.
        strategies: one, several, or a mapping from id to strategy.
        scheduler: to share one with other engines or the host; None for one of its own, with collection frozen.
        journal: where intents are recorded before they leave. ``open_journal(path, account=…)``, opened around this
            block, gives one that outlives the process; None keeps them in memory.
        memory: what strategies remember, see ``open_memory``; None for memories that end with the engine.
        now_ns: the engine's clock, UNIX ns.

    Leaving the block closes the engine in order (see ``close``). Cancelling it, or an error in it, cancels everything
    at once; orders that work at the venue are then left as they are. Errors come out in an ExceptionGroup, as Trio's
    nurseries raise them.
    """
    if broker is None:
        from trio_nt.exchange.simulated import SimulatedBroker

        broker = SimulatedBroker()
    config = EngineConfig() if config is None else config
    listed = strategies if isinstance(strategies, (Strategy, Mapping)) else list(strategies)
    named = by_id(listed) if listed else {}
    feeds = list(feeds)
    pipeline = _pipeline_of(config, feeds)
    for strategy_id, strategy in named.items():  # here, so that an error comes out as it is
        find_instruments(strategy, config.instruments)
        check_features(strategy_id, strategy, pipeline)
    async with AsyncExitStack() as stack:
        states = None
        if config.state_folder is not None:
            from trio_nt.storage.states import open_state_folder

            states = stack.enter_context(open_state_folder(config.state_folder))
        if scheduler is None:
            if any(strategy.features() for strategy in named.values()):
                # Before collection is frozen: the compiler leaves a heap behind that takes 30 ms to look through.
                await trio.to_thread.run_sync(FeaturePipeline().prepare, config.on_progress)
            scheduler = await stack.enter_async_context(open_scheduler(freeze_gc=True))
        if journal is None:
            journal = MemoryJournal()
        async with trio.open_nursery() as nursery:
            engine = Engine(
                config, scheduler, nursery, broker, feeds, journal, now_ns, states, memory, pipeline=pipeline
            )
            for strategy_id, strategy in named.items():
                engine.add_strategy(strategy_id, strategy)
            try:
                yield engine
                await engine.close()
            finally:
                await engine.cancel_tasks()  # noqa: ASYNC102 - shields itself; the tasks it waits for were cancelled


def _pipeline_of(config: EngineConfig, feeds: Iterable[Feed]) -> FeaturePipeline:
    """Knows which fields rows of these feeds can have, where every one of them says so."""
    kinds = [getattr(feed, "kinds", None) for feed in feeds]
    known = [kind for kind in kinds if kind is not None]
    fields = fields_of_kinds(chain.from_iterable(known)) if known and len(known) == len(kinds) else None
    return FeaturePipeline(fields=fields, longest_window=config.longest_window)
