"""Progressive distillation and MeanFlow against closed forms of Gaussian data."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.diffusion.consistency import ECT
from lightning_modules.diffusion.edm import EDM
from lightning_modules.diffusion.flow import Flow
from lightning_modules.diffusion.meanflow import MeanFlow
from lightning_modules.diffusion.progressive import STUDENT, ProgressiveDistillation
from lightning_modules.samplers.deterministic import euler
from lightning_modules.samplers.schedules import beside
from lightning_modules.samplers.wrappers import edm_denoiser
from tests.lightning_modules.diffusion.families import TINY, Function, knowing, tiny
from tests.trainers import bare_trainer

SPREAD = 0.4


# ---- progressive distillation ----------------------------------------------------------------------------------------


def exact(precondition: object, x: Tensor, noise: Tensor) -> Tensor:
    """What a network answers whose D is the exact denoiser of N(0, SPREAD^2)."""
    sigma = (4 * noise).exp()
    c = precondition
    state = x / beside(c.c_in(sigma), x)  # type: ignore[attr-defined]
    wanted = beside(SPREAD**2 / (SPREAD**2 + sigma**2), x) * state
    return (wanted - beside(c.c_skip(sigma), x) * state) / beside(c.c_out(sigma), x)  # type: ignore[attr-defined]


def test_a_student_that_makes_its_teachers_two_steps_in_one_has_no_loss() -> None:
    module = knowing(ProgressiveDistillation, lambda *_: torch.zeros(()), teacher_steps=8, stage_kimg=1.0)
    assert isinstance(module, ProgressiveDistillation)
    c = module.precondition
    module.teacher_network = Function(lambda x, noise, labels: exact(c, x, noise))
    levels = module.sigmas(8)
    # What the student has to answer at levels 0, 2, 4, 6, by the sampler itself: linear in x.
    denoiser = edm_denoiser(lambda x, noise: exact(c, x, noise), c, dtype=torch.float64)
    factors = {}
    for first in range(0, 8, 2):
        sigma, last = levels[first], levels[first + 2]
        end = euler(denoiser, torch.ones(1, 1, dtype=torch.float64), levels[first : first + 3])[0, 0]
        factors[float(sigma)] = float((end - last / sigma) / (1 - last / sigma))

    def student(x: Tensor, noise: Tensor, labels: Tensor | None) -> Tensor:
        sigma = (4 * noise.double()).exp()
        state = x / beside(c.c_in(sigma), x)
        known = torch.tensor(list(factors), dtype=torch.float64)
        nearest = (sigma[:, None] - known).abs().argmin(1)
        wanted = beside(torch.tensor(list(factors.values()), dtype=torch.float64)[nearest], x) * state
        return ((wanted - beside(c.c_skip(sigma), x) * state) / beside(c.c_out(sigma), x)).float()

    module.network = Function(student)
    images, noise = SPREAD * torch.randn(256, 1, 4, 4), torch.randn(256, 1, 4, 4)
    places = (torch.arange(256) + 0.5) / 256
    assert module._distilled(images, None, places, noise)["loss"].item() < 1e-6
    # One that only denoises has some.
    module.network = Function(lambda x, noise, labels: exact(c, x, noise))
    assert module._distilled(images, None, places, noise)["loss"].item() > 1e-2


def test_steps_halve_with_the_stages_and_levels_are_nested() -> None:
    module = knowing(ProgressiveDistillation, lambda *_: torch.zeros(()), teacher_steps=16, stage_kimg=2.0)
    assert isinstance(module, ProgressiveDistillation)
    stages = [module.stage_at(images) for images in (0, 1999, 2000, 4500, 6000, 8000, 10**9)]
    assert stages == [0, 0, 1, 2, 3, 3, 3]
    assert [module.steps_at(stage) for stage in (0, 1, 2, 3)] == [8, 4, 2, 1]
    assert torch.equal(module.sigmas(4), module.sigmas(8)[::2])
    assert module.sigmas(1).tolist() == [80.0, 0.0]
    with pytest.raises(ValueError, match=r"sampling.steps is 3; it must divide the first teacher's steps \(16\)"):
        module.sample_with({"steps": 3})
    with pytest.raises(ValueError, match="teacher_steps is 12; it must be a power of two"):
        tiny(ProgressiveDistillation, teacher_steps=12)


def test_the_student_becomes_the_teacher_when_a_stage_ends(tmp_path: Path) -> None:
    module = tiny(ProgressiveDistillation, teacher_steps=8, stage_kimg=0.016, half_life_kimg=0.001)
    assert isinstance(module, ProgressiveDistillation)
    teachers, students = [], []

    class Watched(ProgressiveDistillation):
        def step(self, batch: dict[str, Tensor]) -> None:
            super().step(batch)
            teachers.append(self.teacher_network.state_dict()["conv_in.weight"].clone())

        def on_train_batch_end(self, *_: object) -> None:
            students.append(self.averages.read(STUDENT, "network")["conv_in.weight"].clone())

    module.__class__ = Watched
    module.train()
    batch = {"image": torch.rand(8, 1, 16, 16) * 2 - 1}
    bare_trainer(tmp_path).fit(module, DataLoader([batch] * 5, batch_size=None))
    # 8 images a step, 16 a stage: a new teacher before steps 2 and 4.
    assert [torch.equal(a, b) for a, b in pairwise(teachers)] == [True, False, True, False]
    assert torch.equal(teachers[2], students[1])
    assert torch.equal(teachers[4], students[3])
    assert not any(parameter.requires_grad for parameter in module.teacher_network.parameters())


def test_the_noise_levels_of_a_stage_come_from_the_host_once(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a step that is replayed, the host's part is not done again.
    module = tiny(ProgressiveDistillation, teacher_steps=8, stage_kimg=1.0)
    assert isinstance(module, ProgressiveDistillation)
    images, noise = torch.rand(4, 1, 16, 16) * 2 - 1, torch.randn(4, 1, 16, 16)
    made: list[int] = []

    def sigmas(steps: int) -> Tensor:
        made.append(steps)
        return ProgressiveDistillation.sigmas(module, steps)

    monkeypatch.setattr(module, "sigmas", sigmas)

    def losses() -> list[float]:
        return [module._distilled(images, None, torch.rand(4), noise)["loss"].item() for _ in range(3)]

    losses()
    assert made == [8]
    module.stage = 1
    torch.manual_seed(0)
    later = losses()
    assert made == [8, 4]
    module._known = None
    torch.manual_seed(0)
    assert losses() == later


# ---- MeanFlow --------------------------------------------------------------------------------------------------------


def spread_at(t: Tensor) -> Tensor:
    """Standard deviation of z at time t."""
    return ((1 - t) ** 2 * SPREAD**2 + t**2).sqrt()


class FlowMap(MeanFlow):
    """Knows the average velocity: z_r = z_t S_r / S_t for Gaussian data."""

    wrong = 0.0

    def average_velocity(self, z: Tensor, r: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        ratio = spread_at(r) / spread_at(t)
        # At r = t: the derivative of -S_r / S_t, -S'(t) / S(t).
        slope = ((1 - t) * SPREAD**2 - t) / spread_at(t) ** 2
        length = torch.where(t > r, t - r, 1.0)
        return beside(torch.where(t > r, (1 - ratio) / length, -slope) + self.wrong, z) * z


def flow_map(**options: object) -> FlowMap:
    return FlowMap(resolution=16, channels=1, network=TINY, **options).eval()  # type: ignore[arg-type]


def test_the_flow_map_satisfies_the_identity_to_nine_digits() -> None:
    module = flow_map(improved=False).double()
    z = torch.randn(64, 1, 2, 2, dtype=torch.float64)
    t = torch.linspace(0.3, 0.95, 64, dtype=torch.float64)
    r = t * torch.linspace(0.05, 0.9, 64, dtype=torch.float64)
    v = module.average_velocity(z, t, t, None)
    _, derivative = torch.func.jvp(
        lambda *at: module.average_velocity(*at, None), (z, r, t), (v, torch.zeros_like(r), torch.ones_like(t))
    )
    u = module.average_velocity(z, r, t, None)
    torch.testing.assert_close(u, v - beside(t - r, z) * derivative, atol=1e-9, rtol=0)


def test_the_mean_gradient_at_the_flow_map_is_zero() -> None:
    count, torch_seed = 20_000, 0
    torch.manual_seed(torch_seed)
    images, noise = SPREAD * torch.randn(count, 1, 2, 2), torch.randn(count, 1, 2, 2)
    t = torch.full((count,), 0.7)
    r = torch.where(torch.arange(count) % 2 == 0, 0.2, 0.7)
    for improved in (True, False):
        module = flow_map(improved=improved, adaptive_power=0.0)
        z = images.lerp(noise, 0.7)
        slopes = {}
        for wrong in (0.0, 0.2):
            module.wrong = wrong
            velocity = noise - images
            derivative = module.derivative(z, r, t, velocity, None)
            u = module.average_velocity(z, r, t, None)
            error = u - (velocity - beside(t - r, z) * derivative)
            # The gradient of a factor of z.
            slopes[wrong] = ((error * z).mean() / z.square().mean()).item()
        assert slopes[0.0] == pytest.approx(0, abs=0.02)
        assert slopes[0.2] > 0.1


def test_one_step_goes_all_the_way_and_several_come_to_the_same() -> None:
    module = flow_map()
    noise = module.noise(torch.arange(32), seed=0)
    made = {}
    for steps in (1, 2, 5):
        module.sample_with({"steps": steps})
        assert module.sampled() == {"sampler": "flow-map", "steps": steps, "evaluations": steps}
        made[steps] = module.sample(noise(0), noise, None)
    torch.testing.assert_close(made[1], (SPREAD * noise(0)).clamp(-1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(made[5], made[1], atol=1e-5, rtol=0)
    # As a flow, by its velocity.
    module.sample_with({"sampler": "heun", "steps": 60})
    torch.testing.assert_close(module.sample(noise(0), noise, None), made[1], atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="the sampler flow-map takes none"):
        tiny(MeanFlow, num_classes=3).sample_with({"guidance": 2.0})


def test_a_real_network_has_the_derivative_of_difference_quotients() -> None:
    module = tiny(MeanFlow).double()
    z, velocity = torch.randn(2, 1, 16, 16).double(), torch.randn(2, 1, 16, 16).double()
    r, t = torch.tensor([0.1, 0.5]).double(), torch.tensor([0.8, 0.6]).double()
    module.improved = False
    step = 1e-4
    ahead, behind = (module.average_velocity(z + sign * step * velocity, r, t + sign * step, None) for sign in (1, -1))
    wanted = ((ahead - behind) / (2 * step)).float()
    found = tiny(MeanFlow, improved=False).derivative(z.float(), r.float(), t.float(), velocity.float(), None)
    torch.testing.assert_close(found, wanted, atol=2e-2 * wanted.abs().max().item(), rtol=0)
    assert not found.requires_grad


# ---- teachers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ECT, ProgressiveDistillation])
def test_a_student_begins_as_its_teacher_and_refuses_another_network(kind: type[EDM]) -> None:
    teacher = tiny(EDM, num_classes=3)
    student = kind(resolution=16, channels=1, num_classes=3, network=TINY, teacher="runs/teacher")
    assert student.runs() == {"teacher": "runs/teacher"}
    student.take_run("teacher", teacher)
    for name, value in teacher.network.state_dict().items():
        assert torch.equal(student.network.state_dict()[name], value)
        if isinstance(student, ProgressiveDistillation):
            assert torch.equal(student.teacher_network.state_dict()[name], value)
    with pytest.raises(ValueError, match=r"it has another network \(num_classes: 0 -> 3\): give these options"):
        student.take_run("teacher", tiny(EDM))
    # Of the same shapes, but told of other numbers.
    with pytest.raises(ValueError, match=r"it has another network \(sigma_data: 1.0 -> 0.5\)"):
        student.take_run("teacher", tiny(EDM, num_classes=3, sigma_data=1.0))
    from lightning_modules.gan.dcgan import DCGAN
    from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions

    with pytest.raises(ValueError, match="a DCGAN cannot be a teacher; a diffusion model can"):
        student.take_run(
            "teacher", DCGAN(resolution=32, generator=GeneratorOptions(8), discriminator=DiscriminatorOptions(8))
        )
    with pytest.raises(ValueError, match="a Flow cannot be a teacher of"):
        student.take_run("teacher", tiny(Flow, num_classes=3))
