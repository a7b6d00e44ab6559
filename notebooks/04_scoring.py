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
# The autoencoder rebuilds what it knows. So we look at *where it fails*, press that into one number for an image, and draw a line: above
# it the surface is called anomalous. You will learn
#
# - how an error map becomes an anomaly map and a score, computed by hand for one image;
# - why the score is the mean of the ten largest errors;
# - how a threshold is set without a single defective image.

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder laid out as MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # chooses the image that is computed by hand
top_k = 10  # the score is the mean of so many largest errors
reduction = "none"  # "none": the largest of all errors; "channel_mean": average over the channels first
n_sigma = 3.0  # standard deviations between the mean training score and the threshold

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown

from texad import autoencoder, evaluation, features, plotting, preprocessing, scoring
from texad.artifacts import Run

run = Run(dataset, category, runs)
run.start("04_scoring", weights=weights, seed=seed, top_k=top_k, reduction=reduction, n_sigma=n_sigma)
train, test = run.images("train"), run.images("test")
F_train = features.load(run.folder / "features" / "train.npy")
F_test = features.load(run.folder / "features" / "test.npy")
trained = autoencoder.load(run.folder / "autoencoder.safetensors")
run

# %% [markdown]
# ## One image by hand
#
# We take one defective test image. $F$ is its feature map, $\hat F$ the reconstruction. The *error map* is
#
# $$E = (F - \hat F)^2 ,$$
#
# entry by entry: one error for each channel of each place.

# %%
rng = np.random.default_rng(seed)
example = int(rng.choice(np.flatnonzero(test["label"]))) if test["label"].any() else 0
F = np.array(F_test[example : example + 1])  # (1, C, H, W)
F_hat = scoring.reconstruct(trained, F)
E = (F - F_hat) ** 2
print("E:", E.shape, f"smallest {E.min():.2g}, mean {E.mean():.2g}, largest {E.max():.2g}")

# %% [markdown]
# To *see* where the errors are, we average over the channels of each place. The result is the *anomaly map*, one number for each of the 14 × 14
# places. Stretched to the size of the image it can be laid over it. The line is the border of the true defect.

# %% mystnb={"figure": {"caption": "A defective image and its anomaly map."}, "image": {"alt": "Above, a photograph with the defect outlined. Below, the same photograph with the anomaly map over it, bright where the autoencoder fails."}}
image_size = run.parameter("image_size")
anomaly_map = E.mean(axis=1)  # (1, H, W)
image = preprocessing.load_pictures(run.data_paths(test["path"][[example]]), image_size)[0]
mask = preprocessing.load_mask(run.data_path(test["mask"][example]), image_size)
upsampled = evaluation.upsample(anomaly_map, image_size)
plotting.heatmaps([image], upsampled, [mask], [test["defect"][example]])

# %% [markdown]
# Now one number for the whole image. The mean of all errors would hardly notice a small defect among thousands of good places. The
# single largest error would be at the mercy of chance. The method takes the mean of the **ten largest**.

# %% mystnb={"figure": {"caption": "The largest errors of the image; the coloured ones make the score."}, "image": {"alt": "Bars of falling height: the largest errors in order. The first ones are coloured."}}
largest_first = np.sort(E.ravel())[::-1]
plotting.sorted_errors(largest_first[: 4 * top_k], top_k)

# %%
by_hand = largest_first[:top_k].mean()
by_package = scoring.image_score(E, top_k)[0]
print(f"by hand {by_hand:.4f}, by the package {by_package:.4f}")
assert np.isclose(by_hand, by_package, rtol=1e-5)

# %% [markdown]
# :::{admonition} Two readings of one sentence
# "The ten largest values of the error map" can be read in two ways. Literally, $E$ has one value for each channel of each place, and we
# take the largest of them all; this is what we do (`reduction = "none"`). Or one averages over the channels first and takes the ten largest places of
# the anomaly map (`reduction = "channel_mean"`). Change the parameter and compare.
# :::
#
# ## All images
#
# The same for every image, training images included, a batch at a time.

# %%
options = dict(top_k=top_k, reduction=reduction)
train_scores, _ = scoring.score_features(trained, F_train, **options)
test_scores, test_maps = scoring.score_features(trained, F_test, **options)
run.write_array("maps/test.npy", test_maps)

# %% [markdown]
# ## The threshold
#
# We have no defective images to learn from, so the line is drawn from the good ones alone. Let $\mu$ be the mean of the training images' scores and
# $\sigma$ their standard deviation (that of the population: the sum of squares is divided by $N$, not by $N - 1$). The threshold is
#
# $$t = \mu + 3\sigma .$$
#
# If the scores followed a normal distribution, about one good image in 740 would lie above it. Real scores do not quite follow one, so
# take this as a rule of thumb, and the next chapter's false alarms as the truth.

# %%
mu, sigma = train_scores.astype(float).mean(), train_scores.astype(float).std()
threshold = scoring.threshold(train_scores, n_sigma)
assert np.isclose(threshold, mu + n_sigma * sigma)

# %% tags=["remove-input"]
Markdown(
    f"Here $\\mu$ = {mu:.4g} and $\\sigma$ = {sigma:.4g}, so the threshold is $t$ = **{threshold:.4g}**. The image above scored "
    f"{by_hand:.4g} and is called **{'anomalous' if test_scores[example] > threshold else 'normal'}**."
)

# %% [markdown]
# An image is *predicted anomalous* if its score is greater than $t$. We write score and prediction of every image to `scores.csv`.

# %%
scores = pd.concat([train, test], ignore_index=True).drop(columns="mask")
scores["score"] = np.concatenate([train_scores, test_scores])
scores["prediction"] = scoring.predict(scores["score"], threshold).astype(int)
run.write_table("scores.csv", scores)
run.write(threshold=threshold)
scores.groupby(["split", "defect"], sort=False).agg(
    images=("score", "size"), mean_score=("score", "mean"), called_anomalous=("prediction", "sum")
)

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# The threshold comes from the very images that the autoencoder was trained on. It knows them better than any new image, so their errors are a
# little too small, and with them the threshold. With few training images this shows as false alarms. Compare the scores of `train` and `test`
# good images in the table above.
# :::

# %%
run.finish()

# %% [markdown]
# ## Recap
#
# - Error map $E = (F - \hat F)^2$; anomaly map: its mean over the channels; score: the mean of its ten largest values.
# - Threshold $t = \mu + 3\sigma$ of the training scores; no defective image is needed.
# - `scores.csv` has one row for each image.
#
# Next: how good is it?
