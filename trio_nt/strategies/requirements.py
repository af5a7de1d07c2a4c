"""What a strategy needs, checked before anything is done for it: its features and its instruments. Pure."""

from trio_nt.errors import InvalidStrategy
from trio_nt.features.pipeline import FeaturePipeline
from trio_nt.model.instruments import Instruments
from trio_nt.strategies.base import Strategy


def check_features(strategy_id: str, strategy: Strategy, pipeline: FeaturePipeline) -> None:
    """Refuse a strategy with a feature that ``pipeline`` cannot compute.

    Raises:
        InvalidStrategy: a window longer than the history, or a field that the data does not have.
        TypeError: no ``FeatureSpec``, or a kernel that cannot be compiled.
    """
    for name, spec in strategy.features().items():
        try:
            pipeline.check([spec])
        except ValueError as error:
            raise InvalidStrategy(f"strategy {strategy_id!r}: feature {name!r}: {error}") from error
        except TypeError as error:
            raise TypeError(f"strategy {strategy_id!r}: feature {name!r}: {error}") from error


def find_instruments(strategy: Strategy, instruments: Instruments) -> frozenset[str] | None:
    """Ids of the instruments that a strategy names; None for every one. KeyError for one that is not there."""
    named = strategy.instruments
    if named == "*":
        return None
    return frozenset(instruments[name].id for name in ([named] if isinstance(named, str) else named))
