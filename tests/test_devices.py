"""On a GPU: the numbers of the CPU where nothing is drawn, and every arm learns and acts there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limask import masking
from limask.experiments import hosted
from limask.hosts.base import Host

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no GPU: nothing is tested on CUDA"
)

#: Environment steps, and episodes, by which nothing waits for anything.
LATE = 1_000_000

#: Arms in which nothing is drawn: config and ``lim``.
FIXED: dict[str, tuple[str, dict[str, Any]]] = {
    "fc": ("qmix_fc", {}),
    "entity": ("qmix_entity", {}),
    "belief": ("qmix_lim", {"masker": {"name": "none"}}),
    "entity_belief": ("qmix_lim", {"masker": {"name": "none"}, "autoencoder": {"name": "entity_belief"}}),
    "shared": ("qmix_entity_lim", {"masker": {"name": "none"}}),
}
#: Arms that draw masks or faults.
DRAWN: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: ("qmix_entity_lim", {"masker": {"name": name}})
        for name, masker in masking.REGISTRY.items()
        if name != "none"
    },
    "replay": ("qmix_lim", {"masker": {"replay": 1.0, "ratio": [0, 0.8], "span": 10}}),
    "faults": ("qmix_lim", {"faults": {"replay": 1.0, "collect": True, "burst": [0, 0.8], "noise": 0.1}}),
    "view": ("qmix_lim", {"view": {"weight": 0.1}}),
}


@pytest.fixture(scope="module")
def host() -> Host:
    return hosted.load_host()


def made(host: Host, algorithm: str, lim: dict[str, Any], device: str) -> tuple[hosted.Arm, hosted.Shape]:
    shape = hosted.smax_shape("3m")
    options = {"batch_size": 8, "buffer_size": 8, "batch_size_run": 2, "lim": lim, "learner_log_interval": 0}
    args = hosted.arguments(host, algorithm, shape, **options, device=device, use_cuda=device == "cuda")
    torch.manual_seed(1)
    arm = hosted.arm(host, args, shape)
    if args.use_cuda:
        arm.learner.cuda()
    arm.learner.logger = hosted.Statistics()
    return arm, shape


def batch_on(host: Host, shape: hosted.Shape, device: str) -> Any:
    batch = hosted.random_batch(host, shape, 8, 12)
    batch.to(device)
    return batch


@pytest.mark.parametrize("name", FIXED)
def test_updates_are_those_of_the_cpu(host: Host, name: str) -> None:
    losses, values = [], []
    for device in ("cpu", "cuda"):
        arm, shape = made(host, *FIXED[name], device)
        batch = batch_on(host, shape, device)
        arm.learner.train(batch, LATE, LATE)
        losses.append(dict(arm.learner.logger.last))
        for _ in range(2):
            arm.learner.train(batch, LATE, LATE)
        arm.mac.init_hidden(8)
        values.append(arm.mac.forward(batch, 0).detach().cpu())
    cpu, cuda = losses
    assert cuda == pytest.approx(cpu, rel=2e-3, abs=1e-5)
    # Adam makes steps of the same length of gradients however small, whose signs may differ.
    torch.testing.assert_close(values[1], values[0], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("name", DRAWN)
def test_arms_learn_and_act(host: Host, name: str, tmp_path: Path) -> None:
    arm, shape = made(host, *DRAWN[name], "cuda")
    batch = batch_on(host, shape, "cuda")
    for _ in range(3):
        arm.learner.train(batch, LATE, LATE)
    assert all(abs(value) < float("inf") for value in arm.learner.logger.last.values())
    assert all(part.is_cuda for part in arm.mac.agent.state_dict().values())
    runner = hosted.runner(host, "vector", arm.args, shape, arm.mac)
    runner.run(test_mode=False)
    assert runner.batch["obs"].is_cuda and int(runner.batch["filled"].sum()) > 2
    arm.learner.save_models(str(tmp_path / "models"))
    (again, _) = made(host, *DRAWN[name], "cpu")
    again.learner.load_models(str(tmp_path / "models"))
    for key, value in again.mac.agent.state_dict().items():
        assert torch.equal(value, arm.mac.agent.state_dict()[key].cpu()), key
