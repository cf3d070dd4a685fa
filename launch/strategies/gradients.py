"""Gradients that are averaged over the ranks while the backward pass still runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter
from torch.utils.hooks import RemovableHandle

from launch.strategies.messages import in_parts
from lightning_modules.core.tensor_lists import grouped, same

#: A bucket's bytes at most: large enough for bandwidth.
BUCKET_BYTES = 16 * 2**20
#: Buckets of a network at least, so that all but the last one travel hidden; none is below ``LAST_BUCKET_BYTES``.
LEAST_BUCKETS = 6
#: The bucket that is ready last: nothing hides it.
LAST_BUCKET_BYTES = 2**20


@dataclass
class Bucket:
    """Parameters whose gradients travel in one message.

    Args:
        parameters: the parameters.
        flat: the memory of their gradients.
        views: the gradients in it, each laid out as its parameter.
        missing: how many gradients of this backward pass are not there yet.
    """

    parameters: list[Parameter]
    flat: Tensor
    views: list[Tensor]
    missing: int = 0


class GradientMemory:
    """Memory for the gradients of one network at a time: networks that are updated in turn share it."""

    def __init__(self) -> None:
        self._flats: dict[tuple[torch.dtype, torch.device], Tensor] = {}
        #: Changes when memory had to be made anew: earlier views are of the old one.
        self.version = 0

    def take(self, parameters: Sequence[Parameter]) -> Tensor:
        """Memory for the gradients of parameters of one dtype and device; the same for everybody who asks."""
        numbers, dtype, device = sum(p.numel() for p in parameters), parameters[0].dtype, parameters[0].device
        flat = self._flats.get((dtype, device))
        if flat is None or len(flat) < numbers:
            flat = self._flats[dtype, device] = torch.empty(numbers, dtype=dtype, device=device)
            self.version += 1
        return flat[:numbers]


class GradientBuckets:
    """The gradients of the parameters that one loss updates.

    ``begin`` comes before the backward pass, ``ready`` when a parameter has its gradient, ``finish`` after the pass.
    Buckets leave in one order on all ranks: that in which gradients were ready in the first pass on rank 0.

    Args:
        parameters: those that get gradients; on every rank the same.
        memory: of the gradients.
        compress: whether gradients travel in bfloat16: half the bytes, and their last 16 bits lost.
    """

    def __init__(self, parameters: list[Parameter], memory: GradientMemory, *, compress: bool = False) -> None:
        self.parameters = parameters
        self._memory, self._compress = memory, compress
        # Until a pass has shown it: the layers that are called last have their gradients first.
        self._order = list(range(len(parameters)))[::-1]
        self._order_is_known = False
        self._buckets: list[Bucket] = []
        self._bucket_of: dict[Parameter, Bucket] = {}
        self._version = -1
        self._arrived: list[Parameter] = []
        self._next = 0
        self._sent: list[tuple[Bucket, Tensor, dist.Work]] = []

    def begin(self) -> None:
        """Gets ready for a backward pass."""
        if self._version != self._memory.version or not self._buckets:
            self._build()
        self._arrived, self._sent, self._next = [], [], 0
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)

    def ready(self, parameter: Parameter) -> None:
        """Notes that a parameter has its gradient; sends the buckets that are complete."""
        self._arrived.append(parameter)
        self._bucket_of[parameter].missing -= 1
        while self._next < len(self._buckets) and self._buckets[self._next].missing == 0:
            self._send(self._buckets[self._next])
            self._next += 1

    def finish(self) -> None:
        """Waits until every gradient is the mean over the ranks. Parameters without a gradient stay without one."""
        for bucket in self._buckets[self._next :]:
            if bucket.missing < len(bucket.parameters):
                self._send(bucket)
        for bucket, message, work in self._sent:
            work.wait()
            if message is not bucket.flat:
                bucket.flat.copy_(message)
            if not averages_itself(message):
                bucket.flat.div_(dist.get_world_size())
        self._sent = []
        if not self._order_is_known:
            self._order, self._order_is_known = self._order_on_first_rank(), True
            self._buckets = []

    def keep(self) -> None:
        """Comes after a pass of a micro-batch instead of ``finish``: the next pass adds to its gradients."""
        for bucket in self._buckets:
            self._take_in(bucket)

    def _take_in(self, bucket: Bucket) -> None:
        """Moves gradients into the bucket, but those that have been added up there."""
        outside: list[tuple[Parameter, Tensor, Tensor]] = []
        for parameter, view in zip(bucket.parameters, bucket.views, strict=True):
            if parameter.grad is None:
                view.zero_()
            elif parameter.grad.data_ptr() != view.data_ptr():
                outside.append((parameter, view, parameter.grad))
        if outside:
            torch._foreach_copy_([view for _, view, _ in outside], [gradient for _, _, gradient in outside])
            for parameter, view, _ in outside:
                parameter.grad = view

    def _send(self, bucket: Bucket) -> None:
        self._take_in(bucket)
        message = bucket.flat.bfloat16() if self._compress else bucket.flat
        operation = dist.ReduceOp.AVG if averages_itself(message) else dist.ReduceOp.SUM
        work = dist.all_reduce(message, operation, async_op=True)
        assert work is not None
        self._sent.append((bucket, message, work))

    def _order_on_first_rank(self) -> list[int]:
        number_of = {parameter: number for number, parameter in enumerate(self.parameters)}
        arrived = [number_of[parameter] for parameter in self._arrived]
        rest = sorted(set(number_of.values()) - set(arrived))
        order = torch.tensor([*arrived, *rest], device=self.parameters[0].device)
        dist.broadcast(order, src=0)
        return [int(number) for number in order.tolist()]

    def _build(self) -> None:
        self._buckets, self._bucket_of = [], {}
        for parameters in grouped(self.parameters[number] for number in self._order):
            flat = self._memory.take(parameters)
            parts = [parameters[part.start : part.stop] for part in cut_into_buckets([p.nbytes for p in parameters])]
            flats = flat.split([sum(parameter.numel() for parameter in part) for part in parts])
            for part, own in zip(parts, flats, strict=True):
                pieces = own.split([parameter.numel() for parameter in part])
                views = [as_laid_out(piece, parameter) for piece, parameter in zip(pieces, part, strict=True)]
                bucket = Bucket(part, own, views)
                self._buckets.append(bucket)
                self._bucket_of.update(dict.fromkeys(part, bucket))
        self._version = self._memory.version


def cut_into_buckets(sizes: Sequence[int]) -> list[range]:
    """Cuts a list into ranges of ``BUCKET_BYTES`` at most, and a last one of ``LAST_BUCKET_BYTES`` at most.

    A small network has smaller ones: at least ``LEAST_BUCKETS``, as long as none is below ``LAST_BUCKET_BYTES``.

    Args:
        sizes: bytes of each entry; one that is larger than a bucket has a bucket for itself.
    """
    last, held = len(sizes), 0
    while last > 0 and held + sizes[last - 1] <= LAST_BUCKET_BYTES:
        last -= 1
        held += sizes[last]
    most = min(BUCKET_BYTES, max(LAST_BUCKET_BYTES, sum(sizes) // LEAST_BUCKETS))
    return [*in_parts(sizes[:last], most), *([range(last, len(sizes))] if last < len(sizes) else [])]


def as_laid_out(flat: Tensor, parameter: Tensor) -> Tensor:
    """A view of ``flat`` with the shape of ``parameter``, and with its strides where these leave no gaps."""
    strides = torch.empty_like(parameter, device="meta").stride()
    return flat.as_strided(parameter.shape, strides, flat.storage_offset())


def averages_itself(message: Tensor) -> bool:
    """Whether the reduction of this tensor divides by the number of ranks, as NCCL's does."""
    return message.is_cuda and "nccl" in dist.get_backend()


class OverlappedReduction:
    """Averages the gradients of a module's backward passes over the ranks.

    A pass through ``torch.autograd.grad`` gives no parameter a gradient, and is none of them.

    Args:
        parameters: of the module.
        compress: see ``GradientBuckets``.
    """

    def __init__(self, parameters: Sequence[Parameter], *, compress: bool = False) -> None:
        self._parameters = list(dict.fromkeys(parameters))
        self._compress = compress
        self._memory = GradientMemory()
        self._buckets: dict[object, GradientBuckets] = {}
        self._active: GradientBuckets | None = None
        self._sending = False
        self._hooks: dict[Parameter, RemovableHandle] = {}

    def close(self) -> None:
        """Stops listening to the parameters."""
        for hook in self._hooks.values():
            hook.remove()

    def begin(self, key: object, *, last: bool = True) -> None:
        """Comes before a backward pass.

        Args:
            key: the same for passes in which the same parameters get gradients.
            last: whether this is the last pass of several that add up: gradients are sent as they get ready.
        """
        wanted = [parameter for parameter in self._parameters if parameter.requires_grad]
        buckets = self._buckets.get(key)
        if buckets is None or not same(wanted, buckets.parameters):
            # The first pass, or a family has begun or ceased to train some of its layers.
            for parameter in wanted:
                if parameter not in self._hooks:
                    self._hooks[parameter] = parameter.register_post_accumulate_grad_hook(self._ready)
            buckets = self._buckets[key] = GradientBuckets(wanted, self._memory, compress=self._compress)
        self._active, self._sending = buckets, last
        buckets.begin()

    def finish(self) -> None:
        """Comes after the pass: all gradients are means over the ranks."""
        active, self._active = self._active, None
        if active is not None:
            active.finish()

    def keep(self) -> None:
        """Comes after a pass instead of ``finish``: its gradients are added to those of the next one."""
        active, self._active = self._active, None
        if active is not None:
            active.keep()

    def _ready(self, parameter: Tensor) -> None:
        if self._active is not None and self._sending:
            self._active.ready(parameter)  # type: ignore[arg-type]
