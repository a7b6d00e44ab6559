"""Training: seconds to the published configuration's loss, against the loop that one writes first.

The literal loop takes the method at its word: 1x1 convolutions on feature maps, a step for 16
images with all their places, all images in every epoch. `texad.model.autoencoder.fit` trains the
same network with the same loss and optimizer on shuffled vectors. Both get the same features in
memory, and each seed gives one round. The literal loop stops in the first epoch whose training loss
is not above that of the weights that `autoencoder.fit` kept, or when it has taken `CAP` times as
long. Faster is worth nothing if the detector is worse, so the AUROC of both is compared, too.
"""

import math
import time

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from benchmarks import material
from benchmarks.material import Options
from benchmarks.measure import Row, median, spread
from texad.evaluation.metrics import image_auroc
from texad.model import autoencoder, scoring

BATCH_SIZE = 16
BAR, CAP = 5.0, 10.0
MAX_SEEDS = 3  # of a benchmark that takes minutes


def run(options: Options) -> list[Row]:
    data = material.category(options)
    train, test = ([sample.path for sample in split] for split in (data.train, data.test))
    labels = np.array([sample.label for sample in data.test])
    if len(set(labels)) < 2:
        raise ValueError(
            f"{data.name} needs good and defective test images, since the AUROC is compared: "
            "choose another --category"
        )
    fast, _ = material.networks(options, train)
    with material.folder(options) as folder:
        features = material.extracted(options, fast, train, folder / "train.npy")
        maps = np.ascontiguousarray(
            features, dtype=np.float32
        )  # (N, C, H, W) as the literal loop wants it
        test_features = material.extracted(options, fast, test, folder / "test.npy")
        steps = {"steps": 200} if options.quick else {}
        rounds = [
            one_round(features, maps, test_features, labels, seed, **steps)
            for seed in range(min(options.repeats, MAX_SEEDS))
        ]
    return rows(rounds, {"category": data.name, "n_train": len(train), "n_test": len(test)})


def one_round(
    features: np.ndarray,
    maps: np.ndarray,
    test_features: np.ndarray,
    labels: np.ndarray,
    seed: int,
    **options,
) -> dict:
    """Both with one seed.

    Returns
    -------
    dict
        `target`, the loss to reach; `capped`, True if the literal loop did not reach it; `seconds`,
        `auroc` and `steps`, each with the keys "texad" and "literal".
    """
    started = time.perf_counter()
    fitted, history = autoencoder.fit(features, seed=seed, **options)
    seconds = time.perf_counter() - started
    # of fewer than 20 images none is held out, and the last weights are kept
    kept = history["validation_loss"].fillna(-history["step"]).idxmin()
    target = float(history["train_loss"][kept])

    started = time.perf_counter()
    network, losses = literal_fit(torch.from_numpy(maps), target, CAP * seconds, seed)
    literal_seconds = time.perf_counter() - started
    models = {"texad": fitted, "literal": as_autoencoder(network)}
    scores = {
        name: scoring.score_features(model, test_features, progress=False)[0]
        for name, model in models.items()
    }
    return {
        "target": target,
        "capped": losses[-1] > target,
        "seconds": {"texad": seconds, "literal": literal_seconds},
        "auroc": {name: image_auroc(labels, values) for name, values in scores.items()},
        "steps": {
            "texad": int(history["step"].iloc[-1]),
            "literal": len(losses) * math.ceil(len(maps) / BATCH_SIZE),
        },
    }


def rows(rounds: list[dict], details: dict) -> list[Row]:
    """The ratio of the seconds, and the difference of the AUROC with the spread of the seeds as its
    bar.

    The AUROC counts as no lower if the mean difference is not below minus the standard deviation
    over the seeds of the one that varies more.
    """
    seconds, auroc = (
        {name: np.array([r[key][name] for r in rounds]) for name in ("texad", "literal")}
        for key in ("seconds", "auroc")
    )
    capped = [r["capped"] for r in rounds]
    deviation = max(
        float(np.std(values, ddof=1)) if len(rounds) > 1 else 0.0 for values in auroc.values()
    )
    difference = float(auroc["texad"].mean() - auroc["literal"].mean())
    ratio = median(seconds["literal"] / seconds["texad"])
    details = details | {
        "rounds": rounds,
        "auroc": {name: spread(values) for name, values in auroc.items()},
    }
    means = ", ".join(f"{name} {values.mean():.4f}" for name, values in auroc.items())
    return [
        Row("fit", "texad", median(seconds["texad"]), "s", details=details),
        Row(
            "fit",
            "literal loop / texad, to the same loss",
            ratio,
            at_least=BAR,
            more_than=any(capped),
            note=f"not reached within {CAP:g} times texad's seconds by {sum(capped)} of "
            f"{len(capped)} seeds"
            if any(capped)
            else "",
        ),
        Row(
            "fit",
            "AUROC, texad - literal loop",
            difference,
            "",
            at_least=0.0 - deviation,
            note=f"{means}; bar: the seeds' spread",
        ),
    ]


def literal_network(channels: int, hidden: int = 512, bottleneck: int = 256) -> nn.Sequential:
    """The autoencoder as 1x1 convolutions: takes and gives (N, C, H, W)."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, bottleneck, 1),
        nn.Conv2d(bottleneck, hidden, 1),
        nn.ReLU(),
        nn.Conv2d(hidden, channels, 1),
    )


def literal_loss(network: nn.Module, features: torch.Tensor) -> torch.Tensor:
    """L = (1/N) Σᵢ ‖Fᵢ − F̂ᵢ‖² of N feature maps, (N, C, H, W)."""
    return torch.square(features - network(features)).sum(dim=(1, 2, 3)).mean()


def literal_fit(
    maps: torch.Tensor, target: float, budget_s: float, seed: int
) -> tuple[nn.Sequential, list[float]]:
    """Train until an epoch's loss is at most `target`, or the seconds are used up.

    Parameters
    ----------
    maps : Tensor, float32, shape (N, C, H, W)
    target : float
    budget_s : float
        Looked at after every step.
    seed : int

    Returns
    -------
    network : nn.Sequential
    losses : list of float
        Of each epoch, averaged while training; the last one may be of a part of an epoch.
    """
    torch.manual_seed(seed)
    network = literal_network(maps.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    losses, started, in_time = [], time.perf_counter(), True
    with tqdm(desc="literal loop", unit="epoch") as bar:
        while in_time and (not losses or losses[-1] > target):
            total, seen = 0.0, 0
            for images in torch.randperm(len(maps)).split(BATCH_SIZE):
                loss = literal_loss(network, maps[images])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, seen = total + loss.item() * len(images), seen + len(images)
                in_time = time.perf_counter() - started < budget_s
                if not in_time:
                    break
            losses.append(total / seen)
            bar.set_postfix(loss=f"{losses[-1]:.4g}", target=f"{target:.4g}", refresh=False)
            bar.update()
    return network.eval().requires_grad_(False), losses


def as_autoencoder(network: nn.Sequential) -> autoencoder.Autoencoder:
    """The same weights in texad's autoencoder, so that both are scored by the same code."""
    convolutions = [layer for layer in network if isinstance(layer, nn.Conv2d)]
    channels, hidden, bottleneck = (
        convolutions[0].in_channels,
        convolutions[0].out_channels,
        convolutions[1].out_channels,
    )
    same = autoencoder.Autoencoder(channels, hidden, bottleneck)
    linear = [layer for layer in (*same.encoder, *same.decoder) if isinstance(layer, nn.Linear)]
    for ours, theirs in zip(linear, convolutions, strict=True):
        ours.load_state_dict({"weight": theirs.weight[:, :, 0, 0], "bias": theirs.bias})
    return same.eval().requires_grad_(False)
