"""The worker process: it trains one turn after another for the process that started it.

It is started by `workers.py` and reads pickled orders from a socket: first an `Assignment`, then
turns. It answers with messages, tuples whose first item names their kind:

    ("progress", method, arguments, keywords)    a call of the parent's listener
    ("steps", count)                             so many optimisation steps are done
    ("outcome", position, outcome)               a run's result or its error
    ("warning", text)                            a PluginWarning
    ("over", error)                              the turn is over; `error` ends the whole call
    ("crashed", traceback)                       an exception that is no ZooError; the process ends

When its parent closes the socket, or dies, the process ends: at once if it is idle, and otherwise
as soon as Python code runs again, which while it imports torch takes seconds. What was saved stays,
and folders are unlocked.
"""

import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from idat_zoo.engine.learner import EpochLog
from idat_zoo.engine.precision import computing
from idat_zoo.errors import PluginWarning, UsageError
from idat_zoo.outside import loaded_files
from idat_zoo.plugins import load_plugin
from idat_zoo.runs.assignment import Assignment
from idat_zoo.runs.device_setup import set_up
from idat_zoo.runs.progress import Progress
from idat_zoo.runs.turn import Turn
from idat_zoo.specs import Plugin

GRACE = 10.0
"""Seconds after which a process whose parent is gone ends without unlocking its folders."""
SECONDS_BETWEEN_CALLS = 0.1
"""Between calls that are made for every step or image."""
ENDED = 128 + signal.SIGTERM


def main(descriptor: int) -> None:
    """Serve the parent at the other end of a socket until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us
    signal.signal(signal.SIGTERM, _end)
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    orders: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, orders), daemon=True).start()
    send = _sender(connection)
    try:
        _serve(orders, send)
    except Exception:  # a bug, or a plugin's: the parent shows it, and ends only this turn's runs
        send("crashed", traceback.format_exc())
        raise SystemExit(1) from None


def _end(number: int, frame: object) -> None:
    """Leave all blocks, so that folders are unlocked; a second signal does not disturb that."""
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(ENDED)


def _listen(connection: Connection, orders: "SimpleQueue[bytes]") -> None:
    """Pass on what the parent sends; end this process once it has closed the socket, or died."""
    try:
        while True:
            orders.put(connection.recv_bytes())
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(ENDED)


Send = Callable[..., None]


def _sender(connection: Connection) -> Send:
    lock = threading.Lock()

    def send(*message: object) -> None:
        content = pickle.dumps(message)
        try:
            with lock:
                connection.send_bytes(content)
        except OSError:
            raise SystemExit(ENDED) from None  # the parent is gone

    return send


def _send_plugin_warnings(send: Send) -> None:
    """Leave it to the parent how a PluginWarning is shown; others are written to stderr."""
    show = warnings.showwarning

    def showwarning(
        message: Warning | str, category: type[Warning], *rest: Any, **more: Any
    ) -> None:
        if issubclass(category, PluginWarning):
            send("warning", str(message))
        else:
            show(message, category, *rest, **more)

    warnings.simplefilter("always", PluginWarning)
    warnings.showwarning = showwarning


def _serve(orders: "SimpleQueue[bytes]", send: Send) -> None:
    assignment: Assignment = pickle.loads(orders.get())
    torch.set_num_threads(assignment.threads)
    progress = SentProgress(send)
    _send_plugin_warnings(send)
    try:
        load_plugins(assignment.plugins)
    except UsageError as error:
        send("over", error)
        return
    setup = set_up(torch.device(assignment.device), assignment.switches, stack=assignment.stack)
    setup = replace(setup, jobs=assignment.jobs)  # of which this process sees its own device
    terms = assignment.terms.heard_by(progress)
    with computing(setup.switches, setup.device):
        while True:
            turn: Turn = pickle.loads(orders.get())
            fault: UsageError | None = None
            try:
                for position, outcome in turn.train(setup, terms, progress):
                    send("outcome", position, outcome)
            except UsageError as error:
                fault = error
            send("over", fault)


def load_plugins(plugins: Mapping[Path, Plugin]) -> None:
    """Load the plugins of an assignment. Raises: UsageError if one has changed since."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # the parent has shown it
        for file in plugins:
            load_plugin(file)
    now = loaded_files()
    changed = [str(file) for file, plugin in plugins.items() if now[file] != plugin]
    if changed:
        raise UsageError(f"changed while runs were trained: {', '.join(changed)}")


class SentProgress(Progress):
    """Sends the calls of a listener to the parent; frequent ones are sent ten times a second."""

    def __init__(self, send: Send) -> None:
        self._send, self._steps, self._sent = send, 0, 0.0

    def _call(self, method: str, *arguments: object, **keywords: object) -> None:
        if self._steps:
            self._send("steps", self._steps)
        self._steps, self._sent = 0, time.monotonic()
        if method:
            self._send("progress", method, arguments, keywords)

    def _is_due(self) -> bool:
        return time.monotonic() - self._sent > SECONDS_BETWEEN_CALLS

    def doing(self, name: str, what: str) -> None:
        """Send it."""
        self._call("doing", name, what)

    def stage(self, name: str, *, done: int, epochs: int, steps: int, images: int) -> None:
        """Send it."""
        self._call("stage", name, done=done, epochs=epochs, steps=steps, images=images)

    def step(self) -> None:
        """Count it, and send the number of steps now and then."""
        self._steps += 1
        if self._is_due():
            self._call("")

    def epoch(self, logs: "Sequence[EpochLog]") -> None:
        """Send it, after the steps before it."""
        self._call("epoch", list(logs))

    def decoding(self, what: str, done: int, total: int) -> None:
        """Send the last one, and others now and then."""
        if done == total or self._is_due():
            self._call("decoding", what, done, total)

    def fetching(self, what: str, done: int, total: int) -> None:
        """Send the last one, and others now and then."""
        if done == total or self._is_due():
            self._call("fetching", what, done, total)

    def note(self, text: str) -> None:
        """Send it."""
        self._call("note", text)
