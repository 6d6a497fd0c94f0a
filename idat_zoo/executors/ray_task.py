"""The task that a process of Ray runs: it trains an order, and answers with plain values.

No exception leaves it: Ray would take a SystemExit for a crash and repeat the task, and it cannot
carry every error of ours from one process to another.
"""

import os
import pickle
import traceback

Answer = list[tuple[str, str, str]]
"""For each run its folder, and the class and the message of its error; both are '' without one."""


def train_pickled(content: bytes, *, where: str, devices: str) -> Answer:
    """Train a pickled order in the working folder `where`, with these visible CUDA devices.

    An error that concerns all runs has the folder ''.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = devices
    try:
        os.chdir(where)
        from idat_zoo.errors import UsageError, ZooError
        from idat_zoo.executors.order import train_order

        try:
            outcomes = train_order(pickle.loads(content))
        except UsageError as error:
            return [("", "UsageError", str(error))]
        return [
            (str(folder), type(own).__name__, str(own))
            if isinstance(own, ZooError)
            else (str(folder), "", "")
            for folder, own in outcomes.items()
        ]
    except (Exception, SystemExit):  # a bug, or a plugin's
        last = traceback.format_exc().rstrip().rpartition("\n")[2]
        return [("", "TrainingError", f"its process failed: {last}")]
