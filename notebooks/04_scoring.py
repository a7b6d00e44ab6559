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
# The autoencoder rebuilds what it knows. So we look at *where it fails*, press that into one number for an image, and draw a line: above it the surface is called
# anomalous. You will learn
#
# - how an error map becomes an anomaly map and a score, computed by hand for one image;
# - why the score is the mean of the ten largest errors;
# - how a threshold is set without a single defective image.
#
# ![From left to right: an error map with a bright spot; its ten largest values as bars; their mean as one number on an axis, to the right of the threshold.](../book/images/04_scoring.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # chooses the image that is computed by hand
top_k = 10  # the score is the mean of so many largest errors
reduction = "none"  # "none": of all errors; "channel_mean": of the anomaly map
n_sigma = 3.0  # standard deviations from the mean training score to the threshold

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from texad import autoencoder, evaluation, features, plotting, preprocessing, quiz, scoring
from texad.artifacts import Run

run = Run(dataset, category, runs)
options = dict(top_k=top_k, reduction=reduction)
run.start("04_scoring", weights=weights, seed=seed, n_sigma=n_sigma, **options)
train, test = run.images("train"), run.images("test")
F_train = features.load(run.folder / "features" / "train.npy")
F_test = features.load(run.folder / "features" / "test.npy")
trained = autoencoder.load(run.folder / "autoencoder.safetensors")
run

# %% [markdown]
# ## One image by hand
#
# We take one defective test image. $F$ is its feature map, $\hat F$ the reconstruction. The {term}`error map` is
#
# $$E = (F - \hat F)^2 ,$$
#
# entry by entry: one error for each channel of each place. It has the shape of $F$.

# %%
rng = np.random.default_rng(seed)
example = int(rng.choice(np.flatnonzero(test["label"]))) if test["label"].any() else 0
F = np.array(F_test[example : example + 1])  # (1, C, H, W)
F_hat = scoring.reconstruct(trained, F)
E = (F - F_hat) ** 2
print("E:", E.shape)
print(f"smallest {E.min():.2g}, mean {E.mean():.2g}, largest {E.max():.2g}")

# %% [markdown]
# *What to look for:* how far the largest error lies above the mean one. A few entries stand out, and they are what we are after.
#
# To *see* where the errors are, we average over the channels of each place. The result is the {term}`anomaly map` $A$, one number for each place:
#
# $$A_{ij} = \frac{1}{C} \sum_{c=1}^{C} E_{cij} ,$$
#
# where $c$ counts the channels, $i$ the rows and $j$ the columns of places. Stretched to the size of the image it can be laid over it. The line is the
# border of the true defect.

# %% mystnb={"figure": {"caption": "A test image and its anomaly map."}, "image": {"alt": "Above, a photograph with the defect outlined. Below, the same photograph with the anomaly map over it, bright where the autoencoder fails."}}
image_size = run.parameter("image_size")
A = E.mean(axis=1)  # (1, H, W)
path = run.data_path(test["path"][example])
image = preprocessing.load_pictures([path], image_size)[0]
mask = preprocessing.load_mask(run.data_path(test["mask"][example]), image_size)
upsampled = evaluation.upsample(A, image_size)
plotting.heatmaps([image], upsampled, [mask], [test["defect"][example]])

# %% [markdown]
# *What to look for:* does the bright spot lie on the defect? It is often larger than the defect, since each place has seen a wide piece of the image.
#
# Now one number for the whole image. The mean of all errors would hardly notice a small defect among thousands of good places. The single largest error would
# be at the mercy of chance. The method takes a middle way, the {term}`score <anomaly score>` $s$: the mean of the $k = 10$ **largest** errors,
#
# $$s = \frac{1}{k} \left( E_{(1)} + E_{(2)} + \dots + E_{(k)} \right) ,$$
#
# where $E_{(1)} \ge E_{(2)} \ge \dots$ are the entries of $E$ in falling order.

# %% mystnb={"figure": {"caption": "The largest errors of the image; the coloured ones make the score."}, "image": {"alt": "Bars of falling height: the largest errors in order. The first ones, which make the score, are coloured."}}
largest_first = np.sort(E.ravel())[::-1]
plotting.sorted_errors(largest_first[: 4 * top_k], top_k)

# %%
by_hand = largest_first[:top_k].mean()
by_package = scoring.image_score(E, top_k)[0]
print(f"by hand {by_hand:.4f}, by the package {by_package:.4f}")
assert np.isclose(by_hand, by_package, rtol=1e-5)

# %% [markdown]
# :::{admonition} Two readings of one sentence
# "The ten largest values of the error map" can be read in two ways. Literally, $E$ has one value for each channel of each place, and we take the largest of
# them all; this is what we do (`reduction = "none"`). Or one averages over the channels first and takes the ten largest places of $A$
# (`reduction = "channel_mean"`). The first exercise compares them.
# :::
#
# ## All images
#
# The same for every image, training images included, a batch at a time.

# %%
train_scores, _ = scoring.score_features(trained, F_train, **options)
test_scores, test_maps = scoring.score_features(trained, F_test, **options)
run.write_array("maps/test.npy", test_maps)

# %% [markdown]
# ## The threshold
#
# We have no defective images to learn from, so the line is drawn from the good ones alone. Let $\mu$ be the mean of the training images' scores and $\sigma$ their
# standard deviation (that of the population: the sum of squares is divided by $N$, not by $N - 1$). The {term}`threshold` is
#
# $$t = \mu + 3\sigma .$$
#
# Why three? If the scores followed a normal distribution, about one good image in 740 would lie above it. Real scores do not quite follow one, so take this
# as a rule of thumb, and the next chapter's false alarms as the truth.

# %%
mu, sigma = train_scores.astype(float).mean(), train_scores.astype(float).std()
threshold = scoring.threshold(train_scores, n_sigma)
assert np.isclose(threshold, mu + n_sigma * sigma)

# %% tags=["remove-input"]
verdict = "anomalous" if test_scores[example] > threshold else "normal"
Markdown(
    f"Here $\\mu$ = {mu:.4g} and $\\sigma$ = {sigma:.4g}, so the threshold is $t$ = **{threshold:.4g}**. The image above scored "
    f"{test_scores[example]:.4g} and is called **{verdict}**."
)

# %% [markdown]
# An image is *predicted anomalous* if its score is greater than the threshold, $s > t$. We write score and prediction of every image to `scores.csv`.

# %%
scores = pd.concat([train, test], ignore_index=True).drop(columns="mask")
scores["score"] = np.concatenate([train_scores, test_scores])
scores["prediction"] = scoring.predict(scores["score"], threshold).astype(int)
run.write_table("scores.csv", scores)
run.write(threshold=threshold)
scores.groupby(["split", "defect"], sort=False).agg(
    images=("score", "size"), mean_score=("score", "mean"), alarms=("prediction", "sum")
)

# %% [markdown]
# *What to look for:* the mean scores of good images in `train` and in `test`. The first are usually a little smaller, and the box below says why.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **A threshold from the images that were trained on.** The autoencoder knows them better than any new image, so their scores are a little too small, and with
#   them the threshold. With few training images this shows as false alarms: with a handful of them, *every* good test image may lie above the line. The second
#   exercise measures it.
# - **A threshold from the test.** The line that separates the test images best is known only after looking at their labels. Its numbers look fine, and hold for
#   this test only.
# - **One odd training image.** A single training image with a large score pulls $\sigma$ up, the line rises, and defects slip through. Look at the training
#   images with the largest scores.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} Both readings
# :label: exercise-reduction
# :nonumber:
#
# Score the test images with `reduction="none"` and with `reduction="channel_mean"`. Which has the larger AUROC here? Why do the scores differ so much in size?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-reduction
# :class: dropdown
# ```

# %% tags=["solution"]
for name in scoring.REDUCTIONS:
    both = dict(top_k=min(10, test_maps[0].size), reduction=name)
    values, _ = scoring.score_features(trained, F_test, **both, progress=False)
    auroc = evaluation.image_auroc(test["label"], values)
    print(name, "median score", np.median(values).round(4))
    print(name, "AUROC", auroc if auroc is None else round(auroc, 3))

# %% [markdown] tags=["solution"]
# The mean over 1024 channels is much smaller than the largest of them. Only the order of the scores matters for the AUROC, not their size.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} What the training images hide
# :label: exercise-train-test
# :nonumber:
#
# Which share of the good *training* images lies above the threshold, and which share of the good *test* images? What does the difference say about
# $t = \mu + 3\sigma$?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-train-test
# :class: dropdown
# ```

# %% tags=["solution"]
good_test = test_scores[test["label"] == 0]
for name, values in (("training", train_scores), ("test", good_test)):
    alarms, total = int((values > threshold).sum()), len(values)
    print(f"good {name} images above the threshold: {alarms} of {total}")

# %% [markdown] tags=["solution"]
# The line was drawn around the training images, so few of them lie above it, whatever they are. Only images that were not trained on tell how many false
# alarms there will be. A fair threshold would be set on good images that were held out.

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
        right=f"{scoring.image_score(2 * E, top_k)[0] / scoring.image_score(E, top_k)[0]:g} times as large",
        why="A mean of doubled numbers is the doubled mean.",
        wrong={
            "the same": "Scores are not normalised; errors twice as large give larger scores.",
            f"{top_k * 2:g} times as large": "The sum of ten would still be divided by ten.",
        },
    ),
    quiz.Question(
        "What do we need to set the threshold?",
        right="Scores of good images only",
        why="Mean and standard deviation of the training scores are enough.",
        wrong={
            "A few defective images": "The method does without, since a factory often has none.",
            "The masks": "They are used in chapter 5, to judge the maps.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - Error map $E = (F - \hat F)^2$; anomaly map $A$: its mean over the channels; score $s$: the mean of its ten largest values.
# - Threshold $t = \mu + 3\sigma$ of the training scores; no defective image is needed.
# - `scores.csv` has one row for each image.
#
# **Further reading.** DFR {cite:p}`yang2020dfr` and FRE {cite:p}`ndiour2023fre` score reconstruction errors in other ways; PatchCore {cite:p}`roth2022patchcore` and
# PaDiM {cite:p}`defard2021padim` do without reconstruction and compare features directly.
#
# Next: how good is it?
