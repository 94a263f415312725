"""Work in processes of this machine: some for steps that need the CPU, some for steps with a network, on the devices in turn."""

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection as mpc
from multiprocessing.process import BaseProcess

from preprocess.executors.base import Result, Task, Trouble
from preprocess.executors.processes import end_tree, signals_held
from preprocess.executors.worker import Message, serve
from preprocess.plan import Step

OPENING_SECONDS = 900.0  # to start a process and load the models of a step, from a slow disk too
_GRACE = 5.0  # seconds in which workers that are asked to end may clean up


@dataclass(eq=False)
class _Slot:
    """Room for one process."""

    device: str
    process: BaseProcess | None = None
    pipe: mpc.Connection | None = None
    task: Task | None = None
    deadline: float = 0.0
    begun: float | None = None  # when the step began with the clip; None while it is loaded
    words: str = ""  # the last that was heard of it


class LocalExecutor:
    """Processes started by spawn, each when it is first needed; one that dies or is ended is replaced with the next task.

    Args:
        steps: of the run.
        workers: processes for steps that need the CPU; where there are no `devices`, for all.
        devices: a torch device for each process that steps with a network get.
        timeout: seconds that a step may spend on one clip.
    """

    def __init__(self, steps: Sequence[Step], workers: int, devices: Sequence[str], timeout: float) -> None:
        self._steps, self._timeout = list(steps), timeout
        self._context = multiprocessing.get_context("spawn")
        self._pools = {"cpu": [_Slot("cpu") for _ in range(workers)]}
        self._pools["gpu"] = [_Slot(device) for device in devices] or self._pools["cpu"]
        self._all = self._pools["cpu"] + [slot for slot in self._pools["gpu"] if slot not in self._pools["cpu"]]

    def free(self, step: int) -> int:
        """How many tasks of a step could begin at once."""
        return sum(slot.task is None for slot in self._pools[self._steps[step].stage.device])

    def slots(self) -> int:
        """How many tasks can be at work at most."""
        return len(self._all)

    def submit(self, task: Task) -> None:
        """Begin a task; there must be room for it."""
        pool = self._pools[self._steps[task.step].stage.device]
        slot = next(slot for slot in pool if slot.task is None)
        if slot.process is None or not slot.process.is_alive():
            self._start(slot)
        assert slot.pipe is not None
        slot.task, slot.begun, slot.words, slot.deadline = task, None, "", time.monotonic() + OPENING_SECONDS
        try:
            slot.pipe.send(task)
        except OSError:  # it has just died: `wait` hears of it
            slot.words = "its process had ended"

    def wait(self, seconds: float) -> list[Result]:
        """What has ended; waits up to `seconds` for the first. A task that is over its time is ended here."""
        busy = {slot.pipe: slot for slot in self._all if slot.task is not None and slot.pipe is not None}
        if not busy:
            return []
        nearest = min(slot.deadline for slot in busy.values()) - time.monotonic()
        results = []
        for pipe in mpc.wait(list(busy), timeout=max(0.0, min(seconds, nearest))):
            result = self._hear(busy[pipe])
            if result is not None:
                results.append(result)
        now = time.monotonic()
        late = [slot for slot in busy.values() if slot.task is not None and slot.deadline <= now]
        return results + [self._give_up(slot) for slot in late]

    def close(self, at_once: bool) -> None:
        """Send everyone home; `at_once` interrupts what is at work, which is cleaned up and lost."""
        running = [slot for slot in self._all if slot.process is not None]
        for slot in running:
            assert slot.process is not None and slot.pipe is not None
            if at_once or slot.task is not None:
                slot.process.terminate()
            slot.pipe.close()  # one that waits for a task ends by this
        limit = time.monotonic() + _GRACE
        for slot in running:
            assert slot.process is not None
            slot.process.join(max(0.0, limit - time.monotonic()))
            end_tree(slot.process)
            slot.process = slot.pipe = slot.task = None

    def _start(self, slot: _Slot) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve, args=(theirs, self._steps, slot.device), name="clips")
        with signals_held():
            process.start()
            slot.process, slot.pipe = process, ours
        theirs.close()

    def _hear(self, slot: _Slot) -> Result | None:
        """One message of a worker, or its end; None where the task goes on."""
        assert slot.pipe is not None
        try:
            message: Message = slot.pipe.recv()
        except (EOFError, OSError):
            return self._died(slot)
        if message.kind == "begun":
            slot.begun = time.monotonic()
            slot.deadline = slot.begun + self._timeout
            return None
        if message.kind == "broken":
            slot.words = message.why
            return None  # its end follows
        trouble: Trouble | None = None if message.kind == "done" else message.kind
        return self._free(slot, message.outcome, message.seconds, trouble, message.why)

    def _died(self, slot: _Slot) -> Result:
        assert slot.process is not None
        end_tree(slot.process)
        code = slot.process.exitcode or 0
        died = f"its process was ended by signal {-code}" if code < 0 else f"its process ended with status {code}"
        hint = " (out of memory?)" if code == -9 else ""
        trouble: Trouble = "crashed" if slot.begun is not None else "not opened"
        return self._replace(slot, trouble, slot.words or died + hint)

    def _give_up(self, slot: _Slot) -> Result:
        assert slot.process is not None and slot.task is not None
        end_tree(slot.process)
        name = self._steps[slot.task.step].name
        if slot.begun is None:
            return self._replace(slot, "not opened", f"{name} was not ready after {OPENING_SECONDS:.0f} s")
        return self._replace(slot, "timed out", f"{name} took longer than {self._timeout:g} s")

    def _replace(self, slot: _Slot, trouble: Trouble, why: str) -> Result:
        assert slot.pipe is not None
        slot.pipe.close()
        slot.process = slot.pipe = None
        return self._free(slot, None, 0.0 if slot.begun is None else time.monotonic() - slot.begun, trouble, why)

    @staticmethod
    def _free(slot: _Slot, outcome: object, seconds: float, trouble: Trouble | None, why: str) -> Result:
        assert slot.task is not None
        result = Result(slot.task, outcome, seconds, trouble, why)  # type: ignore[arg-type]
        slot.task = None
        return result
