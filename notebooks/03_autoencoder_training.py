# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 Autoencoder training: learning what is normal
#
# Imagine that you must describe a carpet to a friend over the telephone in a few words, and the
# friend draws it. If both of you have seen only this carpet for years, a few words are enough. But
# describe a cut in it, with the same few words, and the drawing will be wrong where the cut is. An
# *autoencoder* is you, the telephone and the friend. You will learn
#
# - what encoder, bottleneck and decoder are;
# - how the autoencoder is trained, and when to stop;
# - how a feature vector and its reconstruction look.
#
# ![A wide vector of 1024 numbers narrows through the encoder to a short code, and widens through the decoder to a reconstruction of 1024 numbers.](../book/images/03_autoencoder.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the first weights, the held-out images and the order
hidden = 512  # width of the layer between the features and the bottleneck
bottleneck = 256  # numbers that are left of 1024
steps = 1000  # at most; the training stops earlier when it no longer helps
batch_size = 256  # feature vectors in one step
learning_rate = 0.001
validation_fraction = 0.1  # of the images, held out to know when to stop
patience = 2  # looks without improvement before it stops; a look is every 100 steps
folds = 5  # models, where chapter 1 says that each image is kept out in turn
words = 768  # of the extended detector: words that its code is chosen from

# %%
from functools import partial

import numpy as np
import torch
from IPython.display import Markdown
from torch import nn

from texad.figures import plots
from texad.model import autoencoder, extraction, registry, scoring
from texad.model.cross import members
from texad.model.places import extent
from texad.runs.run_folder import Run
from texad.teaching import quiz

run = Run(dataset, category, runs)
options = dict(
    hidden=hidden,
    bottleneck=bottleneck,
    steps=steps,
    batch_size=batch_size,
    learning_rate=learning_rate,
    validation_fraction=validation_fraction,
    patience=patience,
    words=words,
)
more = dict(folds=folds, seed=seed)
run.start("03_autoencoder_training", weights=weights, **more, **options)
detector = run.parameter("detector")  # of chapter 1

# %% [markdown]
# ## The data: features of good images
#
# We read the feature maps of the training images. The calibration images stay aside, to set the
# threshold in chapter 4. Nothing of the test is touched here either: a detector that has seen the
# test is like a pupil who has seen the exam.

# %%
F_train = extraction.load(run.folder / "features" / "train.npy")
N, C, H, W = F_train.shape
print(f"N = {N} images, C = {C} channels, H × W = {H} × {W} places")

# %% [markdown]
# ## The autoencoder
#
# The {term}`encoder` $g$ turns a feature vector of $C$ numbers into a *code* $z$ of fewer numbers,
# the {term}`bottleneck`. The {term}`decoder` $h$ makes $C$ numbers of the code again, the
# {term}`reconstruction`:
#
# $$z = g(F), \qquad \hat F = h(z) = h(g(F)) .$$
#
# Since the code is shorter than the vector, the autoencoder cannot just copy. It must find out what
# normal vectors have in common {cite:p}`hinton2006reducing`. This is the point of the whole method:
# what a vector has in common with *normal* ones survives the bottleneck, and what is peculiar to it
# gets lost.
#
# Both parts are two linear layers with a ReLU between them (ReLU sets negative numbers to zero;
# without it, two linear layers would be no more than one). Here they are, layer by layer, before
# any training:

# %%
torch.manual_seed(seed)
g = nn.Sequential(nn.Linear(C, hidden), nn.ReLU(), nn.Linear(hidden, bottleneck))
h = nn.Sequential(nn.Linear(bottleneck, hidden), nn.ReLU(), nn.Linear(hidden, C))

rows, columns = extent(F_train[0])  # its own, where images differ in shape
first_image = torch.from_numpy(F_train[0, :, :rows, :columns].copy())  # (C, H, W)
vectors = first_image.permute(1, 2, 0).reshape(-1, C)  # (H·W, C), one row a place
print("vectors of one image:", tuple(vectors.shape))
print("their codes:         ", tuple(g(vectors).shape))
print("reconstructions:     ", tuple(h(g(vectors)).shape))

# %% [markdown]
# The same layers serve all places, one vector at a time. In the literature you meet this as a *1 ×
# 1 convolution*. It is the same arithmetic, and the next cell shows it: a convolution with the
# weights of our first layer gives the same numbers.

# %%
convolution = nn.Conv2d(C, hidden, kernel_size=1)
convolution.weight.data = g[0].weight[:, :, None, None]
convolution.bias.data = g[0].bias
with torch.inference_mode():
    as_map = convolution(first_image[None])[0]  # (hidden, H, W)
    as_vectors = as_map.permute(1, 2, 0).reshape(-1, hidden)  # (H·W, hidden)
    difference = (as_vectors - g[0](vectors)).abs().nan_to_num().max()
    largest = as_vectors.abs().nan_to_num().max()
print(f"largest difference, relative to the largest value: {difference / largest:.1e}")

# %% [markdown]
# ## Training
#
# The {term}`loss` measures how wrong the reconstructions are. For $N$ training images with feature
# maps $F_1, \dots, F_N$ it is
#
# $$L(\theta) = \frac{1}{N} \sum_{i=1}^{N} \lVert F_i - \hat F_i \rVert^2 ,$$
#
# where $\theta$ stands for all weights of $g$ and $h$, and $\lVert\cdot\rVert^2$ is the sum of the
# squares of all entries. *Adam* {cite:p}`kingma2015adam` changes $\theta$ step by step so that $L$
# falls. A {term}`step` looks at one batch of vectors, drawn at random from many images.
#
# How many steps? Usually one counts {term}`epochs <epoch>`: an epoch is over when every vector has
# been used once. That is the wrong unit here. With four images an epoch is three steps, with forty
# thousand it is thirty thousand, and what the layers need is the same for both: enough steps to
# find their weights. So we count steps, and their number does not depend on the number of images.
#
# The loss on the training images goes on falling even when the autoencoder begins to learn them by
# heart ({term}`overfitting`). So some of the images are *held out*: never trained on, only looked
# at every now and then. When their loss no longer falls, we stop {cite:p}`prechelt1998early`. Of
# fewer than 20 images none is held out, since one or two could not tell when to stop; then all
# steps are made.
#
# `autoencoder.fit` builds the same layers as above and trains them. `registry.fit` calls it by the
# name of the detector. (Where chapter 1 has `detector = "extended"`, it fits the detector of chapter
# 8 instead. That one has the same loss, the same held-out images and the same way to stop. Where
# chapter 1 has kept out no image because each one shall be kept out in turn, `registry.cross_fit`
# fits a model for each fold of the images; chapter 4 says why.)

# %%
own = {name: options[name] for name in registry.DETECTORS[detector].options}
own["groups"] = groups = run.groups("train")  # None: no images belong together
is_cross = registry.calibration(detector, run.parameter("calibration")) == "cross"
if len(run.images("calibration")) or len({*(groups or range(N))}) < 2:
    is_cross = False  # chapter 1 has kept some out, or there are too few
fit = partial(registry.cross_fit, folds=folds) if is_cross else registry.fit
trained, history = fit(detector, F_train, **own, seed=seed)
registry.save(trained, run.folder / "autoencoder.safetensors")
run.write_table("training.csv", history)

# %% mystnb={"figure": {"caption": "The loss along the training."}, "image": {"alt": "Falling curves over the steps, the training loss and, where images are held out, their loss. They fall steeply at first and then level off."}}
plots.loss_curves(history)

# %% tags=["remove-input"]
last = history.iloc[-1]
said = f"The training ran for **{last['step']:.0f}** steps. "
if history["validation_loss"].notna().any():
    best = history.loc[history["validation_loss"].idxmin()]
    said += (
        f"The held-out loss was lowest, **{best['validation_loss']:.4g}**, after step "
        f"**{best['step']:.0f}**; the weights of that step are kept. The training loss "
        f"was {best['train_loss']:.4g} there."
    )
else:
    said += f"The training loss was {last['train_loss']:.4g} at the end."
if is_cross:
    n_models = len(members(trained))
    said += f" So it was with the first of **{n_models}** models, one for each fold."
Markdown(said)

# %% [markdown]
# *What to look for:* do the two curves fall together? Then what was learnt holds for new images
# too. A training curve that falls alone would mean learning by heart. (The training loss
# is averaged over the steps since the last look, while the weights still change, so at first it may
# lie above the other.)
#
# ## A vector and its reconstruction
#
# One place of a training image: its numbers, channel by channel, and what came out of the
# autoencoder.

# %% mystnb={"figure": {"caption": "One feature vector of a good image, and its reconstruction."}, "image": {"alt": "Two jagged lines over the channels: a feature vector and its reconstruction. They follow each other closely but not exactly."}}
model = members(trained)[0]
F = scoring.prepare(model, F_train[:1])  # as the autoencoder sees it
F_hat = scoring.reconstruct(model, F)
there = np.argwhere(~np.isnan(F[0, 0]))
row, column = there[np.abs(there - (rows // 2, columns // 2)).sum(axis=1).argmin()]
plots.vector_comparison(
    F[0, :, row, column],
    F_hat[0, :, row, column],
    f"place ({row}, {column}) of the first training image",
)

# %% [markdown]
# *What to look for:* the two lines need not be equal. What matters is that their distance
# is *usually this small* on good surfaces.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **A bottleneck too wide.** With as many numbers as the vector has, the autoencoder may learn to
#   copy. It then reconstructs defects as well as anything else, and finds none. Watch the scores,
#   not only the loss: the lowest loss is not the best detector.
# - **Choosing by the test.** If you try twenty widths and keep the one with the best test result,
#   you have trained on the test. Decide by held-out training images, or by another category.
# - **Held-out vectors instead of held-out images.** Neighbouring places of one image are alike. If
#   some of them are trained on and others held out, the held-out loss looks good for the wrong
#   reason. We hold out whole images.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} The simplest autoencoder
# :label: exercise-mean-loss
# :nonumber:
#
# The simplest reconstruction ignores the vector altogether and answers always with the mean of all
# vectors. Compute its loss on the first 20 images, and that of the trained autoencoder on the same
# images. How many times smaller is the second?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-mean-loss
# :class: dropdown
# ```

# %% tags=["solution"]
F = scoring.prepare(model, F_train[:20])
mean = np.nanmean(F, axis=(0, 2, 3), keepdims=True)  # (1, C, 1, 1)
loss_of_mean = np.nansum(np.square(F - mean), axis=(1, 2, 3)).mean()
F_hat = scoring.reconstruct(model, F)
loss_of_autoencoder = np.nansum(np.square(F - F_hat), axis=(1, 2, 3)).mean()
print(f"mean {loss_of_mean:.4g}, autoencoder {loss_of_autoencoder:.4g}")
print(f"{loss_of_mean / loss_of_autoencoder:.1f} times smaller")

# %% [markdown] tags=["solution"]
# The loss of the mean is the *variance* of the features, added up over channels and places. The
# ratio says which part of it the autoencoder explains.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A narrow bottleneck
# :label: exercise-bottleneck
# :nonumber:
#
# Train two more autoencoders on the first 20 images for 50 steps: one with a bottleneck of 4
# numbers, one with 64. Compare their losses. Why is the smaller loss not automatically
# the better detector?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-bottleneck
# :class: dropdown
# ```

# %% tags=["solution"]
for width in (4, 64):
    short = dict(hidden=hidden, bottleneck=width, steps=50, seed=seed)
    _, losses = autoencoder.fit(F_train[:20], **short, progress=False)
    print("bottleneck", width, f"gives {losses['train_loss'].iloc[-1]:.4g}")

# %% [markdown] tags=["solution"]
# The loss says how well *good* surfaces are reconstructed. A detector needs more: that defects are
# reconstructed *badly*. A wider bottleneck improves both the wanted and the unwanted
# reconstruction, and the loss sees only the first.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "How many times shorter than a feature vector is its code?",
        right=f"{C / bottleneck:g} times",
        why="The number of channels divided by the width of the bottleneck.",
        wrong={
            f"{2 * C / bottleneck:g} times": "Compare the vector with the bottleneck, not with half of it.",
            "It is as long as the vector": "Then it would be no bottleneck.",
        },
    ),
    quiz.Question(
        "How many weights and biases have g and h together?",
        right=f"{sum(p.numel() for part in (g, h) for p in part.parameters()):,}",
        why="Four linear layers: inputs times outputs, plus one bias for each output.",
        wrong={
            f"{2 * C * bottleneck:,}": "That leaves out the hidden layers and the biases.",
            f"{N * C:,}": "That is images times channels: data, not weights.",
        },
    ),
    quiz.Question(
        "The training loss still falls, the held-out loss rises. What happens?",
        right="The autoencoder learns the training images by heart",
        why="This is overfitting; early stopping ends it and keeps the best weights.",
        wrong={
            "It should be trained longer": "That makes it worse.",
            "The learning rate is too small": "Then both losses would still fall, slowly.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - The autoencoder squeezes each feature vector through a bottleneck and rebuilds it:
#   $\hat F = h(g(F))$.
# - It is trained on good images only, to make $\lVert F - \hat F\rVert^2$ small.
# - Held-out good images tell when to stop.
#
# **Further reading.** Autoencoders in the textbook {cite:p}`goodfellow2016deep`; the two methods
# from which ours descends, DFR {cite:p}`yang2020dfr` and FRE {cite:p}`ndiour2023fre`.
#
# Next: the error of the reconstruction becomes a score, and the score a decision.
