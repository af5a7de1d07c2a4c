"""How strategies are supervised: settings, and the two memories that apply them. Pure: every time is given.

Rules
- A strategy *fails* when a handler raises, and is *quarantined* when it is put out for how it behaves: it does not take
  its news, holds the market data, overruns its step budget again and again, floods risk with orders, or fails beyond
  its limit of restarts.
- A step *overruns* when even its average row cost more than the whole step budget: no shorter batch would have helped.
  Each overrun is a strike; every ten steps within the budget forgive one, so that a machine which now and then puts the
  process aside never adds up to one.
- A *flood* is more orders refused for their rate within a second than ``FloodPolicy`` allows. Refusing is work, too:
  the ring loses nothing, so a strategy that has every row answered by refusals makes all others late.
"""

from typing import Any

import attrs

from scheduler import TaskPriority

NEVER, ON_FAILURE, ALWAYS = "never", "on-failure", "always"
CANCEL, KEEP = "cancel", "keep"
WARN, DEMOTE, QUARANTINE = "warn", "demote", "quarantine"
FORGIVEN_PER_STEP = 0.1

_not_negative: Any = attrs.validators.ge(0)
_count: Any = attrs.validators.optional(attrs.validators.ge(1))


@attrs.frozen(kw_only=True)
class RestartPolicy:
    """When a strategy that ended is started again, as a fresh object of the same configuration.

    Attributes:
        when: ``never``; ``on-failure``: after an exception, at most ``limit`` times in a row, then it is quarantined;
            ``always``: after whatever ended it, quarantine included, without a limit. One that was told to stop is
            never restarted.
        backoff_s: the first wait; it doubles with every restart in a row, up to ``max_backoff_s``.
        healthy_after_s: after running so long the next failure counts as the first.
    """

    when: str = attrs.field(default=NEVER, validator=attrs.validators.in_((NEVER, ON_FAILURE, ALWAYS)))
    limit: int = attrs.field(default=3, validator=_not_negative)
    backoff_s: float = attrs.field(default=1.0, validator=_not_negative)
    max_backoff_s: float = attrs.field(default=60.0, validator=_not_negative)
    healthy_after_s: float = attrs.field(default=300.0, validator=_not_negative)


@attrs.frozen(kw_only=True)
class OverrunPolicy:
    """How many strikes lead to what, each once in a strategy's life; None for never.

    ``warn_after``: an event, a line in the log and in the report. ``demote_after``: it goes to the next lower lane.
    ``quarantine_after``: it is put out.
    """

    warn_after: int | None = attrs.field(default=10, validator=_count)
    demote_after: int | None = attrs.field(default=100, validator=_count)
    quarantine_after: int | None = attrs.field(default=None, validator=_count)


@attrs.frozen(kw_only=True)
class FloodPolicy:
    """How many orders refused for their rate within one second lead to what, each once in a strategy's life; None for
    never.

    ``warn_after``, ``demote_after``, ``quarantine_after``: as in ``OverrunPolicy``.
    """

    warn_after: int | None = attrs.field(default=1, validator=_count)
    demote_after: int | None = attrs.field(default=100, validator=_count)
    quarantine_after: int | None = attrs.field(default=1_000, validator=_count)


def _restart(value: object) -> object:
    return RestartPolicy(when=value) if isinstance(value, str) else value


def _is_restart(instance: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if not isinstance(value, RestartPolicy):
        raise TypeError(f"restart must be a RestartPolicy or one of {NEVER}, {ON_FAILURE}, {ALWAYS}, was {value!r}")


@attrs.frozen(kw_only=True)
class Supervision:
    """How one strategy is supervised.

    Attributes:
        restart: a ``RestartPolicy``, or its ``when`` alone.
        on_failure: what happens to the working orders of a strategy that failed or was quarantined: ``cancel`` or
            ``keep``.
        lane: where it runs.
        overruns: what follows when it holds the loop too long.
        floods: what follows when risk refuses its orders for their rate, again and again.
    """

    restart: RestartPolicy = attrs.field(factory=RestartPolicy, converter=_restart, validator=_is_restart)
    on_failure: str = attrs.field(default=CANCEL, validator=attrs.validators.in_((CANCEL, KEEP)))
    lane: TaskPriority = attrs.field(default=TaskPriority.HIGH, converter=TaskPriority)
    overruns: OverrunPolicy = attrs.field(factory=OverrunPolicy)
    floods: FloodPolicy = attrs.field(factory=FloodPolicy)


@attrs.frozen(kw_only=True)
class SupervisorSettings:
    """What holds for every strategy: see ``EngineConfig``."""

    news_capacity: int
    mailbox_capacity: int = 1_000
    step_budget_s: float = 500e-6
    linger_s: float = 0.0
    state_every_s: float | None = 60.0


class Restarts:
    """Counts the restarts of one strategy. ``count``: all of them; ``in_a_row``: since it was last healthy."""

    __slots__ = ("_policy", "count", "in_a_row")

    def __init__(self, policy: RestartPolicy) -> None:
        self.count = 0
        self.in_a_row = 0
        self._policy = policy

    def wait_s(self, *, ran_s: float, is_quarantine: bool) -> float | None:
        """How long to wait before the next start, now that it ended after ``ran_s``; None: it is not started again."""
        policy = self._policy
        if ran_s >= policy.healthy_after_s:
            self.in_a_row = 0
        if policy.when == NEVER:
            return None
        if policy.when == ON_FAILURE and (is_quarantine or self.in_a_row >= policy.limit):
            return None
        # The exponent is bounded: 2.0 ** 1024 is an error.
        wait_s = min(policy.backoff_s * 2.0 ** min(self.in_a_row, 100), policy.max_backoff_s)
        self.in_a_row += 1
        self.count += 1
        return wait_s


class Consequences:
    """What follows when a count has come so far, each once in a life."""

    __slots__ = ("_left", "_steps")

    def __init__(self, policy: OverrunPolicy | FloodPolicy) -> None:
        steps = [(policy.warn_after, WARN), (policy.demote_after, DEMOTE), (policy.quarantine_after, QUARANTINE)]
        self._steps = [(after, consequence) for after, consequence in steps if after is not None]
        self._left = list(self._steps)

    def forgive(self) -> None:
        """A new life: every consequence may follow again."""
        self._left = list(self._steps)

    def due(self, count: float) -> list[str]:
        """What follows now, in order of severity."""
        due = [consequence for after, consequence in self._left if count >= after]
        if due:
            self._left = [step for step in self._left if step[1] not in due]
        return due


class Overruns:
    """Steps of one strategy against its step budget. ``count``: overruns; ``slowest_ns``: the longest step."""

    __slots__ = ("_budget_ns", "_consequences", "count", "slowest_ns", "strikes")

    def __init__(self, policy: OverrunPolicy, budget_s: float) -> None:
        self.count = 0
        self.strikes = 0.0
        self.slowest_ns = 0
        self._budget_ns = budget_s * 1e9
        self._consequences = Consequences(policy)

    def forgive(self) -> None:
        """A new life: no strikes, and every consequence may follow again."""
        self.strikes = 0.0
        self._consequences.forgive()

    def measured(self, rows: int, elapsed_ns: int) -> list[str]:
        """Take account of a step over ``rows`` rows, or over one call of another handler; what follows from it."""
        if elapsed_ns > self.slowest_ns:
            self.slowest_ns = elapsed_ns
        if elapsed_ns <= rows * self._budget_ns:
            if self.strikes:
                self.strikes = max(0.0, self.strikes - FORGIVEN_PER_STEP)
            return []
        self.count += 1
        self.strikes += 1.0
        return self._consequences.due(self.strikes)


class Floods:
    """Orders of one strategy that were refused for their rate. ``count``: all of them; ``in_a_second``: those of the
    present second, which begins with the first refusal after the one before."""

    __slots__ = ("_began_ns", "_consequences", "count", "in_a_second")

    def __init__(self, policy: FloodPolicy) -> None:
        self.count = self.in_a_second = 0
        self._began_ns: int | None = None
        self._consequences = Consequences(policy)

    def forgive(self) -> None:
        """A new life: every consequence may follow again."""
        self._began_ns = None
        self._consequences.forgive()

    def refused(self, now_ns: int) -> list[str]:
        """Take account of a refusal; what follows from it."""
        if self._began_ns is None or not 0 <= now_ns - self._began_ns < 1_000_000_000:
            self._began_ns, self.in_a_second = now_ns, 0
        self.count += 1
        self.in_a_second += 1
        return self._consequences.due(self.in_a_second)
