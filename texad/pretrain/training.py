"""The backbone learns to be one with which the method of this book finds defects.

A step plays the whole method in small, on textures that were never seen before. Of each there are a few good drawings, and others, most of which are
spoilt at a place. What can be predicted linearly from the good places is taken away from every place of the others (a ridge regression stands for the
autoencoder: it can be solved, and differentiated, in closed form; Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019).
The error that is left should be larger where something is spoilt than at the worst good places: with e_b the error of a spoilt place, and e_g the mean of
the largest errors among the good places of a drawing, the loss is

    mean over all b, g of the same texture of log(1 + exp((log e_g − log e_b) / τ)),

the logistic loss of a ranking (Burges et al., "RankNet", ICML 2005, equation 3), with a temperature τ.
Weights are averaged over the last steps (Izmailov et al., UAI 2018).
"""

import copy
import json
import math
import sys
import time
from collections import OrderedDict
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
from texad.pretrain.lessons import lesson
from texad.pretrain.rehearsal import rehearse

PARTS = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
WARM_UP = 100  # steps in which the learning rate rises
TEMPERATURE = 0.2
RIDGE = 0.03  # of the mean squared length of a good place
WORST = 3  # good places of a drawing; and TOP numbers of a place's error
TOP = 10
WHOLE, SPOILT = 0.02, 0.33  # part of a place that is something else: less than this, and more
CHECKPOINT, LOG = "checkpoint.safetensors", "training.csv"


@dataclass(frozen=True)
class Settings:
    """What a training is; the same settings give the same weights on the same machine.

    Attributes
    ----------
    steps : int
    surfaces, views : int
        New textures in a step, and drawings of each: half of them to learn from, and then the other way round.
    sizes : tuple of (int, float)
        Size of the images in pixels, and up to which part of the training.
    learning_rate, weight_decay : float
        Of AdamW.
    seed : int
    rehearse_every : int
        Steps between two rehearsals, and between two checkpoints.
    """

    steps: int = 4000
    surfaces: int = 6
    views: int = 6
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


def untrained(seed: int) -> nn.Sequential:
    """A ResNet-50 up to layer3: (N, 3, S, S) in [0, 1] -> (N, 1024, S/16, S/16)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = resnet50(weights=None, zero_init_residual=True)  # blocks begin as shortcuts (Goyal et al., 2017, arXiv:1706.02677, section 5.1)
    return nn.Sequential(OrderedDict((name, getattr(network, name)) for name in PARTS))


def ranking(features: torch.Tensor, masks: torch.Tensor, views: int) -> torch.Tensor:
    """The loss of a step.

    Parameters
    ----------
    features : Tensor, shape (views · surfaces, C, H, W)
        Of the drawings of a `lesson`, in its order.
    masks : Tensor, shape (views · surfaces, S, S)
        1 where something else is.
    views : int, even

    Returns
    -------
    Tensor, shape ()
    """
    height, width = features.shape[-2:]
    spoilt = functional.adaptive_avg_pool2d(masks[:, None], (height, width)).flatten(1)  # which part of a place is

    def of_surface(x: torch.Tensor) -> torch.Tensor:  # (views · surfaces, P, …) -> (surfaces, views, P, …)
        return x.unflatten(0, (views, -1)).transpose(0, 1)

    places, spoilt = of_surface(features.flatten(2).transpose(1, 2)), of_surface(spoilt)
    half, losses = views // 2, []
    for learnt, judged in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        error = _errors(places[:, learnt].flatten(1, 2), (spoilt[:, learnt] < WHOLE).flatten(1), places[:, judged])
        part = spoilt[:, judged]
        good = error.masked_fill(part >= WHOLE, -torch.inf).topk(WORST, -1).values.mean(-1)  # (surfaces, half)
        bad = part > SPOILT  # (surfaces, half, P)
        ahead = error[:, :, :, None] - good[:, None, None]  # of each place, on the worst of each drawing of the same surface
        loss = functional.softplus(-ahead / TEMPERATURE)[bad]
        losses.append(loss)
    return torch.cat(losses).mean() if any(map(len, losses)) else features.sum() * 0


def _errors(good: torch.Tensor, whole: torch.Tensor, judged: torch.Tensor) -> torch.Tensor:
    """Logarithms of the errors that are left of each place.

    Parameters
    ----------
    good : Tensor, shape (surfaces, M, C)
        Places to learn from, those that are `whole`: bool, shape (surfaces, M).
    judged : Tensor, shape (surfaces, N, P, C)

    Returns
    -------
    Tensor, shape (surfaces, N, P)
        Half of it from the mean over the channels, half from the largest ones, which is what the published score takes.
    """
    weight = whole.float()[..., None]
    mean = (good * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp_min(1)
    good, places = (good - mean) * weight, judged.flatten(1, 2) - mean
    gram = good @ good.mT
    length = gram.diagonal(dim1=1, dim2=2).sum(1) / weight.sum((1, 2)).clamp_min(1)
    ridge = (RIDGE * length.clamp_min(1e-6))[:, None, None] * torch.eye(gram.shape[1], device=gram.device)
    squared = torch.square(places - torch.linalg.solve(gram + ridge, good @ places.mT).mT @ good)
    mean_error, largest = squared.mean(-1), squared.topk(TOP, -1).values.mean(-1)
    return (0.5 * ((mean_error + 1e-8).log() + (largest + 1e-8).log())).unflatten(1, judged.shape[1:3])


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
        If the folder holds a training with other settings, or the number of views is odd.
    """
    if settings.views % 2:
        raise ValueError(f"views must be even, not {settings.views}: one half of them is judged by the other")
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pupil = untrained(settings.seed).to(device).to(memory_format=torch.channels_last)
    average = copy.deepcopy(pupil)
    optimizer = torch.optim.AdamW(pupil.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    first, log = _resume(folder, settings, pupil, average, optimizer)
    began = time.perf_counter()
    last = min(settings.steps, until or settings.steps)
    for step in (bar := tqdm(range(first, last), desc="training", unit="step", initial=first, total=last, disable=not progress)):
        generator = torch.Generator(device).manual_seed(settings.seed * 1_000_003 + step)
        with torch.no_grad():
            images, masks = lesson(settings.surfaces, settings.size_at(step), generator, settings.views)
        pupil.train()
        loss = ranking(pupil(images.contiguous(memory_format=torch.channels_last)), masks, settings.views)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(pupil.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate_at(step)
        optimizer.step()
        _average(average, pupil, min(0.998, (step + 1) / (step + 10)))
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
def _average(average: nn.Module, pupil: nn.Module, kept: float) -> None:
    for mean, new in zip(average.state_dict().values(), pupil.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - kept)
        else:
            mean.copy_(new)


# -- interruptions ---------------------------------------------------------------------------------


def _keep(
    folder: Path, settings: Settings, step: int, pupil: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, log: list[dict]
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
    folder: Path, settings: Settings, pupil: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
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
