"""The processes that train one run together, each with its rows of every batch.

torchrun starts them; they hold equal copies of the networks. Each computes the forward pass of its
own rows, with the masks and augmentations that one process would draw for them. The outputs of all
rows are then gathered, so every process computes the losses of the whole batch, whatever these
compare across its images. Backward, each follows its own rows, and the sum of the gradients over
the processes is the gradient of one process. torch's DistributedDataParallel differs: it averages
the gradients of losses of parts of a batch, and each process draws for itself.

Shape letters: B batch.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from idat_zoo.errors import TrainingError, UsageError

PATIENCE = timedelta(minutes=10)
"""How long a process waits in a step for the others."""
GRACE = timedelta(seconds=1)
"""How long a process waits for the first one to note that it reports the end of all."""
REPORTED, REPORTERS = "idat/reported", "idat/reporters"
"""Keys of the store that the processes share."""


class Processes:
    """The processes that train one run together, as one of them sees them; by default a single one.

    `rank` is the number of this process, from 0, and `count` is how many there are. The first one,
    of rank 0, decides and writes files; the others follow its orders. `lost` says that a step did
    not end in all of them, so that they cannot go on together.
    """

    # Any: torch's Store, which outlives the processes where torchrun holds it
    def __init__(self, *, rank: int = 0, count: int = 1, store: Any = None) -> None:
        self.rank, self.count, self._store = rank, count, store
        self.lost = False
        self._device = torch.device("cpu")
        self._group: Any = None  # torch's ProcessGroup, for the tensors of steps

    def rows(self, batch: int) -> slice:
        """This process's rows of a batch of B images; the first processes may have one row more."""
        sizes = self._sizes(batch)
        begin = sum(sizes[: self.rank])
        return slice(begin, begin + sizes[self.rank])

    def _sizes(self, batch: int) -> list[int]:
        share, more = divmod(batch, self.count)
        return [share + (rank < more) for rank in range(self.count)]

    def check_batch(self, batch: int) -> None:
        """Check that every process has a row of a batch. Raises: UsageError."""
        if batch < self.count:
            raise UsageError(
                f"{self.count} processes share batches of {batch} images: some would have none.",
                hint=f"Start at most {batch} of them, or choose a larger batch_size.",
            )

    def open(self, device: torch.device) -> None:
        """Connect the processes for the tensors of steps on their devices; all call it together."""
        if self._group is None and self.count > 1:
            backend = "nccl" if device.type == "cuda" else "gloo"
            with self.together():
                self._group = distributed.new_group(timeout=PATIENCE, backend=backend)
        self._device = device

    def gather(self, own: Tensor, batch: int) -> Tensor:
        """The rows of all processes `[B, …]` of this one's rows; gradients reach its own rows."""
        if self.count == 1:
            return own
        gathered: Tensor = _Gathered.apply(own, self, batch)
        return gathered

    def rows_of_all(self, own: Tensor, batch: int) -> Tensor:
        """As `gather`, without gradients."""
        sizes = self._sizes(batch)
        padded = own.new_zeros(max(sizes), *own.shape[1:])  # parts of one size, as backends ask
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in sizes]
        with self.together():
            distributed.all_gather(parts, padded, group=self._group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def sum_gradients(self, parts: Sequence[nn.Parameter], whole: Sequence[nn.Parameter]) -> None:
        """Replace the gradients of `parts` by their sums over the processes.

        Those of `whole` are computed in full by every process, so the first one's are taken.
        """
        if self.count == 1:
            return
        if self.rank:
            for parameter in whole:
                if parameter.grad is not None:
                    parameter.grad.zero_()
        grads = [own.grad for own in (*parts, *whole) if own.grad is not None]
        for kind in dict.fromkeys(grad.dtype for grad in grads):
            alike = [grad for grad in grads if grad.dtype == kind]
            flat = torch.cat([grad.flatten() for grad in alike])
            with self.together():
                distributed.all_reduce(flat, group=self._group)
            for grad, total in zip(alike, flat.split([g.numel() for g in alike]), strict=True):
                grad.copy_(total.view_as(grad))

    def check_equal(self, tensors: Mapping[str, Tensor]) -> None:
        """Check that tensors are equal in all processes. Raises: TrainingError in all of them."""
        if self.count == 1:
            return
        digest = hashlib.sha256()
        for tensor in tensors.values():
            plain = tensor.detach().cpu().nan_to_num().contiguous()
            digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        own = torch.tensor(list(digest.digest()), dtype=torch.uint8, device=self._device)
        found = self.rows_of_all(own[None], self.count).cpu()
        if not (found == found[:1]).all():
            raise TrainingError(
                f"the {self.count} processes no longer hold equal networks, so the training ends.",
                hint="They must run on equal devices, with equal threads and versions.",
            )

    def tell(self, order: object) -> None:
        """Send an order to the other processes; only the first process calls it.

        Raises: TrainingError if one of them has ended.
        """
        if self.lost:
            raise self._loss()
        if self.count > 1:
            with self.together():
                distributed.broadcast_object_list([order])

    def hear(self) -> object:
        """Wait for an order of the first process, and return it. Raises: as `tell`."""
        order: list[object] = [None]
        with self.together():
            distributed.broadcast_object_list(order)
        return order[0]

    def answers(self, own: object) -> list[object]:
        """What each process answers to an order, by its rank. Raises: as `tell`."""
        found: list[object] = [own] * self.count
        if self.count > 1:
            with self.together():
                distributed.all_gather_object(found, own)
        return found

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """A block that all processes go through together; an error in it ends their work."""
        try:
            yield
        except BaseException:
            self._lose()
            raise

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block of calls to torch.distributed, whose errors become one sentence.

        Raises: TrainingError.
        """
        try:
            yield
        except RuntimeError as error:  # all of torch.distributed's errors are
            self._lose()
            raise self._loss() from error

    def reports(self) -> bool:
        """Whether this process is the one to print why all of them end.

        It is the first process or, where that was killed, the first of the others to ask.
        """
        if not self.rank or self._store is None:
            return True
        try:
            self._store.wait([REPORTED], GRACE)
        except RuntimeError:  # the time is over, or the store has ended
            with contextlib.suppress(RuntimeError):
                return bool(self._store.add(REPORTERS, 1) == 1)
            return self.rank == 1
        return False

    def _lose(self) -> None:
        """Note that the processes cannot go on together; the first one will report it."""
        self.lost = self.count > 1  # one process alone goes on with its next run
        if self._store is not None and not self.rank:
            with contextlib.suppress(RuntimeError):
                self._store.set(REPORTED, "")

    def _loss(self) -> TrainingError:
        return TrainingError(
            f"another of the {self.count} processes that train together has ended, or was silent "
            f"for {PATIENCE.total_seconds() / 60:g} minutes.",
            hint="What was saved is kept: --resume goes on after the last whole epoch.",
        )


ALONE = Processes()
"""The processes of a run that one process trains."""


class _Gathered(torch.autograd.Function):
    """The rows of all processes; the gradient is that of this process's own rows."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, processes: Processes, batch: int) -> Tensor:
        ctx.rows = processes.rows(batch)
        return processes.rows_of_all(own, batch)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return grad[ctx.rows], None, None
