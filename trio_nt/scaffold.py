"""``trio-nt init``: a strategy and its test that pass as written, to be changed."""

from pathlib import Path

from trio_nt.errors import EnvironmentFailure, InputError

_STRATEGY = '''\
"""Follow the trend: long while the fast average is above the slow one, short while it is below."""

import attrs

from trio_nt import Strategy, cross, ema, target


@attrs.define
class Crossover(Strategy):
    """The fields are the configuration: ``--set fast=5`` changes one."""

    fast: int = 10
    slow: int = 20
    quantity: int = 1

    def features(self):
        # One value per quote, made from nothing after it: -1 below, +1 above, 0 while there are too few quotes.
        return {"cross": cross(ema(self.fast), ema(self.slow))}

    def on_quote(self, quote, context):
        if context.features.cross:
            return target(quote.instrument, self.quantity * context.features.cross)
'''

_TEST = '''\
"""Plain functions: no event loop, no plugin. Run with ``python -m pytest``."""

from trio_nt.testing import quotes, run_strategy

from {module} import Crossover


def test_it_follows_the_cross():
    result = run_strategy(Crossover(fast=2, slow=3), quotes("ABC", mid=[10, 9, 8, 12, 7]))
    assert result.position == {{"ABC": -1}}


def test_it_does_nothing_before_the_averages_are_there():
    result = run_strategy(Crossover(fast=2, slow=3), quotes("ABC", mid=[10, 9]))
    assert result.position == {{}}
'''


def write_strategy(path: Path) -> tuple[Path, Path]:
    """Write ``path`` and, beside it, its test ``test_<name>``; both paths. Nothing is overwritten.

    Raises:
        InputError: the name is no module's, the folder is not there, or one of the files is there already.
        EnvironmentFailure: the folder may not be written.
    """
    if path.suffix != ".py" or not path.stem.isidentifier():
        raise InputError(f"{path}: the name must be that of a Python module, like my_strategy.py")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    test = path.with_name(f"test_{path.name}")
    for each in (path, test):
        if each.exists():
            raise InputError(f"{each} is there already and is not overwritten; choose another name")
    try:
        path.write_text(_STRATEGY, encoding="utf-8")
        test.write_text(_TEST.format(module=path.stem), encoding="utf-8")
    except OSError as error:
        raise EnvironmentFailure(f"{error.filename}: {error.strerror}") from error
    return path, test
