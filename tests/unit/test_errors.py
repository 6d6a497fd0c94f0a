"""The tree of errors: each is told as it was, also behind a process boundary."""

import copy
import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

import idat_zoo
from idat_zoo.adapters import find_adapter
from idat_zoo.errors import DataError, RecipeError, UnknownNameError, ZooError

MADE: dict[type[ZooError], Callable[[], ZooError]] = {
    UnknownNameError: lambda: UnknownNameError("adapter", "LoRA", ["lora", "linear"]),
    RecipeError: lambda: RecipeError(["lr: too large", "epochs: too few"]),
    DataError: lambda: DataError("2 images", hint="look", faults=["a.png", "b.png"]),
}
"""How the errors are made whose constructors are their own."""


def every_error() -> list[type[ZooError]]:
    """The whole tree, of every module that there is."""
    for module in pkgutil.walk_packages(idat_zoo.__path__, "idat_zoo."):
        importlib.import_module(module.name)

    def below(kind: type[ZooError]) -> Iterator[type[ZooError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__.startswith("idat_zoo."):
                yield from below(child)

    return list(dict.fromkeys(below(ZooError)))


def an_error(kind: type[ZooError]) -> ZooError:
    return MADE.get(kind, lambda: kind("what was got", hint="what to do"))()


def same(first: ZooError, second: ZooError) -> bool:
    return (
        type(first) is type(second)
        and str(first) == str(second)
        and first.args == second.args
        and first.exit_code == second.exit_code
        and vars(first) == vars(second)
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_goes_through_pickle_with_all_it_says(protocol: int) -> None:
    for kind in every_error():
        error = an_error(kind)
        error.add_note("told by a worker")
        assert same(pickle.loads(pickle.dumps(error, protocol)), error), kind


def test_every_error_is_copied_with_all_it_says() -> None:
    for kind in every_error():
        error = an_error(kind)
        for copied in (copy.copy(error), copy.deepcopy(error)):
            assert same(copied, error), kind


def test_a_class_to_come_with_a_constructor_of_its_own_goes_through_pickle() -> None:
    error = LaterError(3, known={"a": 1})
    again = pickle.loads(pickle.dumps(error))
    assert same(again, error)
    assert again.known == {"a": 1}


class LaterError(UnknownNameError):
    """One that a plugin might bring: nothing it takes is what its parents take."""

    exit_code = 7

    def __init__(self, count: int, *, known: dict[str, int]) -> None:
        super().__init__("name", f"number {count}", known)
        self.known = known


def test_an_error_in_a_worker_process_arrives_as_it_was_raised() -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        future = pool.submit(find_adapter, "lorra")
        with pytest.raises(UnknownNameError, match=r"unknown adapter 'lorra'.*'lora'") as caught:
            future.result()
    assert caught.value.exit_code == 2
