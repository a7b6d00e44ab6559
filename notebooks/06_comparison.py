# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 6 What would you pick instead?
#
# A number is good or bad only beside another one. The autoencoder on layer3 features is one way to
# find defects; a person who has the same features could do simpler things with them, or quite
# different ones. This chapter builds four rivals, each in a few lines, and lets them compete on the
# same images. You will learn
#
# - how a linear autoencoder, nearest neighbours, a Gaussian distance and an autoencoder on pixels
#   find defects;
# - what it takes to compare detectors fairly;
# - what each of them costs, in seconds and in storage;
# - where the published method loses.
#
# ![Five small drawings side by side. The published method: a wide vector, narrow in the middle, wide again. PCA: points along a line and one point off it. Nearest neighbours: kept points, and a new one joined to the nearest. Gaussian distance: ellipses around a centre and one point outside. Pixels: the narrowing shape, fed with a piece of the photograph. Above, what they see; below, the same score, threshold and test for all.](../book/images/06_comparison.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the autoencoders, the channels and the vectors that are drawn
categories = ""  # compared beside it; empty: all that have finished runs
top_k = 10  # the score is the mean over so many places with the largest errors
false_alarms = 0.05  # false-alarm rate that the threshold promises
n_vectors = 20_000  # at most so many vectors for PCA and nearest neighbours
n_memory = 2_000  # at most so many of them are kept for nearest neighbours
n_channels = 100  # channels for the Gaussian distance
pixel_steps = 300  # at most, for the autoencoder on pixels

# %%
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional

from texad.data import datasets
from texad.errors import RunError
from texad.evaluation.intervals import auroc_interval
from texad.evaluation.metrics import decision_metrics, image_auroc
from texad.evaluation.pixel_metrics import pixel_metrics
from texad.figures import plots, study_plots
from texad.model import autoencoder, base, preprocessing, registry, scoring
from texad.model.backbone import grid
from texad.model.places import Grid, enlarge_each, extent
from texad.model.preprocessing import Normalize, Sight
from texad.model.threshold import conformal_threshold, images_needed, predict
from texad.runs.other_sight import features_at, sight_of
from texad.runs.run_folder import SPLITS, Run
from texad.teaching import quiz

run = Run(dataset, category, runs)
options = dict(categories=categories, top_k=top_k, false_alarms=false_alarms)
sizes = dict(n_vectors=n_vectors, n_memory=n_memory, n_channels=n_channels)
sizes |= dict(pixel_steps=pixel_steps)
run.start("06_comparison", weights=weights, seed=seed, **options, **sizes)
run

# %% [markdown]
# ## A fair comparison
#
# It is easy to let one's favourite win: give it more images, tune it on the test, or compare it
# with numbers from a paper that used another network. So we fix the rules first.
#
# - **The same images.** All learn from the same defect-free images, and are tested with the same.
# - **The same input.** How an image is brought to the {term}`backbone` belongs to no method, and may
#   decide all the same. So all rivals get the input of the extended detector of chapter 8: the
#   image keeps its aspect ratio, at about as many pixels, its colours are normalised as those that
#   the backbone has learnt from, and a place has its features of {term}`layer3` and those of
#   layer2, which are finer. The published method appears as it was published: the image is squeezed
#   to a square, its colours go from 0 to 1, and layer3 stands alone. If a rival is ahead of it,
#   part of the lead may be the input's; an exercise below takes the two apart.
# - **The same score.** Each gives an {term}`anomaly map`, one number for each {term}`place`. The
#   score is the mean of its ten largest places: the reading `channel_mean` of chapter 4. The
#   published method appears twice, scored alike, and with its own literal reading (the ten largest
#   of *all* errors).
# - **The same threshold.** Chapter 4's rule `conformal`, from the calibration images, which no
#   rival has learnt from.
# - **The same clock.** All are timed here, one after the other, on the same machine.
#
# Which textures take part? All of this data set whose runs are finished, with the same weights.


# %%
def finished(name):
    other = Run(dataset, name, runs)
    same = other.read().get("weights") == run.read()["weights"]
    return same and other.is_finished("04_scoring")


try:
    asked = datasets.select(dataset, categories or "all")
except (ValueError, OSError) as error:
    raise RunError(str(error)) from None
names = [category, *(name for name in asked if name != category and finished(name))]
if categories and (absent := set(asked) - set(names)):
    missing = ", ".join(sorted(absent))
    raise RunError(f"categories: no finished run of {missing} with these weights")

# %% tags=["remove-input"]
print("In this run:", ", ".join(names))

# %% [markdown]
# For each texture we need three kinds of input. The published method has its features in the run
# folder. Those of the rivals are extracted here, by the same backbone with the same weights. And
# the last rival gets the normalised photographs themselves, cut into squares of 16 × 16 pixels, one
# for each place of the feature map. With three colours, such a square is a vector of 768 numbers,
# so that pixels have the same form as features: $(N, C, H, W)$.
#
# If the photographs of a data set have several shapes, so have their maps. All lie in one array
# nevertheless: $H$ and $W$ are the largest, and a place that an image does not have is NaN, *not a
# number*, in all channels.


# %%
class Input(NamedTuple):
    X: dict  # for each split, (N, C, H, W)
    sight: Sight  # how the images are brought to the network
    grid: Grid  # which pixel a place is centred on


def squares(paths, F, sight):
    pixels = np.full((len(paths), 3 * 16 * 16, *F.shape[2:]), np.nan, np.float32)
    for one, path, features in zip(pixels, paths, F, strict=True):
        x = preprocessing.load_image(path, sight)
        x = Normalize()(x) if sight.normalize else x
        cut = functional.pixel_unshuffle(x, 16)[0].numpy()  # (768, rows, columns)
        one[:, : cut.shape[1], : cut.shape[2]] = cut
        one[:, np.isnan(features[0])] = np.nan
    return pixels


def load(name):
    run = Run(dataset, name, runs)
    scratch = TemporaryDirectory(ignore_cleanup_errors=True)
    inputs = {}
    for kind, detector in [("published", "published"), ("features", "extended")]:
        sight = sight_of(detector, run)
        folder = Path(scratch.name, detector)
        backbone, F = features_at(run, sight, folder)
        inputs[kind] = Input(F, sight, grid(backbone))
    paths = {split: run.data_paths(run.images(split)["path"]) for split in SPLITS}
    pixels = {split: squares(paths[split], F[split], sight) for split in SPLITS}
    inputs["pixels"] = Input(pixels, sight, Grid(16, (7.5, 7.5)))
    return {"run": run, "scratch": scratch, **inputs}


# %% [markdown]
# Every rival is a function. It takes the training images' vectors and returns two things: a
# function that gives the error map $E$ of new images, and the arrays that would have to be stored
# to use it tomorrow. Three small helpers save repetition. One goes through many images a batch at a
# time. The second lays out the vectors of all places as rows, without those that are missing. The
# third puts what was computed from such rows back to their places.


# %%
def batches(X, size=32):
    for start in range(0, len(X), size):
        yield np.array(X[start : start + size])  # (n, C, H, W)


def vectors(X):  # (n, C, H, W) -> (m, C), of m ≤ n·H·W places
    return base.vectors(torch.from_numpy(X).permute(0, 2, 3, 1)).numpy()


def at_places(rows, batch):  # (m, D) -> (n, D, H, W)
    n, _, H, W = batch.shape
    E = np.full((n, H, W, rows.shape[1]), np.nan, np.float32)
    E[~np.isnan(batch).all(axis=1)] = rows
    return E.transpose(0, 3, 1, 2)


# %% [markdown]
# ## The published method
#
# The autoencoder of chapter 3, as it lies in the run folder. Only its time is measured anew: all
# {term}`steps <step>` take equally long, so fifty are timed, and multiplied by how many times fifty
# there were.

# %%
used = run.read()["stages"]["03_autoencoder_training"]["parameters"]
names_of_settings = ("hidden", "bottleneck", "steps", "batch_size", "learning_rate")
names_of_settings += ("validation_fraction", "patience")
settings = {name: used[name] for name in names_of_settings}


def with_autoencoder(trained):
    def errors(batch):
        return scoring.error_map(batch, scoring.reconstruct(trained, batch))

    return errors, list(trained.parameters())


def published(run, X):
    trained = registry.load(run.folder / "autoencoder.safetensors")
    start = perf_counter()
    if not isinstance(trained, autoencoder.Autoencoder):  # another, or several: fit one
        trained, _ = autoencoder.fit(X, **settings, seed=seed, progress=False)
        return *with_autoencoder(trained), perf_counter() - start
    made = int(run.read_table("training.csv")["step"].iloc[-1])
    few = min(50, made)
    autoencoder.fit(X, **settings | {"steps": few}, seed=seed, progress=False)
    return *with_autoencoder(trained), (perf_counter() - start) * made / few


# %% [markdown]
# ## Rival 1: a linear autoencoder
#
# Take the ReLUs out of the autoencoder. What is left can only multiply and add, and for that kind
# of network the best solution is known without any training: {term}`principal component analysis`,
# PCA {cite:p}`baldi1989pca`. Imagine the normal vectors as a cloud of points in a space of $C$
# dimensions. PCA finds the directions in which the cloud is widest, and keeps as many of them as
# our bottleneck has numbers. With $v$ the vector of a place, $\bar v$ the mean of all normal
# vectors and the kept directions as the rows of a matrix $U$,
#
# $$\hat v = \bar v + U^\top U (v - \bar v) ,$$
#
# the foot of the perpendicular from $v$ to the plane that these directions span. The error is what
# sticks out of this plane. A sample of the vectors is enough to find it; the seed fixes which.


# %%
def sample(X, prepare=np.asarray):  # about n_vectors of the vectors, or all
    share = n_vectors / (~np.isnan(X[:, 0])).sum()
    rng, parts = np.random.default_rng(seed), []
    for batch in batches(X):
        V = vectors(prepare(batch))
        parts.append(V[rng.random(len(V)) < share])
    return np.concatenate(parts)


def fit_pca(X):
    V = sample(X)
    n = min(settings["bottleneck"], *V.shape)
    pca = PCA(n, svd_solver="covariance_eigh").fit(V)

    def errors(batch):
        V = vectors(batch)
        V_hat = pca.inverse_transform(pca.transform(V))
        return at_places(np.square(V - V_hat), batch)

    return errors, [pca.mean_, pca.components_]


# %% [markdown]
# ## Rival 2: nearest neighbours
#
# Why learn anything at all? Keep the normal vectors, and ask of each new one how far away the
# nearest of them is. That is the idea of PatchCore {cite:p}`roth2022patchcore`. Two things make it
# work. Each vector is first averaged with its eight neighbours, so that it does not matter by how
# much a thread has moved. And not all vectors are kept, but a {term}`coreset`: a few that stand for
# all, so that none of the others is far from a kept one.
#
# Finding the best such few is hard, but a greedy rule comes within a factor of two of it
# {cite:p}`gonzalez1985clustering`: again and again, keep the vector that is *farthest from all kept
# so far*. To save time, the distances for this choice are measured after a random projection to 64
# numbers, which hardly changes them.


# %%
def average(batch):  # each place with its eight neighbours; fewer at the border
    missing = np.isnan(batch).all(axis=1, keepdims=True)
    X, there = (torch.from_numpy(a) for a in (np.where(missing, 0, batch), ~missing))
    X, share = (functional.avg_pool2d(a.float(), 3, 1, 1) for a in (X, there))
    return np.where(missing, np.nan, X / share.clamp(min=1 / 9))


def coreset(V, size):
    rng = np.random.default_rng(seed)
    P = V @ rng.standard_normal((V.shape[1], 64), dtype=np.float32)
    squares = np.square(P).sum(axis=1)
    nearest = np.full(len(P), np.inf)  # squared distance to the nearest kept vector
    kept = []
    for _ in range(size):
        kept.append(int(nearest.argmax()))  # the farthest; at first, any
        distance = squares - 2 * P @ P[kept[-1]] + squares[kept[-1]]
        nearest = np.minimum(nearest, distance)
    return V[kept]


# %% [markdown]
# We keep a tenth of the vectors, and at most `n_memory`. The error of a place is its distance to
# the nearest kept vector.


# %%
def fit_neighbours(X, size=None):
    V = sample(X, average)
    memory = coreset(V, size or min(n_memory, max(1, len(V) // 10)))
    search = NearestNeighbors(n_neighbors=1).fit(memory)

    def errors(batch):
        distance, _ = search.kneighbors(vectors(average(batch)))
        return at_places(distance, batch)

    return errors, [memory]


# %% [markdown]
# ## Rival 3: a Gaussian distance
#
# PaDiM {cite:p}`defard2021padim` asks not what is normal *somewhere*, but what is normal *here*.
# For each place of the grid by itself, the training images give a cloud of vectors, one from each
# image. It is described by its mean $\bar v$ and its covariance matrix $\Sigma$, which says how far
# the cloud reaches in each direction. The {term}`Mahalanobis distance`
# {cite:p}`mahalanobis1936generalized`
#
# $$d = \sqrt{(v - \bar v)^\top \, \Sigma^{-1} \, (v - \bar v)}$$
#
# measures how far $v$ lies from the mean, with the width of the cloud in that direction as the
# unit. A covariance of all channels would need far more images than there are, so a random choice
# of the channels must do, and $0.01$ is added on the diagonal, as the authors do, so that $\Sigma$
# can be inverted.
#
# All this takes for granted that a place is the same piece of the part in every image. Where images
# differ in shape it is not, and there is no cloud of a place. The idea that is left is one cloud,
# with one $\bar v$ and one $\Sigma$, for all places together.


# %%
def by_place(X):  # (n, d, H, W) -> (H·W, n, d)
    return X.transpose(2, 3, 0, 1).reshape(-1, len(X), X.shape[1])


def fit_gaussian(X):
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(X.shape[1])[:n_channels])
    missing = np.isnan(X[:, 0])
    alike = (missing == missing[0]).all()  # all images have the same places
    V = by_place(X[:, chosen]) if alike else vectors(X[:, chosen])[None]
    mean = V.mean(axis=1, keepdims=True)  # (H·W, 1, d), or (1, 1, d)
    D = V - mean
    covariance = D.transpose(0, 2, 1) @ D / V.shape[1] + 0.01 * np.eye(len(chosen))
    inverse = np.linalg.inv(covariance)  # (H·W, d, d), or (1, d, d)

    def errors(batch):
        D = by_place(batch[:, chosen]) - mean
        distance = np.sqrt(((D @ inverse) * D).sum(axis=2))  # (H·W, n)
        n, _, H, W = batch.shape
        return distance.T.reshape(n, 1, H, W).astype(np.float32)

    return errors, [mean, inverse]


# %% [markdown]
# ## Rival 4: an autoencoder on pixels
#
# The oldest of these ideas needs no backbone {cite:p}`bergmann2019ssim`: let the autoencoder
# rebuild the photograph itself. For us this is the very same function with the same settings, fed
# with the squares of pixels instead of the features. So whatever differs in the result is the work
# of the features, but for one thing: to keep this chapter short, it gets at most `pixel_steps`
# steps.


# %%
def fit_autoencoder(X):
    short = settings | {"steps": min(pixel_steps, settings["steps"])}
    trained, _ = autoencoder.fit(X, **short, seed=seed, progress=False)
    return with_autoencoder(trained)


# %% [markdown]
# These are all the rivals, and what each looks at:

# %%
rivals = {
    "PCA": (fit_pca, "features"),
    "nearest neighbours": (fit_neighbours, "features"),
    "Gaussian distance": (fit_gaussian, "features"),
    "pixel autoencoder": (fit_autoencoder, "pixels"),
}

# %% [markdown]
# ## The competition
#
# First, each rival learns and looks. From its error maps we take the anomaly map $A$ and three
# scores: the mean of the ten largest places, the same for all; the
# *literal* reading of the published method; and the mean over all places, for defects that are
# everywhere rather than in one spot.


# %%
def look(errors, X):
    parts = []
    for batch in batches(X):
        E = errors(batch)
        A = scoring.anomaly_map(E)
        k = min(top_k, A[0].size)
        alike = scoring.image_score(E, k, "channel_mean")
        literal = scoring.image_score(E, k)
        parts.append((A, alike, literal, np.nanmean(A, axis=(1, 2))))
    found = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return dict(zip(("maps", "alike", "literal", "all places"), found, strict=True))


def learn(fit, X):
    start = perf_counter()
    errors, stored = fit(X)
    return errors, stored, perf_counter() - start


def measure(errors, stored, seconds, X):
    start = perf_counter()
    seen = {split: look(errors, X[split]) for split in SPLITS[1:] if len(X[split])}
    n_seen = sum(len(X[split]) for split in seen)
    cost = {
        "fit_seconds": seconds,
        "score_ms": 1000 * (perf_counter() - start) / n_seen,  # an image
        "megabytes": sum(4 * int(np.prod(a.shape)) for a in stored) / 1e6,
    }
    return seen, cost


# %% [markdown]
# Then it is judged, by the numbers of chapter 5: the AUROC with its interval, the same for the mean
# over all places, and what the conformal threshold decides: how many good images it rejects (the
# promise is $\alpha$) and how many defective ones it misses.


# %%
def judge(seen, reading, labels):
    scores = seen["test"][reading]
    low, high = auroc_interval(labels, scores) or (None, None)
    row = {"auroc": image_auroc(labels, scores), "low": low, "high": high}
    everywhere = seen["test"]["all places"]
    row["auroc_all_places"] = image_auroc(labels, everywhere)
    known = seen["calibration"][reading] if "calibration" in seen else []
    row |= {"n_calibration": len(known), "n_good": int((labels == 0).sum())}
    if len(known) < images_needed(false_alarms):  # no such promise
        return row | {"false_alarm_rate": None, "miss_rate": None}
    t = conformal_threshold(known, false_alarms)
    decided = decision_metrics(labels, predict(scores, t))
    return row | {name: decided[name] for name in ("false_alarm_rate", "miss_rate")}


# %% [markdown]
# The maps are judged against the masks, as in chapter 5 (where defects have no mask, they are left
# out). For that, they are interpolated at the pixels, and here the rivals differ: a place of the
# features is centred where chapter 2 has measured it, and a square of 16 × 16 pixels in its middle.


# %%
def judge_maps(maps, run, seen):
    images = run.images("test")
    rows = np.flatnonzero((images["mask"] != "") | (images["label"] == 0))
    files = [[run.data_path(images[c][i]) for c in ("mask", "path")] for i in rows]
    masks = (preprocessing.load_mask(mask, seen.sight, image) for mask, image in files)
    shapes = [seen.sight.shape_of(image) for _, image in files]
    return pixel_metrics(masks, enlarge_each(maps[rows], seen.grid, shapes))


# %% [markdown]
# And now all of them on all textures. The published method gets two rows, one for each way to score
# it.

# %%
lead = load(category)
rows, everything = [], {}
for name in names:
    data = lead if name == category else load(name)
    labels = data["run"].images("test")["label"].to_numpy()
    X = data["published"].X["train"]
    models = {"published": (*published(data["run"], X), "published")}
    for method, (fit, kind) in rivals.items():
        models[method] = (*learn(fit, data[kind].X["train"]), kind)
    for method, (*model, kind) in models.items():
        seen, cost = measure(*model, data[kind].X)
        everything[name, method] = seen
        pixels = judge_maps(seen["test"]["maps"], data["run"], data[kind])
        readings = {method: "alike"}
        if method == "published":
            readings = {"published": "literal", "published, scored alike": "alike"}
        for label, reading in readings.items():
            row = {"category": name, "method": label, **judge(seen, reading, labels)}
            rows.append(row | pixels | cost)
table = pd.DataFrame(rows)
table = table.astype(dict.fromkeys(table.columns[2:], float))  # None: not a number
run.write_table("comparison.csv", table)

# %% [markdown]
# ### What they see
#
# One defective image, and the map that each of them makes of it.

# %% mystnb={"figure": {"caption": "A test image; the line is the border of the defect."}, "image": {"alt": "A photograph of the surface with the defect outlined."}}
shown = run.images("test")
sight = lead["features"].sight
rng = np.random.default_rng(seed)
defective = np.flatnonzero(shown["label"])
example = int(rng.choice(defective)) if len(defective) else 0
path = run.data_path(shown["path"][example])
image = preprocessing.load_pictures([path], sight)
mask = preprocessing.load_mask(run.data_path(shown["mask"][example]), sight, path)
plots.image_grid(image, [shown["defect"][example]], [mask])

# %% mystnb={"figure": {"caption": "The anomaly maps of the five methods for this image, each on its own scale."}, "image": {"alt": "Five small maps side by side, one for each method, bright where it takes the surface to be unusual."}}
methods = ["published", *rivals]
maps = [everything[category, method]["test"]["maps"][example] for method in methods]
maps = [A[tuple(map(slice, extent(A)))] for A in maps]  # without the missing places
plots.map_grid(maps, methods)

# %% [markdown]
# *What to look for:* is the brightest spot at the defect, and how dark is the rest? The maps have
# different units, errors or distances, so only their patterns can be compared. Nearest neighbours
# gives the smoothest map, since each place has been averaged with those around it.
#
# Look at the frame of the maps, too. Beyond the border of the photograph the backbone sees only
# zeros, so the features of the outermost places are unlike all others, on good images as well. For
# the published method zero is black; after normalisation it is a medium grey, and the frame is
# fainter. Methods that treat all places alike may find it conspicuous nevertheless. The Gaussian
# distance knows what is usual *there*.
#
# ### The table
#
# One row a method, averaged over the textures. The interval of a mean is narrower than those of its
# parts: if the textures' AUROCs err independently, their errors partly cancel. For each side, with
# $w_j$ the distance from the AUROC of texture $j$ to the end of its own interval, the mean of $K$
# textures reaches as far as {cite:p}`zou2008construction`
#
# $$\frac{1}{K} \sqrt{w_1^2 + \dots + w_K^2} .$$


# %%
def mean_over_categories(rows):
    known = rows.dropna(subset="auroc")
    mean, K = known["auroc"].mean(), max(1, len(known))
    below = np.sqrt(((known["auroc"] - known["low"]) ** 2).sum()) / K
    above = np.sqrt(((known["high"] - known["auroc"]) ** 2).sum()) / K
    ends = pd.Series({"low": max(mean - below, 0), "high": min(mean + above, 1)})
    return pd.concat([rows.drop(columns=ends.index).mean(numeric_only=True), ends])


groups = table.drop(columns="category").groupby("method", sort=False)
summary = pd.DataFrame({m: mean_over_categories(rows) for m, rows in groups}).T
summary = summary.astype(float)


# %% tags=["remove-input"]
def text(values, pattern):
    return ["–" if pd.isna(value) else format(value, pattern) for value in values]


ends = [
    f"{low} to {high}"
    for low, high in zip(
        text(summary["low"], ".3f"), text(summary["high"], ".3f"), strict=True
    )
]
columns = {
    "AUROC": text(summary["auroc"], ".3f"),
    "95% interval": ["–" if "–" in end else end for end in ends],
    "AUPRO": text(summary["aupro"], ".3f"),
    "false alarms": text(summary["false_alarm_rate"], ".1%"),
    "fit, s": text(summary["fit_seconds"], ".1f"),
    "score, ms an image": text(summary["score_ms"], ".1f"),
    "stored, MB": text(summary["megabytes"], ".1f"),
}
pd.DataFrame(columns, index=summary.index)

# %% tags=["remove-input"]
others = summary.drop(index=["published"])
alike = summary.loc["published, scored alike"]
own = summary.loc["published"]


def named(method):
    return {"published, scored alike": "the published method, scored alike"}.get(
        method, method
    )


def plain(name):  # a folder's name may hold what Markdown reads as marks
    return re.sub(r"([^\w\s])", r"\\\1", name)


def listed(parts):
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


over = (
    f"on average over {len(names)} textures"
    if len(names) > 1
    else f"on {plain(category)}"
)
if summary["auroc"].isna().all():
    said = "The test has only one kind of image, so there is no AUROC to compare."
elif (summary["auroc"] > 0.9995).sum() > 1:
    perfect = listed(
        [f"**{named(m)}**" for m in summary.index[summary["auroc"] > 0.9995]]
    )
    said = (
        f"More than one method ranks (nearly) every image rightly {over}: {perfect}. "
        "These data cannot tell them apart; look at the maps, the false alarms and "
        "the costs."
    )
else:
    best = summary["auroc"].idxmax()
    winner = "the published method" if best == "published" else named(best)
    said = (
        f"**{winner[0].upper() + winner[1:]}** has the highest AUROC {over}, "
        f"{summary['auroc'][best]:.3f}."
    )
Markdown(said)

# %% [markdown]
# *What to look for:* whether an interval ends before the next one begins. All methods were tested
# with the same images, so they share much of their luck, and a difference can be real although the
# intervals overlap; the first exercise measures it.
#
# ### Each texture by itself
#
# A mean can hide that a method fails on one texture altogether.

# %% mystnb={"figure": {"caption": "AUROC of each method on each texture, with its 95% interval."}, "image": {"alt": "A row for each method, with a dot for each texture at its AUROC and a line through it for the interval."}}
figure = study_plots.points_with_intervals(table, "method", "category")
figure

# %% [markdown]
# *What to look for:* a method whose dots lie close together can be trusted with a new texture more
# than one that is perfect here and poor there.
#
# ### Everywhere, or in one spot?
#
# The mean of the ten largest places suits a small defect. If the whole surface is wrong, a mean
# over *all* places is steadier. The next table has both, with the pixel AUROC and the share of
# defective images that the conformal threshold misses.

# %% tags=["remove-input"]
columns = {
    "AUROC, ten places": text(summary["auroc"], ".3f"),
    "AUROC, all places": text(summary["auroc_all_places"], ".3f"),
    "pixel AUROC": text(summary["pixel_auroc"], ".3f"),
    "misses": text(summary["miss_rate"], ".1%"),
}
pd.DataFrame(columns, index=summary.index)

# %% tags=["remove-input"]
one = table[table["method"] == "published"]
n_known = listed([f"{n:.0f}" for n in sorted(set(one["n_calibration"]))])
rates = summary["false_alarm_rate"]
if rates.isna().all():
    said = (
        f"For $\\alpha$ = {false_alarms:g}, {images_needed(false_alarms)} calibration "
        f"images are needed, and there are {n_known}: so there is no conformal "
        "threshold "
        "here, and no share of false alarms or misses."
    )
else:
    variance = (
        false_alarms
        * (1 - false_alarms)
        * (1 / (one["n_calibration"] + 2) + 1 / one["n_good"])
    )  # of the calibration images, of the test
    limit = false_alarms + 1.645 * np.sqrt(variance.sum()) / len(one)
    above = [named(m) for m in summary.index[rates > limit]]
    them = "it" if len(above) == 1 else "them"
    exceeded = (
        f"Above it {'is' if len(above) == 1 else 'are'} {listed(above or [''])}: to "
        f"{them}, the good test images probably look different from the calibration "
        "images."
    )
    said = (
        f"The threshold promised at most {false_alarms:.0%} false alarms; counted "
        f"were between {rates.min():.1%} and {rates.max():.1%}, depending on the "
        "method. "
        f"The promise is one on average; with {n_known} calibration images of each "
        f"texture, chance alone leaves a single run below {limit:.1%} in about "
        "nineteen cases of "
        "twenty. "
        f"{exceeded if above else 'All methods are below it.'} "
        "The promise is the same for good and bad detectors. They differ in the "
        "misses: a poor detector must place its line so high that it finds little."
    )
Markdown(said)

# %% [markdown]
# *What to look for:* two rows of equal AUROC may differ much in misses. The threshold lies at the
# uppermost edge of the good images' scores, so one odd good image costs many defects.
#
# ## Where the published method loses
#
# Now plainly, from the numbers above. The difference of two AUROCs says which method has the order
# right more often, scored alike.

# %% tags=["remove-input"]
gains = (summary["auroc"][list(rivals)] - alike["auroc"]).sort_values(ascending=False)
better, worse = gains[gains > 0.0005], gains[gains < -0.0005]
lines = []


def with_gain(part):
    return listed([f"{method} (by {abs(gain):.3f})" for method, gain in part.items()])


if run.read()["weights"]["name"] == "random":
    lines.append(
        "The backbone of this run has learnt nothing, so all methods but the one on "
        "pixels compete with a handicap; the order may be another with weights that "
        "have learnt."
    )
if pd.isna(alike["auroc"]):
    lines.append("Without an AUROC, nothing can be said about ranking.")
elif len(better):
    lines.append(f"**In ranking images, it loses to {with_gain(better)}.**")
    top = better.index[0]
    if summary["low"][top] > alike["high"]:
        lines.append(f"The interval of {top} lies wholly above its own.")
    else:
        lines.append(
            f"The interval of {top} overlaps its own, so the first exercise must tell "
            "whether this is more than chance."
        )
else:
    lines.append("In ranking images, no rival is ahead of it here.")
if len(worse):
    lines.append(f"It is ahead of {with_gain(worse)}.")
if len(names) > 1 and not pd.isna(alike["auroc"]):
    pivot = table.pivot(index="category", columns="method", values="auroc").astype(
        float
    )
    behind = (
        pivot[list(rivals)].max(axis=1) - pivot["published, scored alike"]
    ).dropna()
    worst = behind.idxmax()
    if behind[worst] > 0.0005:
        lines.append(
            f"It is furthest behind on *{plain(worst)}*, where "
            f"{pivot.loc[worst, list(rivals)].idxmax()} is {behind[worst]:.3f} above "
            "it."
        )
literal = own["auroc"] - alike["auroc"]
if abs(literal) > 0.0005:
    lines.append(f"Its own literal reading changes its AUROC by {literal:+.3f}.")
faster = [m for m in rivals if summary["fit_seconds"][m] < own["fit_seconds"]]
if faster:
    quickest = summary["fit_seconds"][faster].idxmin()
    lines.append(
        f"**In fitting time, it loses to {listed(faster)}**: it takes "
        f"{own['fit_seconds']:.1f} seconds, {quickest} "
        f"{summary['fit_seconds'][quickest]:.1f}."
    )
smaller = [m for m in rivals if summary["megabytes"][m] < own["megabytes"]]
if smaller:
    lines.append(f"**In storage, it loses to {listed(smaller)}.**")
if not pd.isna(own["aupro"]):
    finer = [m for m in rivals if summary["aupro"][m] > own["aupro"] + 0.0005]
    lines.append(
        f"**In pointing at the defect (AUPRO), it loses to {listed(finer)}.**"
        if finer
        else "In pointing at the defect (AUPRO), no rival is ahead of it."
    )
Markdown(" ".join(lines))

# %% [markdown]
# ## What each choice costs
#
# - **Nearest neighbours** is the one to beat in the literature. It learns nothing, so it forgets
#   nothing: a rare but normal vector is kept, where an autoencoder, which sees it seldom, rebuilds
#   it badly. The price is the memory. It is a share of the training set, and so grows with it, and
#   every new vector is compared with all of it. A coreset with a fixed size stops the growth, and
#   then covers a large training set more thinly.
# - **Gaussian distance** is fast, and what it stores does not depend on how many images there were,
#   though it does on the size of the grid. It assumes that a place means something: that all images
#   have one size and show the part in the same position. On a texture only the frame has a
#   position, and it gains there. The price is that each place learns from its own vectors alone,
#   one an image, so it needs more images than methods that learn from all places together.
# - **PCA** has no learning rate and no steps, and no first weights to be unlucky with. It takes
#   the cloud of normal vectors to be flat. Where the cloud is bent, its plane holds places where no
#   normal vector has ever been, and a defect that lies there is missed.
# - **An autoencoder on pixels** needs no backbone. A code of a few hundred numbers for a square
#   of 768 is wide: the network learns to copy, defects included, and what it cannot copy is what
#   is *hard to draw*, such as noise and sharp edges. That is not the same as *unusual*. Where the
#   surface is soft and the defect crisp, the two agree, and it does well, all the more so beside
#   features of a backbone that has learnt nothing. A defect made of normal pieces in a wrong
#   order escapes it, and on a surface that is crisp itself the good places look as bad as the
#   defects.
# - **The published method** stands between them. What it stores is fixed by the widths of its
#   layers, it takes images of any size, and it can follow a bent cloud. It needs training with all
#   its settings, and the mean squared error gives most weight to the channels with the largest
#   numbers, whether they matter or not.
#
# The rivals here are the *ideas* of PatchCore and PaDiM, on one layer of one network. Their authors
# use several layers and a wider network, and PatchCore scores an image in its own way, so their
# published numbers say little about ours, and ours little about theirs. The features of several
# layers are a matter for chapters 7 and 8.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **Comparing with a number from a paper.** Another network, another image size, another score:
#   the difference may come from any of them.
# - **Tuning one side.** An afternoon spent on the settings of your own method, and none on the
#   rival's, decides the comparison before it is run.
# - **Choosing by this table.** Whoever picks the best row by looking at the test has used the test.
#   On new images, the winner of a close race will often be another.
# - **Seconds from a busy machine.** Other programs, the number of threads and the library behind a
#   call change times by a factor. Compare orders of magnitude.
# - **One mean for all.** Textures differ more than methods do. The dots of the picture say more
#   than the mean.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} Is the difference real?
# :label: exercise-paired
# :nonumber:
#
# Two methods judged on the same images share their luck: an odd image is hard for both. Compare the
# published method, scored alike, with the best rival of this texture. Draw new tests from the
# images with replacement, as the bootstrap of chapter 5 does, but judge *both* methods on each, and
# look at the difference of their AUROCs.
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-paired
# :class: dropdown
# ```

# %% tags=["solution"]
labels = shown["label"].to_numpy()


def right_order(method):  # a row for each defective image, a column for each good one
    s = everything[category, method]["test"]["alike"]
    up, down = s[labels == 1][:, None], s[labels == 0][None, :]
    return (up > down) + 0.5 * (up == down)


if 0 < labels.sum() < len(labels):
    rival = max(rivals, key=lambda method: right_order(method).mean())
    D = right_order(rival) - right_order("published")  # its mean: difference of AUROCs
    rng = np.random.default_rng(seed)
    drawn = [[rng.integers(n, size=n) for n in D.shape] for _ in range(1000)]
    differences = [D[np.ix_(*rows_and_columns)].mean() for rows_and_columns in drawn]
    low, high = np.quantile(differences, [0.025, 0.975])
    print(f"{rival} minus published: {D.mean():+.3f}")
    print(f"95% interval from {low:+.3f} to {high:+.3f}")

# %% [markdown] tags=["solution"]
# If the interval leaves out zero, the difference is more than the luck of these images. It is
# usually narrower than the two separate intervals suggest, since what both find hard cancels. Where
# both are perfect, there is nothing to tell apart. Mind that the rival was picked because it was
# the best here, which flatters it.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} The method, or its input?
# :label: exercise-input
# :nonumber:
#
# The rivals had another input than the published method. Give PCA that of the published method,
# too, and compare the two AUROCs of PCA with each other, and both with that of the published
# method, scored alike. How much of the difference is the method's, how much is the input's?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-input
# :class: dropdown
# ```

# %% tags=["solution"]
squeezed = lead["published"].X
errors, _ = fit_pca(squeezed["train"])
of_input = {
    "published, its own input": everything[category, "published"]["test"]["alike"],
    "PCA, the published input": look(errors, squeezed["test"])["alike"],
    "PCA, the rivals' input": everything[category, "PCA"]["test"]["alike"],
}
for method, scores in of_input.items():
    auroc = image_auroc(labels, scores)
    if auroc is not None:
        print(f"{method}: AUROC {auroc:.3f}")

# %% [markdown] tags=["solution"]
# From the first line to the second, only the method changes; from the second to the third, only the
# input: the proportions, the colours and the layers. The input matters most where images are elongated, since a squeezed scratch is a thinner
# scratch, and where the backbone has learnt from normalised images alone. On square images, with a
# backbone that knows both inputs, it may not matter at all.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} How little memory is enough?
# :label: exercise-memory
# :nonumber:
#
# Let nearest neighbours keep only 1, 10, 100 vectors. How much memory does a texture need? What
# would change for a surface with many different parts?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-memory
# :class: dropdown
# ```

# %% tags=["solution"]
F = lead["features"].X
V = sample(F["train"], average)
for size in (1, 10, 100):
    errors, _ = fit_neighbours(F["train"], min(size, len(V)))
    auroc = image_auroc(labels, look(errors, F["test"])["alike"])
    if auroc is not None:
        print(f"{size:4} vectors kept: AUROC {auroc:.3f}")

# %% [markdown] tags=["solution"]
# A texture repeats itself, so some vectors stand for most of it, and beyond those more memory helps
# little. It may even harm: a large coreset keeps the oddest of the normal vectors, too, and some
# defects resemble those. A surface of many parts has many kinds of normal vectors; those that are
# not kept look like defects.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} The frame has moved
# :label: exercise-shift
# :nonumber:
#
# Shift the feature maps of all good test images by three places (`np.roll` on the last axis), as if
# everything in them had moved. Which methods do not notice? Compute the scores and the AUROC of PCA
# and of the Gaussian distance before and after.
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-shift
# :class: dropdown
# ```

# %% tags=["solution"]
moved = np.array(F["test"])
moved[labels == 0] = np.roll(moved[labels == 0], 3, axis=3)
for method in ("PCA", "Gaussian distance"):
    errors, _ = rivals[method][0](F["train"])
    before, after = look(errors, F["test"])["alike"], look(errors, moved)["alike"]
    change = np.median(np.abs(after / before - 1)[labels == 0])
    was, now = (image_auroc(labels, s) for s in (before, after))
    print(f"{method}: scores of good images change by {change:.1%} (median)")
    if was is not None:
        print(f"    AUROC before {was:.3f}, after {now:.3f}")

# %% [markdown] tags=["solution"]
# PCA treats all places alike, so its errors move with the image and the largest ten stay what they
# are; so do those of the autoencoders. (Nearest neighbours changes a little at the border, where
# the averaging sees other neighbours.) The Gaussian distance compares each place with what was
# normal at *another* one. Even a texture has one thing that stands at a fixed position, its frame;
# a part with edges and holes has many. (Where the images differ in shape, one Gaussian serves all
# places, and moves along with them, too.)

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "You have ten times as many training images as before. Whose stored size "
        "grows, if nothing caps it?",
        right="That of nearest neighbours",
        why="It keeps a share of the training vectors. The others store numbers whose count is fixed in advance.",
        wrong={
            "That of the Gaussian distance": "It keeps a mean and a covariance for each place, however many images they came from.",
            "That of the autoencoder": "Its weights are as many as its layers are wide.",
        },
    ),
    quiz.Question(
        "An autoencoder without ReLUs is trained to the end. What has it found?",
        right="The same plane as PCA",
        why="With multiplying and adding alone, no better reconstruction exists.",
        wrong={
            "Nothing: without ReLUs it cannot learn": "It can, but only flat things.",
            "The same as the published method": "The ReLUs let the published method follow a bent cloud.",
        },
    ),
    quiz.Question(
        "Two methods have overlapping AUROC intervals on the same test. What follows?",
        right="Not much: the difference itself needs an interval",
        why="They were judged on the same images and share their luck, so the difference may be surer than either number.",
        wrong={
            "They are equally good": "Overlap means that we have not looked closely enough, not that there is nothing to see.",
            "The higher one is better": "It may be chance; and if you picked it for being the highest, chance has helped.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - A fair comparison fixes images, input, score, threshold and clock before anyone competes.
# - PCA is an autoencoder without ReLUs, and needs no training. Nearest neighbours keeps examples.
#   The Gaussian distance knows what is normal at each place. On pixels, the same autoencoder does
#   quite another thing.
# - Cost is part of the comparison: seconds, storage, and what is assumed about the images.
# - `comparison.csv` has one row for each method and texture.
#
# **Further reading.** PatchCore {cite:p}`roth2022patchcore` and PaDiM {cite:p}`defard2021padim`; a
# library with these and many more {cite:p}`akcay2022anomalib`; why a linear autoencoder is PCA
# {cite:p}`baldi1989pca`; autoencoders on pixels, and a better loss for them
# {cite:p}`bergmann2019ssim`; distances as errors of features {cite:p}`ndiour2023fre`.
#
# Next: which of the published method's own choices matter?
