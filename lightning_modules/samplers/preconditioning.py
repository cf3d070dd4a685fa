"""EDM's preconditioning (Karras et al. 2022, arXiv:2206.00364, table 1): a network as a denoiser at any noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Preconditioning:
    """D(x, sigma) = c_skip x + c_out F(c_in x, c_noise), for data of standard deviation ``sigma_data``.

    Its inputs c_in x and its targets have variance 1 at every noise level. Each factor takes and returns [N].

    Args:
        sigma_data: standard deviation of the data.
        noise_scale: factor of c_noise; the paper has 1.
    """

    sigma_data: float = 0.5
    noise_scale: float = 1.0

    def c_skip(self, sigma: Tensor) -> Tensor:
        """sigma_data^2 / (sigma^2 + sigma_data^2)."""
        return self.sigma_data**2 / self._variance(sigma)

    def c_out(self, sigma: Tensor) -> Tensor:
        """sigma sigma_data / sqrt(sigma^2 + sigma_data^2)."""
        return sigma * self.sigma_data / self._variance(sigma).sqrt()

    def c_in(self, sigma: Tensor) -> Tensor:
        """1 / sqrt(sigma^2 + sigma_data^2)."""
        return 1 / self._variance(sigma).sqrt()

    def c_noise(self, sigma: Tensor) -> Tensor:
        """noise_scale ln(sigma) / 4."""
        return sigma.log() * (self.noise_scale / 4)

    def weight(self, sigma: Tensor) -> Tensor:
        """The weight of (D - x0)^2, 1 / c_out^2: the loss of a network that predicts 0 is 1 at every noise level."""
        return self._variance(sigma) / (sigma * self.sigma_data) ** 2

    def _variance(self, sigma: Tensor) -> Tensor:
        return sigma**2 + self.sigma_data**2
