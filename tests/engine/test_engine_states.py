"""What strategies save is there again in the next engine. By the real clock: a mocked one jumps over threads."""

from pathlib import Path
from typing import Any

import attrs
from engine_scripts import ScriptedFeed, arguments, pause, quote

from trio_nt import Strategy, open_engine


def ticks(count: int) -> ScriptedFeed:
    return ScriptedFeed(*[step for number in range(count) for step in (quote("ABC", 10.0 + number), pause(0.002))])


@attrs.define
class Counting(Strategy):
    count: int = 0

    def on_quote(self, quote: Any, context: Any) -> None:
        self.count += 1

    def save_state(self) -> Any:
        return {"count": self.count}

    def restore_state(self, state: Any) -> None:
        self.count = state["count"]


async def test_a_state_survives_the_engine(tmp_path: Path) -> None:
    strategies = [Counting(), Counting()]
    for strategy in strategies:
        config = arguments([ticks(5)], {"s": strategy}, state_folder=tmp_path / "states")
        async with open_engine(**config) as engine:
            await engine.start()
            report = await engine.wait()
        assert report.ok, report.checks
    assert [strategy.count for strategy in strategies] == [5, 10]
    assert [path.name for path in (tmp_path / "states").glob("*.state")] == ["s.state"]
