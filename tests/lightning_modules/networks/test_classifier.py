"""The classifier's input and outputs; relations of pixels, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gesso.common.pixels import to_float
from lightning_modules.networks.classifier import Classifier, ClassifierOptions, pixel_relations, probabilities


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 5)])
def test_relations_are_differences_to_the_upper_left_pixel(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    wanted = np.zeros((2, 3, height // 2 * 2, width // 2 * 2), np.float32)
    for row in range(wanted.shape[2]):
        for column in range(wanted.shape[3]):
            corner = images[:, :, row - row % 2, column - column % 2]
            wanted[:, :, row, column] = images[:, :, row, column] - corner
    np.testing.assert_array_equal(pixel_relations(images), wanted)


@pytest.mark.parametrize("npr", [False, True])
def test_probabilities_are_those_of_each_picture_alone(npr: bool) -> None:
    torch.manual_seed(0)
    network = Classifier(ClassifierOptions(1, 3, width=4, npr=npr)).eval()
    images = torch.randint(0, 256, (5, 1, 13, 12), dtype=torch.uint8)
    found = probabilities(network, images, batch_size=2)
    assert torch.allclose(found.sum(1), torch.ones(5))
    alone = torch.cat([network(to_float(image[None])).softmax(1) for image in images])
    assert torch.allclose(found, alone.detach(), atol=1e-6)
