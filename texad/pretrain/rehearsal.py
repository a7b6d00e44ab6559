"""How good are features for finding defects? Asked without a photograph and without a label of one: of textures that were never trained on.

Each texture gets good drawings to learn from, and good and spoilt ones to judge. Half of the textures are grey and of low contrast, as many surfaces
are. A principal component analysis stands for the autoencoder, since it is fit in a moment, and is the best linear one (chapter 6); the score is the
published one, the mean of the ten largest errors. Weights are chosen by this number, never by a real set.
"""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from texad.pretrain import lessons, textures

SEED = 987_654_321  # far from those of the training
CODES = 48  # principal components
TOP = 10
PALE = 0.06  # standard deviation of grey levels that are from 0 to 1


@torch.no_grad()
def rehearse(trunk: nn.Module, n_surfaces: int = 16, n_train: int = 10, n_test: int = 12, size: int = 160) -> dict[str, float]:
    """AUROC of images on procedural anomalies.

    Parameters
    ----------
    trunk : nn.Module
        (N, 3, S, S) in, (N, C, H, W) out; it is put into eval mode.
    n_surfaces : int, default 16
    n_train, n_test : int, default 10 and 12
        Good drawings to learn from; good ones, and as many spoilt ones, to judge.
    size : int, default 160
        Of a drawing, in pixels.

    Returns
    -------
    dict of str to float
        "all", the mean over the textures, and one for each of `lessons.DEFECTS`.
    """
    trunk.eval()
    device = next(trunk.parameters()).device
    generator = torch.Generator(device).manual_seed(SEED)
    recipes = textures.draw_recipes(n_surfaces, generator)
    relatives = textures.vary(recipes, 0.5, generator)
    kind = torch.arange(n_test, device=device) % len(lessons.DEFECTS)
    found: dict[str, list[float]] = {name: [] for name in ("all", *lessons.DEFECTS)}
    for i in range(n_surfaces):
        own, other, next_one = (textures.cat([each[j : j + 1] for _ in range(n_test)]) for each, j in
                                ((recipes, i), (relatives, i), (recipes, (i + 1) % n_surfaces)))  # fmt: skip
        train = textures.draw(textures.cat([recipes[i : i + 1]] * n_train), size, generator)
        good, whole, patches, strangers = (textures.draw(each, size, generator) for each in (own, own, other, next_one))
        masks = lessons.draw_masks(n_test, size, generator)
        bad = lessons.spoil(whole, patches, strangers, masks, kind, generator)
        if i % 2:  # a camera without colours, and a light that shows little
            mean, contrast = train.mean(), train.mean(1).std().clamp_min(1e-3)
            train, good, bad = ((0.5 + (x.mean(1, keepdim=True) - mean) * (PALE / contrast).clamp_max(1)).expand_as(x) for x in (train, good, bad))
        learnt, *judged = (trunk(x.contiguous(memory_format=torch.channels_last)).permute(0, 2, 3, 1).float() for x in (train, good, bad))
        good_scores, bad_scores = _scores(learnt, judged)
        found["all"].append(_auroc(good_scores, bad_scores))
        for number, name in enumerate(lessons.DEFECTS):
            found[name].append(_auroc(good_scores, bad_scores[kind.cpu().numpy() == number]))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _scores(learnt: torch.Tensor, judged: list[torch.Tensor]) -> list[np.ndarray]:
    vectors = learnt.flatten(0, 2)
    mean = vectors.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        directions = torch.pca_lowrank(vectors, min(CODES, *vectors.shape), niter=2)[2]
    scores = []
    for features in judged:
        centred = features - mean
        errors = torch.square(centred - centred @ directions @ directions.T)
        scores.append(errors.flatten(1).topk(TOP, dim=1).values.mean(1).cpu().numpy())
    return scores


def _auroc(good: np.ndarray, bad: np.ndarray) -> float:
    return float(roc_auc_score(np.repeat([0, 1], [len(good), len(bad)]), np.concatenate([good, bad])))
