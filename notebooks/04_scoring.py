# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4 Scoring: from error to decision
#
# The autoencoder rebuilds what it knows. So we look at *where it fails*, press that into one number
# for an image, and draw a line: above it the surface is called anomalous. You will learn
#
# - how an error map becomes an anomaly map and a score, computed by hand for one image;
# - why the score is the mean of the ten largest errors;
# - where on the photograph a place looks, and how to find out;
# - how a threshold is set without a single defective image;
# - how a few good images, kept out of the training, give a threshold with a promise;
# - when the promise breaks, and what to do with very few images.
#
# ![From left to right: an error map with a bright spot; its ten largest values as bars; their mean as one number on an axis, to the right of two thresholds, one from images seen in training and one from images kept out.](../book/images/04_scoring.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # chooses the image that is computed by hand
top_k = 10  # the score is the mean of so many largest errors
reduction = "auto"  # "none": of all errors; "channel_mean": of the anomaly map
n_sigma = 3.0  # standard deviations from the mean score to the threshold
rule = "auto"  # which threshold decides: "sigma", "held_out" or "conformal"
false_alarms = 0.05  # false-alarm rate of "conformal"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from texad import pipeline
from texad.errors import RunError
from texad.evaluation.metrics import image_auroc
from texad.evaluation.pixel_metrics import pixel_metrics
from texad.figures import plots, result_figures
from texad.model import extraction, preprocessing, registry, scoring
from texad.model.backbone import load_backbone
from texad.model.cross import members, proven_rate
from texad.model.places import Grid, enlarge, enlarge_each
from texad.model.threshold import (
    check_rule,
    conformal_threshold,
    images_needed,
    n_groups,
    p_values,
    predict,
    sigma_threshold,
    thresholds_by_rule,
)
from texad.runs.run_folder import SPLITS, Run
from texad.teaching import quiz

run = Run(dataset, category, runs)
decision = dict(n_sigma=n_sigma, rule=rule, false_alarms=false_alarms)
shape = dict(top_k=top_k, reduction=reduction)
run.start("04_scoring", weights=weights, seed=seed, **decision, **shape)
images = {split: run.images(split) for split in SPLITS}
trained = registry.load(run.folder / "autoencoder.safetensors")
models = members(trained)  # one; or, where each image is kept out in turn, several
kept_out = "calibration" if len(models) == 1 else "train"
train, calibration, test = images["train"], images[kept_out], images["test"]
groups = run.groups(kept_out)  # of images that belong together; None: there are none
n = n_groups(len(calibration), groups)
options = dict(top_k=top_k, reduction=reduction)
if reduction == "auto":  # "none" for the published detector
    options["reduction"] = trained.reduction
try:
    if rule == "auto":  # "sigma" for the published detector
        detector = run.parameter("detector")
        rule = registry.default_rule(detector, n, false_alarms)
    check_rule(rule, n, false_alarms)
except ValueError as error:
    raise RunError(str(error)) from None
features = {s: extraction.load(run.folder / "features" / f"{s}.npy") for s in SPLITS}
F_train, F_test = features["train"], features["test"]
run

# %% [markdown]
# ## One image by hand
#
# We take one defective test image. $F$ is its feature map, $\hat F$ the reconstruction. The
# {term}`error map` is
#
# $$E = (F - \hat F)^2 ,$$
#
# entry by entry: one error for each channel of each place. It has the shape of $F$.

# %%
rng = np.random.default_rng(seed)
example = int(rng.choice(np.flatnonzero(test["label"]))) if test["label"].any() else 0
sight, path = run.sight(), run.data_path(test["path"][example])
rows, columns = (side // 16 for side in sight.shape_of(path))  # its own
one = F_test[example : example + 1, :, :rows, :columns]  # (1, C, H, W)
answers = [scoring.score_features(each, one, progress=False)[0] for each in models]
model = models[
    int(np.argmin(answers))
]  # of several, the one that finds it least strange
F = scoring.prepare(model, one)
F_hat = scoring.reconstruct(model, F)
E = (F - F_hat) ** 2
print("E:", E.shape)
there = E[~np.isnan(E)]  # all of it, unless a part of the image is not to be judged
print(f"smallest {there.min():.2g}, mean {there.mean():.2g}, largest {there.max():.2g}")

# %% [markdown]
# *What to look for:* how far the largest error lies above the mean one. A few entries stand out,
# and they are what we are after.
#
# To *see* where the errors are, we average over the channels of each place. The result is the
# {term}`anomaly map` $A$, one number for each place:
#
# $$A_{ij} = \frac{1}{C} \sum_{c=1}^{C} E_{cij} ,$$
#
# where $c$ counts the channels, $i$ the rows and $j$ the columns of places. Interpolated at the
# pixels of the image, it can be laid over it; how, we shall see below. The line is the border of
# the true defect.

# %% mystnb={"figure": {"caption": "A test image and its anomaly map."}, "image": {"alt": "Above, a photograph with the defect outlined. Below, the same photograph with the anomaly map over it, bright where the autoencoder fails."}}
A = E.mean(axis=1)  # (1, H, W)
image = preprocessing.load_pictures([path], sight)[0]
mask = preprocessing.load_mask(run.data_path(test["mask"][example]), sight, path)
in_pixels = enlarge(A, run.grid(), mask.shape)
result_figures.heatmaps([image], in_pixels, [mask], [test["defect"][example]])

# %% [markdown]
# *What to look for:* does the bright spot lie on the defect? It is often larger than the defect,
# since each place has seen a wide piece of the image.
#
# Now one number for the whole image. The mean of all errors would hardly notice a small
# defect among thousands of good places. The single largest error would be at the mercy of
# chance. The method takes a middle way, the {term}`score <anomaly score>` $s$: the mean of
# the $k = 10$ **largest** errors,
#
# $$s = \frac{1}{k} \left( E_{(1)} + E_{(2)} + \dots + E_{(k)} \right) ,$$
#
# where $E_{(1)} \ge E_{(2)} \ge \dots$ are the entries of $E$ in falling order.

# %% mystnb={"figure": {"caption": "The largest errors of the image; the coloured ones make the score."}, "image": {"alt": "Bars of falling height: the largest errors in order. The first ones, which make the score, are coloured."}}
values = E if options["reduction"] == "none" else A
largest_first = np.sort(values[~np.isnan(values)])[::-1]
plots.sorted_errors(largest_first[: 4 * top_k], top_k)

# %%
by_hand = largest_first[:top_k].mean()
if options["reduction"] == "local_and_global":  # the extended detector of chapter 8
    by_hand = by_hand + np.nanmean(A)
by_package = scoring.image_score(E, **options)[0]
print(f"by hand {by_hand:.4f}, by the package {by_package:.4f}")
assert np.isclose(by_hand, by_package, rtol=1e-5)

# %% [markdown]
# :::{admonition} Two readings of one sentence
# "The ten largest values of the error map" can be read in two ways. Literally, $E$ has one value
# for each channel of each place, and we take the largest of them all; this is what we do
# (`reduction = "none"`). Or one averages over the channels first and takes the ten largest places
# of $A$ (`reduction = "channel_mean"`). The first exercise compares them. With `reduction = "auto"`
# each detector has its own: the published one is read literally, and the extended one of chapter 8
# adds to the ten largest places of $A$ the mean of all of them (`reduction = "local_and_global"`).
# :::
#
# ## All images
#
# The same for every image, a batch at a time: those that the autoencoder was fit to, those that
# were kept out, and those of the test. (Of several models, the one to which an image looks least
# strange answers; and each training image is scored once more, by the model that has not seen it.)

# %%
scores, maps = pipeline.score(trained, features, **options)
train_scores, calibration_scores, test_scores = (scores[split] for split in SPLITS)
run.write_array("maps/test.npy", maps["test"])

# %% [markdown] tags=["aside"]
# ## Where does a place look?
#
# The map has one number for each place, and the photograph has pixels. To lay one over the other we
# must know on which pixel a place is centred. Nothing seems easier: places are 16 pixels apart, so
# the first one stands for the first square of 16 × 16 pixels, and its centre is the middle of that
# square, between the pixels 7 and 8. The usual functions that enlarge pictures count like that.
#
# But a place is no square of pixels. It is the end of a long chain of convolutions, and each of
# them has looked at a few neighbours. All pixels that can change the features of a place are its
# {term}`receptive field`: counted out for our chain, more than 250 pixels across, wider than an
# image of 224. They do not count alike. The influence of the pixels falls off from the middle
# outwards, like a bell, and what really counts is a small part of the whole
# {cite:p}`luo2016receptive`. Where, then, is the top of the bell?
#
# We can ask the network. Change a small patch of the photograph, and see which places notice. The
# next cell moves a patch down the image, two pixels at a time, with its colours inverted. For each
# position it computes the *centroid* of the change: the mean row of the places, weighted by how
# much their features have changed.

# %% tags=["aside"]
backbone = load_backbone(run.folder / "backbone.safetensors")
x = preprocessing.load_image(path, sight)
height, width = mask.shape


@torch.inference_mode()
def row_that_notices(row):
    changed = x.clone()
    patch = changed[..., row - 3 : row + 4, width // 2 - 3 : width // 2 + 4]
    patch.copy_(1 - patch)
    change = (backbone(changed) - backbone(x)).square().sum(dim=(0, 1, 3)).numpy()
    return np.average(np.arange(len(change)), weights=change + 1e-12)


pixels = np.arange(max(3, height // 2 - 24), min(height - 3, height // 2 + 24), 2)
noticed = np.array([row_that_notices(row) for row in pixels])

# %% mystnb={"figure": {"caption": "The row of places that notices a changed patch, times 16, against the row of the patch. The lines: as it would be if places were centred in their squares, and with the measured centre."}, "image": {"alt": "Dots that rise from the lower left to the upper right, and two parallel lines, one for each idea of the centre. The dots lie about the line of the measured one."}} tags=["aside"]
grid = run.grid()
figure, axis = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
axis.plot(pixels, pixels - 7.5, "--", color="grey", label="middle of the square")
axis.plot(pixels, pixels - grid.centre[0], color="#0072B2", label="measured centre")
axis.plot(pixels, 16 * noticed, "o", color="#D55E00", markersize=4, label="one patch")
axis.set(xlabel="row of the patch, in pixels", ylabel="16 · row of places")
axis.legend()
plt.close(figure)
figure

# %% [markdown] tags=["aside"]
# *What to look for:* which line the dots follow, and whether they climb evenly or in steps. Even
# steps mean that a patch is noticed by the nearest place alone, and by no other: such places see
# little more than what lies at their centre. A smooth climb means that neighbouring places share
# the change between them.
#
# One patch in one image is an anecdote. Chapter 2 has changed four dozen patches in several
# training images, drawn so that every distance from a place comes equally often, and has averaged
# the distance between patch and centroid, for rows and for columns. What it found is kept with the
# backbone and in `run.json`, and every map in this book, in the reports and in the explorer is
# enlarged with it: bilinearly between the *measured* centres.

# %% tags=["aside", "remove-input"]
down, across = (7.5 - centre for centre in grid.centre)


def shift(pixels, ahead, back):
    return f"{abs(pixels):.1f} pixels too far {ahead if pixels > 0 else back}"


Markdown(
    f"In this run, place (0, 0) is centred on row **{grid.centre[0]:g}** and column "
    f"**{grid.centre[1]:g}**. A map that takes the middle of the square instead lies "
    f"**{shift(down, 'down', 'up')}** and "
    f"**{shift(across, 'to the right', 'to the left')}**."
)

# %% [markdown] tags=["aside"]
# Here is the map of the image above, enlarged in both ways, and what chapter 5 would say of all
# test maps: how well they separate defective pixels from good ones ({term}`pixel AUROC` and
# {term}`AUPRO`), and in which share of the defective images the brightest pixel lies on the defect.

# %% mystnb={"figure": {"caption": "The same anomaly map, as if places were centred in their squares, and with the measured centre."}, "image": {"alt": "Twice the same photograph with the outlined defect, and below each the anomaly map over it. The two bright spots lie some pixels apart."}} tags=["aside"]
ways = {"middle of the square": Grid(16, (7.5, 7.5)), "measured": grid}
both = [enlarge(A, way, mask.shape)[0] for way in ways.values()]
result_figures.heatmaps([image] * 2, both, [mask] * 2, list(ways))

# %% tags=["aside"]
has_mask = np.flatnonzero((test["mask"] != "") | (test["label"] == 0))
files = [[run.data_path(test[c][i]) for c in ("mask", "path")] for i in has_mask]
shapes = [sight.shape_of(image) for _, image in files]
found = {}
for name, way in ways.items():
    masks = (preprocessing.load_mask(mask, sight, image) for mask, image in files)
    in_pixels = enlarge_each(maps["test"][has_mask], way, shapes)
    found[name] = pixel_metrics(masks, in_pixels)
pd.DataFrame(found, dtype=float).T.round(3)

# %% [markdown] tags=["aside"]
# *What to look for:* nothing about the detector has changed between the two rows, neither a weight
# nor a score. Whoever compares two detectors by their maps should know that some of the difference
# may be in the drawing.
#
# Why is the centre where it is? The arithmetic of convolutions gives a first answer: in a ResNet
# each step that halves the picture keeps every other row, beginning with the first, so the field of
# place $i$ has its middle on row $16 i$ exactly {cite:p}`araujo2019computing`. Random weights look
# there. Trained weights need not. In the ImageNet weights that we have measured, the centre lies
# between this row and the middle of the square, nearer to the latter. We can only guess why. The
# places have no symmetry: the first is centred on the border of the image, the last one 15 pixels
# away from the other border. But networks are trained on photographs and on their mirror images
# alike, and to see the same in both, the middle of the square is the better point of view. This
# would explain the columns. It does not explain the rows, which have moved nearly as far, although
# nobody trains with photographs upside down.
#
# What do others do? We have read, in 2026, how a few of them make their maps. The reference code of
# PatchCore {cite:p}`roth2022patchcore`, PaDiM in anomalib {cite:p}`akcay2022anomalib` and another
# public version of PaDiM enlarge them bilinearly, each place in the middle of its square; where
# finer layers take part, less is at stake. FCDD {cite:p}`liznerski2021explainable` computes the
# middle of each receptive field from kernels, strides and padding, and draws a bell curve around
# it: that is right before the training, and knows nothing of what is learnt. We have found none
# that measures it, which does not mean that there is none.

# %% [markdown]
# ## The published threshold
#
# We have no defective images to learn from, so the line is drawn from the good ones alone. Let
# $\mu$ be the mean of the training images' scores and $\sigma$ their standard deviation (that of
# the population: the sum of squares is divided by $N$, not by $N - 1$). The {term}`threshold` is
#
# $$t = \mu + 3\sigma .$$
#
# Why three? If the scores followed a normal distribution, about one good image in 740 would lie
# above it. Real scores do not quite follow one, so take this as a rule of thumb, and the next
# chapter's false alarms as the truth.

# %%
mu, sigma = train_scores.astype(float).mean(), train_scores.astype(float).std()
threshold = sigma_threshold(train_scores, n_sigma)
assert np.isclose(threshold, mu + n_sigma * sigma)

# %% tags=["remove-input"]
verdict = "anomalous" if test_scores[example] > threshold else "normal"
Markdown(
    f"Here $\\mu$ = {mu:.4g} and $\\sigma$ = {sigma:.4g}, so the threshold is $t$ = "
    f"**{threshold:.4g}**. The image above scored "
    f"{test_scores[example]:.4g} and is called **{verdict}** by this rule."
)

# %% [markdown]
# An image is *predicted anomalous* if its score is greater than the threshold, $s > t$.
#
# ## The images it has seen
#
# The rule has a weak spot. $\mu$ and $\sigma$ come from the very images that the autoencoder was
# fit to. It knows them better than any image it will ever judge, so their scores are too small, and
# with them the line. Chapter 1 has kept some good images out of the training, the
# {term}`calibration images <calibration image>`. They have never moved a weight, and did not decide
# when to stop either. What they score is what a new good image scores. So one may draw the same
# line, $\mu + 3\sigma$, from *their* scores. We call this rule `held_out`, and the published one
# `sigma`.

# %% mystnb={"figure": {"caption": "Scores of good images: those that the autoencoder was fit to, and those that were kept out."}, "image": {"alt": "Two rows of dots over the anomaly score, the images seen in training above and the images kept out below, with the thresholds of the rules sigma and held_out as lines. The dots below lie, on the whole, further to the right."}}
thresholds = thresholds_by_rule(
    train_scores, calibration_scores, n_sigma, false_alarms, groups
)
rows = {"seen in training": train_scores, "kept out": calibration_scores}
both_lines = {name: thresholds[name] for name in ("sigma", "held_out")}
plots.score_rows(rows, both_lines)

# %% tags=["remove-input"]
if len(calibration):
    above = int((calibration_scores > threshold).sum())
    ratio = calibration_scores.mean() / train_scores.mean()
    sentence = (
        f"The mean score of the images that were kept out ({len(calibration)}) is **{ratio:.2f} "
        f"times** that of the images that were seen ({len(train)}). "
        "Images kept out that lie above the line of `sigma`, although nothing is "
        f"wrong with them: **{above}**. "
    )
    if thresholds["held_out"] is not None:
        sentence += (
            f"The line of `held_out` is at {thresholds['held_out']:.4g} instead of "
            f"{threshold:.4g}."
        )
else:
    sentence = (
        "In this run no image was kept out (there are too few, or `calibration_fraction` "
        "is 0), so there is no second row."
    )
Markdown(sentence)

# %% [markdown]
# *What to look for:* how far the lower row is shifted to the right. The fewer images there are to
# train on, the more they are learnt by heart, and the larger the shift. With a handful, *every*
# good image of the test may lie above the line of `sigma`.
#
# ## A threshold with a promise
#
# `held_out` repairs the shift, but the 3 is still a rule of thumb: how many false alarms will there
# be? Scores are seldom normally distributed, and their upper tail, on which it all depends, is the
# part that we know least about. *Conformal prediction* {cite:p}`vovk2005algorithmic` asks for no
# distribution at all. It counts.
#
# Write the score of each of the $n$ calibration images on a card, and that of a new good image on
# one more. Shuffle the $n + 1$ cards. If the new image was made as the others were (same material,
# same camera, same light), nothing tells which card is the new one: it might as well have been any
# of the calibration images. The images are then called {term}`exchangeable`. So the new card is as
# likely to be the highest as the second highest, or any other. The chance that it is among the $j$
# highest of $n + 1$ cards is $j / (n + 1)$, whatever the scores look like.
#
# The place of an image in this order, from above, is its {term}`p-value`:
#
# $$p = \frac{1 + \text{number of calibration images with a score} \ge s}{n + 1} .$$
#
# The 1 is the image's own card. A small $p$ says: *few good images look as odd as this one*.
#
# If the images come in {term}`groups <group>`, a new image comes from a new group, and it is the
# groups that can be shuffled. Then each group is one card: its images share it, and each counts
# $1 / (\text{number of images of its group})$ {cite:p}`lee2023hierarchical`. $n$ is the number of
# groups, and the promise is one for images of new groups.

# %%
s = test_scores[example]
labels_of = pd.Series(groups if groups else range(n))
card = 1 / labels_of.map(labels_of.value_counts()).to_numpy()  # 1 without groups
by_hand = (1 + card[calibration_scores >= s].sum()) / (n + 1)
p = p_values(calibration_scores, test_scores, groups)
assert np.isclose(by_hand, p[example])

# %% [markdown]
# Now choose a {term}`false-alarm rate` $\alpha$ that you can live with, and call an image anomalous
# if $p \le \alpha$. For a good image this happens with a probability of at most $\alpha$:
#
# $$P(\text{false alarm}) \le \alpha .$$
#
# It holds for any $n$, not only for large ones, and for any detector, good or bad
# {cite:p}`angelopoulos2023conformal,bates2023testing`. The same rule is a threshold $t_\alpha$ on
# the score: the $\lceil (n+1)(1-\alpha) \rceil$-th smallest calibration score, where
# $\lceil\cdot\rceil$ rounds up. This is the rule `conformal`.

# %%
t_alpha = thresholds[
    "conformal"
]  # None: too few calibration images for this false_alarms
if t_alpha is not None:
    assert np.array_equal(predict(test_scores, t_alpha), p <= false_alarms)

# %% mystnb={"figure": {"caption": "Scores of the calibration images, the line of the rule conformal, and the image that we computed by hand."}, "image": {"alt": "A row of blue dots over the anomaly score, the calibration images, with a line at the threshold. Below, one mark: the image of the example."}}
rows = {"calibration images": calibration_scores, "the image above": [s]}
kinds = ["the image above"] if test["label"][example] else []
plots.score_rows(rows, {"conformal": t_alpha}, anomalous=kinds)

# %% tags=["remove-input"]
sentence = (
    f"The image above has $p$ = **{p[example]:.3g}**: "
    f"{int(np.sum(calibration_scores >= s))} of {len(calibration)} calibration images "
    "score as high or higher. "
)
if t_alpha is None:
    sentence += (
        f"For $\\alpha$ = {false_alarms:g} at least **{images_needed(false_alarms)}** "
        f"calibration images (or groups) are needed, and there are {n}: with so few, "
        f"even the highest of all scores has a $p$ of {1 / (n + 1):.3g}. So there is "
        "no line to draw, and this run decides by another rule."
    )
else:
    sentence += (
        f"For $\\alpha$ = {false_alarms:g} the line is at **{t_alpha:.4g}**, and the "
        "image is called "
        f"**{'anomalous' if s > t_alpha else 'normal'}**."
    )
Markdown(sentence)

# %% [markdown]
# *What to look for:* where the line stands. It is one of the dots: no formula has smoothed it, and
# with few images it is the highest dot of all.
#
# The smallest possible p-value is $1 / (n + 1)$. So a small $\alpha$ needs many calibration images,
# at least $1/\alpha - 1$ of them:

# %%
alphas = [0.2, 0.1, 0.05, 0.02, 0.01, 0.001]
needed = [images_needed(value) for value in alphas]
pd.DataFrame({"false_alarms": alphas, "calibration images needed": needed}).set_index(
    "false_alarms"
)

# %% [markdown]
# Read the small print of the promise, too.
#
# - It is about false alarms, and says nothing about how many defects are found. A bad detector
#   keeps it as well, by finding little.
# - It includes the luck of the draw. Some draws of calibration images give a line that is too low,
#   others one that is too high, and the rate averaged over all draws is at most $\alpha$. More
#   calibration images make the draws more alike.
# - It holds for images that are exchangeable with the calibration images. The section after the
#   next one breaks it.
#
# ## The decision
#
# Three lines, one decision: the parameter `rule` says which line counts. For the published detector
# it is `sigma` unless you say otherwise, since this book first shows the method as it was
# published; for a factory, take `conformal` where there are images enough, as the extended detector
# of chapter 8 and `texad fit` do. We write score and prediction of every image to `scores.csv`, and the p-value
# of the test images. The others get none: the training images have been learnt from, and the
# calibration images are what p-values compare with.

# %%
threshold = thresholds[rule]
table = pipeline.scores_table(images, scores, threshold, groups)
run.write_table("scores.csv", table)
run.write(
    threshold=threshold, thresholds=thresholds, rule=rule, false_alarms=false_alarms
)
table.groupby(["split", "defect"], sort=False).agg(
    images=("score", "size"), mean_score=("score", "mean"), alarms=("prediction", "sum")
)

# %% [markdown]
# *What to look for:* the mean scores of good images in `train`, `calibration` and `test`. The last
# two should be near each other, and the first a little smaller.

# %% [markdown] tags=["aside"]
# ## When the promise breaks
#
# Suppose that somebody cleans the lamp, or buys a new one. Every photograph is a little brighter
# from now on. Nothing is wrong with the surfaces, but the new images are no longer made as the
# calibration images were. If you shuffle the cards, the new one can be told by its colour.
#
# We can try it without a factory: multiply the pixels of good test images by a *gain*, cut off what
# gets brighter than white, and measure again, with the very same backbone: that of this run, which
# is stored in its folder.

# %% tags=["aside"]
good = np.flatnonzero(test["label"] == 0)[:12]
paths = run.data_paths(test["path"][good])


def under_light(gain, path):
    return (preprocessing.load_image(path, sight) * gain).clamp(0, 1)


# %% [markdown] tags=["aside"]
# The same good surface under the three lights.

# %% mystnb={"figure": {"caption": "One surface in brighter and brighter light."}, "image": {"alt": "Three squares with the same piece of surface. From left to right it gets brighter, and nothing else changes."}} tags=["aside"]
gains = (1.0, 1.5, 2.0)
one = (paths or run.data_paths(train["path"]))[0]
lights = [under_light(gain, one)[0].permute(1, 2, 0).numpy() for gain in gains]
plots.image_grid(lights, titles=[f"gain {gain:g}" for gain in gains])

# %% [markdown] tags=["aside"]
# Which share of the good images is called anomalous under each light? The line is that of
# `conformal` where there is one, else that of `sigma`.

# %% tags=["aside"]
line = t_alpha if t_alpha is not None else thresholds["sigma"]


@torch.inference_mode()
def false_alarm_rate(gain):
    alarms = []
    for path in paths:
        F_light = backbone(under_light(gain, path)).numpy()
        score, _ = scoring.score_features(trained, F_light, **options, progress=False)
        alarms.append(predict(score, line)[0])
    return float(np.mean(alarms))


tried = gains if len(good) else ()  # a test without good images has no false alarms
rates = [false_alarm_rate(gain) for gain in tried]

# %% mystnb={"figure": {"caption": "False-alarm rate of the same good surfaces in brighter and brighter light."}, "image": {"alt": "Points joined by a line: the share of good images called anomalous against the gain of the light. A dotted line marks the promised rate alpha."}} tags=["aside"]
plots.false_alarm_rates(tried, rates, false_alarms)

# %% tags=["aside", "remove-input"]
if rates:
    broken = [
        gain
        for gain, rate in zip(gains, rates, strict=True)
        if rate > false_alarms and gain > 1
    ]
    sentence = (
        f"Called anomalous, of {len(good)} good images: "
        f"**{round(rates[0] * len(good))}** in the light of the training, "
        f"**{round(rates[-1] * len(good))}** when it is {gains[-1]:g} times as bright. "
    )
    sentence += (
        f"The rate is above $\\alpha$ = {false_alarms:g} from a gain of {broken[0]:g} "
        "on."
        if broken
        else f"Even then the rate is not above $\\alpha$ = {false_alarms:g}: this backbone takes little notice of brightness."
    )
else:
    sentence = "This test has no good image, so there is nothing to measure here."
Markdown(sentence)

# %% [markdown] tags=["aside"]
# *What to look for:* how suddenly it breaks. No formula notices that the light has changed. What
# helps is to look at the p-values of everyday production: of good surfaces, they should be spread
# evenly between 0 and 1. When small ones pile up, find out why, and calibrate anew with images of
# today.
#
# ## Every image kept out once
#
# Keeping images out has two costs. What is kept out is not learnt from. And a line that hangs on a
# few dozen images moves with the draw: other images, another line, and the misses go up and down
# with it.
#
# The way out is to keep *each* image out once. We deal the $n$ images into five *folds*. For each
# fold, a model is fit to the other four, and scores the images of the fold, which it has never
# seen. Every image has now been kept out, and every image has been learnt from.
#
# A new image is scored by all five models, and the one to which it looks least strange answers: its
# score is the *smallest* of the five. So it is called anomalous only if every model finds it
# stranger than the line, and the line is drawn as before, from $n$ scores instead of a few.
#
# What is promised? The models differ a little, so the cards are no longer quite alike, and the
# proof gives less. With many images the chance of a false alarm is at most about $2\alpha$; with
# few the bound is weaker, and the text below the table says what it is there. (For each fold alone,
# the promise of the section "A threshold with a promise" holds. A mean of such p-values may be
# smaller than it should, but never by more than a factor of two {cite:p}`vovk2020combining`.) That
# is for the worst case. Usually the chance is near $\alpha$ or below it, since all models have to
# agree. This is a kind
# of *cross-conformal prediction* {cite:p}`vovk2015cross,barber2021jackknife`; `texad fit` does it,
# and so does the extended detector of chapter 8.
#
# It matters most with few images, and there the three rules differ most. We take some of the
# training images and forget the others. To make the next cell quick, the models are narrower than
# that of chapter 3, and learn from every other place of the feature maps only.

# %% tags=["aside"]
bad = np.flatnonzero(test["label"] == 1)[:20]
F_new = np.concatenate([F_test[good], F_test[bad]])
is_bad = np.arange(len(F_new)) >= len(good)
small = dict(steps=300, seed=seed, progress=False)
if registry.DETECTORS["published"].kind is type(model):
    small |= dict(hidden=256, bottleneck=128, batch_size=64)


def rules_with(n_few):
    few = np.sort(rng.choice(len(F_train), min(n_few, len(F_train)), replace=False))
    F_few = np.array(F_train[few])[:, :, ::2, ::2]  # every other place
    fitted, _ = registry.cross_fit("published", F_few, **small)
    seen, unseen = (
        scoring.score_features(fitted, F_few, progress=False)[0],
        scoring.score_held_out(fitted, F_few, progress=False)[0],
    )
    new, _ = scoring.score_features(fitted, F_new, progress=False)
    lines = thresholds_by_rule(seen, unseen, n_sigma, false_alarms)
    for name, t in lines.items():
        alarms = predict(new, np.inf if t is None else t)
        yield {
            "images": len(few),
            "rule": name,
            "false alarms": int(alarms[~is_bad].sum()),
            "misses": int((~alarms[is_bad]).sum()),
        } | ({} if t is not None else {"false alarms": "–", "misses": "–"})


# %% tags=["aside"]
sizes = sorted({min(n_few, len(F_train)) for n_few in (8, 20)} - {1})
counted = [row for n_few in sizes for row in rules_with(n_few)]
pd.DataFrame(counted).set_index(["images", "rule"]) if counted else None

# %% tags=["aside", "remove-input"]
Markdown(
    f"Counted on {int((~is_bad).sum())} good and {int(is_bad.sum())} defective images "
    f"of the test. `conformal` promises nothing (–) for $\\alpha$ = {false_alarms:g} with "
    f"fewer than {images_needed(false_alarms)} images. With {max(sizes, default=20)} the "
    "chance of a false alarm is proven to be at most "
    f"{proven_rate(max(sizes, default=20), 5, false_alarms):.2f}; the more images, the "
    "nearer this is to $2\\alpha$."
)

# %% [markdown] tags=["aside"]
# *What to look for:* the two columns together. `sigma` draws its line from scores that are too
# small, and pays with false alarms; the other two draw it from scores of images that were kept out.
# A rule that calls nothing anomalous has no false alarms either. With so few images all counts
# depend much on which images there happened to be; only many repetitions tell a rule that keeps its
# promise from one that was lucky.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **Calibration images that are not like production.** Twenty photographs of one piece, taken in
#   one minute, are not exchangeable with what comes next week. The promise is then about that
#   minute. Choose them as you would choose a sample of the production: other pieces, other days.
# - **Choosing after looking.** If you try ten detectors on the calibration images and keep the one
#   with the lowest scores there, you have fitted to them. Decide first, then calibrate, with images that
#   took no part in the decision.
# - **Many images, many alarms.** One false alarm in twenty good images is a lot if a thousand
#   pieces an hour go by. $\alpha$ is a rate for each image; choose it by what an alarm costs.
# - **A threshold from the test.** The line that separates the test images best is known only after
#   looking at their labels. Its numbers look fine, and hold for this test only.
# - **One odd training image.** A single training image with a large score pulls $\sigma$ up, the
#   line rises, and defects slip through. Look at the training images with the largest scores.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} Both readings
# :label: exercise-reduction
# :nonumber:
#
# Score the test images with `reduction="none"` and with `reduction="channel_mean"`. Which has the
# larger AUROC here? Why do the scores differ so much in size?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-reduction
# :class: dropdown
# ```

# %% tags=["solution"]
for name in ("none", "channel_mean"):
    both = dict(top_k=min(10, maps["test"][0].size), reduction=name)
    values, _ = scoring.score_features(trained, F_test, **both, progress=False)
    auroc = image_auroc(test["label"], values)
    print(name, "median score", np.median(values).round(4))
    print(name, "AUROC", auroc if auroc is None else round(auroc, 3))

# %% [markdown] tags=["solution"]
# The mean over 1024 channels is much smaller than the largest of them. Only the order of the scores
# matters for the AUROC, not their size.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Choose your rate
# :label: exercise-alpha
# :nonumber:
#
# For each $\alpha$ of `alphas` that the calibration images allow, compute the threshold. How many
# good test images are above it, and how many defective ones are not? Which $\alpha$ would you
# choose if a missed defect costs as much as fifty false alarms?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-alpha
# :class: dropdown
# ```

# %% tags=["solution"]
is_good = test["label"].to_numpy() == 0
rows = []
for value in alphas:
    if images_needed(value) <= n:
        t = conformal_threshold(calibration_scores, value, groups)
        alarms = predict(test_scores, t)
        rows.append((value, t, alarms[is_good].sum(), (~alarms[~is_good]).sum()))
pd.DataFrame(rows, columns=["false_alarms", "threshold", "false alarms", "missed"])

# %% [markdown] tags=["solution"]
# A larger $\alpha$ lowers the line: more false alarms, fewer misses. Where even the smallest
# $\alpha$ misses nothing, take it. Otherwise multiply the misses by fifty, add the false alarms,
# and compare the sums. Remember that you have now looked at the test: the numbers of the chosen
# $\alpha$ hold for these images, and another test must confirm them.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "How many errors does the error map of one image have?",
        right=f"{E[0].size:,}",
        why="One for each channel of each place.",
        wrong={
            f"{A[0].size:,}": "That is the anomaly map: one number for each place.",
            f"{top_k:,}": "So many of them make the score.",
        },
    ),
    quiz.Question(
        "If every error of an image were doubled, its score would be",
        right=f"{scoring.image_score(2 * E, **options)[0] / scoring.image_score(E, **options)[0]:g} times as large",
        why="A mean of doubled numbers is the doubled mean.",
        wrong={
            "the same": "Scores are not normalised; errors twice as large give larger scores.",
            f"{top_k * 2:g} times as large": "The sum of ten would still be divided by ten.",
        },
    ),
    quiz.Question(
        "What do we need to set the threshold?",
        right="Scores of good images only",
        why="Each of the three rules looks at good images and at nothing else.",
        wrong={
            "A few defective images": "The method does without, since a factory often has none.",
            "The masks": "They are used in chapter 5, to judge the maps.",
        },
    ),
    quiz.Question(
        f"How many calibration images does α = {false_alarms:g} need at least?",
        right=f"{images_needed(false_alarms):,}",
        why="With n images, the smallest p-value is 1 / (n + 1).",
        wrong={
            "One": "Its smallest p-value would be one half.",
            f"{50 * images_needed(false_alarms):,}": "More are better, but so many are not needed.",
        },
    ),
    quiz.Question(
        "When does the promise of the rule conformal hold?",
        right="If a new good image is made as the calibration images were",
        why="Then they are exchangeable, and nothing else is asked for.",
        wrong={
            "If the scores are normally distributed": "No distribution is assumed; ranks are counted.",
            "If the detector is good": "It holds for a bad one too, which then finds few defects.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - Error map $E = (F - \hat F)^2$; anomaly map $A$: its mean over the channels; score $s$: the mean
#   of its ten largest values.
# - A place looks where its network looks, not where its square lies. The centre is measured, and
#   maps are enlarged with it.
# - Published threshold $t = \mu + 3\sigma$ of the training scores; no defective image is needed. It
#   is too low, since the autoencoder has seen these images.
# - Good images that were kept out give p-values, and a threshold $t_\alpha$ with a promise: a good
#   image is rejected with a probability of at most $\alpha$.
# - The promise holds while new images are made as the calibration images were.
# - Every image can be learnt from and kept out, by a model for each fold.
# - `scores.csv` has one row for each image.
#
# **Further reading.** Conformal prediction began with
# {cite:p}`papadopoulos2002inductive,vovk2005algorithmic`; a gentle introduction is
# {cite:p}`angelopoulos2023conformal`. Conformal p-values for outliers: {cite:p}`bates2023testing`;
# for every image in turn: {cite:p}`vovk2015cross,barber2021jackknife`. DFR {cite:p}`yang2020dfr` and FRE
# {cite:p}`ndiour2023fre` score reconstruction errors in other ways; PatchCore
# {cite:p}`roth2022patchcore` and PaDiM {cite:p}`defard2021padim` do without reconstruction and
# compare features directly.
#
# Next: how good is it?
