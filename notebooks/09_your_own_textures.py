# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 9 Your own textures: from a folder of good images to a decision
#
# A new inspector starts on Monday. Nobody shows her a collection of defects; there is none. She
# looks at good pieces for a week, and then stands at the line and says "this one is odd". On Friday
# somebody asks: how often do you stop the line for nothing? That question she can answer, too, if
# she tries herself on good pieces that she has not seen yet. This chapter does the same with a camera. You will learn
#
# - how to take the images, and what must stay as it was;
# - how to fit a detector to a folder of good images, and what its report tells;
# - what can be promised with so many images, and what cannot;
# - how to choose the {term}`false-alarm rate` from what mistakes cost;
# - how to see that the line has drifted, and what to do then.
#
# ![A folder of good images leads to fit, which writes one file, the detector, and a report. New images from a camera go with the detector into predict, which says normal or anomalous. Now and then good images go into check, which leads on, or back to calibrate or fit.](../book/images/09_your_own_textures.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # of the backbone; ImageNet's if they can be had, else "texad"
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the fit, and of the folds
false_alarms = 0.05  # part of good images that may be called anomalous
cost_of_false_alarm = 1.0  # what it costs to stop for a good piece
cost_of_miss = 20.0  # what it costs to let a defective piece pass
defective_share = 0.02  # part of the pieces that are defective

# %%
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from PIL import Image, ImageEnhance, ImageFilter

from texad.detector import AnomalyDetector
from texad.evaluation import drift
from texad.figures import plots
from texad.figures.overlay import overlay
from texad.io.images import read_image
from texad.model.cross import proven_rate
from texad.model.threshold import images_needed, predict, thresholds_by_rule
from texad.runs.run_folder import Run
from texad.teaching import explorer, quiz

run = Run(dataset, category, runs)
costs = {"cost_of_false_alarm": cost_of_false_alarm, "cost_of_miss": cost_of_miss}
options = {"false_alarms": false_alarms, "defective_share": defective_share}
run.start("09_your_own_textures", weights=weights, seed=seed, **options, **costs)
image_size, white = run.parameter("image_size"), run.sight().white
if run.read()["weights"]["name"] == "random":
    weights = "random"  # as in the other chapters of this run
run

# %% [markdown]
# ## Taking the images
#
# The detector learns what *is*, not what matters. Whatever differs between your good images, it
# learns to accept; whatever does not differ, it takes for a law. So before you take the first
# picture, decide what may change and what may not.
#
# | | Keep the same, for ever | Let vary, as it will in production |
# | --- | --- | --- |
# | light | lamp, place, brightness; shut out the window | the ageing of the lamp, if you will not correct it |
# | lens and camera | focus, aperture, exposure, white balance: all set by hand, nothing automatic | |
# | distance and angle | a fixed mount | the play that the conveyor has |
# | surface | | lots, suppliers, shifts, the whole range that counts as good |
# | file | size, format, number of bits, no strong compression | |
#
# Two rules of thumb. **How many?** A hundred good images are a sound start. Fewer than twenty are
# for trying. Take them on several days rather than in one hour: a hundred photographs of one piece
# are one piece. (If there are several of each piece on purpose, say so with `--groups`: see
# chapter 1.) And look at every one, since a defect among them teaches the detector that this
# defect is {term}`normal`.
#
# **How large?** Each image is resized to as many pixels as a square of `image_size` has. Before it
# begins, `texad fit` says how small a defect can then still be found, in pixels of your
# photographs. If smaller ones matter, give it a larger `--image-size`: twice as large finds defects
# of half the size, and takes four times as long.
#
# **Where?** If a part of each photograph shows what may differ from piece to piece, a serial number
# or the edge of the table, the detector would call every new one strange. Paint a mask, as large as
# a photograph: white where the surface is to be judged, black elsewhere. With `--region mask.png`,
# what is black counts nowhere, neither in learning nor in judging, and the detector's file keeps
# the mask. If each photograph needs a mask of its own, name a folder of them, with the names of
# the photographs; `texad predict` then wants a folder for the new ones, too.
#
# In this chapter the folder `train/good` of a texture plays your folder of good images. Here are
# some.

# %% mystnb={"figure": {"caption": "A few images of the folder."}, "image": {"alt": "Four photographs of the surface without defects, which differ a little from each other."}}
images = run.read_table("images.csv")  # what could be read, says chapter 1
is_test = images["split"] == "test"
good = run.data_paths(images[~is_test]["path"])
shown = [np.asarray(read_image(path, white)) for path in good[:4]]
plots.image_grid(shown, [path.name for path in good[:4]])

# %% [markdown]
# *What to look for:* what differs between them? That much difference, and no more, the detector
# will put up with.
#
# ## Fit: one command, one file
#
# What follows needs no notebook. You would type it into a terminal; the next cell makes a place to
# work, and a function that does just that.

# %%
work = run.folder / "detector"
shutil.rmtree(work, ignore_errors=True)  # of an earlier run of this chapter
work.mkdir()


def texad(*arguments):
    command = [str(argument) for argument in arguments]
    python = [sys.executable, "-m", "texad"]
    environment = os.environ | {"COLUMNS": "88", "PYTHONIOENCODING": "utf-8"}
    how = {"cwd": work, "env": environment, "encoding": "utf-8"}
    done = subprocess.run([*python, *command], capture_output=True, **how)
    said = (done.stderr + done.stdout).rstrip()
    print(f"$ texad {shlex.join(command)}\n\n{said}".rstrip())
    return done.returncode


def seen_from_there(path):
    return Path(os.path.relpath(path, work.resolve())).as_posix()


# %% [markdown]
# `fit` reads a folder of good images, and all folders in it. It deals them into five
# {term}`folds <fold>`, and fits the {term}`autoencoder` of chapter 3 five times, each time without
# one fold. Each model then judges the images of the fold that it has not seen, and the
# {term}`threshold` is set from these scores. So every image is learnt from, and every one is a
# {term}`calibration image`. A new image is judged by all five models, and the one that finds it
# least strange answers. (With `--calibration-fraction 0.2` there is one model, and a fifth of
# the images is kept out to calibrate with. Its promise is exact, but each image then serves only
# one of the two purposes.)

# %%
folder = seen_from_there(run.data_path("train/good"))
choices = ["--weights", weights, "--image-size", image_size, "--seed", seed]
if source := run.read()["data"]["groups"]["source"]:  # chapter 1 has found groups
    choices += ["--groups", source]
promise = ["--false-alarms", false_alarms]
_ = texad("fit", folder, "--out", "my.safetensors", *promise, *choices, "--quiet")

# %% [markdown]
# Read it slowly once, since everything else rests on it. It says
#
# 1. how many images were used, and which were left out, because they could not be read or were
#    copies;
# 2. the threshold, and which {term}`false-alarm rate` is expected, and which is proven. Both are
#    about *good* images; of defects none was seen, so nothing can be promised of them;
# 3. what would break the promise.
#
# `my.safetensors` is the whole detector: backbone, autoencoder, threshold, and where they come
# from. Take it to another computer, and it judges there as here, but for the last digits. Beside it
# lies `my.html`, the report: one page, to be opened in a browser.
#
# ## Reading the report
#
# The report shows how the scores lie, and the strangest of your good images. The same can be had in
# Python, with one object.

# %%
detector = AnomalyDetector.load(work / "my.safetensors")
t = detector.threshold_
calibration = detector.calibration_scores_
print(
    f"rule {detector.rule_}, threshold {t:.4g}, {len(calibration)} calibration images"
)

# %% mystnb={"figure": {"caption": "Scores of the good images, judged twice: by all five models, four of which have seen the image, and by the one that has not. Each dot is an image."}, "image": {"alt": "Two rows of dots over the anomaly score: each image judged by all models, and by the one that has not seen it. A line marks the threshold."}}
groups = {"by all": detector.train_scores_, "unseen": calibration}
figure = plots.score_rows(groups, {detector.rule_: t})
figure

# %% [markdown]
# *What to look for:* three things.
#
# - **Does one dot stand far from all others?** Look at that image first. Either it is defective,
#   and must go; or it is good in a rare way, and you want more like it.
# - **Are the scores higher where the model has not seen the image?** A little is usual (chapter 4).
#   Much higher means that the folder is too small for all that varies in it.
# - **Are there two heaps?** Then the folder holds two kinds of images: two products, two lights.
#   Fit a detector for each.
#
# The good images with the highest scores, and below each its {term}`heatmap`:

# %%
judged = sorted(detector.stream(good), key=lambda found: found.score)
strange = judged[:-5:-1]  # the last four, the highest first
heat = detector.origin_["heat"]  # one scale for all heatmaps of this detector

# %% mystnb={"figure": {"caption": "The strangest good images with their scores, and where the detector's attention was."}, "image": {"alt": "Above, photographs of the surface with their names and scores; below, the same photographs covered by their heatmaps, which glow where the surface is least well rebuilt."}}
pictures = [read_image(found.path, white) for found in strange]
maps = [
    detector.enlarge(found.anomaly_map, (picture.height, picture.width))
    for picture, found in zip(pictures, strange, strict=True)
]
covered = [overlay(p, A, heat) for p, A in zip(pictures, maps, strict=True)]
titles = [f"{Path(found.path).name}\n{found.score:.3g}" for found in strange]
both = [np.asarray(picture) for picture in [*pictures, *covered]]
plots.image_grid(both, titles + [""] * len(covered), columns=len(pictures))

# %% [markdown]
# *What to look for:* is the bright place something that you would show to a colleague? If it is a
# hair, a scratch or a finger, remove the image and fit again: one bad image among the good ones can
# lift the threshold above the defects that you are after. `fit` itself warns of images whose scores
# stand apart. If they are too many to look at, `--drop 5` leaves the five strangest out and fits
# again; it names them, and says what that costs if they were good after all.
#
# ## What so many images can promise
#
# Let $n$ be the number of {term}`calibration images <calibration image>`. A new good image, taken as
# they were and judged by a model that has seen none of them, is as likely to be the strangest of
# all $n + 1$ as any of them. So its chance to lie above all of them is $1/(n+1)$, and no smaller
# false-alarm rate can be asked for with $n$ images.
#
# That is exact for one model. Each of our five has seen four fifths of the images, and only the
# rest are new to it. What can be *proven* is therefore weaker: about twice the rate that was asked
# for, more with few images. What is *expected* is this rate or less, since all five models have to
# agree before the line stops (see {term}`cross-conformal prediction`).
#
# There is one more limit, which is often forgotten. All these rates hold *on average*, over all the
# folders of $n$ images that you might have taken. You took one. With it, the true rate may lie a
# little higher or lower; how much, $n$ tells for one model {cite:p}`vovk2012conditional`.

# %%
numbers = np.unique(np.geomspace(max(2, 1 / false_alarms), 2000, 60).astype(int))
numbers = numbers[numbers >= images_needed(false_alarms)]
low, high = np.array([drift.rate_interval(n, false_alarms) for n in numbers]).T
proven = [proven_rate(n, detector.n_folds_, false_alarms) for n in numbers]

# %% mystnb={"figure": {"caption": "Where the true false-alarm rate of one model lies, nine times in ten, around the rate that was asked for; what is proven for several models; and the smallest rate that can be asked for."}, "image": {"alt": "Against the number of calibration images, on logarithmic axes: a band around the rate asked for, which becomes narrower to the right; a dotted line above, the proven rate, which falls to twice the rate asked for; and a falling line, the smallest rate that can be asked for."}}
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
axis.fill_between(numbers, low, high, alpha=0.3, label="true rate, 9 times in 10")
axis.axhline(false_alarms, color="#0072B2", label="asked for")
axis.plot(numbers, proven, ":", color="#333333", label="proven, several models")
axis.plot(numbers, 1 / (numbers + 1), "--", color="#D55E00", label="smallest")
axis.set(xscale="log", yscale="log", xlabel="calibration images, n", ylabel="rate")
axis.legend(frameon=False)
plt.close(figure)
figure

# %% tags=["remove-input"]
n = detector.n_calibration_
images_or_groups = "groups of images" if detector.calibration_groups_ else "images"
if detector.rule_ == "conformal":
    bound = proven_rate(n, detector.n_folds_, false_alarms)
    said = (
        f"Here {n} {images_or_groups} calibrate, and {detector.n_folds_} models have to "
        f"agree. The expected false-alarm rate is **{false_alarms:.1%}** or less, and "
        f"proven is at most **{bound:.1%}**."
    )
else:
    said = (
        f"Here only {n} {images_or_groups} calibrate; a rate of {false_alarms:.3g} takes "
        f"{images_needed(false_alarms)}. So nothing is promised, and the rule "
        f"`{detector.rule_}` decides."
    )
Markdown(
    f"{said} The smallest rate that can be asked for is {detector.reachable_:.1%}."
)

# %% [markdown]
# *What to look for:* how slowly the band closes. (Its teeth come from counting: the threshold is
# one of the scores, so the rate moves in steps.) For a small rate that you can rely on, hundreds of
# good images are worth more than a better network.
#
# ## On the line
#
# `predict` takes images, folders, patterns such as `'line/**/*.png'`, or `-` for paths that another
# program writes, one a line. It judges one after the other and keeps none in memory, so it can run
# for years. The folder `test` plays the line.

# %%
line = seen_from_there(run.data_path("test"))
_ = texad("predict", "my.safetensors", line, "--out", "line", "--quiet")
results = pd.read_csv(work / "line" / "predictions.csv").dropna(subset="score")
results[["score", "p_value", "decision", "seconds"]].head()

# %% [markdown]
# - The {term}`p-value` is the part of good images that are as strange as this one. It is easier to
#   explain than a score, and does not change its meaning from one detector to the next.
# - An image that cannot be read is `unreadable`, never `normal`; the others go on.
# - The rows are in the order of the paths, 2 before 10, so that the files of two machines can be
#   laid side by side.
# - `--heatmaps` adds pictures; `--fail-on-anomaly` lets a script know, by the exit status, that
#   something was found.
# - For programs without Python, `texad export` writes an ONNX file. With `--check IMAGES` both judge
#   your own images, and the command ends with status 1 if they ever decide differently.
#
# In a program of your own, the loop around the camera is this:

# %%
for found in detector.stream(good[:3]):  # or any generator that waits for a camera
    print(found.anomalous, round(found.p_value, 3), f"{1000 * found.seconds:.0f} ms")

# %% [markdown]
# On a real line you do not know the truth. Here we do, since the names of the folders in `test`
# tell it. So we can check the promise, this once.

# %%
truth = [Path(path).parent.name for path in results["path"]]
labels = np.array([int(name != "good") for name in truth])  # (N,) 0 good, 1 defective
scores = results["score"].to_numpy()  # (N,)
decided = predict(scores, t)

# %% mystnb={"figure": {"caption": "Scores on the line."}, "image": {"alt": "Two rows of dots over the anomaly score, good and defective images of the line, with the threshold as a line."}}
groups = {"good": scores[labels == 0], "defective": scores[labels == 1]}
figure = plots.score_rows(groups, {detector.rule_: t}, anomalous=["defective"])
figure


# %% tags=["remove-input"]
def counted(part, of, what):
    return f"{part} of {of} {what}" if of else f"no {what} to count"


n_good, n_bad = int((labels == 0).sum()), int((labels == 1).sum())
false, missed = int(decided[labels == 0].sum()), int((1 - decided[labels == 1]).sum())
Markdown(
    f"False alarms: **{counted(false, n_good, 'good images')}**. Missed: "
    f"**{counted(missed, n_bad, 'defective images')}**. "
    + (
        f"Expected was a rate of at most {false_alarms:.3g} for the first, and "
        "nothing was promised for the second."
        if detector.rule_ == "conformal"
        else "Promised was nothing."
    )
)

# %% [markdown]
# *What to look for:* the defects left of the line. The promise says nothing of them. What a
# detector misses you learn only from defects, so keep each one that turns up, from the first day.
# Thirty are enough for a first answer.
#
# ## Which false-alarm rate?
#
# A lower threshold finds more and stops the line more often. Which is better? That is a question of
# money. Let
#
# - $c_f$ be the cost of a false alarm: a worker looks, a good piece is scrapped;
# - $c_m$ the cost of a miss: the customer finds it;
# - $\pi$ the part of the pieces that are defective;
# - $F(t)$ the part of good images above the threshold $t$, and $M(t)$ the part of defective images
#   not above it.
#
# Each piece then costs, on average,
#
# $$K(t) = (1 - \pi)\, c_f\, F(t) + \pi\, c_m\, M(t) .$$
#
# The three numbers are yours; they stand in the first cell. $F$ and $M$ come from the images of the
# line, or from the defects that you have kept.

# %%
ts = np.unique(np.concatenate([[0.9 * scores.min()], scores, calibration, [t]]))
F = np.array([(scores[labels == 0] > x).mean() if n_good else np.nan for x in ts])
M = np.array([(scores[labels == 1] <= x).mean() if n_bad else np.nan for x in ts])
K = (1 - defective_share) * cost_of_false_alarm * F + defective_share * cost_of_miss * M

# %% mystnb={"figure": {"caption": "What a piece costs on average, by the threshold."}, "image": {"alt": "A stepped curve of the cost over the threshold, high on the left where good pieces are rejected, low in the middle, rising to the right where defects pass. A dashed line marks the detector's threshold."}}
figure, axis = plt.subplots(figsize=(7, 3.2), layout="constrained")
axis.step(ts, K, where="post", color="#0072B2")
axis.axvline(t, color="#555555", linestyle="--", label="threshold")
axis.set(xscale="log", xlabel="threshold t", ylabel="cost of a piece, K(t)")
axis.legend(frameon=False)
plt.close(figure)
figure

# %% tags=["remove-input"]
if n_good and n_bad:
    here, best = K[np.searchsorted(ts, t)], int(np.nanargmin(K))
    cheapest = float((calibration > ts[best]).mean())
    text = (
        f"At the threshold of the detector a piece costs **{here:.3g}** on average. "
        f"The least is **{K[best]:.3g}**, at a threshold of {ts[best]:.3g}; of the "
        f"calibration images, {cheapest:.0%} lie above that."
    )
    text += (
        " On these images good and defective do not overlap, so one can do without "
        "any mistake; a real line is hardly ever so kind."
        if K[best] == 0
        else ""
    )
else:
    text = "Without good *and* defective images there is no such curve."
Markdown(text)

# %% [markdown]
# *What to look for:* is the bottom flat? Then the choice hardly matters, and you may take the rate
# that people accept. Do not take the lowest point to the last digit: with few images it is partly
# luck, and it was found by looking at the test.
#
# Try it by hand, too. Drag the line, and watch the false alarms and the misses.

# %%
table = results.assign(split="test", label=labels)
files = [Path(path).name for path in table["path"]]
table["path"] = [f"test/{name}/{file}" for name, file in zip(truth, files, strict=True)]
HTML(explorer.html(table, t, name="own"))

# %% [markdown]
# When the rate is chosen, fit once more with `--false-alarms`, or set the threshold alone with
# `texad calibrate my.safetensors FOLDER --false-alarms …`.
#
# ## What breaks the promise
#
# "Made as those were": the promise rests on these words. What if they are not true? We take good
# images of the line and change them as a careless hand would: the light, the focus, the distance,
# the mount.

# %%
new = run.data_paths(images[is_test & (images["label"] == 0)]["path"])
new = new[:24] or good[:12]  # some data sets have no good test images


def blurred(image):
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 150))


def nearer(image):
    w, h = image.size
    return image.crop((w // 8, h // 8, w - w // 8, h - h // 8)).resize((w, h))


changes = {
    "as they are": lambda image: image,
    "a little darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "much darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "out of focus": blurred,
    "nearer": nearer,
    "turned": lambda image: image.transpose(Image.Transpose.ROTATE_90),
}
for number, change in enumerate(changes.values()):
    (work / f"change_{number}").mkdir(exist_ok=True)
    for i, path in enumerate(new):
        change(read_image(path, white)).save(work / f"change_{number}" / f"{i:03d}.png")

# %% mystnb={"figure": {"caption": "One good piece, six photographs."}, "image": {"alt": "Six photographs of one piece of the surface: as it is, a little darker, much darker, out of focus, from nearer, and turned by a quarter."}}
taken = [work / f"change_{number}" / "000.png" for number in range(len(changes))]
pictures = [np.asarray(read_image(path)) for path in taken]
plots.image_grid(pictures, list(changes), columns=3)

# %%
changed = {}
for number, name in enumerate(changes):
    paths = sorted((work / f"change_{number}").glob("*.png"))
    changed[name] = detector.score_samples(paths[:12])

# %% mystnb={"figure": {"caption": "Scores of good pieces under changed conditions. No piece has a defect."}, "image": {"alt": "A row of dots for each change, over the anomaly score, with the threshold as a line."}}
figure = plots.score_rows(changed, {detector.rule_: t})
figure

# %% tags=["remove-input"]
rates = {name: float(predict(values, t).mean()) for name, values in changed.items()}
worst = max(rates, key=rates.get)
lowest = min(changed, key=lambda name: float(np.median(changed[name])))
said = "; ".join(f"{name}, {rate:.0%}" for name, rate in rates.items())
Markdown(
    f"Part of good images above the threshold: {said}. "
    + (
        f"The lowest scores belong to *{lowest}*: no false alarms there, and a defect "
        "would be missed more easily, too. "
        if lowest != "as they are"
        else ""
    )
    + (
        f"The most harm is done by *{worst}*."
        if rates[worst] > rates["as they are"]
        else "None of these changes raised the false alarms here."
    )
)

# %% [markdown]
# *What to look for:* changes in *both* directions. Those to the right you will notice, since the
# line stops. Those to the left you will not: the line runs quietly, and defects pass.
#
# ## Has the line drifted?
#
# Such a change is called {term}`drift`. So look, once a day or once a shift: take twenty new images
# of good pieces, and let `check` compare their scores with those of the calibration. For that, one
# of the five models judges each new image alone, as each calibration image was judged: the lowest
# of five scores would be lower than theirs, and look like a drift.

# %%
_ = texad("check", "my.safetensors", "change_0", "--quiet")

# %% [markdown]
# And the same pieces, photographed under a lamp that has grown weak (*much darker* above):

# %%
status = texad("check", "my.safetensors", "change_2", "--quiet")

# %% [markdown]
# Two tests stand behind it {cite:p}`hodges1958significance,vovk2012conditional`. The first asks
# whether the two groups of scores may come from one distribution: the largest distance between
# their cumulative curves says it. The second counts how many new images lie above the threshold,
# and whether so many fit the promise. Together they suspect a line that has not changed in at most
# one of a hundred checks; `--level` sets that. The exit status is 1 when the line has drifted, so
# that a script can send a message.
#
# If the change is to stay (a new lamp, say), there are two ways. `calibrate` sets the threshold
# anew and leaves what was learnt as it is. It is quick, and needs as many images as a promise
# needs. `fit` learns anew. Which? `check` says it: if a typical new image is as strange as the
# strangest were, calibrating would stop the alarms, and hide defects behind the new, high
# threshold.

# %%
smallest = 1 / (len(new) + 1)  # what so few images can promise
rate = max(false_alarms, round(smallest + 0.0005, 3))
wanted = ["--false-alarms", rate, "--out", "darker.safetensors", "--quiet"]
_ = texad("calibrate", "my.safetensors", "change_2", *wanted)

# %% [markdown]
# ## When it fails
#
# | You see | Likely | Do |
# | --- | --- | --- |
# | many false alarms from the first day | the folder does not show all that is normal | more images, from more days and lots; `texad fit` again |
# | many false alarms since today | the line has drifted | `texad check`; then light, focus, mount, and only then `texad calibrate` |
# | a defect that you can see is missed, and the heatmap is dark there | it is too small after resizing | a larger `--image-size` |
# | a defect is missed, and the heatmap glows there, but faintly | good images glow as much elsewhere | look at the strangest good images; remove bad ones; try `--detector extended` |
# | the heatmap glows at the border of all images | the frame shows something that moves | leave it out: `texad fit --region` |
# | most of the scores are alike, good or bad | the backbone has learnt nothing (`random` weights) | leave out `--weights` |
#
# And sometimes it is the wrong method: if "defective" means that a part is missing, turned, or in
# the wrong place, texture tells nothing. Surfaces are what this book is for.

# %% tags=["remove-input"]
origin = detector.origin_
Markdown(
    f"The detector of this page was fit to {origin['n_train']} images with the "
    f"weights `{origin['weights']['name']}`, its file has "
    f"{(work / 'my.safetensors').stat().st_size / 1e6:.0f} MB, "
    f"and an image took **{1000 * results['seconds'].median():.0f} ms** (median, on "
    "one core)."
)

# %%
for number in range(len(changes)):  # they can be made again
    shutil.rmtree(work / f"change_{number}")
(work / "darker.safetensors").unlink(missing_ok=True)
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **Calibrating with what was learnt.** Images that the autoencoder was fit to score too low.
#   `texad calibrate` leaves them out, if it knows them by their bytes; a copy saved anew it does
#   not know.
# - **Frames of a film.** Twenty frames of one piece are one image, twenty times. The tests and the
#   promise count them as twenty, unless `--groups` says that they belong together.
# - **Choosing the threshold by the test, and then reporting the test.** Choose with some defects,
#   report with others.
# - **Automatic exposure.** The camera brightens a dark piece, and the one thing that was odd about
#   it is gone.
# - **A quiet line.** No alarms for a month: is all good, or is the lens dirty? Send a known defect
#   through, now and then.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} A bad image among the good
# :label: exercise-bad-among-good
# :nonumber:
#
# Copy one defective image of the line into the calibration: compute the threshold from the
# calibration scores and that one score. What becomes of the misses?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-bad-among-good
# :class: dropdown
# ```


# %% tags=["solution"]
def misses(good_scores):
    found = thresholds_by_rule(
        detector.train_scores_, good_scores, false_alarms=false_alarms
    )
    line = found["conformal"] or found["held_out"] or found["sigma"]
    return line, int((scores[labels == 1] <= line).sum())


print("without: threshold {:.4g}, {} missed".format(*misses(calibration)))
if n_bad:
    with_one = np.append(calibration, scores[labels == 1].max())
    print("with:    threshold {:.4g}, {} missed".format(*misses(with_one)))

# %% [markdown] tags=["solution"]
# If the promise uses up all the images (the threshold is the score of the strangest), one bad
# image *is* the threshold, and hardly any defect lies above it. With more calibration images the
# threshold is the second or fifth strangest, and one mistake does little. It is one more reason to
# take many, and to look at the strangest.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Your costs
# :label: exercise-costs
# :nonumber:
#
# A missed defect now costs a hundred times a false alarm. Where is the cheapest threshold? And
# where, if only one piece in ten thousand is defective?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-costs
# :class: dropdown
# ```


# %% tags=["solution"]
def cheapest(c_f, c_m, share):
    K = (1 - share) * c_f * F + share * c_m * M
    best = ts[np.nanargmin(K)] if n_good and n_bad else np.nan
    return f"threshold {best:.4g}"


print("a miss costs 100:    ", cheapest(1, 100, defective_share))
print("and defects are rare:", cheapest(1, 100, 0.0001))

# %% [markdown] tags=["solution"]
# Only the ratio $\pi c_m / ((1 - \pi) c_f)$ matters. A dear miss pulls the threshold down; rare
# defects push it up, since nearly every alarm is then a false one.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} How soon would you notice?
# :label: exercise-notice
# :nonumber:
#
# With 5, 10, 20 and 50 new images, how large must a shift of all scores be to be seen four times in
# five? Use `drift.smallest_shift`.
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-notice
# :class: dropdown
# ```

# %% tags=["solution"]
for m in (5, 10, 20, 50):
    shift = drift.smallest_shift(len(calibration), m)
    print(f"{m:3} new images: {shift:.2g} standard deviations")

# %% [markdown] tags=["solution"]
# More new images help, but only down to a floor: the calibration images are as few as they are, and
# their scores are only roughly known. (`inf` means that no shift could be seen.)

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "You want at most one false alarm in 200 good images. How many calibration "
        "images does that take, at least?",
        right=f"{images_needed(0.005):,}",
        why="1 / (n + 1) must not be larger than 0.005.",
        wrong={
            "20": "With them, one in 21 can be asked for.",
            "20,000": "More than needed; but the more there are, the surer the rate.",
        },
    ),
    quiz.Question(
        "The detector promises a false-alarm rate. What does it promise about defects?",
        right="Nothing",
        why="It has seen none. Only defects can tell how many are missed.",
        wrong={
            "That it misses as few as it raises false alarms": "The two have nothing to do with each other.",
            "That it finds those that people can see": "Not even that; look at a few.",
        },
    ),
    quiz.Question(
        "Since this morning the scores of good pieces are lower than ever. What do "
        "you do?",
        right="Find out why: look at light and camera first",
        why="What lowers the scores of good pieces usually lowers those of defects, too.",
        wrong={
            "Nothing: fewer false alarms are good news": "Defects score lower, too, and pass.",
            "Calibrate at once": "Then the cause stays, and nobody has looked at it.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - Fix light, focus, distance and exposure; let vary what varies in production.
# - `texad fit` makes one file from a folder of good images, and says which false-alarm rate is
#   expected and which is proven. The smallest that can be asked for is $1/(n+1)$ with $n$ images.
# - Look at the strangest good images before you trust the threshold.
# - Costs choose the rate. Only defects tell what is missed: keep them. If yours are labelled in a
#   tool, {ref}`texad import <label-formats>` makes a test of them.
# - `texad check` sees drift, in both directions; then mend the line, `texad calibrate`, or
#   `texad fit`.
#
# **Further reading.** Conformal prediction from the beginning {cite:p}`angelopoulos2023conformal`;
# what is promised for one set of calibration images {cite:p}`vovk2012conditional`; the test of two
# samples {cite:p}`hodges1958significance`.
#
# That is the end of the chapters. The results pages show the method on every texture of this run,
# and on real surfaces.
