"""Memory that is used again, but never while somebody holds it."""

from __future__ import annotations

import gc
import random
import threading

import pytest
import torch

from datamodules.streaming.buffers import Buffers


@pytest.mark.slow
def test_memory_comes_back_when_the_last_tensor_is_gone() -> None:
    buffers = Buffers()
    first = buffers.empty((4, 5), torch.float32)
    address = first.data_ptr()
    views = [first[1:], first.T, first.numpy(), first.numpy()[2:], first.permute(1, 0).unsqueeze(0)]
    del first
    while views:
        assert buffers.empty((4, 5), torch.float32).data_ptr() != address
        views.pop(random.randrange(len(views)))
        gc.collect()
    assert address in {buffers.empty((20,), torch.int32).data_ptr()} | {
        tensor.data_ptr() for tensor in [buffers.empty((4, 5), torch.float32) for _ in range(3)]
    }


def test_only_a_few_blocks_are_kept() -> None:
    buffers = Buffers(spare=2)
    lent = [buffers.empty((1000,), torch.uint8) for _ in range(10)]
    lent.clear()
    assert len(buffers._free[1000]) == 2


def test_threads_never_share_a_block() -> None:
    buffers = Buffers()
    failures: list[int] = []

    def use(number: int) -> None:
        held = []
        for turn in range(300):
            tensor = buffers.empty((64, 64), torch.int32)
            tensor.fill_(number * 1000 + turn)
            held.append((tensor, number * 1000 + turn))
            if len(held) > 3:
                old, value = held.pop(0)
                if not bool((old == value).all()):
                    failures.append(value)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
