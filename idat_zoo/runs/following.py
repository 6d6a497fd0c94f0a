"""The part of the processes that follow the first one, where several train each run together.

They read images and weights for themselves, and write nothing.
"""

from collections.abc import Callable

from idat_zoo.engine.precision import computing
from idat_zoo.engine.processes import Processes
from idat_zoo.engine.train import Trainer
from idat_zoo.errors import DataError, ZooError
from idat_zoo.runs.device_setup import DeviceSetup
from idat_zoo.runs.inputs import Inputs, load_teacher_views, load_views
from idat_zoo.runs.loaded import LoadedRun
from idat_zoo.runs.memory_errors import plain_memory_errors
from idat_zoo.runs.offline import check_offline_teachers, in_order
from idat_zoo.runs.order import JointTraining
from idat_zoo.runs.passes import learner_of, origin_of
from idat_zoo.runs.plan import Planned


def follow(processes: Processes, prepare: Callable[[], tuple[DeviceSetup, Inputs]]) -> None:
    """Train what the first process orders, until it ends.

    `prepare` gives the device and the inputs; it is called at the first order, and what it raises
    is answered to the first process, as is what keeps this process from a training.

    Raises: TrainingError if another process has ended.
    """
    prepared: tuple[DeviceSetup, Inputs] | None = None
    while (order := processes.hear()) is not None:
        assert isinstance(order, JointTraining)
        fault: ZooError | None = None
        try:
            prepared = prepared or prepare()
            trainer = _begin(order, *prepared)
        except ZooError as error:
            fault = error
        if any(answer is not None for answer in processes.answers(fault)):
            continue
        assert prepared is not None
        setup, _ = prepared
        processes.open(setup.device)
        with computing(setup.switches, setup.device), plain_memory_errors(order.recipe):
            while isinstance(epoch := processes.hear(), int):
                with processes.in_step():
                    trainer.train_epoch(epoch)


def _begin(order: JointTraining, setup: DeviceSetup, inputs: Inputs) -> Trainer:
    """The trainer of an order, with the state of the first process.

    Raises: DataError for other images or weights than those of the first process; what loading
    images and building networks raises.
    """
    with computing(setup.switches, setup.device), plain_memory_errors(order.recipe):
        check_offline_teachers(order.recipe, inputs.teachers)
        views = load_views(order.recipe, inputs, seed=order.seed)
        taught = load_teacher_views(order.recipe, inputs, views, seed=order.seed)
        planned = Planned(
            recipe=order.recipe,
            seed=order.seed,
            out=order.folder,
            folder=order.folder,
            finished=False,
            missing=(),
        )
        run = LoadedRun(
            planned=planned,
            views=views,
            still_ours=lambda: None,
            cache=inputs.reading.cache,
            teachers=tuple(zip(in_order(order.recipe, inputs.teachers), taught, strict=True)),
        )
        training = run.training(order.split, order.recipe)
        learner = learner_of(training, setup)
        if order.switches.prefix_cache:
            learner.cache_prefixes()
        trainer = Trainer([learner], switches=order.switches)
        own = origin_of(training, learner, order.switches, [])
        other = [name for name, value in order.origin.items() if own[name] != value]
        if other:
            raise DataError(f"it has other {' and '.join(other)} than the first process.")
        order.restore(trainer, learner)
        return trainer
