"""Initial weights of networks."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.networks.batch_norm import ConditionalBatchNorm2d


def init_dcgan_(network: nn.Module) -> None:
    """Initialises in place as DCGAN does: weights N(0, 0.02), batch-norm scales N(1, 0.02), biases 0.

    Embeddings are Glorot-uniform, as in the projection discriminator's own code (Miyato & Koyama 2018): with N(0, 0.02)
    labels count for so little that after a short training many a digit is not that of its class.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.Embedding):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, ConditionalBatchNorm2d):
            nn.init.normal_(module.scale, 1.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, 0.02)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def init_xavier_(network: nn.Module, gain: float = 0.02) -> None:
    """Initialises convolutions and linear layers in place as CUT does: Glorot-normal times ``gain``, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_normal_(module.weight, gain)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_kaiming_(network: nn.Module) -> None:
    """Initialises convolutions and linear layers as MUNIT does: N(0, 2 / inputs) (He et al. 2015); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def init_orthogonal_(network: nn.Module) -> None:
    """Initialises in place as BigGAN does: orthogonal weights, embeddings too (Saxe et al. 2014); biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
