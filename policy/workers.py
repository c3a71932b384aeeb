"""Work spread over processes: tasks go out whole, results come back as they are done."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers:
    """Processes that run functions of a module over tasks that can be pickled; without a pool, this process does."""

    def __init__(self, pool: ProcessPoolExecutor | None = None) -> None:
        self._pool = pool

    def run(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[tuple[T, R]]:
        """Each task with its result, in whatever order. What a task raises is raised here."""
        if self._pool is None:
            for task in tasks:
                yield task, function(task)
            return
        waiting = {self._pool.submit(function, task): task for task in tasks}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


@contextmanager
def workers(processes: int) -> Iterator[Workers]:
    """So many processes; 1: none but this one. Spawned, since a fork would copy the locks of threads."""
    if processes == 1:
        yield Workers()
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        yield Workers(pool)
