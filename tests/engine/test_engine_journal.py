"""The engine with its durable journal: the real writer process, real SQLite, a venue that outlives the engine."""

import contextlib
import os
import resource
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from engine_scripts import START_NS, Listening, ScriptedFeed, pause, quote

from trio_nt import Account, Instrument, Instruments, SimulatedBroker, buy, open_engine
from trio_nt.engine import Engine
from trio_nt.engine_config import EngineConfig
from trio_nt.errors import JournalError, OutcomeUnknown
from trio_nt.execution.gateway import GatewaySettings
from trio_nt.execution.lookup import LookupSettings
from trio_nt.model.actions import OrderType, TimeInForce
from trio_nt.model.events import Filled, Halted
from trio_nt.model.instruments import InstrumentKind, Side
from trio_nt.model.orders import EXTERNAL, BrokerUpdate, OrderRequest, OrderState
from trio_nt.storage.durable import DurableJournal, open_journal
from trio_nt.storage.journal import OrderIntent
from trio_nt.storage.reading import mark_halted, read_journal

D = Decimal


class Venue(SimulatedBroker):
    """A venue that serves one engine after another."""

    def __init__(self) -> None:
        super().__init__(cash=100_000)
        self.instruments = instruments()
        super().bind(self.instruments)
        self.quote(10.0)

    def bind(self, instruments: Instruments, *, now_ns: Callable[[], int] | None = None) -> None:
        assert instruments.ids[:1] == self.instruments.ids

    def quote(self, price: float) -> None:
        """The market moves while no engine looks."""
        self._market_ns = Clock()()
        self._tell(self.exchange.quote(0, price, price, 1000, 1000, self._market_ns))


def instruments() -> Instruments:
    return Instruments([Instrument(id="ABC", symbol="ABC", kind=InstrumentKind.EQUITY, quote="USD")])


def foreign(order_id: str, quantity: int = 7, limit: Decimal | None = None) -> OrderRequest:
    kind = OrderType.MARKET if limit is None else OrderType.LIMIT
    return OrderRequest(order_id, "ABC", Side.BUY, D(quantity), kind, limit, None, TimeInForce.GTC)


class Clock:
    """The engine's clock, which may be set."""

    def __init__(self) -> None:
        self.base_ns = START_NS

    def __call__(self) -> int:
        return self.base_ns + round(trio.current_time() * 1e9)


@asynccontextmanager
async def running(
    folder: Path, venue: Venue, *steps: Any, strategy: Any = None, clock: Any = None, **config: Any
) -> AsyncIterator[Engine]:
    """An engine that was started, on the journal in ``folder``; its feed waits for ever after its steps."""
    lookup = LookupSettings(grace_s=0.2, pause_s=0.02)

    async def forever(send: Any) -> None:
        await trio.sleep_forever()

    async with open_journal(folder / "j.sqlite", account="a", lock_folder=folder) as journal:
        settings = EngineConfig(
            instruments=instruments(), exit_timeout_s=0.5, gateway=GatewaySettings(lookup=lookup), **config
        )
        async with open_engine(
            settings,
            feeds=[ScriptedFeed(quote("ABC", 10.0), pause(0.05), *steps, forever)],
            broker=venue,
            strategies={"s": strategy or Listening()},
            journal=journal,
            now_ns=clock or Clock(),
        ) as engine:
            await engine.start()
            yield engine


def does(*actions: Any) -> Listening:
    """Does these, one with every quote."""
    left = list(actions)
    return Listening(lambda event, context: left.pop(0) if left else None)


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.01)


def failed(engine: Engine) -> list[str]:
    return [check.name for check in engine.report().checks if not check.ok]


class TestRestart:
    async def test_positions_orders_and_cash_are_there_again(self, tmp_path: Path) -> None:
        venue = Venue()
        bought, resting = buy("ABC", 10), buy("ABC", 5, limit_price=9)
        async with running(tmp_path, venue, quote("ABC", 10.0), strategy=does(bought, resting), on_exit="keep") as one:
            await until(lambda: len(venue.exchange.orders) == 2 and one.desk.books.fills == 1)
        venue.quote(8.0)  # the resting order fills while nobody looks
        strategy = Listening()
        async with running(tmp_path, venue, strategy=strategy) as two:
            assert two.desk.position("s", "ABC") == 15
            assert two.desk.risk.exposure.position("ABC", "s") == 15
            assert two.desk.risk.exposure.open_orders() == 0
            assert two.desk.books.account.cash["USD"] == venue.exchange.ledger.cash["USD"]
            assert EXTERNAL not in two.desk.books.strategies
            (compared,) = two.recovery.history
            assert (compared.new_fills, compared.differences, compared.halted) == (1, (), "")
            assert two.halted == ""
            lines = "\n".join(two.report().data)
            assert "2 orders of earlier runs were taken from the journal" in lines
            assert "compared with the broker: " in lines
            assert "1 executions were new" in lines
            await until(lambda: strategy.seen)
            assert strategy.heard == []  # what is past is in positions and orders, it is not told again

    async def test_a_resting_order_is_known_and_can_be_cancelled(self, tmp_path: Path) -> None:
        venue = Venue()
        async with running(tmp_path, venue, strategy=does(buy("ABC", 5, limit_price=9)), on_exit="keep"):
            await until(lambda: venue.exchange.orders)
        async with running(tmp_path, venue) as two:
            (order,) = two.desk.working_orders("s", "ABC")
            assert (order.quantity, order.state) == (5, OrderState.ACCEPTED)
            assert two.desk.risk.exposure.long("ABC", "s") == 5
        assert [order.state for order in venue.exchange.orders.values()] == [OrderState.CANCELLED]  # on exit

    @pytest.mark.parametrize("is_counted", [False, True])
    async def test_a_fill_while_the_account_is_asked_for_counts_once_in_its_cash(
        self, tmp_path: Path, is_counted: bool
    ) -> None:
        """The broker's word may have it and its news still be on the way; or the other way round."""

        class Busy(Venue):
            """Fills what rests, just before or just after it has looked at its cash."""

            is_busy = False

            async def account(self) -> Account:
                answer = await super().account()
                if self.is_busy:
                    self.is_busy = False
                    self.quote(8.0)
                    if is_counted:
                        answer = Account(dict(self.exchange.ledger.cash))
                    else:
                        await trio.testing.wait_all_tasks_blocked(0.02)  # until it has been told of
                return answer

        venue = Busy()
        async with running(tmp_path, venue, strategy=does(buy("ABC", 5, limit_price=9)), on_exit="keep"):
            await until(lambda: venue.exchange.orders)
        venue.is_busy = True
        async with running(tmp_path, venue) as two:
            await until(lambda: two.desk.position("s", "ABC") == 5)
            assert two.desk.books.account.cash["USD"] == venue.exchange.ledger.cash["USD"] < 100_000

    async def test_an_intended_order_is_never_sent_late(self, tmp_path: Path) -> None:
        venue = Venue()
        async with open_journal(tmp_path / "j.sqlite", account="a", lock_folder=tmp_path) as journal:
            now_ns = Clock()()  # its signal is still valid: that alone would let it be sent again
            await journal.append([OrderIntent(foreign("nt-1-1"), "s", "", now_ns, now_ns)])
        async with running(tmp_path, venue) as engine:
            order = engine.desk.orders.get("nt-1-1")
            assert order is not None
            assert order.state is OrderState.ABANDONED
            assert engine.desk.risk.exposure.reserved("nt-1-1") == 7  # and stays reserved
            assert engine.halted == ""
        assert venue.exchange.orders == {}

    async def test_the_clock_may_have_stepped_back(self, tmp_path: Path) -> None:
        venue = Venue()
        for back_ns in (0, 3_600 * 10**9, 3_600 * 10**9, 0):

            def clock(back_ns: int = back_ns) -> int:
                return START_NS - back_ns  # the very same time again

            async with running(tmp_path, venue, strategy=does(buy("ABC", 1)), clock=clock) as engine:
                fills = len(venue.exchange.fills_since(0))
                await until(lambda fills=fills: len(venue.exchange.fills_since(0)) == fills + 1)
                await until(lambda: engine.desk.position("s", "ABC") == venue.exchange.ledger.position("ABC").quantity)
                assert failed(engine) == []
        ids = [record.request.client_order_id for record in records(tmp_path) if isinstance(record, OrderIntent)]
        assert len(ids) == len(set(ids)) == 4

    async def test_a_second_engine_is_refused_and_the_first_goes_on(self, tmp_path: Path) -> None:
        venue = Venue()
        async with running(tmp_path, venue, pause(0.5), quote("ABC", 10.0), strategy=does(None, buy("ABC", 1))) as one:
            with pytest.raises(JournalError, match=f"in use by another engine .process {os.getpid()}"):
                async with open_journal(tmp_path / "other", account="a", lock_folder=tmp_path, lock_wait_s=0.1):
                    pass  # pragma: no cover
            await until(lambda: one.desk.books.fills == 1)

    async def test_a_journal_of_another_account_is_refused(self, tmp_path: Path) -> None:
        async with open_journal(tmp_path / "j.sqlite", account="a", lock_folder=tmp_path):
            pass
        with pytest.raises(JournalError, match="belongs to the account a, not to b"):
            async with open_journal(tmp_path / "j.sqlite", account="b", lock_folder=tmp_path):
                pass  # pragma: no cover

    async def test_the_days_loss_goes_on(self, tmp_path: Path) -> None:
        from trio_nt import Reason, RiskLimits

        venue, limits = Venue(), RiskLimits(max_daily_loss=D(50))
        steps = [quote("ABC", 4.0), pause(0.05), quote("ABC", 4.0)]
        strategy = does(buy("ABC", 10), None, None)
        async with running(tmp_path, venue, *steps, strategy=strategy, limits=limits) as one:
            await until(lambda: one.desk.books.fills == 1)
            await until(lambda: len(strategy.seen) == 3)
        again = Listening(lambda event, context: buy("ABC", 1) if event.bid < 10 else None)
        async with running(tmp_path, venue, *steps, strategy=again, limits=limits) as two:
            await until(lambda: two.desk.refusals)
            assert two.desk.refusals[0].reason is Reason.DAILY_LOSS  # 60 lost today, 60 of it before this start


class TestWhatIsNotOurs:
    async def test_a_position_of_others_is_external_and_flatten_closes_it(self, tmp_path: Path) -> None:
        venue = Venue()
        await venue.submit(foreign("by-hand"))
        async with running(tmp_path, venue, strategy=does(buy("ABC", 3))) as engine:
            await until(lambda: engine.desk.books.fills == 1)
            books = engine.desk.books
            held = {name: ledger.position("ABC").quantity for name, ledger in books.strategies.items()}
            assert held == {EXTERNAL: 7, "s": 3}
            assert books.account.position("ABC").quantity == venue.exchange.ledger.position("ABC").quantity == 10
            (pnl,) = books.pnl({"ABC": D(10)})
            assert pnl.net + pnl.fees == 0  # what was there before has earned nothing yet
            await engine.flatten()
            await until(lambda: not venue.exchange.ledger.position("ABC").quantity)

    async def test_an_order_of_others_is_adopted_and_left_alone(self, tmp_path: Path) -> None:
        venue = Venue()
        await venue.submit(foreign("by-hand", limit=D(9)))
        async with running(tmp_path, venue) as engine:
            (order,) = engine.desk.orders.working(strategy_id=EXTERNAL)
            assert order.client_order_id == "by-hand"
            assert engine.desk.risk.exposure.long("ABC") == 7
            assert engine.halted == ""
        assert venue.exchange.orders["by-hand"].state is OrderState.ACCEPTED

    async def test_an_order_under_our_prefix_that_the_journal_does_not_know_halts(self, tmp_path: Path) -> None:
        venue = Venue()
        await venue.submit(foreign("nt-older-1", limit=D(9)))
        async with running(tmp_path, venue, strategy=does(buy("ABC", 1)), on_exit="keep") as engine:
            assert "an older journal was restored" in engine.halted
            await until(lambda: engine.desk.refusals)
            assert "trading was not halted" in failed(engine)
        assert list(venue.exchange.orders) == ["nt-older-1"]
        assert "an older journal was restored" in read_journal(tmp_path / "j.sqlite").halted


def records(folder: Path) -> list[Any]:
    found = read_journal(folder / "j.sqlite")
    return [*found.earlier, *found.records]


class TestHalted:
    async def test_a_halted_journal_stays_so_until_it_is_released(self, tmp_path: Path) -> None:
        venue, path = Venue(), tmp_path / "j.sqlite"
        async with running(tmp_path, venue) as engine:
            await engine.halt("enough")
        assert read_journal(path).halted == "enough"
        async with running(tmp_path, venue, strategy=does(buy("ABC", 1))) as engine:
            assert engine.halted == "the journal is HALTED: enough"
            await until(lambda: engine.desk.refusals)
        assert venue.exchange.orders == {}
        assert read_journal(path).halted == "enough"
        mark_halted(path, "looked at it", 1, halted=False)
        async with running(tmp_path, venue, strategy=does(buy("ABC", 1))) as engine:
            await until(lambda: engine.desk.books.fills == 1)

    @pytest.mark.slow
    async def test_a_mark_from_outside_halts_an_engine_that_sends_nothing(self, tmp_path: Path) -> None:
        venue = Venue()
        async with running(tmp_path, venue) as engine:
            events = engine.events()
            mark_halted(tmp_path / "j.sqlite", "kill switch", 1)
            with trio.fail_after(60):
                async for event in events:
                    if isinstance(event, Halted):
                        break
            assert event.reason == "the journal is HALTED: kill switch"

    async def test_flatten_works_in_a_halted_engine(self, tmp_path: Path) -> None:
        venue = Venue()
        async with running(tmp_path, venue, strategy=does(buy("ABC", 3))) as engine:
            await until(lambda: engine.desk.books.fills == 1)
            await engine.halt()
            await engine.flatten()
            assert not venue.exchange.ledger.position("ABC").quantity
            await until(lambda: not engine.desk.risk.position("ABC"))


class TestAJournalThatFails:
    async def test_a_dead_writer_halts_at_once_and_nothing_leaves_unrecorded(self, tmp_path: Path) -> None:
        venue = Venue()
        go = trio.Event()

        async def wait(send: Any) -> None:
            await go.wait()

        strategy = does(buy("ABC", 1), buy("ABC", 1))
        async with running(tmp_path, venue, wait, quote("ABC", 10.0), strategy=strategy) as engine:
            await until(lambda: engine.desk.books.fills == 1)
            os.kill(writer_of(engine.journal), signal.SIGKILL)
            await until(lambda: engine.halted)
            assert engine.halted == "the journal cannot record: its writer is gone"
            go.set()
            await until(lambda: engine.desk.refusals)
            assert failed(engine)[0] == "trading was not halted"
        assert len(venue.exchange.orders) == 1
        assert len([each for each in records(tmp_path) if isinstance(each, OrderIntent)]) == 1

    async def test_a_full_disk_halts_with_its_reason_and_cancels_still_leave(self, tmp_path: Path) -> None:
        venue = Venue()
        strategy = Listening(lambda event, context: buy("ABC", 1, limit_price=9))

        async def quotes(send: Any) -> None:
            while True:
                await quote("ABC", 10.0)(send)
                await trio.sleep(0.002)

        async with running(tmp_path, venue, quotes, strategy=strategy) as engine:
            await until(lambda: venue.exchange.orders)
            size = max(file.stat().st_size for file in tmp_path.iterdir())
            # A limit on the size of files is what a full disk looks like to SQLite.
            resource.prlimit(writer_of(engine.journal), resource.RLIMIT_FSIZE, (size + 4096, size + 4096))
            await until(lambda: engine.halted)
            assert "full" in engine.halted or "I/O" in engine.halted
            await until(lambda: engine.desk.refusals)
        intents = {each.request.client_order_id for each in records(tmp_path) if isinstance(each, OrderIntent)}
        assert venue.exchange.orders.keys() <= intents  # no order without its journal
        assert {order.state for order in venue.exchange.orders.values()} == {OrderState.CANCELLED}  # on exit


def writer_of(journal: Any) -> int:
    assert isinstance(journal, DurableJournal)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if journal.place.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                    return int(entry.name)
    raise AssertionError("no writer")


class TestUpdateStream:
    async def test_a_reconnect_compares_again_and_finds_what_was_missed(self, tmp_path: Path) -> None:
        venue = Venue()
        strategy = does(buy("ABC", 5, limit_price=9))
        async with running(tmp_path, venue, strategy=strategy) as engine:
            await until(lambda: any(order.state is OrderState.ACCEPTED for order in engine.desk.orders))
            (listener,) = venue._listeners
            venue._listeners.clear()  # deaf
            venue.quote(8.0)
            venue._listeners.append(listener)
            listener.end()
            await until(lambda: engine.desk.position("s", "ABC") == 5)
            await until(lambda: len(engine.recovery.history) == 2)
            assert engine.recovery.history[1].new_fills == 1
            await until(lambda: any(type(event) is Filled for event in strategy.heard))
            assert [type(event) for event in strategy.heard].count(Filled) == 1
            assert failed(engine) == []

    async def test_an_execution_heard_of_elsewhere_while_positions_are_asked_for_is_no_difference(
        self, tmp_path: Path
    ) -> None:
        class Busy(Venue):
            """What rests is filled just after positions were looked at, and a look-up tells of it at once."""

            told: Callable[[BrokerUpdate], object] | None = None

            async def positions(self) -> Mapping[str, Decimal]:
                held = dict(await super().positions())
                if self.told is not None:
                    told, self.told = self.told, None
                    self.quote(8.0)
                    for update in self.exchange.fills_since(0):
                        told(update)
                return held

        venue = Busy()
        async with running(tmp_path, venue, strategy=does(buy("ABC", 5, limit_price=9))) as engine:
            await until(lambda: any(order.state is OrderState.ACCEPTED for order in engine.desk.orders))
            venue.told = engine.gateway.hear
            venue._listeners[0].end()
            await until(lambda: len(engine.recovery.history) == 2)
            assert engine.recovery.history[1].differences == ()
            assert engine.desk.books.account.position("ABC").quantity == 5


async def test_a_cancel_without_an_answer_is_not_counted_among_orders(tmp_path: Path) -> None:
    class Silent(Venue):
        async def cancel(self, client_order_id: str) -> None:
            await super().cancel(client_order_id)
            raise OutcomeUnknown("no answer")

    venue = Silent()
    async with running(tmp_path, venue, strategy=does(buy("ABC", 5, limit_price=9))) as engine:
        await until(lambda: any(order.state is OrderState.ACCEPTED for order in engine.desk.orders))
        engine.stop()
        await engine.wait()
        assert [order.state for order in engine.desk.orders] == [OrderState.CANCELLED]
        assert failed(engine) == []
