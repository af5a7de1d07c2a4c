"""Lanes and their settings: what a user chooses. Pure: no Trio, no clock.

The rules of a set of lanes, checked together in ``checked_lanes``:

- every lane has a share (its weight against the other lower lanes) and a minimum share of the loop's busy time;
- CRITICAL takes no part in the shares: it has a quota, the part of the busy time within which it goes first;
- the minimum shares of the lower lanes may not add up to more than the quota leaves.
"""

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import attrs


class TaskPriority(IntEnum):
    """The five lanes, most urgent first."""

    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
    BACKGROUND = 4


DEFAULT_SHARES: Mapping[TaskPriority, float] = {
    TaskPriority.CRITICAL: 1000,
    TaskPriority.HIGH: 1000,
    TaskPriority.MEDIUM: 500,
    TaskPriority.LOW: 200,
    TaskPriority.BACKGROUND: 50,
}


def checked_priority(priority: object) -> TaskPriority:
    """``priority`` as a lane.

    Raises:
        TypeError: not an integer at all.
        ValueError: no lane has this number.
    """
    if isinstance(priority, TaskPriority):
        return priority
    if isinstance(priority, bool) or not isinstance(priority, int):
        raise TypeError(f"priority must be a TaskPriority, was {priority!r}")
    try:
        return TaskPriority(priority)
    except ValueError:
        raise ValueError(f"priority must be one of the lanes 0 to 4, was {priority!r}") from None


def _positive_number(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{attribute.name} must be a number, was {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{attribute.name} must be positive and finite, was {value!r}")


def _fraction(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{attribute.name} must be a number, was {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{attribute.name} must be between 0 and 1, was {value!r}")


def _whole_number(lowest: int) -> Any:
    def check(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{attribute.name} must be a whole number, was {value!r}")
        if value < lowest:
            raise ValueError(f"{attribute.name} must be at least {lowest}, was {value}")

    return check


@attrs.frozen(kw_only=True)
class LaneSettings:
    """How one lane is served.

    Attributes:
        share: the lane's weight against the other lower lanes, a positive number; CRITICAL's is not used.
        minimum_share: the part of the loop's busy time over a rolling second that the lane gets before shares
            count, 0 to 1; CRITICAL's is not used.
        max_tasks: how many submitted tasks of the lane run at a time, at least 1.
        queue_capacity: how many more submissions wait before ``submit`` itself waits, at least 0; also the
            bound of the lane's queue of blocking calls.

    Raises:
        TypeError, ValueError: a value of the wrong kind or out of range, named.
    """

    share: float = attrs.field(validator=_positive_number)
    minimum_share: float = attrs.field(default=0.01, validator=_fraction)
    max_tasks: int = attrs.field(default=1000, validator=_whole_number(1))
    queue_capacity: int = attrs.field(default=1000, validator=_whole_number(0))


DEFAULT_LANES: Mapping[TaskPriority, LaneSettings] = {
    lane: LaneSettings(share=share) for lane, share in DEFAULT_SHARES.items()
}


def checked_lanes(
    lanes: Mapping[TaskPriority, LaneSettings] | None, critical_quota: float
) -> dict[TaskPriority, LaneSettings]:
    """All five lanes: those given, the defaults for the rest.

    Raises:
        TypeError: no mapping, a key is no lane or a value no ``LaneSettings``.
        ValueError: an unknown lane, or minimum shares that exceed what the quota leaves.
    """
    if isinstance(critical_quota, bool) or not isinstance(critical_quota, (int, float)):
        raise TypeError(f"critical_quota must be a number, was {critical_quota!r}")
    if not 0 < critical_quota <= 1:
        raise ValueError(f"critical_quota must be above 0 and at most 1, was {critical_quota!r}")
    if not isinstance(lanes, Mapping | None):
        raise TypeError(f"lanes must map TaskPriority to LaneSettings, was {lanes!r}")
    chosen = dict(DEFAULT_LANES)
    for key, settings in (lanes or {}).items():
        if not isinstance(settings, LaneSettings):
            raise TypeError(f"lanes[{key!r}] must be LaneSettings, was {settings!r}")
        chosen[checked_priority(key)] = settings
    promised = sum(settings.minimum_share for lane, settings in chosen.items() if lane)
    left = 1 - critical_quota
    if promised > left + 1e-9:
        raise ValueError(
            f"the minimum shares of the lower lanes add up to {promised:g}; they must not exceed "
            f"1 - critical_quota = {left:g}"
        )
    return chosen
