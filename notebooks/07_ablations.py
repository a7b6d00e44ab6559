# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7 What matters?
#
# The method is a chain of choices: this layer, that width, the ten largest errors. Which of them
# carry the result, and which could have been others? To find out, we turn one knob at a time, leave
# all others where they are, and look at what happens to the {term}`AUROC`. Such an experiment is
# called an {term}`ablation`, after the surgeon's word for taking something away to learn what it
# was good for. You will learn
#
# - how to change one thing and hold the rest still;
# - how to tell a difference from chance, when both settings saw the same test images;
# - which choices of the published method matter here, and which hardly do;
# - how many training images the order of the scores needs, and how many the threshold.
#
# ![A chain of five boxes: image, layer, bottleneck, top-k, score. Above each of the first four is a knob; one of them is turned, the others stay. Beside it a picture with a row for each position of that knob: points with intervals, and a dotted line at the baseline.](../book/images/07_ablations.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the fits, and of the choice of images
n_images = 96  # at most so many training, good test and defective test images
ablation_steps = 200  # of each fit, at most; chapter 3 trains longer

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from torch.nn import functional
from torchvision.utils import make_grid

from texad.evaluation.intervals import auroc_interval
from texad.evaluation.metrics import auroc_by_defect, decision_metrics, image_auroc
from texad.figures import plots, study_plots, style
from texad.io.json_files import read_json
from texad.io.paths import notebooks_folder
from texad.model import autoencoder, extraction, preprocessing, scoring
from texad.model import weights as backbone_weights
from texad.model.backbone import (
    STRIDE,
    build_backbone,
    calibrate_batchnorm,
    fold_batchnorm,
    folded_backbone,
    load_backbone,
    stride_in_1x1,
)
from texad.model.base import device
from texad.model.threshold import predict, sigma_threshold
from texad.runs.run_folder import Run
from texad.teaching import quiz

run = Run(dataset, category, runs)
choices = dict(seed=seed, n_images=n_images, ablation_steps=ablation_steps)
run.start("07_ablations", weights=weights, **choices)

# %% [markdown]
# ## Images
#
# This chapter fits many autoencoders. So that it stays short on any data set, we draw at most
# `n_images` training images, good test images and defective test images. Each kind of defect keeps
# its share, and we take one of each kind first.


# %%
def at_most(n, images):
    shuffled = images.sample(frac=1, random_state=seed)
    kinds = shuffled.groupby("defect")["path"]
    rank = kinds.cumcount() / kinds.transform("size")  # 0 for the first of each kind
    return images.loc[sorted(rank.sort_values(kind="stable").index[:n])]


test = run.images("test")
train_images = at_most(n_images, run.images("train"))
good_images = at_most(n_images, test[test["label"] == 0])
defective_images = at_most(n_images, test[test["label"] == 1])
train_paths = run.data_paths(train_images["path"])
test_paths = run.data_paths([*good_images["path"], *defective_images["path"]])
labels = np.repeat([0, 1], [len(good_images), len(defective_images)])

# %% tags=["remove-input"]
record = run.read()
Markdown(
    f"In this run these are **{len(train_paths)}** of {record['data']['n_train']} "
    f"training images, **{len(good_images)}** good and **{len(defective_images)}** "
    f"defective ones of {record['data']['n_test']} test images. Every comparison "
    "below is made on these, and on no others."
)

# %% [markdown]
# ## Features, once
#
# The slow part is the {term}`backbone`, and most knobs come after it. On its way to layer3 an image
# passes layer1 and layer2, so one pass gives all three. Their {term}`places <place>` are finer:
# four of layer2, or sixteen of layer1, lie where layer3 has one. We average them (*average
# pooling*), so that all layers come on the grid of layer3 and nothing but the description differs.
# The backbone is the very one that chapter 2 has used; it lies in the run folder.

# %%
sight = run.sight()
H, W = extraction.map_size([*train_paths, *test_paths], sight)
LAYERS = ["layer1", "layer2", "layer3"]


@torch.inference_mode()
def layer_features(backbone, paths, layers=("layer3",)):
    backbone.to(device())
    maps = {layer: [] for layer in layers}
    for x in preprocessing.image_batches(paths, sight):
        grid = x.shape[2] // STRIDE, x.shape[3] // STRIDE
        missing = (0, W - grid[1], 0, H - grid[0])  # where images differ in shape
        x = x.to(device())
        for name, part in backbone.named_children():
            x = part(x)
            if name in layers:
                pooled = functional.adaptive_avg_pool2d(x, grid)
                maps[name].append(functional.pad(pooled, missing, value=np.nan).cpu())
    return {layer: torch.cat(maps[layer]).numpy() for layer in layers}


# %%
backbone = load_backbone(run.folder / "backbone.safetensors")
own_normalize = sight.normalize
train_maps = layer_features(backbone, train_paths, LAYERS)
test_maps = layer_features(backbone, test_paths, LAYERS)
F_train, F_test = train_maps["layer3"], test_maps["layer3"]
shapes = {layer: F.shape for layer, F in train_maps.items()}
pd.DataFrame.from_dict(shapes, orient="index", columns=["N", "C", "H", "W"])

# %% [markdown]
# ## The baseline
#
# All knobs stand where this run has them, which are the published settings unless you changed a
# parameter. One thing is different: each fit gets fewer {term}`steps <step>` than in chapter 3,
# since there are many fits. All of them get equally many steps, so they can be compared with each
# other, not with the numbers of chapter 5.

# %%
names = ["hidden", "bottleneck", "batch_size", "learning_rate"]
names += ["validation_fraction", "patience"]
options = {name: run.parameter(name) for name in names} | dict(seed=seed)
options["steps"] = min(ablation_steps, run.parameter("steps"))
top_k, reduction = run.parameter("top_k"), run.parameter("reduction")
if reduction not in ("none", "channel_mean"):
    reduction = "none"  # "auto" of the published method


def fit(F, **changed):
    return autoencoder.fit(F, **options | changed, progress=False)[0]


def score(fitted, F):
    settings = dict(top_k=top_k, reduction=reduction, progress=False)
    return scoring.score_features(fitted, F, **settings)[0]


fitted = fit(F_train)
baseline = score(fitted, F_test)
baseline_auroc = np.array(image_auroc(labels, baseline), dtype=float)

# %% [markdown]
# Each measurement becomes a row: which knob, how it was set, the AUROC, and its 95-percent interval
# of chapter 5. A picture shows the rows of one knob, and a dotted line where the baseline is.

# %%
results, scores_of = [], {}


def keep(ablation, setting, scores, false_alarm_rate=None):
    low, high = auroc_interval(labels, scores) or (None, None)
    auroc = image_auroc(labels, scores)
    scores_of[ablation, setting] = scores
    row = dict(ablation=ablation, setting=setting, auroc=auroc, low=low, high=high)
    results.append(row | dict(false_alarm_rate=false_alarm_rate))


def rows_of(ablation):
    numbers = ["auroc", "low", "high", "false_alarm_rate"]
    rows = pd.DataFrame(results).astype(dict.fromkeys(numbers, float))
    return rows[rows["ablation"] == ablation].reset_index(drop=True)


def picture(ablation):
    figure = study_plots.points_with_intervals(rows_of(ablation), rows="setting")
    figure.axes[0].set_ylabel(ablation)
    figure.axes[0].axvline(baseline_auroc, color="black", linestyle=":")
    return figure


# %% [markdown]
# ## When is a difference more than chance?
#
# Two settings were tested on *the same images*. An image that is hard for the one is mostly hard
# for the other, so their AUROCs rise and fall together from test to test, and their difference
# varies less than each of them. Looking whether two intervals overlap is therefore too timid, and
# the interval of chapter 5 cannot help: it knows of each setting only how many pairs are in the
# right order, not which. The better way is DeLong's interval of the difference itself
# {cite:p}`delong1988comparing`: for each pair of a defective and a good image, note by how much the
# one setting did better than the other, and see how much this varies from image to image. If the
# interval does not hold 0, the difference is more than chance.


# %%
def in_order(scores):  # 1 where the defective image scores higher, 1/2 for a tie
    gap = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return np.heaviside(gap, 0.5)


def difference_interval(a, b):
    change = in_order(a) - in_order(b)  # (defective, good)
    images = change.mean(axis=1), change.mean(axis=0)
    error = np.sqrt(sum(c.var(ddof=1) / len(c) for c in images))
    return change.mean() - 1.96 * error, change.mean() + 1.96 * error


# %% tags=["remove-input"]
n_good, n_defective = int((labels == 0).sum()), int((labels == 1).sum())
NOTHING = "Without both kinds of test images there is no AUROC, and nothing to compare."


def listed(settings):
    settings = [f"**{setting}**" for setting in settings]
    return (
        settings[0]
        if len(settings) == 1
        else ", ".join(settings[:-1]) + f" and {settings[-1]}"
    )


def verdict(ablation, own):
    """Which setting is best, and is it better than the run's own by more than chance? In words, from the numbers."""
    rows = rows_of(ablation).set_index("setting")
    if rows["auroc"].isna().any():
        return NOTHING
    high, low = rows["auroc"].max(), rows["auroc"].min()
    if len(rows) == 1:
        return f"There is one setting only, with an AUROC of {high:.3f}."
    if high == low:
        said = (
            f"{'Both' if len(rows) == 2 else f'All {len(rows)}'} settings have the "
            f"same AUROC, {high:.3f}."
        )
        return said + (
            " Each ranks every defective image above every good one: this data set is "
            "too easy to tell them apart."
            if high == 1
            else ""
        )
    best, worst = (
        list(rows.index[rows["auroc"] == high]),
        list(rows.index[rows["auroc"] == low]),
    )
    said = (
        f"Best {'is' if len(best) == 1 else 'are'} {listed(best)} with an AUROC of "
        f"{high:.3f} ({rows.loc[best[0], 'low']:.3f} to "
        f"{rows.loc[best[0], 'high']:.3f})"
    )
    said += (
        f", worst {'is' if len(worst) == 1 else 'are'} {listed(worst)} with {low:.3f}. "
    )
    other, name = (best[0], "the best") if own not in best else (worst[0], "the worst")
    said += f"The baseline, **{own}**, " + (
        "is among the best" if own in best else f"reaches {rows.loc[own, 'auroc']:.3f}"
    )
    if min(n_good, n_defective) < 2:
        return said + "; with one image of a kind nothing can be said about chance."
    a, b = (other, own) if own not in best else (own, other)
    start, end = difference_interval(scores_of[ablation, a], scores_of[ablation, b])
    said += f". The difference between it and {name} has an interval from {start:.3f} to {end:.3f}".replace(
        "-", "−"
    )
    return said + (
        ", all of it above 0: it is more than chance."
        if start > 0
        else ", which holds 0: these test images cannot tell the two apart."
    )


# %% [markdown]
# ## Which layer?
#
# Chapter 2 has given reasons for layer3. Here is the test, with one more setting: the channels of
# layer2 and layer3 side by side, so that a place is described by the small and by the larger
# patterns around it.


# %%
def side_by_side(maps):
    return np.concatenate([maps["layer2"], maps["layer3"]], axis=1)


for layer in ["layer1", "layer2"]:
    keep("layers", layer, score(fit(train_maps[layer]), test_maps[layer]))
keep("layers", "layer3", baseline)
both = side_by_side(train_maps), side_by_side(test_maps)
keep("layers", "layer2 + layer3", score(fit(both[0]), both[1]))

# %% mystnb={"figure": {"caption": "AUROC by the layers that describe a place. The dotted line is the baseline."}, "image": {"alt": "A row for layer1, layer2, layer3 and for layer2 with layer3, each with a point at its AUROC and a line for its interval; a dotted line at the baseline."}}
figure = picture("layers")
figure

# %% tags=["remove-input"]
Markdown(verdict("layers", "layer3"))

# %% [markdown]
# *What to look for:* does the order follow the depth? An early layer sees small things only, and
# this may be all that a data set asks for, if its defects are small and sharp. A deep one knows
# patterns, if it was trained; a random one has learnt none.
#
# ## Normalise the input?
#
# ImageNet networks were trained on images from which a mean colour had been subtracted, and whose
# colours had been divided by a standard deviation. The published method leaves this out. We extract
# layer3 once more, the other way round. A random backbone calibrates its
# {term}`batch normalization` on the images that it gets, so it is calibrated again.
#
# There is a second difference, and it is easy to overlook. The convolutions of the backbone look a
# little beyond the border of the image, and find zeros there. For an input from 0 to 1, zero is
# black: each photograph stands in a black frame. For a normalised input, zero is the mean colour,
# and the frame is hardly seen. How much of the features is about the frame? The frame is the same
# for all images, so we take the mean over the images at each place, and ask which share of the
# features' variance lies in it.

# %%
is_random = run.read()["weights"]["name"] == "random"


def random_backbone(normalize, calibrate=True, shortcuts=True):
    made = build_backbone(backbone_weights.untrained(seed, shortcuts), normalize)
    if calibrate:
        settings = dict(sight=sight, progress=False)
        calibrate_batchnorm(made, train_paths, **settings)
    return fold_batchnorm(made)


def layer3(backbone):
    splits = train_paths, test_paths
    return [layer_features(backbone, paths)["layer3"] for paths in splits]


def share_of_the_place(F):  # of the variance of all channels together
    of_places = np.nanvar(np.nanmean(F, axis=0), axis=(1, 2)).sum()
    return of_places / np.nanvar(F, axis=(0, 2, 3)).sum()


if is_random:
    other = random_backbone(not own_normalize)
else:  # the same weights
    other = folded_backbone(
        backbone.state_dict(), stride_in_1x1(backbone), not own_normalize
    )
F_other, F_other_test = layer3(other)
shares = [share_of_the_place(F_train), share_of_the_place(F_other)]
of_input = [baseline, score(fit(F_other), F_other_test)]
if own_normalize:
    shares, of_input = shares[::-1], of_input[::-1]
keep("input", "from 0 to 1", of_input[0])
keep("input", "ImageNet-normalised", of_input[1])
del F_other, F_other_test

# %% mystnb={"figure": {"caption": "AUROC without and with ImageNet normalisation of the input. The dotted line is the baseline."}, "image": {"alt": "Two rows, the input from 0 to 1 and the normalised input, each with a point at its AUROC and a line for its interval."}}
figure = picture("input")
figure

# %% tags=["remove-input"]
said = verdict("input", "ImageNet-normalised" if own_normalize else "from 0 to 1")
if len(F_train) < 20:
    said += (
        " With so few training images, the share of the place cannot be told from "
        "chance."
    )
else:
    said += (
        f" The place alone explains **{shares[0]:.0%}** of the features' variance "
        f"with the input from 0 to 1, and **{shares[1]:.0%}** with the normalised one."
    )
Markdown(said)

# %% [markdown]
# *What to look for:* whether the two shares differ much. What is spent on the frame is lost for the
# surface. On ImageNet a backbone learns from normalised images, and from 0 to 1 meets an input that it
# does not know; the package's own weights, `texad`, were taught with both. Whether it harms, the
# picture says.
#
# ## How narrow a bottleneck?
#
# Too narrow, and even good surfaces are rebuilt badly; too wide, and defects are rebuilt well. What
# the {term}`bottleneck` lets through should be the normal, all of it and nothing else.

# %%
own_width = options["bottleneck"]
for width in sorted({4, 16, 64, 512, own_width}):
    is_own = width == own_width
    scores = baseline if is_own else score(fit(F_train, bottleneck=width), F_test)
    keep("bottleneck", str(width), scores)

# %% mystnb={"figure": {"caption": "AUROC by the width of the bottleneck. The dotted line is the baseline."}, "image": {"alt": "A row for each width of the bottleneck, from narrow to wide, each with a point at its AUROC and a line for its interval."}}
figure = picture("bottleneck")
figure

# %% tags=["remove-input"]
Markdown(verdict("bottleneck", str(own_width)))

# %% [markdown]
# *What to look for:* how flat it is. In so few steps a wide bottleneck does not learn to copy
# everything, so it is less dangerous than it sounds. If even the narrowest one does well, few
# numbers describe a good surface.
#
# ## How many of the largest errors, and of which?
#
# The score is the mean of the $k$ largest errors. Chapter 4 knows two readings of this: the largest
# of all $C \cdot H \cdot W$ entries of the {term}`error map` $E$ (`none`), or the largest of the
# $H \cdot W$ places of the {term}`anomaly map` $A$, which is averaged over the channels first
# (`channel_mean`). Nothing has to be fit again: one error map, many $k$.

# %%
E = scoring.error_map(F_test, scoring.reconstruct(fitted, F_test))  # (N, C, H, W)
ks = [1, 3, 10, 30, 100, 1000, 10_000, top_k]
for way, n_errors in (("none", E[0].size), ("channel_mean", E[0, 0].size)):
    for k in sorted({min(k, n_errors) for k in [*ks, n_errors]}):
        keep("top-k", f"{way}, k = {k}", scoring.image_score(E, k, way))
del E  # the largest array of this chapter

# %% mystnb={"figure": {"caption": "AUROC by k, for both readings of the method. The bands are the intervals, the dotted line is the baseline."}, "image": {"alt": "Two curves of the AUROC over k on a logarithmic axis, one for the largest of all errors and one for the largest of the anomaly map, each in a band for its interval; a dotted line at the baseline."}}
figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
curves = rows_of("top-k")
curves[["way", "k"]] = curves["setting"].str.split(", k = ", expand=True)
for i, (way, rows) in enumerate(curves.groupby("way")):
    k, color = rows["k"].astype(int), style.COLORS[i]
    axis.plot(k, rows["auroc"], f"{style.MARKERS[i]}-", color=color, label=way)
    axis.fill_between(k, rows["low"], rows["high"], color=color, alpha=0.15)
axis.axhline(baseline_auroc, color="black", linestyle=":")
axis.set(xlabel="k, logarithmic", ylabel="image AUROC", xscale="log")
axis.set_xlim(0.8, 1.25 * F_test[0].size)
axis.xaxis.set_major_formatter("{x:,.0f}")
axis.legend(frameon=False)
plt.close(figure)
figure

# %% tags=["remove-input"]
Markdown(verdict("top-k", f"{reduction}, k = {top_k}"))

# %% [markdown]
# *What to look for:* both ends. On the left a single error decides, and a single error can be a
# whim. On the right, where all of them count, both readings are the same mean over everything, and
# a small defect drowns in it. A defect that is spread over the whole surface is found best there.
#
# ## How many training images?
#
# Good images are cheap, but not free. We fit to fewer and fewer of them, each set a part of the
# next. The number of *images* is all that changes: each fit may make as many steps as the one with
# all images. And we ask two questions: is the *order* right (the AUROC), and is the *threshold*
# right? For the second we take the published rule `sigma`, $\mu + 3\sigma$ of the same training
# images, and count how many good test images it rejects.

# %%
counts = [n for n in (1, 2, 4, 8, 16, 32) if n < len(F_train)] + [len(F_train)]
order = np.random.default_rng(seed).permutation(len(F_train))
rates = []
for n in counts:
    few = F_train[np.sort(order[:n])]
    fitted_n = fit(few) if n < len(F_train) else fitted
    scores, threshold = score(fitted_n, F_test), sigma_threshold(score(fitted_n, few))
    predictions = predict(scores, threshold)
    rates.append(decision_metrics(labels, predictions))
    keep("training images", str(n), scores, rates[-1]["false_alarm_rate"])

# %% mystnb={"figure": {"caption": "AUROC, and false-alarm rate of the rule sigma, by the number of training images. The bands are 95-percent intervals."}, "image": {"alt": "Two curves over the number of training images on a logarithmic axis: the AUROC, and the share of good test images that the threshold rejects, each in a band for its interval."}}
rows, shares = rows_of("training images"), pd.DataFrame(rates)["false_alarm_interval"]
shares = np.array([share or (np.nan, np.nan) for share in shares], dtype=float)
figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
axis.plot(counts, rows["auroc"], "o-", color=style.NORMAL, label="AUROC")
axis.fill_between(counts, rows["low"], rows["high"], color=style.NORMAL, alpha=0.15)
alarms = dict(color=style.ANOMALOUS, label="false-alarm rate of sigma")
axis.plot(counts, rows["false_alarm_rate"], "s--", **alarms)
axis.fill_between(counts, *shares.T, color=style.ANOMALOUS, alpha=0.15)
axis.set(xlabel="training images", xscale="log", ylim=(0, 1.02), xticks=counts)
axis.set_xticklabels(counts)
axis.minorticks_off()
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.close(figure)
figure

# %% tags=["remove-input"]
images = rows_of("training images")
said = verdict("training images", str(counts[-1]))
if not images[["auroc", "false_alarm_rate"]].isna().any(axis=None):
    final, calm = images["auroc"].iloc[-1], images["false_alarm_rate"] <= 0.1
    enough = next(
        n
        for n, auroc in zip(counts, images["auroc"], strict=True)
        if auroc >= final - 0.02
    )
    steady = next((n for i, n in enumerate(counts) if calm[i:].all()), None)
    said += (
        f"\n\nAn AUROC of no more than 0.02 below that of all {counts[-1]} images is "
        f"reached with **{enough}**. With so few, the rule `sigma` rejects "
        f"{images['false_alarm_rate'][counts.index(enough)]:.0%} of the good test "
        "images. "
    )
    if steady is None:
        said += "Its false-alarm rate is above 10% with all images, too."
    elif steady > enough:
        said += (
            f"Its false-alarm rate stays at or below 10% only from **{steady}** "
            "training images on: the order was right before the threshold was."
        )
    else:
        said += (
            f"Its false-alarm rate stays at or below 10% from **{steady}** training "
            "images on: here the threshold needs no more images than the order."
        )
Markdown(said)

# %% [markdown]
# *What to look for:* the left end of the second curve. With one image, $\sigma$ is 0 and the
# threshold is that image's own score, while the order of the scores may be good. With a few, it
# depends on luck: images that the autoencoder knows by heart score too low and draw the threshold
# down; one that `fit` held out to know when to stop scores higher, makes $\sigma$ large and draws
# it up. The AUROC shows nothing of all this. It is why chapter 4 sets images aside for the
# threshold.
#
# ## Does pre-training matter?
#
# The weights of a backbone can be had at three prices: for nothing, by drawing them at random; for
# the labels of 1.3 million photographs and days of computing, by training on {term}`ImageNet`; or
# for something between, by {term}`distillation`, where a slimmer network learns to give what the one
# from ImageNet gives, without a label. {ref}`This page <weights>` tells how. What do the higher
# prices buy?
#
# Random weights deserve a fair chance first. The backbone is a chain of *residual blocks*
# {cite:p}`he2016resnet`. Each adds to its input $x$ what its convolutions $g$ make of it:
#
# $$y = x + g(x) .$$
#
# The $x$ of this sum is called the *shortcut*. While nothing has been learnt, $g$ stirs into each
# place whatever lies around it, and after thirteen blocks a small defect is lost in the mixture.
# Whoever trains such a network therefore often begins with $g = 0$ {cite:p}`goyal2017accurate`:
# each block is its shortcut alone, and a place is described by what lies at this place. Random
# weights in this book begin so, too. We compare five backbones:
#
# - *random, as created*: shortcuts alone, and nothing else done;
# - *random, calibrated*: the same with {term}`batch normalization` calibrated on the training
#   images;
# - *random, stirred*: calibrated as well, with a random $g$ in each block;
# - *texad*: the weights of the package, which were distilled;
# - *ImageNet*: if its weights are at hand on this computer. Nothing is downloaded for this picture.


# %%
def imagenet_at_hand():
    named = os.environ.get(backbone_weights.ENVIRONMENT_VARIABLE)
    file = Path(named or backbone_weights.imagenet_file())
    return file if file.is_file() else None


def score_with(backbone):
    F, F_new = layer3(backbone)
    return score(fit(F), F_new)


as_created = random_backbone(own_normalize, calibrate=False)
keep("weights", "random, as created", score_with(as_created))
stirred = random_backbone(own_normalize, shortcuts=False)
keep("weights", "random, stirred", score_with(stirred))
calibrated = baseline if is_random else score_with(random_backbone(own_normalize))
keep("weights", "random, calibrated", calibrated)

own_weights = backbone_weights.kind(**run.read()["weights"])
learnt = {} if is_random else {own_weights: backbone}
for file in filter(None, ["texad", imagenet_at_hand()]):
    loaded = backbone_weights.load(file)
    name = backbone_weights.kind(loaded.name, loaded.sha256)
    if name not in learnt:
        learnt[name] = fold_batchnorm(build_backbone(loaded, own_normalize))
for name, each in learnt.items():
    keep("weights", name, baseline if each is backbone else score_with(each))

# %% mystnb={"figure": {"caption": "AUROC by the weights of the backbone. The dotted line is the baseline."}, "image": {"alt": "A row for each kind of weights, random as created, random and stirred, random and calibrated, those of the package, and ImageNet's where at hand, each with a point at its AUROC and a line for its interval."}}
figure = picture("weights")
figure

# %% tags=["remove-input"]
said = verdict("weights", "random, calibrated" if is_random else own_weights)
if "ImageNet" not in learnt:
    said += " ImageNet's weights were **not at hand**, so their row is missing."
Markdown(said)

# %% [markdown]
# *What to look for:* how far weights come that have learnt nothing. Where surfaces are as even as
# drawn ones, they may come far: a defect is then whatever differs at its place. What learning adds
# shows on photographs, where good surfaces differ from each other in light, wear and pattern: a
# backbone that has learnt knows which of these differences belong together. Here are the AUROCs of
# the published detector on photographs, as they were recorded for this book, each the mean over the
# seeds.

# %%
recorded = read_json(notebooks_folder().parent / "book" / "real_surfaces.json")
rows = pd.DataFrame(
    {
        "surface": entry["category"],
        "weights": backbone_weights.kind(**entry["weights"]),
        "auroc": entry["metrics"]["image_auroc"],
    }
    for entry in recorded.get("runs", [])
    if entry["detector"] == "published"
)
real = pd.DataFrame()
if len(rows):
    real = rows.pivot_table("auroc", "surface", "weights")
    order = ["random", "texad", "ImageNet"]
    real = real[[name for name in order if name in real]]
real.round(3)

# %% tags=["remove-input"]
if {"random", "texad", "ImageNet"} <= {*real}:
    gains, behind = real["texad"] - real["random"], real["ImageNet"] - real["texad"]
    said = (
        "On these surfaces the distilled weights change the AUROC of random ones by "
        f"{gains.min():+.3f} to {gains.max():+.3f}, and are at most "
        f"{max(behind.max(), 0):.3f} below ImageNet's."
    ).replace("-", "−")
else:
    said = "Not all three kinds of weights are recorded in this copy of the book."
Markdown(said)

# %% [markdown]
# Which defects does each of them miss? The same scores, one kind of defect at a time.

# %% mystnb={"figure": {"caption": "AUROC of each kind of defect against the good images, by the weights of the backbone."}, "image": {"alt": "A table in colours, with a row for each kind of defect, a column for each kind of weights, and an AUROC in each field; the darker, the lower."}}
kinds = np.array([*good_images["defect"], *defective_images["defect"]])
by_weights = {
    setting.replace(", ", ",\n"): auroc_by_defect(labels, scores, kinds)
    for (ablation, setting), scores in scores_of.items()
    if ablation == "weights"
}
figure = study_plots.coloured_table(pd.DataFrame(by_weights, dtype=float))
figure

# %% [markdown]
# And what do they look with? The first layer consists of 64 *filters* of 7 × 7 pixels. Each answers
# where the image resembles it. Here they are as small pictures, each at its own full contrast; grey
# is zero. Where ImageNet's weights are not at hand, a picture of theirs takes their place, made of
# the ResNet-50 of He et al. that taught `texad`.

# %% mystnb={"figure": {"caption": "The filters of the first layer."}, "image": {"alt": "Three squares of eight by eight small filters: noise for the random weights; edges, stripes and spots of colour for those of the package and for ImageNet's."}}
backbones = {"random": random_backbone(own_normalize), **learnt}


def side_by_side_filters(backbone):  # (64, 3, 7, 7) -> (71, 71, 3)
    w = backbone.conv1.weight.detach().cpu()
    w = 0.5 + 0.5 * w / w.abs().amax(dim=(1, 2, 3), keepdim=True)
    return make_grid(w, nrow=8, padding=1, pad_value=1.0).permute(1, 2, 0).numpy()


filters = {name: side_by_side_filters(each) for name, each in backbones.items()}
picture_file = notebooks_folder().parent / "book" / "images" / "imagenet_filters.png"
if "ImageNet" not in filters and picture_file.is_file():
    filters["ImageNet"] = plt.imread(picture_file)
figure = plots.image_grid(list(filters.values()), list(filters))
figure

# %% [markdown]
# *What to look for:* random filters look like noise, and are. ImageNet's are edges in all
# directions, stripes, and spots of colour: what photographs are made of. Nobody drew them; they are
# what telling objects apart needs first. The training of `texad` began with its teacher's.
#
# ## How much is luck?
#
# The seed decides the first weights of the autoencoder, which images are held out, and the order of
# the vectors. It should not matter. How much it does is the yardstick for all the rest: a knob that
# moves the result less than the seed is no knob.

# %%
keep("seed", str(seed), baseline)
for other_seed in range(seed + 1, seed + 5):
    scores = score(fit(F_train, seed=other_seed), F_test)
    keep("seed", str(other_seed), scores)

# %% mystnb={"figure": {"caption": "AUROC by the seed of the fit. The dotted line is the baseline."}, "image": {"alt": "A row for each of five seeds, each with a point at its AUROC and a line for its interval."}}
figure = picture("seed")
figure

# %% tags=["remove-input"]
seeds = rows_of("seed")
if seeds["auroc"].isna().any():
    said = NOTHING
else:
    spread, width = (
        seeds["auroc"].max() - seeds["auroc"].min(),
        (seeds["high"] - seeds["low"]).mean(),
    )
    said = (
        f"Over {len(seeds)} seeds the AUROC reaches from {seeds['auroc'].min():.3f} "
        f"to {seeds['auroc'].max():.3f}, a spread of **{spread:.3f}**; one interval "
        "is on average "
        f"{width:.3f} wide. "
        + (
            "The seed makes no difference at all."
            if spread == 0
            else "Which images are in the test matters more than the seed."
            if spread < width
            else "The seed matters as much as the choice of the test images: report the mean over several."
        )
    )
Markdown(said)

# %% [markdown]
# *What to look for:* two kinds of chance. The points differ by the seed alone, the lines say what
# other test images might have done. Only the first kind can be bought off with more computing.
#
# ## Which knob moves the result most?
#
# For each knob, the range from its worst to its best setting, the largest range first. All rows of
# the chapter go to `ablations.csv` in the run folder.

# %%
table = pd.DataFrame(results)
run.write_table("ablations.csv", table)
ranges = table.astype({"auroc": float}).dropna(subset="auroc")
ranges = ranges.groupby("ablation")["auroc"].agg(lowest="min", highest="max")
ranges["range"] = ranges["highest"] - ranges["lowest"]
ranges = ranges.sort_values("range", ascending=False, kind="stable")
ranges.round(3)

# %% mystnb={"figure": {"caption": "For each knob, the AUROC from its worst to its best setting. The dotted line is the baseline."}, "image": {"alt": "A thick horizontal line for each knob from the lowest to the highest AUROC among its settings, the longest on top, and a dotted line at the baseline."}}
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
axis.hlines(ranges.index, ranges["lowest"], ranges["highest"], style.NORMAL, lw=5)
for end in ("lowest", "highest"):
    axis.plot(ranges[end], ranges.index, "o", color=style.NORMAL, clip_on=False)
axis.axvline(baseline_auroc, color="black", linestyle=":")
axis.set(xlabel="image AUROC")
axis.invert_yaxis()
plt.close(figure)
figure

# %% tags=["remove-input"]
if ranges.empty:
    said = NOTHING
elif ranges["range"].max() == 0:
    said = (
        f"No knob moved the AUROC: it is {ranges['highest'].max():.3f} at every "
        "setting. This data set cannot tell what matters; a harder one is needed."
    )
else:
    luck = ranges["range"]["seed"]
    more = [name for name in ranges.index if ranges["range"][name] > luck]
    less = [
        name
        for name in ranges.index
        if ranges["range"][name] <= luck and name != "seed"
    ]
    said = (
        f"The knob **{ranges.index[0]}** moves the AUROC most, by "
        f"{ranges['range'].iloc[0]:.3f}. The seed moves it by {luck:.3f}. "
    )
    said += (
        f"Moving it more than the seed: {listed(more)}."
        if more
        else "No knob moves it more."
    )
    said += f" No more than the seed: {listed(less)}." if less else ""
    perfect = [name for name in ranges.index if ranges["lowest"][name] == 1]
    if perfect:
        said += (
            f" All settings of {listed(perfect)} are perfect here: on these, the data "
            "set is too easy to say anything."
        )
Markdown(said)

# %% [markdown]
# *What to look for:* a long line says that *some* setting is bad, not that the published one is.
# See on which side of the dotted line it lies. And a range depends on which settings were tried:
# whoever tries a bottleneck of one number gets a longer line.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **Choosing by this chapter.** All these pictures look at the labels of the test images. Whoever
#   picks the best row of each and then reports its AUROC has trained on the test. Take ideas from
#   here, and choose in another way; chapter 8 shows one.
# - **Many comparisons.** Among forty settings that are all as good as the baseline, about one will
#   look better by more than chance, by chance.
# - **Knobs that hang together.** One at a time says nothing about two at once: with layer2 the best
#   width may be another.
# - **Perfect everywhere.** Where every setting reaches an AUROC of 1, nothing was learnt about the
#   settings. A harder data set is needed.
# - **One surface.** What matters for leather may not matter for a grid. Run the chapter on yours.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} The winner's curse
# :label: exercise-winner
# :nonumber:
#
# Five seeds are five detectors of one kind. Choose the best of them on one half of the test images,
# and measure it on the other half. Repeat this with 200 random halves. By how much, on the average,
# does the AUROC of the chosen one fall? Why does it fall, although the detector stays the same?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-winner
# :class: dropdown
# ```

# %% tags=["solution"]
pairs = np.array([in_order(scores_of["seed", str(seed + i)]) for i in range(5)])
rng, lost = np.random.default_rng(seed), []
for _ in range(200 if min(n_good, n_defective) > 1 else 0):  # a half needs an image
    rows = rng.permutation(n_defective) < n_defective // 2
    columns = rng.permutation(n_good) < n_good // 2
    first = pairs[:, rows][:, :, columns].mean(axis=(1, 2))
    second = pairs[:, ~rows][:, :, ~columns].mean(axis=(1, 2))
    lost.append(first.max() - second[first.argmax()])
if lost:
    print(f"on the average it falls by {np.mean(lost):.4f}")

# %% [markdown] tags=["solution"]
# The best of several is best partly by luck, and luck does not repeat. The more settings there are
# to choose from, and the fewer images, the more of the winner's lead is luck. Where all are perfect
# there is nothing to choose, and nothing falls.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Two intervals that overlap
# :label: exercise-overlap
# :nonumber:
#
# Take the narrowest and the widest bottleneck. Compute the interval of their difference as if each
# had been tested on images of its own: then the squares of the two errors add up. How much wider is
# it than the interval of the paired difference?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-overlap
# :class: dropdown
# ```


# %% tags=["solution"]
def standard_error(values):  # of the mean of (defective, good)
    sides = values.mean(axis=1), values.mean(axis=0)
    return np.sqrt(sum(side.var(ddof=1) / len(side) for side in sides))


if min(n_good, n_defective) > 1:
    widths = rows_of("bottleneck")["setting"].iloc[[0, -1]]
    a, b = [in_order(scores_of["bottleneck", width]) for width in widths]
    apart = np.hypot(standard_error(a), standard_error(b))
    print(f"unpaired ± {1.96 * apart:.3f}, paired ± {1.96 * standard_error(a - b):.3f}")

# %% [markdown] tags=["solution"]
# The more the two settings stumble over the same images, the more the pairing gains. Where one of
# them is perfect, it does not stumble at all, and nothing is gained.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "You change the layer and the width of the bottleneck, and the AUROC rises. "
        "Which of the two was it?",
        right="Nobody can say",
        why="Two things changed. Change one at a time, or try all four combinations.",
        wrong={
            "The layer, since it comes first": "The order in the chain says nothing about the effect.",
            "Both, by one half each": "It may be one alone, or both only together.",
        },
    ),
    quiz.Question(
        "Two settings were tested on the same images, and their intervals overlap. "
        "What follows?",
        right="Nothing yet: look at the interval of the difference",
        why="On the same images both vary together, so their difference varies less than each.",
        wrong={
            "They are equally good": "A small difference may still be more than chance.",
            "The one with the higher AUROC is better": "It may be chance. The interval of the difference says so.",
        },
    ),
    quiz.Question(
        "The score is the mean of all errors, k = C · H · W. How do the two readings "
        "differ?",
        right="Not at all",
        why="The mean over the places of the mean over the channels is the mean over everything.",
        wrong={
            "`channel_mean` is smaller": "For a small k it is. For all errors both are the same mean.",
            "`none` is smaller": "A mean of the largest is never below the mean of all.",
        },
    ),
    quiz.Question(
        "How many numbers describe a place when layer2 and layer3 stand side by "
        f"side, {train_maps['layer2'].shape[1]} and {F_train.shape[1]} channels?",
        right=f"{both[0].shape[1]}",
        why="The channels are put behind each other, so their numbers add up.",
        wrong={
            f"{F_train.shape[1]}": "That is layer3 alone.",
            f"{F_train.shape[1] * F_train.shape[2] * F_train.shape[3]}": "These are the numbers of all places of layer3.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - Turn one knob at a time, and hold images, seed and steps still.
# - Settings tested on the same images are compared by the interval of their *difference*.
# - The seed is the yardstick: what moves the result less than it does is no knob.
# - The order of the scores and the threshold each need their number of training images, and the
#   AUROC sees the first only.
# - These pictures have seen the test labels. They give ideas, not settings.
#
# **Further reading.** How papers on deep learning go wrong in explaining what helped
# {cite:p}`lipton2019troubling`; how transferable the layers of a network are
# {cite:p}`yosinski2014transferable`; two methods that take several layers, PaDiM
# {cite:p}`defard2021padim` and PatchCore {cite:p}`roth2022patchcore`.
#
# Next: a detector that takes up these ideas, and chooses among them without the test labels.
