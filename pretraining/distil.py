"""Distillation: a slim network learns to give its teacher's features.

Every step shows both networks the same pictures and moves the student's weights to lessen the
squared error of its feature maps. The rate of learning is constant, so that a run can always go on;
a short cool-down, in which it falls to nothing, makes a file of weights from any checkpoint, and
leaves the checkpoint alone.

    python distil.py RUN --steps 4000               # begins, or goes on from RUN/checkpoint.pt
    python distil.py RUN --cool-down 800            # writes RUN/student.safetensors
"""

import argparse
import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from muon import Muon
from safetensors.torch import save_file
from slimming import build, layers, slim, stem
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models.resnet import ResNet

SIZES = (112, 160, 224)  # pixels; a batch has one, and as many pictures as cost the same
LAYERS = ("layer1", "layer2", "layer3")
MIDWAY = 0.5  # weight of layer2's errors in the loss, beside 1 for layer3's
DETAIL = 0.5  # of the errors about each picture's mean in layer3
INPUTS = ("plain", "normalised")  # pixels in [0, 1], and those with ImageNet's mean and deviation
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
DEVIATION = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
WARM_UP = 100  # steps
AVERAGE = 0.995  # decay, by step, of the moving average that is kept of the weights
HELD_OUT = 128  # pictures at the end of the pool that are never trained on


@dataclass
class Options:
    """What decides the course of a run, kept in its checkpoint."""

    pool: str
    teacher: str
    start: str | None = None
    width: int = 40
    seed: int = 0
    batch: int = 32  # pictures of the smallest size
    sizes: Sequence[int] = SIZES
    rate: float = 3e-4
    decay: float = 0.01
    held_out: int = HELD_OUT


@dataclass
class Curves:
    """What a run has logged: a row a step, and a row a look at the pictures held out."""

    steps: list[list] = field(default_factory=list)
    held_out: list[list] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        errors = [f"{name} {layer}" for name in INPUTS for layer in LAYERS]
        for file, head, rows in (
            (
                "steps.csv",
                ["step", "pictures", "size", "input", "loss", *LAYERS[1:], "detail"],
                self.steps,
            ),
            ("held_out.csv", ["step", "pictures", *errors], self.held_out),
        ):
            with open(folder / file, "w", newline="") as out:
                csv.writer(out).writerows([head, *rows])


def as_input(images: Tensor, name: str) -> Tensor:
    """Turn pictures, (N, 3, H, W) in [0, 1], into one of the two `INPUTS`."""
    if name == "normalised":
        images = (images - MEAN.to(images.device)) / DEVIATION.to(images.device)
    return images.contiguous(memory_format=torch.channels_last)


def draw(pool: Tensor, count: int, size: int, rng: torch.Generator) -> Tensor:
    """Draw a batch: parts of random pictures, turned, tinted, in other light, now and then noisy.

    Parameters
    ----------
    pool : Tensor of uint8, shape (pictures, side, side, 3)
        On the device where the batch is wanted.
    count, size : int
        Of the batch: pictures and pixels.
    rng : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor of float32, shape (count, 3, size, size)
        In [0, 1].
    """
    device = pool.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=rng)

    chosen = torch.randint(len(pool), (count, 1, 1), generator=rng)
    along = torch.arange(size)
    places = []
    for _ in range(2):  # down, across
        first = torch.randint(pool.shape[1] - size + 1, (count, 1), generator=rng)
        places.append(first + torch.where(uniform(1) < 0.5, along, size - 1 - along))
    down, across = places[0][:, :, None], places[1][:, None]
    images = pool[chosen.to(device), down.to(device), across.to(device)].float() / 255
    images = images.permute(0, 3, 2, 1) if uniform()[0] < 0.5 else images.permute(0, 3, 1, 2)
    contrast = torch.exp(0.25 * torch.randn(count, 1, 1, 1, generator=rng))
    shift = 0.1 * torch.randn(count, 1, 1, 1, generator=rng)
    tint = 0.06 * torch.randn(count, 3, 1, 1, generator=rng) * (uniform(1, 1, 1) < 0.3)
    noise = 0.04 * uniform(1, 1, 1) * (uniform(1, 1, 1) < 0.15)
    there = torch.Generator(device).manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
    grain = torch.randn(images.shape, generator=there, device=device)
    images = images * contrast.to(device) + (shift + tint).to(device) + grain * noise.to(device)
    return images.clamp(0, 1)


def whole_and_detail(given: Tensor, wanted: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Compare feature maps, (N, C, H, W), each channel multiplied by a scale.

    Returns
    -------
    whole : Tensor
        Mean squared error: with the inverse deviations as scale, the unexplained variance.
    detail : Tensor
        The same of what differs from place to place in a picture, over how much that is there:
        fine structure of low contrast counts as much as bold structure.
    """
    error = (given.float() - wanted) * scale
    varies = (wanted * scale).var((2, 3), correction=0).mean(1)
    detail = error.var((2, 3), correction=0).mean(1) / (varies + 0.02)
    return error.square().mean(), detail.mean()


@torch.no_grad()
def unexplained(teacher: ResNet, student: nn.Module, images: Tensor) -> list[float]:
    """Return the unexplained variance of each layer, averaged over its channels."""
    parts = images.split(16)
    wanted = [layers(teacher, stem(teacher, part)) for part in parts]
    given = [layers(student, stem(student, part)) for part in parts]
    found = []
    for a, b in zip(zip(*given, strict=True), zip(*wanted, strict=True), strict=True):
        a, b = torch.cat(a).float(), torch.cat(b).float()
        found.append(((a - b).square().mean((0, 2, 3)) / b.var((0, 2, 3)).clamp(min=1e-6)).mean())
    return [round(float(value), 5) for value in found]


class Run:
    """A distillation in a folder: its networks, where it stands, and how it goes on.

    Parameters
    ----------
    folder : Path
        Holds `checkpoint.pt`, `steps.csv`, `held_out.csv`, `student.safetensors`.
    options : Options
        Of a new run; one that has a checkpoint keeps its own.
    device : str
    """

    def __init__(self, folder: Path, options: Options, device: str):
        self.folder, self.device, self.step, self.curves = folder, device, 0, Curves()
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "checkpoint.pt"
        saved = torch.load(file, map_location="cpu", weights_only=True) if file.exists() else None
        self.options = Options(**saved["options"]) if saved else options
        pool = torch.from_numpy(np.load(self.options.pool, mmap_mode="c"))
        if device == "cuda":
            pool = pool.to(device)
        self.pool, held = pool[: -self.options.held_out], pool[-self.options.held_out :]
        self.held_out = held.permute(0, 3, 1, 2).float() / 255
        self.teacher = build(64, Path(self.options.teacher)).requires_grad_(False).to(device)
        if saved:
            self.student = build(self.options.width, saved["student"])
            self.scales = saved["scales"]
        else:
            self.scales = {name: self._scales(name) for name in INPUTS}
            self.student = self._first()
        self.student.to(device)
        for module in (self.student.conv1, self.student.bn1):
            module.requires_grad_(False)  # it is the teacher's own
        decay = get_ema_multi_avg_fn(AVERAGE)
        self.average = AveragedModel(self.student, multi_avg_fn=decay, use_buffers=False)
        self.average.eval()
        free = [p for p in self.student.parameters() if p.requires_grad]
        rate = self.options.rate
        self.optimizers = [
            Muon([p for p in free if p.ndim > 1], rate, self.options.decay),
            torch.optim.AdamW([p for p in free if p.ndim == 1], rate, weight_decay=0),
        ]
        if saved:
            self.step, self.curves = saved["step"], Curves(**saved["curves"])
            self.average.load_state_dict(saved["average"])
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                optimizer.load_state_dict(state)

    def _rng(self, step: int) -> torch.Generator:
        """Return the random numbers of a step: torch looks at 32 bits of a seed, so mix the two."""
        mixed = np.random.SeedSequence((self.options.seed, step + 2)).generate_state(1)
        return torch.Generator().manual_seed(int(mixed[0]))

    def _first(self) -> ResNet:
        """Return the student before the first step: a file's, or the slimmed teacher."""
        if self.options.start:
            return build(self.options.width, Path(self.options.start))
        parts = [draw(self.pool.cpu(), 300, self.options.sizes[0], self._rng(-2)) for _ in INPUTS]
        both = [as_input(x, name) for x, name in zip(parts, INPUTS, strict=True)]
        return slim(self.teacher.cpu(), self.options.width, torch.cat(both)).to(self.device)

    @torch.no_grad()
    def _scales(self, name: str) -> list[Tensor]:
        images = as_input(draw(self.pool, 128, self.options.sizes[0], self._rng(-1)), name)
        found = layers(self.teacher, stem(self.teacher, images))
        variances = [maps.var((0, 2, 3), keepdim=True) for maps in found[1:]]
        return [(v + 0.1 * v.mean()).rsqrt() for v in variances]

    def one_step(self, rate: float) -> None:
        """Show the networks one batch and move the student's weights."""
        options, rng = self.options, self._rng(self.step)
        size = options.sizes[int(torch.randint(len(options.sizes), (1,), generator=rng))]
        name = INPUTS[int(torch.randint(2, (1,), generator=rng))]
        count = max(1, round(options.batch * (options.sizes[0] / size) ** 2))
        images = as_input(draw(self.pool, count, size, rng), name)
        with torch.autocast(self.device, torch.bfloat16):
            with torch.no_grad():
                stemmed = stem(self.teacher, images)
                wanted = layers(self.teacher, stemmed)[1:]
            given = layers(self.student, stemmed)[1:]
        scales = [scale.to(self.device) for scale in self.scales[name]]
        (two, _), (three, detail) = map(whole_and_detail, given, wanted, scales)
        loss = MIDWAY * two + three + DETAIL * detail
        self.student.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
        self.average.update_parameters(self.student)
        self.step += 1
        seen = count + (self.curves.steps[-1][1] if self.curves.steps else 0)
        values = [round(value.item(), 5) for value in (loss, two, three, detail)]
        self.curves.steps.append([self.step, seen, size, name, *values])

    def look(self) -> list[float]:
        """Measure the averaged student on the pictures held out, and log it."""
        row = []
        for name in INPUTS:
            images = as_input(self.held_out.to(self.device), name)
            with torch.autocast(self.device, torch.bfloat16):
                row += unexplained(self.teacher, self.average.module, images)
        seen = self.curves.steps[-1][1] if self.curves.steps else 0
        self.curves.held_out.append([self.step, seen, *row])
        return row

    def train(self, steps: int, every: int) -> None:
        """Go on at a constant rate up to a step, with a checkpoint every so many."""
        if self.step == 0:
            print(f"step 0: unexplained {self.look()}", flush=True)
        while self.step < steps:
            self.one_step(self.options.rate * min(1, (self.step + 1) / WARM_UP))
            if self.step % every == 0 or self.step == steps:
                print(f"step {self.step}: unexplained {self.look()}", flush=True)
                self.save()

    def cool_down(self, steps: int) -> None:
        """Let the rate fall to nothing, and write the weights; the checkpoint stays."""
        for k in range(steps):
            self.one_step(self.options.rate * (1 - k / steps))
        print(f"step {self.step}, cooled down: unexplained {self.look()}", flush=True)
        self.write_weights()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, and the curves."""
        saved = {
            "options": asdict(self.options),
            "step": self.step,
            "curves": asdict(self.curves),
            "scales": self.scales,
            "student": self.student.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        part = self.folder / "checkpoint.part"
        torch.save(saved, part)
        os.replace(part, self.folder / "checkpoint.pt")
        self.curves.write(self.folder)

    def write_weights(self) -> None:
        """Write the averaged student, named as torchvision's `resnet50` up to layer3."""
        state = {k: v.cpu().contiguous() for k, v in self.average.module.state_dict().items()}
        part = self.folder / "student.part"
        save_file(state, part, {"stride_in_1x1": "true"})
        os.replace(part, self.folder / "student.safetensors")


def main() -> None:
    shared = Path(os.environ.get("TEXAD_SHARED", Path(__file__).parents[2] / "shared"))
    teacher = shared / "weights" / "resnet50_imagenet_layer3.safetensors"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder")
    parser.add_argument("--steps", type=int, default=0, help="train up to this step")
    parser.add_argument("--cool-down", type=int, default=0, help="steps; then write the weights")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pool", default="pool.npy", help="from pictures.py")
    parser.add_argument("--teacher", default=str(teacher))
    parser.add_argument("--start", help="weights of a student to go on from (.safetensors)")
    parser.add_argument("--width", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args())
    folder, steps, cool, every, device = (
        given.pop(name) for name in ("run", "steps", "cool_down", "every", "device")
    )
    run = Run(folder, Options(**given), device)
    run.train(steps, every)
    if cool:
        run.cool_down(cool)
    else:
        run.write_weights()


if __name__ == "__main__":
    main()
