"""The stall watchdog: a thread that looks at the step in progress and reports one that takes too long."""

import logging
import sys
import threading
from time import perf_counter
from types import FrameType

from scheduler.gate import Gate
from scheduler.lanes import TaskPriority

logger = logging.getLogger("scheduler")

REPORT_INTERVAL_S = 1.0
_SHORTEST_LOOK_S = 0.001
_IDLE_FACTOR = 8  # times as long between two looks


class Watchdog:
    """Watches one gate from a daemon thread.

    Stalls are counted by the gate at the end of each step. The watchdog samples where a step stands while it is
    still running, between one and one and a half times ``stall_after_s`` after its start, and reports at most once a
    second through the logger ``scheduler``.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._loop_thread = threading.get_ident()
        self._look_every_s = max(_SHORTEST_LOOK_S, gate.stall_after_s / 2)
        self._stop = threading.Event()
        self._reported_step = -1.0
        self._next_report = 0.0
        self.last_stall = ""

    def start(self) -> None:
        threading.Thread(target=self._watch, name="stall-watchdog", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end; it does so at once, and is not waited for."""
        self._stop.set()

    def _watch(self) -> None:
        wait_s, tick = self._look_every_s, -1
        while not self._stop.wait(wait_s):
            self._look()
            is_idle = self._gate.tick == tick and self._gate.current is None
            wait_s = min(2 * wait_s, _IDLE_FACTOR * self._look_every_s) if is_idle else self._look_every_s
            tick = self._gate.tick

    def _look(self) -> None:
        gate = self._gate
        cell, started = gate.current, gate.step_started
        now = perf_counter()
        if cell is None or now - started < gate.stall_after_s or started == self._reported_step:
            return
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None or gate.current is not cell or gate.step_started != started:
            return  # the step ended meanwhile
        if now < self._next_report:
            return
        self._reported_step = started
        self._next_report = now + REPORT_INTERVAL_S
        lane = TaskPriority(cell.lane.index).name
        task = getattr(cell, "task", None)  # gone when the task ends this moment
        self.last_stall = f"task {task.name if task else 'just ended'!r} in {lane} stood at {_place(frame)}"
        logger.warning("%s for %.0f ms without a checkpoint", self.last_stall, (now - started) * 1e3)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
