"""The balance of experts: closed forms, and a batch that is dealt to ranks."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.losses.balance import load_balance_loss

pytestmark = pytest.mark.usefixtures("double")


def test_experts_that_are_chosen_alike_give_one_and_a_collapse_their_number() -> None:
    alike = torch.full((4, 4), 0.25)
    assert load_balance_loss(alike, torch.full((4,), 0.25)).item() == 1
    alone = torch.eye(4)[[2, 2, 2]]
    assert load_balance_loss(alone, alone[0]).item() == 4


def test_the_loss_is_the_papers_sum() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    # 3 * (0.5 * 0.6 + 0.25 * 0.25 + 0.25 * 0.15)
    assert load_balance_loss(probabilities, torch.tensor([0.5, 0.25, 0.25])).item() == pytest.approx(1.2)


def test_parts_of_a_batch_with_one_load_average_to_its_loss_and_gradient() -> None:
    torch.manual_seed(0)
    logits = torch.randn(6, 3, requires_grad=True)
    load = torch.tensor([0.5, 0.3, 0.2])
    whole = load_balance_loss(logits.softmax(1), load)
    parts = [load_balance_loss(part.softmax(1), load) for part in logits.split(3)]
    torch.testing.assert_close(sum(parts) / 2, whole)
    torch.testing.assert_close(
        torch.autograd.grad(sum(parts, torch.zeros(())) / 2, logits), torch.autograd.grad(whole, logits)
    )
    # Loads of their own would not.
    own = [load_balance_loss(part.softmax(1), part.argmax(1).bincount(minlength=3) / 3) for part in logits.split(3)]
    both = load_balance_loss(logits.softmax(1), logits.argmax(1).bincount(minlength=3) / 6)
    assert abs((sum(own) / 2 - both).item()) > 1e-3
