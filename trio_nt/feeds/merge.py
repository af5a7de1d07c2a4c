"""Several sources as one: rows in the order of (``ts_init``, source, row), whole pieces at a time.

A piece is a block of columns of one layout (market rows or bars) whose ``ts_init`` never decreases, within it and
from piece to piece. In each round the source whose piece ends first sets the horizon: everything up to there is
known from every source, so it is put in order by one stable sort.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from trio_nt.model.market import Column, Columns


def merge(sources: Sequence[Iterator[Columns]]) -> Iterator[Columns]:
    """The rows of all sources in order, in pieces of one layout each."""
    if len(sources) == 1:
        yield from sources[0]
        return
    pieces = [next(source, None) for source in sources]
    while True:
        alive = [index for index, piece in enumerate(pieces) if piece is not None]
        if len(alive) < 2:
            break
        horizon = min(alive, key=lambda index: (_ts_init(pieces[index])[-1], index))
        last = _ts_init(pieces[horizon])[-1]
        ready: list[Columns] = []
        for index in alive:
            piece = pieces[index]
            assert piece is not None
            # A row of the horizon's source at `last` may still follow: later sources wait with theirs.
            side = "right" if index <= horizon else "left"
            rows = int(np.searchsorted(piece["ts_init"], last, side=side))  # type: ignore[call-overload]
            if rows:
                ready.append({name: column[:rows] for name, column in piece.items()})
            if rows == len(piece["ts_init"]):
                pieces[index] = next(sources[index], None)
            else:
                pieces[index] = {name: column[rows:] for name, column in piece.items()}
        yield from _in_order(ready)
    for index in alive:
        piece = pieces[index]
        assert piece is not None
        yield piece
        yield from sources[index]


def _ts_init(piece: Columns | None) -> Column:
    assert piece is not None
    return piece["ts_init"]


def _in_order(pieces: list[Columns]) -> Iterator[Columns]:
    """Rows of ``pieces``, which are in order of their sources, sorted by time; cut where the layout changes."""
    if len(pieces) == 1:
        yield pieces[0]
        return
    by_layout: dict[tuple[str, ...], list[Columns]] = {}
    for piece in pieces:
        by_layout.setdefault(tuple(piece), []).append(piece)
    layouts = list(by_layout)
    joined = [
        {name: np.concatenate([piece[name] for piece in group]) for name in layout}
        for layout, group in by_layout.items()
    ]
    order = np.argsort(np.concatenate([piece["ts_init"] for piece in pieces]), kind="stable")
    if len(layouts) == 1:
        yield {name: column[order] for name, column in joined[0].items()}
        return
    lengths = [len(piece["ts_init"]) for piece in pieces]
    layout_of = np.repeat([layouts.index(tuple(piece)) for piece in pieces], lengths)
    row_of = np.empty(len(order), np.intp)
    for layout in range(len(layouts)):
        mine = layout_of == layout
        row_of[mine] = np.arange(np.count_nonzero(mine))
    layout_of, row_of = layout_of[order], row_of[order]
    cuts = np.flatnonzero(np.diff(layout_of)) + 1
    for start, rows in zip([0, *cuts.tolist()], np.split(row_of, cuts), strict=True):
        yield {name: column[rows] for name, column in joined[layout_of[start]].items()}
