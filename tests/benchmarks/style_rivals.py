"""What `bench_style` compares with: the structures of the public implementations that most repositories start from.

Written anew, with our encoder's weights and the same losses, so that only the structure differs: row-by-row memory,
fp32, unfused optimizers, ``item()`` in each step, features that nobody looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.adain import STAGES
from lightning_modules.networks.vgg import VGG19


def sequential_encoder(encoder: VGG19, last: str) -> tuple[list[nn.Module], list[str]]:
    """The encoder as a list of layers, in row-by-row memory, and each layer's name (empty: none)."""
    layers: list[nn.Module] = [encoder.normalize]
    names = [""]
    for name, convolution in encoder.convolutions.items():
        assert isinstance(convolution, nn.Conv2d)
        if name.endswith("_1") and name != "relu1_1":
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            names.append("")
        layers += [nn.ReflectionPad2d(1), convolution, nn.ReLU()]
        names += ["", "", name]
        if name == last:
            break
    return [deepcopy(layer).to(memory_format=torch.contiguous_format) for layer in layers], names


def gram_matrix(features: Tensor) -> Tensor:
    batch, channels, height, width = features.shape
    rows = features.view(batch, channels, height * width)
    return rows.bmm(rows.transpose(1, 2)) / (height * width)


class ContentLoss(nn.Module):
    """Sits between two layers and keeps the loss of what passes."""

    def __init__(self, target: Tensor) -> None:
        super().__init__()
        self.target = target.detach()
        self.loss = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.loss = F.mse_loss(x, self.target)
        return x


class StyleLoss(nn.Module):
    """Likewise, of Gram matrices."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.target = gram_matrix(features).detach()
        self.loss = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        self.loss = F.mse_loss(gram_matrix(x), self.target)
        return x


class TutorialGatys:
    """The neural style tutorial: one Sequential, with loss modules between its layers."""

    def __init__(
        self,
        encoder: VGG19,
        content: Tensor,
        style: Tensor,
        *,
        content_layer: str,
        style_layers: Sequence[str],
        content_weight: float,
        style_weight: float,
        tv_weight: float,
    ) -> None:
        self.weights = (content_weight, style_weight / len(style_layers), tv_weight)
        layers, names = sequential_encoder(encoder, "relu5_1")
        model = nn.Sequential(scale := _ToUnit())
        self.contents: list[ContentLoss] = []
        self.styles: list[StyleLoss] = []
        x, s = scale(content), scale(style)
        with torch.no_grad():
            for layer, name in zip(layers, names, strict=True):
                x, s = layer(x), layer(s)
                model.append(layer)
                if name == content_layer:
                    self.contents.append(ContentLoss(x))
                    model.append(self.contents[-1])
                if name in style_layers:
                    self.styles.append(StyleLoss(s))
                    model.append(self.styles[-1])
        self.model = model

    def loss(self, picture: Tensor) -> Tensor:
        self.model(picture)
        content_score = sum((module.loss for module in self.contents), picture.new_zeros(()))
        style_score = sum((module.loss for module in self.styles), picture.new_zeros(()))
        tv_score = (picture[..., 1:] - picture[..., :-1]).abs().mean()
        tv_score = tv_score + (picture[..., 1:, :] - picture[..., :-1, :]).abs().mean()
        content_weight, style_weight, tv_weight = self.weights
        return content_weight * content_score + style_weight * style_score + tv_weight * tv_score


class _ToUnit(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + 1) / 2


class _Encoded:
    """The features of four layers."""

    layers = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")

    def __init__(self, encoder: VGG19) -> None:
        self.encoder, self.names = sequential_encoder(encoder, "relu4_1")

    def features(self, x: Tensor) -> list[Tensor]:
        found = []
        x = (x + 1) / 2
        for layer, name in zip(self.encoder, self.names, strict=True):
            x = layer(x)
            if name in self.layers:
                found.append(x)
        return found


class CommonAdaIN(_Encoded):
    """The public AdaIN training: the content's features, four layers of the style's, four of the result's; Adam."""

    def __init__(self, encoder: VGG19) -> None:
        super().__init__(encoder)
        self.decoder = common_decoder()
        self.optimizer = torch.optim.Adam(self.decoder.parameters(), lr=1e-4)
        self.log: dict[str, float] = {}

    def step(self, content: Tensor, style: Tensor) -> None:
        styles = self.features(style)
        features = self.features(content)[-1]
        (mean, std), (style_mean, style_std) = statistics(features), statistics(styles[-1])
        t = ((features - mean.expand(features.size())) / std.expand(features.size())) * style_std + style_mean
        results = self.features(self.decoder(t) * 2 - 1)
        loss_c = F.mse_loss(results[-1], t)
        loss_s = torch.zeros(())
        for ours, theirs in zip(results, styles, strict=True):
            (our_mean, our_std), (their_mean, their_std) = statistics(ours), statistics(theirs)
            loss_s = loss_s + F.mse_loss(our_mean, their_mean) + F.mse_loss(our_std, their_std)
        loss = loss_c + 10 * loss_s
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.log = {"content": loss_c.item(), "style": loss_s.item()}


def common_decoder() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 512
    for stage, widths in enumerate(STAGES):
        if stage:
            layers += [nn.ReLU(), nn.Upsample(scale_factor=2, mode="nearest")]
        for number, width in enumerate(widths):
            layers += [nn.ReLU()] if number else []
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3)]
            channels = width
    return nn.Sequential(*layers)


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.view(*x.shape[:2], -1)
    std = (rows.var(dim=2) + 1e-5).sqrt().view(*x.shape[:2], 1, 1)
    return rows.mean(dim=2).view(*x.shape[:2], 1, 1), std


class CommonFastStyle(_Encoded):
    """The public fast neural style example: InstanceNorm2d, features of all layers of input and result, Adam."""

    def __init__(self, encoder: VGG19, style: Tensor, batch: int) -> None:
        super().__init__(encoder)
        self.network = common_network()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)
        self.grams = [gram_matrix(f) for f in self.features(style.repeat(batch, 1, 1, 1))]
        self.log: dict[str, float] = {}

    def step(self, images: Tensor) -> None:
        self.optimizer.zero_grad()
        y = torch.tanh(self.network(images))
        results, targets = self.features(y), self.features(images)
        content = F.mse_loss(results[2], targets[2])
        style = torch.zeros(())
        for ours, theirs in zip(results, self.grams, strict=True):
            style = style + F.mse_loss(gram_matrix(ours), theirs) / len(self.layers)
        tv = (y[..., 1:] - y[..., :-1]).abs().mean() + (y[..., 1:, :] - y[..., :-1, :]).abs().mean()
        loss = content + 100 * style + 0.1 * tv
        loss.backward()
        self.optimizer.step()
        self.log = {"content": content.item(), "style": style.item()}


def common_network() -> nn.Sequential:
    def convolution(channels: int, width: int, kernel: int, stride: int = 1, upsample: bool = False) -> list[nn.Module]:
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2)] if upsample else []
        layers += [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(channels, width, kernel, stride)]
        return [*layers, nn.InstanceNorm2d(width, affine=True), nn.ReLU()]

    return nn.Sequential(
        *convolution(3, 32, 9),
        *convolution(32, 64, 3, 2),
        *convolution(64, 128, 3, 2),
        *(_CommonResidual() for _ in range(5)),
        *convolution(128, 64, 3, upsample=True),
        *convolution(64, 32, 3, upsample=True),
        nn.ReflectionPad2d(4),
        nn.Conv2d(32, 3, 9),
    )


class _CommonResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.in1 = nn.Conv2d(128, 128, 3), nn.InstanceNorm2d(128, affine=True)
        self.conv2, self.in2 = nn.Conv2d(128, 128, 3), nn.InstanceNorm2d(128, affine=True)
        self.pad, self.relu = nn.ReflectionPad2d(1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.in1(self.conv1(self.pad(x))))
        return self.in2(self.conv2(self.pad(out))) + x
