# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 Feature extraction: what the network sees
#
# Two photographs of the same leather differ in almost every pixel, and yet they are the same
# leather. To compare *textures*, we need numbers that describe the pattern and not the pixels. A
# network that has learnt to recognise objects computes such numbers on its way, and we borrow them.
# You will learn
#
# - what a feature map is, and why we stop at `layer3` of a ResNet-50;
# - why the network is *frozen*, and how its BatchNorm layers can be folded away;
# - what a network with random weights can and cannot do.
#
# ![From left to right: an image; a chain of ever smaller and ever deeper blocks, up to layer3; a grid of 14 by 14 places, each with a column of 1024 numbers.](../book/images/02_features.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # or "texad", "imagenet", "random", a .safetensors, .pth or .ckpt file
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the random weights, and of the images shown
feature_batch_size = 2  # images in one forward pass; for a GPU, 32 or more

# %%
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from texad import pipeline
from texad.errors import printable
from texad.evaluation.metrics import image_auroc
from texad.evaluation.near_copies import ALIKE, near_copies
from texad.figures import plots
from texad.model import preprocessing
from texad.model import weights as backbone_weights
from texad.model.backbone import (
    build_backbone,
    calibrate_batchnorm,
    fold_batchnorm,
    grid,
    locate_places,
    save_backbone,
)
from texad.model.places import extent
from texad.runs.parameters import check_values
from texad.runs.run_folder import SPLITS, Run
from texad.teaching import quiz

run = Run(dataset, category, runs)
check_values("02_feature_extraction", {"feature_batch_size": feature_batch_size})
run.start("02_feature_extraction", weights=weights, seed=seed)
sight = run.sight()  # how chapter 1 brings an image to the network
paths = {split: run.data_paths(run.images(split)["path"]) for split in SPLITS}
train_paths, test_paths = paths["train"], paths["test"]
test = run.images("test")

# %% [markdown]
# ## The backbone
#
# Imagine a chain of people, each with a magnifying glass of another kind. The first reports edges
# and dots. The second hears only the reports of the first, and reports small patterns of edges. The
# third reports patterns of patterns, and so on. Each sees a larger piece of the surface than the
# one before, and describes it in more words.
#
# ResNet-50 {cite:p}`he2016resnet` is such a chain, made of *convolutions* in five steps. We use it
# as {term}`backbone`: the part of a system that turns images into descriptions. *ImageNet weights*
# are what it learnt from 1.3 million photographs of a thousand kinds of objects
# {cite:p}`russakovsky2015imagenet`. Nothing in it will be changed: it is {term}`frozen`, and works
# as a measuring instrument. That its descriptions are of use for images of quite another kind is a
# finding, not a matter of course {cite:p}`yosinski2014transferable`.
#
# ImageNet weights are a download. Where it cannot be had, the package has weights of its own, called
# `texad`: a slimmer ResNet-50 that was taught to give the feature maps of the other, by
# {term}`distillation`. They are good, though not as good: {ref}`this page <weights>` says how
# much they are worth.
#
# The next cell loads the weights and builds the chain up to its fourth step, `layer3`.

# %%
loaded = backbone_weights.load(weights, seed)
run.write(weights=dict(name=loaded.name, sha256=loaded.sha256))
backbone = build_backbone(loaded, sight.normalize, sight.layer2)
run

# %% [markdown]
# If the weights are **random**, the network has learnt nothing. It still describes what lies at a
# place by 1024 numbers, which is better than nothing, provided that these do not vanish or explode
# on the way. {term}`Batch normalization` {cite:p}`ioffe2015batchnorm` takes care of that: for each
# channel it subtracts a mean and divides by a standard deviation. In a trained network these are
# known. In a random one we measure them on training images; a few dozen are enough. With trained
# weights the next cell does nothing.

# %%
options = dict(sight=sight)
if loaded.is_random:
    calibrate_batchnorm(backbone, train_paths, **options)

# %% [markdown]
# ## From pixels to places
#
# We send one image through the chain and write down the shape after each part.

# %%
x = preprocessing.load_image(train_paths[0], sight)

output, rows = x, []
with torch.inference_mode():
    for name, part in backbone.named_children():
        output = part(output)
        _, channels, height, width = output.shape
        rows.append((name, channels, height, width))
    if sight.layer2:  # a detector that is also given the mean of 2 × 2 places of layer2
        output = backbone(x)
        rows.append(("layer3 and layer2", *output.shape[1:]))
columns = ["part", "channels", "height", "width"]
pd.DataFrame(rows, columns=columns).set_index("part")

# %% [markdown]
# *What to look for:* from part to part the picture gets smaller and the description longer.
#
# Write $f$ for the backbone. The last row of the table is the {term}`feature map`
#
# $$F = f(x) \quad\text{of shape}\quad (N, C, H, W) = (N, 1024, 14, 14) .$$
#
# $C$ is the number of {term}`channels <channel>`. $H \times W$ are the {term}`places <place>`: for
# an image of 224 × 224 pixels there are 14 × 14, so neighbouring places are 16 pixels apart. Each
# place has a {term}`feature vector` of $C$ numbers.
#
# Why `layer3`? The parts before it describe small things such as edges and dots, and would find any
# scratch but also any harmless speck. The part behind it, `layer4`, serves the question "which
# object is this?", and textures are no objects.
#
# ## Folding BatchNorm
#
# In a frozen network, BatchNorm multiplies each channel by a fixed number and adds another. The
# convolution before it can do both by itself, if we change its weights: a sum of products, times a
# number, plus a number, is again a sum of products plus a number. So half the layers need not be
# computed.
#
# What is left is a chain of convolutions, each followed by a ReLU. The arithmetic is cheap; what
# costs time is to write each result to memory and to read it back for the next small step. So a
# convolution and its ReLU are done in one go (they are *fused*): a number is clipped at zero before
# it is written.
#
# The next cell does both, and checks that the output stays the same up to rounding.

# %%
folded = fold_batchnorm(backbone)
with torch.inference_mode():
    again = folded(x)
difference = float((again - output).abs().max() / output.abs().max())
print(f"largest difference, relative to the largest feature: {difference:.1e}")

# %% [markdown]
# ## Where each place lies
#
# Sixteen pixels lie between neighbouring places. But on which pixel is the first place centred? The
# maps of the later chapters will be laid over the photographs, so we must know. The stride does not
# say it; so we measure it. The next cell changes small patches of a few training images, one at a
# time, and looks for the places whose features change. Chapter 4 tells the whole story.

# %%
locate_places(folded, train_paths, **options)
run.write(places=asdict(grid(folded)))
down, across = grid(folded).centre
print(f"place (0, 0) is centred on row {down:g}, column {across:g}")

# %% [markdown]
# ## Extracting all features
#
# This is the slow part of the method, and it is done once: the features of an image never change.
# Each core of the computer takes a few images at a time, reads them and sends them through the
# chain. The features go to disk as they come, and later chapters read only the part that they need:
# so it does not matter how many images there are. The calibration images, which chapter 1 has set
# aside, get a file of their own. (If images differ in shape, so do their maps. They are stored in one
# array all the same: a smaller map lies in its upper left corner, and the places that are not there
# are NaN, "not a number".)

# %%
options["batch_size"] = feature_batch_size
features = pipeline.extract(folded, paths, run.folder / "features", **options)
F_train, F_test = features["train"], features["test"]
for split, F in features.items():
    print(f"F of {split}:", F.shape, F.dtype)

# %% [markdown]
# Features show something else, too: whether images come in {term}`groups <group>` that nobody has
# named in chapter 1. Two images of one piece have the same marks in the same places, so their
# feature maps rise and fall together. So we correlate the maps of each two good images, after
# taking away what all images share. Between independent images of a texture there is hardly any
# correlation; where it is high, one is a *near-copy* of the other.

# %%
good = [run.images(split) for split in ("train", "calibration")]
names = pd.concat(good)["path"].tolist()
copies = near_copies([F_train, features["calibration"]], names)

# %% tags=["remove-input"]
text = (
    f"Of {copies.n_compared} good images, **{copies.n}** have a near-copy, with a "
    f"correlation above {ALIKE}."
)
if copies.pairs:
    pairs = "; ".join(f"{printable(a)} and {printable(b)}" for a, b in copies.pairs)
    text += f" The most alike: {pairs}."
if copies.many and not run.images("train")["group"].any():
    text += (
        "\n\n**Warning:** these images come in groups, and nobody has named them. If one "
        "is learnt from and its near-copy calibrates, the threshold is too low, and there "
        "will be more false alarms than promised. Name the groups in chapter 1, with "
        "`groups`."
    )
Markdown(text)

# %% [markdown]
# A measuring instrument is kept as carefully as its measurements. We store the folded network, too.
# Chapter 4 reads it back to measure new photographs, and gets exactly what this chapter would have
# measured.

# %%
save_backbone(folded, run.folder / "backbone.safetensors")

# %% [markdown]
# ## Looking at features
#
# First a good image, then a defective one, and five of the 1024 channels of each. Bright means that
# the channel found its pattern there. We show the channels that differ most between the two images.

# %% mystnb={"figure": {"caption": "Two images and five channels of their feature maps."}, "image": {"alt": "Two rows: a good image with five small maps, and a defective image with the same five maps. The maps of the defective image are brighter in some places, most of them at the defect."}} tags=["hide-input"]
rng = np.random.default_rng(seed)
labels = test["label"].to_numpy()
pair = [
    int(rng.choice(np.flatnonzero(labels == label)))
    for label in (0, 1)
    if (labels == label).any()
]
maps = []
for i in pair:
    rows, columns = extent(F_test[i])  # its own, where images differ in shape
    maps.append(F_test[i][:, :rows, :columns])
largest = [np.nanmax(F, axis=(1, 2)) for F in maps]
difference = np.abs(largest[0] - largest[-1])
channels = np.argsort(difference)[:-6:-1]  # the five largest, the largest first
shown, titles = [], []
for i, F in zip(pair, maps, strict=True):
    grey = preprocessing.load_pictures([test_paths[i]], sight)[0].mean(axis=2)
    shown += [grey, *F[channels]]
    titles += [test["defect"][i], *(f"channel {c}" for c in channels)]
plots.map_grid(shown, titles, columns=6)

# %% [markdown]
# *What to look for:* a channel that lights up at the defect and nowhere else. It is a good sign,
# but no single channel is a detector: each reacts to harmless things too. The next chapter learns
# which *combinations* of the 1024 numbers are normal.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **One layer too far.** `layer4` follows right after `layer3`, has twice as many channels, and
#   looks like the better choice. It has learnt to *ignore* what does not change the kind of object,
#   and a scratch does not turn a table into a chair.
# - **The wrong stride.** The original ResNet-50 halves the picture in another convolution than
#   torchvision's. Weights of the one in the network of the other load without an error, and give
#   worse features. Our loader reads from the file which kind it is.
# - **BatchNorm in training mode.** Without `eval()`, BatchNorm uses the statistics of the batch at
#   hand. The features of an image then depend on its neighbours in the batch.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} Closer to the pixels
# :label: exercise-layer2
# :nonumber:
#
# The backbone is an `nn.Sequential`, so `folded[:-1]` is the same chain without its last part,
# `layer3`. Send $x$ through it. How many places are there, how many channels, and how many pixels
# lie between neighbouring places?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-layer2
# :class: dropdown
# ```

# %% tags=["solution"]
with torch.inference_mode():
    layer2 = folded[:-1](x)
_, channels, height, width = layer2.shape
print(f"{height} × {width} places, {x.shape[2] // height} pixels apart")
print(f"{channels} channels")

# %% [markdown] tags=["solution"]
# Finer by a factor of two, with half as many channels. A finer grid shows more exactly *where* a
# defect is. Whether it also tells better *whether* there is one is a question that only a
# measurement answers.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A detector without training
# :label: exercise-mean-vector
# :nonumber:
#
# Compute the mean feature vector of the first 20 training images. For each test image, compute at
# each place the squared distance of its feature vector from that mean. Take the largest distance of
# an image as its score. Show the map of a defective image, and the AUROC.
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-mean-vector
# :class: dropdown
# ```

# %% mystnb={"figure": {"caption": "Distance from the mean feature vector."}, "image": {"alt": "A grey picture of the test image, and beside it a coarse map of the distance from the mean feature vector."}} tags=["solution"]
mean = np.nanmean(F_train[:20], axis=(0, 2, 3))[:, None, None]  # (C, 1, 1)
distances = np.stack([np.square(F - mean).sum(axis=0) for F in F_test])  # (N, H, W)
auroc = image_auroc(labels, np.nanmax(distances, axis=(1, 2)))
print("AUROC of the distance:", auroc if auroc is None else round(auroc, 3))
plots.map_grid([grey, distances[pair[-1]]], ["image", "distance"])

# %% [markdown] tags=["solution"]
# This detector knows one normal vector only. A texture has many: the dark crease of leather is as
# normal as the pebble beside it. An autoencoder can learn them all.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "How many numbers describe one image after `layer3`?",
        right=f"{F_train[0].size:,}",
        why="Channels times height times width of the feature map.",
        wrong={
            f"{F_train.shape[1]:,}": "That many describe one place.",
            f"{F_train.shape[2] * F_train.shape[3]:,}": "That is the number of places.",
        },
    ),
    quiz.Question(
        "What does it mean that the backbone is frozen?",
        right="Its weights stay as they are",
        why="Only the autoencoder of the next chapter is trained.",
        wrong={
            "It runs once and is then deleted": "It is needed for every new image.",
            "The features are rounded": "They are stored as they are.",
        },
    ),
    quiz.Question(
        "Why may we fold BatchNorm into the convolutions?",
        right="In eval mode it multiplies and adds fixed numbers",
        why="A convolution can do that with other weights and another bias.",
        wrong={
            "It does nothing in eval mode": "It still scales and shifts each channel.",
            "A random network does not need it": "A random network needs it most.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - A frozen ResNet-50, stopped at `layer3`, turns an image into 14 × 14 vectors of 1024 numbers.
# - Features are computed once and kept on disk.
# - With random weights the method runs, and its results say little about what it can do.
#
# **Further reading.** ResNet {cite:p}`he2016resnet`; how far features of one task serve another
# {cite:p}`yosinski2014transferable`; why networks trained on ImageNet look at texture so much
# {cite:p}`geirhos2019texture`.
#
# Next: an autoencoder learns what normal vectors look like.
