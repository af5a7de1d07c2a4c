"""A replay has the garbage collector run less often, for as long as it lasts and where the host has not decided."""

import gc
from collections.abc import Iterator

import attrs
import pytest

from trio_nt import Quote, Strategy, StrategyContext, replay
from trio_nt.testing import quotes

RARE = 10_000


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@attrs.define
class Looks(Strategy):
    fails: bool = False
    seen: list[tuple[int, int, int]] = attrs.field(factory=list)

    def on_quote(self, quote: Quote, context: StrategyContext) -> None:
        self.seen.append(gc.get_threshold())
        if self.fails:
            raise RuntimeError("on purpose")


@pytest.mark.parametrize("fails", [False, True])
def test_collections_are_rare_while_rows_pass_and_as_before_afterwards(fails: bool) -> None:
    gc.set_threshold(700, 11, 12)
    strategy = Looks(fails)
    try:
        replay(quotes("ABC", mid=[100.0]), strategy, raise_errors=True)
    except RuntimeError:
        assert fails
    ((young, *older),) = strategy.seen
    assert young >= RARE
    assert older == [11, 12]
    assert gc.get_threshold() == (700, 11, 12)


@pytest.mark.parametrize("chosen", [0, 10**9])
def test_a_host_that_wants_them_rarer_or_never_has_its_way(chosen: int) -> None:
    gc.set_threshold(chosen, 11, 12)
    strategy = Looks()
    replay(quotes("ABC", mid=[100.0]), strategy)
    assert strategy.seen == [(chosen, 11, 12)]
