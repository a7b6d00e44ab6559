"""The backbone learns: places of one surface come close to each other, all others go apart.

The loss is that of supervised contrastive learning (Khosla et al., NeurIPS 2020, equation 2), taken place by place: for a place with vector z and label y, with
P the other places of this label and A all other places,

    loss = − mean over p in P of log( exp(z·z_p / τ) / Σ_{a in A} exp(z·z_a / τ) ),

where the z are of length 1 and τ is a temperature. They come from a small head that is thrown away afterwards (Chen et al., "SimCLR", ICML 2020).
Weights are averaged over the last steps (Izmailov et al., UAI 2018).
"""

import copy
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision.models import resnet50
from tqdm import tqdm

from texad.files import replacing
from texad.pretrain.curves import draw
from texad.pretrain.lessons import Lesson, lesson
from texad.pretrain.rehearsal import rehearse

PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
WARM_UP = 100  # steps in which the learning rate rises
TEMPERATURE = 0.1
CHECKPOINT, LOG = "checkpoint.safetensors", "training.csv"


@dataclass(frozen=True)
class Settings:
    """What a training is; the same settings give the same weights on the same machine.

    Attributes
    ----------
    steps : int
    surfaces : int
        New textures in a step; two drawings of each.
    sizes : tuple of (int, float)
        Size of the images in pixels, and up to which part of the training.
    learning_rate, weight_decay : float
        Of AdamW.
    seed : int
    rehearse_every : int
        Steps between two rehearsals, and between two checkpoints.
    """

    steps: int = 4000
    surfaces: int = 16
    sizes: tuple[tuple[int, float], ...] = ((64, 0.5), (96, 1.0))
    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    seed: int = 0
    rehearse_every: int = 250

    def size_at(self, step: int) -> int:
        return next(size for size, until in self.sizes if step < until * self.steps or until == self.sizes[-1][1])

    def rate_at(self, step: int) -> float:
        """Up in a straight line, down along half a cosine."""
        if step < WARM_UP:
            return self.learning_rate * (step + 1) / WARM_UP
        done = (step - WARM_UP) / max(1, self.steps - WARM_UP)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


class Pupil(nn.Module):
    """The backbone up to layer3, and the head."""

    def __init__(self) -> None:
        super().__init__()
        network = resnet50(weights=None)
        self.trunk = nn.Sequential()
        for name in PARTS:
            self.trunk.add_module(name, getattr(network, name))
        self.head = nn.Sequential(nn.Conv2d(1024, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(inplace=True), nn.Conv2d(256, 128, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, 128, S/16, S/16), each place of length 1."""
        return functional.normalize(self.head(self.trunk(images)), dim=1)


def contrast(z: torch.Tensor, answers: Lesson, generator: torch.Generator, n_normal: int = 8, n_odd: int = 3) -> torch.Tensor:
    """The loss of a step.

    Parameters
    ----------
    z : Tensor, shape (N, D, H, W)
        Each place of length 1.
    answers : Lesson
    generator : torch.Generator
        Chooses the places.
    n_normal, n_odd : int, default 8 and 3
        Places of an image that are whole, and that are spoilt by a third at least: at most so many.
    """
    n, depth, height, width = z.shape
    spoilt = functional.adaptive_avg_pool2d(answers.masks[:, None], (height, width)).flatten(1)  # which part of a place is
    lots = torch.rand(spoilt.shape, generator=generator, device=z.device)
    normal = torch.where(spoilt < 0.02, lots, -1).topk(min(n_normal, height * width), dim=1)
    odd = torch.where(spoilt > 0.33, lots, -1).topk(min(n_odd, height * width), dim=1)
    places, drawn = torch.cat([normal.indices, odd.indices], 1), torch.cat([normal.values, odd.values], 1) >= 0
    label = torch.cat([answers.surface[:, None].expand_as(normal.indices), answers.intruder[:, None].expand_as(odd.indices)], 1)[drawn]
    vectors = z.flatten(2).gather(2, places[:, None].expand(-1, depth, -1)).transpose(1, 2)[drawn]  # (M, D)
    itself = torch.eye(len(vectors), dtype=torch.bool, device=z.device)
    alike = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    log_part = alike - alike.logsumexp(1, keepdim=True)
    same = (label[:, None] == label[None]) & ~itself
    per_place = -log_part.masked_fill(~same, 0).sum(1) / same.sum(1).clamp_min(1)
    return per_place[same.any(1)].mean()


def train(folder: Path, settings: Settings, until: int | None = None, progress: bool = False) -> pd.DataFrame:
    """Train, or go on where a training was interrupted.

    Parameters
    ----------
    folder : Path
        For the checkpoint, the log and its picture, and the weights of each rehearsal.
    settings : Settings
    until : int, optional
        Stop after this step, to go on another time.
    progress : bool, default False
        Show a bar.

    Returns
    -------
    DataFrame
        The log: `step`, `loss`, `seconds`, and the rehearsal's numbers where there was one.

    Raises
    ------
    ValueError
        If the folder holds a training with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        pupil = Pupil().to(device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(pupil.trunk)
    optimizer = torch.optim.AdamW(pupil.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    first, log = _resume(folder, settings, pupil, average, optimizer)
    began = time.perf_counter()
    last = min(settings.steps, until or settings.steps)
    for step in (bar := tqdm(range(first, last), desc="training", unit="step", initial=first, total=last, disable=not progress)):
        generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + step)
        with torch.no_grad():
            asked = lesson(settings.surfaces, settings.size_at(step), generator)
        pupil.train()
        loss = contrast(pupil(asked.images.contiguous(memory_format=torch.channels_last)), asked, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        optimizer.step()
        _average(average, pupil.trunk, min(0.998, (step + 1) / (step + 10)))
        log.append({"step": step + 1, "loss": loss.item(), "seconds": round((time.perf_counter() - began) / (step - first + 1), 3)})
        bar.set_postfix_str(f"loss {log[-1]['loss']:.3f}", refresh=False)
        if (step + 1) % settings.rehearse_every == 0 or step + 1 == last:
            log[-1] |= rehearse(average)
            _keep(folder, settings, step + 1, pupil, average, optimizer, log)
            said = ", ".join(f"{name} {value:.3f}" for name, value in list(log[-1].items())[3:])
            mean = sum(row["loss"] for row in log[-100:]) / len(log[-100:])
            bar.write(f"step {step + 1}: loss {mean:.3f}, {log[-1]['seconds']:.2f} s a step; rehearsal: {said}")
            sys.stdout.flush()  # into a log, too
            draw(folder, pd.DataFrame(log))
    return pd.DataFrame(log)


@torch.no_grad()
def _average(average: nn.Module, trunk: nn.Module, kept: float) -> None:
    for mean, new in zip(average.state_dict().values(), trunk.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - kept)
        else:
            mean.copy_(new)


# -- interruptions ---------------------------------------------------------------------------------


def _keep(
    folder: Path, settings: Settings, step: int, pupil: Pupil, average: nn.Module, optimizer: torch.optim.Optimizer, log: list[dict]
) -> None:
    """Write all that is needed to go on, in one file; and the averaged weights by themselves."""
    tensors = {f"pupil.{name}": value for name, value in pupil.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(folder / f"weights_{step:06d}.safetensors") as temporary:
        save_file({name.removeprefix("average."): value for name, value in tensors.items() if name.startswith("average.")}, temporary)
    with replacing(folder / LOG) as temporary:
        pd.DataFrame(log).to_csv(temporary, index=False)
    with replacing(folder / CHECKPOINT) as temporary:
        save_file(tensors, temporary, {"settings": json.dumps(asdict(settings)), "step": str(step)})


def _resume(
    folder: Path, settings: Settings, pupil: Pupil, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, list[dict]]:
    file = folder / CHECKPOINT
    if not file.exists():
        return 0, []
    with safe_open(file, framework="pt") as stored:
        about, tensors = stored.metadata(), {name: stored.get_tensor(name) for name in stored.keys()}
    if json.loads(about["settings"]) != json.loads(json.dumps(asdict(settings))):
        raise ValueError(f"{file} is of a training with other settings, {about['settings']}: choose another folder, or these settings")

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    pupil.load_state_dict(part("pupil."))
    average.load_state_dict(part("average."))
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("optimizer.").items():
        number, entry = name.split(".")
        laid_out = value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value  # as the weights: the fused step pairs them in memory
        state.setdefault(int(number), {})[entry] = laid_out
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    step = int(about["step"])
    return step, pd.read_csv(folder / LOG).head(step).to_dict("records")
