# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5 Evaluation: how good is it?
#
# Now, and only now, we use the labels of the test images. Two questions are often mixed up, and we
# keep them apart: *do defective images score higher than good ones?* and *is the threshold at the
# right place?* You will learn
#
# - to read the five figures of the method;
# - what the area under the ROC curve means, and what it does not say;
# - how much of a number may be chance, and how to say so with an interval;
# - what three rules for the threshold cost, in false alarms and in misses;
# - where to look when the detector is wrong.
#
# ![Two heaps of scores on one axis, normal on the left and anomalous on the right, and a line between them. Left of the line: true negatives and misses. Right of it: false alarms and hits.](../book/images/05_evaluation.svg)

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # chooses the images of the second figure
n_heatmaps = 6  # images in the second figure

# %%
import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy import stats
from sklearn import metrics as sklearn_metrics

from texad import pipeline
from texad.evaluation.intervals import auroc_interval
from texad.evaluation.metrics import (
    auroc_by_defect,
    auroc_by_severity,
    decision_metrics,
    image_auroc,
)
from texad.figures import plots, result_figures
from texad.io.json_files import write_json
from texad.model import preprocessing
from texad.model.places import enlarge_each
from texad.runs.run_folder import Run
from texad.teaching import explorer, quiz

run = Run(dataset, category, runs)
run.start("05_evaluation", weights=weights, seed=seed, n_heatmaps=n_heatmaps)
table = run.read_table("scores.csv")
test = table[table["split"] == "test"].reset_index(drop=True)
scores, labels = test["score"].to_numpy(), test["label"].to_numpy()
defects = test["defect"].to_numpy()
record = run.read()
threshold = record["threshold"]
run

# %% [markdown]
# Throughout, $s$ is the score of an image and $t$ the threshold of chapter 4. The label $y$ is 1
# for a defective image and 0 for a good one. The prediction $\hat y$ is 1 if $s > t$, else 0.
#
# ## Figure 1: the distribution of the scores
#
# Each test image is one count. A good detector has two heaps, with the threshold between them.

# %% mystnb={"figure": {"caption": "Figure 1. Scores of normal and of anomalous test images."}, "image": {"alt": "Two histograms over the anomaly score, normal images in blue and anomalous images in orange, with the threshold as a dashed line."}}
figure = result_figures.score_distribution(scores, labels, threshold)
run.write_figure("1_score_distribution.svg", figure)
figure

# %% [markdown]
# *What to look for:* where the heaps overlap, no threshold can be right for all images. Blue to the
# right of the line are {term}`false alarms <false alarm>`, orange to its left are missed defects.
#
# ## Figure 2: heatmaps
#
# Where does the detector look? The upper row shows test images, the lower row their anomaly maps,
# all on one scale. The line is the border of the true defect.

# %% mystnb={"figure": {"caption": "Figure 2. Test images, and below them the same images with their anomaly maps."}, "image": {"alt": "A row of test images with outlined defects, and below each the same image covered by its anomaly map."}}
sight, grid = run.sight(), run.grid()
small_maps = run.read_array("maps/test.npy")  # (N, H, W)
images = run.images("test")
paths = run.data_paths(images["path"])


def mask(i):  # read when needed, so that only one is in memory
    return preprocessing.load_mask(run.data_path(images["mask"][i]), sight, paths[i])


def heatmaps(picks):
    masks = [mask(i) for i in picks]  # as large as the network's input
    return result_figures.heatmaps(
        preprocessing.load_pictures([paths[i] for i in picks], sight),
        list(enlarge_each(small_maps[picks], grid, [one.shape for one in masks])),
        masks,
        [f"{defects[i]}\nscore {scores[i]:.3g}" for i in picks],
    )


figure = heatmaps(pipeline.one_of_each_kind(defects, seed, n_heatmaps))
run.write_figure("2_heatmaps.png", figure)
figure

# %% [markdown]
# *What to look for:* a map that is bright at the defect and dark elsewhere is right for the right
# reason. A high score with a bright spot somewhere else is right by luck. The maps are coarse: each
# place stands for 16 pixels, and has seen a wider piece of the image.
#
# ## Figure 3: the ROC curve
#
# Move the threshold from the highest score to the lowest. At each position, count two shares:
#
# $$\text{TPR} = \frac{\text{defective images with } s > t}{\text{all defective images}}$$
#
# $$\text{FPR} = \frac{\text{good images with } s > t}{\text{all good images}}$$
#
# The *true-positive rate* TPR is the share of defects that are found, the *false-positive rate*
# FPR the share of good images that are rejected. The curve of the two is the {term}`ROC curve`,
# the *receiver operating characteristic* {cite:p}`fawcett2006roc`.

# %% mystnb={"figure": {"caption": "Figure 3. ROC curve of the test images."}, "image": {"alt": "The ROC curve, rising from the lower left corner to the upper right one, above the diagonal of guessing."}}
auroc = image_auroc(labels, scores)
fpr, tpr = [], []
if auroc is not None:  # the curve needs both kinds of images
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores)
figure = result_figures.roc_curve(fpr, tpr, auroc)
run.write_figure("3_roc_curve.svg", figure)
figure

# %% tags=["remove-input"]
shown_auroc = (
    "not defined here, since the test has only one kind of image"
    if auroc is None
    else f"**{auroc:.3f}**"
)
Markdown(f"The area under the curve, the AUROC, is {shown_auroc}.")

# %% [markdown]
# *What to look for:* the corner at the upper left. A curve that goes through it belongs to a
# detector that ranks every defective image above every good one.
#
# The area under the curve, the {term}`AUROC`, has a plain meaning: it is the chance that a random
# defective image scores higher than a random good one {cite:p}`hanley1982meaning`. 0.5 is guessing,
# 1 is perfect. It does not depend on the threshold, and so says nothing about whether the threshold
# is any good.
#
# ### How sure is that number?
#
# The test images are a sample. Other images of the same surface would have given another AUROC. A
# {term}`confidence interval` says how far chance may have moved it: if the test were repeated many
# times, each time with new images, about nineteen of twenty 95-percent intervals would hold the
# AUROC of endlessly many images.
#
# The AUROC is the share of pairs in the right order. But pairs share images: one odd defective
# image spoils all its pairs at once. So there are far fewer independent trials than pairs. By the
# formula of Hanley and McNeil {cite:p}`hanley1982meaning`, the AUROC varies from test to test no
# more than the share of successes in $\frac{3}{2} n$ independent trials, where $n$ is the number of
# images of the rarer kind. For independent trials there is the {term}`Wilson interval`
# {cite:p}`wilson1927probable`: all true shares from which the measured one is not too far away. It
# is the interval of every AUROC in this book.
#
# Is it any good? The {term}`bootstrap` {cite:p}`efron1993bootstrap` needs no formula. Draw new
# tests out of this one: as many good and as many defective images as there are, with replacement,
# so that some come twice and others not at all. Compute the AUROC of each of 2000 such tests, and
# keep the middle 95 percent.
#
# The cell below gives the bootstrap a function that counts pairs: the statistic $U$ of Mann and
# Whitney is the number of pairs in the right order, so $U$ divided by the number of all pairs is
# the AUROC.

# %%
interval = auroc_interval(labels, scores)


def share_of_pairs(defective, good, axis):
    pairs = defective.shape[axis] * good.shape[axis]
    return stats.mannwhitneyu(defective, good, axis=axis).statistic / pairs


kinds = scores[labels == 1], scores[labels == 0]
bootstrap = None
if min(map(len, kinds)) > 1:  # of one image there is only one sample
    how = dict(n_resamples=2000, method="percentile", batch=200, rng=seed)
    bootstrap = stats.bootstrap(kinds, share_of_pairs, **how).confidence_interval
ends = {"Wilson": interval, "bootstrap": bootstrap}
pd.DataFrame(ends, index=["from", "to"], dtype=float).T.round(3)

# %% tags=["remove-input"]
n_good, n_defective = int((labels == 0).sum()), int((labels == 1).sum())
if auroc is None:
    said = "Without both kinds of images there is no interval either."
else:
    said = (
        f"The AUROC is {auroc:.3f}, and with {n_good} good and {n_defective} "
        f"defective test images its 95% interval reaches **from {interval[0]:.3f} to "
        f"{interval[1]:.3f}**. Another detector with an AUROC in this range may be "
        "better or worse than this one: the test is too small to tell by comparing "
        "the two "
        "numbers."
    )
    if bootstrap and bootstrap[0] == bootstrap[1]:
        said += (
            " Here every pair tells the same, so the bootstrap's interval has no "
            "width, as if so few images could prove the number."
        )
Markdown(said)

# %% [markdown]
# *What to look for:* how wide the interval is. A table of detectors that differ by less may rank
# nothing but chance.
#
# The bootstrap is often narrower, most of all near an AUROC of 1. It can only draw images that it
# has, and hardly any of them is in the wrong order; where none is, it sees no spread at all. The
# Wilson interval has a width even there, and of two AUROCs from as many images the higher one never
# gets the lower end. The price: it is often wider than it need be. In simulations it mostly held
# the truth more often than it says; the package's page has {ref}`the table <api-intervals>`.
#
# It answers how sure *one* AUROC is. Which of two detectors is better is another question: judged
# on the same images, they share their luck, and their *difference* needs an interval of its own.
# Chapter 7 computes it.
#
# ## Figure 4: the confusion matrix
#
# With the threshold fixed, every image is one of four cases: normal and called normal (*true
# negative*), normal and called anomalous (*false positive*, a false alarm), anomalous and called
# normal (*false negative*, a miss), anomalous and called anomalous (*true positive*, a hit).

# %% mystnb={"figure": {"caption": "Figure 4. Decisions against truth."}, "image": {"alt": "A table of two by two counts: true against predicted, normal and anomalous."}}
decisions = decision_metrics(labels, test["prediction"])
figure = result_figures.confusion_matrix(decisions["confusion"])
run.write_figure("4_confusion_matrix.svg", figure)
figure

# %% tags=["remove-input"]
counts = decisions["confusion"]


def share(rate, interval):
    return (
        "–" if rate is None else f"{rate:.1%} ({interval[0]:.1%} to {interval[1]:.1%})"
    )


Markdown(
    f"Of {counts['tn'] + counts['fp']} good images, **{counts['fp']}** were rejected; "
    f"of {counts['tp'] + counts['fn']} defective images, "
    f"**{counts['fn']}** were missed. *Precision*, the share of alarms that are "
    f"right, is **{decisions['precision']:.3f}**; *recall*, the share of defects that "
    "are "
    f"found, is **{decisions['recall']:.3f}**; *F1*, their harmonic mean, is "
    f"**{decisions['f1']:.3f}**; *accuracy*, the share of right "
    f"decisions, is **{decisions['accuracy']:.3f}**.\n\n"
    "Two rates say what a factory pays. The *false-alarm rate*, the share of good "
    "images that are rejected (the FPR at this threshold), is "
    f"**{share(decisions['false_alarm_rate'], decisions['false_alarm_interval'])}**; "
    "the *miss rate*, the share of defective images that are passed (one minus the "
    f"TPR), is **{share(decisions['miss_rate'], decisions['miss_interval'])}**. In "
    "parentheses are their 95% intervals."
)

# %% [markdown]
# *What to look for:* the two cells off the diagonal, the misses and the false alarms. Which of them
# costs more is for the factory to say, not for the method.
#
# The intervals of the rates are Wilson intervals, too, with each image as one trial. They have a
# width even where nothing was counted: no false alarm among twenty good images does not mean that
# there will never be one.
#
# ## Figure 5: the scores of each kind of defect
#
# One average hides much. Here each kind of defect has a row of its own, one dot an image.

# %% mystnb={"figure": {"caption": "Figure 5. Scores by defect type, with the threshold."}, "image": {"alt": "For the good images and for each kind of defect, a box with dots that shows the distribution of the scores, and the threshold as a dashed line."}}
figure = result_figures.scores_by_defect(scores, defects, threshold)
run.write_figure("5_scores_by_defect.svg", figure)
figure

# %%
by_defect = auroc_by_defect(labels, scores, defects)
pd.Series(by_defect, name="AUROC against good", dtype=float).to_frame().round(3)

# %% [markdown]
# *What to look for:* a row that lies left of the line. This kind of defect is not found, however
# good the average looks.
#
# Are small defects harder to find than large ones? The mask gives a simple measure of how severe a
# defect is: the share of the image's pixels that it covers. We sort the defective images by it, cut
# them into three groups of about equal size, and compare each group with all good images.

# %%
has_mask = (images["mask"] != "").to_numpy()
severity = [mask(i).mean() if has_mask[i] else np.nan for i in range(len(images))]
by_severity = auroc_by_severity(labels, scores, severity)
pd.Series(by_severity, name="AUROC against good", dtype=float).to_frame().round(3)

# %% [markdown]
# *What to look for:* a mild group that falls far behind. A detector that is fine on average may
# only see what nobody would have overlooked. (Without masks the size is not known, and the table is
# empty.)
#
# ## Three thresholds, side by side
#
# All decisions so far came from one threshold. Chapter 4 knows three rules to set it, and none of
# them looks at a defective image:
#
# - `sigma`, the published rule: $\mu + 3\sigma$ of the images that the autoencoder was fit to;
# - `held_out`, the same rule for good images that were kept out of the fit;
# - `conformal`, the line that keeps its promise of at most a chosen
#   {term}`false-alarm <false alarm>` rate $\alpha$, from the same kept-out images.
#
# What would each have decided on these test images? A dash stands for a rule that needs more
# kept-out images than there are.

# %%
thresholds = record["thresholds"]
decisions_by_rule = {
    rule: pipeline.decisions_at(t, labels, scores) for rule, t in thresholds.items()
}


def row(d):
    return {
        "threshold": f"{d['threshold']:.4g}",
        "false alarms": str(d["confusion"]["fp"]),
        "false-alarm rate": share(d["false_alarm_rate"], d["false_alarm_interval"]),
        "misses": str(d["confusion"]["fn"]),
        "miss rate": share(d["miss_rate"], d["miss_interval"]),
    }


rows = {rule: row(d) if d else {} for rule, d in decisions_by_rule.items()}
pd.DataFrame.from_dict(rows, orient="index").fillna("–")

# %% [markdown]
# The picture shows why. Each curve climbs by one step for each image, from the lowest score to the
# highest. Where a line crosses the blue curve, what is left above the crossing are the false
# alarms; where it crosses the orange one, what lies below the crossing are the misses.

# %% mystnb={"figure": {"caption": "The thresholds of the three rules over the scores of the test images."}, "image": {"alt": "Two rising staircases over the anomaly score, blue for the normal images and orange for the anomalous ones, and a vertical line at the threshold of each rule."}}
reachable = {rule: t for rule, t in thresholds.items() if t is not None}
plots.thresholds_compared(scores, labels, reachable)

# %% tags=["remove-input"]
said = f"The decisions of the other sections are those of `{record['rule']}`. "
promised = decisions_by_rule.get("conformal")
if promised is None:
    said += (
        "The rule `conformal` has too few kept-out images for its promise here; "
        "chapter 4 says how many it needs."
    )
elif promised["false_alarm_rate"] is None:
    said += "Without good test images, nothing can be said about false alarms."
else:
    low, high = promised["false_alarm_interval"]
    said += (
        "The rule `conformal` promised a false-alarm rate of at most "
        f"{record['false_alarms']:.3g}; counted were "
        f"{promised['false_alarm_rate']:.3f}, with an interval from "
        f"{low:.3f} to {high:.3f}. The promise "
        + (
            "lies within it."
            if low <= record["false_alarms"] <= high
            else "lies above it."
            if high < record["false_alarms"]
            else "lies below it."
        )
    )
Markdown(said)

# %% [markdown]
# *What to look for:* how many good images each line leaves to its right. The promise is one about
# the mean over many sets of kept-out images, so with one set the counted rate may lie a little
# above it. If even the lower end of the interval lies above the promise, ask what has changed
# between the kept-out images and the test.
#
# A line further to the left finds more defects and rejects more good images. The rules differ in
# where they stand between the two; which of them ranks images better is no question, since all
# three use the same scores and so have the same AUROC. With only 8 or 20 training images they stand
# much further apart, as the table in chapter 4 shows.
#
# ## Move the threshold yourself
#
# Drag the line, or use the slider. Watch the point on the ROC curve and the four counts. Click on a
# dot to see its image.

# %% tags=["explorer", "remove-input"]
all_masks = map(mask, range(len(images)))  # one after the other
explorer.write_pictures(
    run.folder / "pictures", paths, small_maps, all_masks, sight, grid
)
explorer.ThresholdExplorer(test, threshold, run.folder / "pictures")

# %% [markdown]
# *What to look for:* how far you can move the line to the left before the first good image is
# rejected, and what you gain by it.
#
# ## All numbers
#
# Five numbers are still missing. Two more about the scores and decisions:
#
# - The {term}`average precision` goes down the list of images from the highest score and averages
#   the {term}`precision` over the places where a defective one stands. Unlike the AUROC it depends
#   on how many of the test images are defective {cite:p}`davis2006relationship`.
# - *F1-max* is the best F1 that any threshold reaches here. It is often reported, and it peeks: the
#   threshold is chosen by looking at the labels of the test. Read it as a bound, never as what a
#   factory will see. The honest number is *F1*, at a threshold that was set without the test.
#
# And three about the maps, which need masks:
#
# - The {term}`pixel AUROC` asks the question of the ROC curve for every pixel: does the anomaly map
#   score defective pixels higher than good ones?
# - {term}`AUPRO`, the *area under the per-region overlap*, gives every defect the same weight
#   {cite:p}`bergmann2021mvtec`. In the pixel AUROC one large stain outweighs many thin scratches,
#   because it has more pixels. AUPRO takes each connected region of a mask by itself: of its
#   pixels, which share lies above a threshold on the maps? These shares are averaged over all
#   regions, and drawn over the share of good pixels above the same threshold, the FPR. Only the
#   left part of this curve counts, up to an FPR of $0.3$, since a map that lights up more of the
#   good surface helps nobody. The area is divided by $0.3$, so that 1 is perfect; guessing gets
#   $0.15$.
# - {term}`Peak in mask <peak in mask>` is the plainest: of the defective images, the share in which
#   the brightest pixel of the map lies on the defect. It is where one would look first, and chapter
#   4 has shown how easily a careless drawing misses.

# %%
found = pipeline.evaluate(test, thresholds, small_maps, has_mask, mask, grid)
assert found["image_auroc"] == auroc and found["auroc_by_severity"] == by_severity
counted = {
    name: record["data"][name] for name in ("n_train", "n_calibration", "n_test")
}
kept = found | counted | {"threshold": threshold, "weights": record["weights"]}
write_json(run.folder / "metrics.json", kept)
names = ["image_auroc", "average_precision", "pixel_auroc", "aupro", "peak_in_mask"]
names += [
    "accuracy",
    "precision",
    "recall",
    "f1",
    "f1_max",
    "false_alarm_rate",
    "miss_rate",
]
shown = {name: found[name] for name in names} | {"threshold": threshold}
values = pd.Series(shown, name="value", dtype=float)
values.to_frame().round(3)

# %% [markdown]
# *What to look for:* AUPRO is nearly always below the pixel AUROC. It asks for the small defects
# and looks only at low false-positive rates, and our maps, with a place for every 16 pixels, are
# coarse.

# %% [markdown]
# ## Where it is wrong
#
# The defective image with the lowest score and the good image with the highest one: the two from
# which most is learnt.

# %% mystnb={"figure": {"caption": "The hardest defective image and the most suspicious good one."}, "image": {"alt": "Two test images with their anomaly maps: the defective image with the lowest score, and the good image with the highest one."}}
worst = [
    int(np.flatnonzero(labels == label)[choose(scores[labels == label])])
    for label, choose in ((1, np.argmin), (0, np.argmax))
    if (labels == label).any()
]
heatmaps(worst)

# %% [markdown]
# *What to look for:* would you have found the defect in the first image? And what could have
# alarmed the detector in the second?

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **A perfect AUROC, and every good image rejected.** The scores are in the right order, and the
#   threshold is below all of them. This happens, with few training images, and the AUROC does not
#   show it. Report the confusion matrix beside it.
# - **Forty images.** With so few, one image more or less changes the AUROC visibly. A difference in
#   the third digit means nothing, and the interval says so: report it.
# - **The best threshold of the test.** F1-max, or any number at a threshold that was chosen on the
#   test, is too good. Name the rule that set the threshold.
# - **An interval is no excuse.** It knows of chance alone. If the test images are not like those of
#   the factory, all of it may lie in the wrong place.
# - **Mixed conditions.** Good images of Monday and defective ones of Friday: the detector may have
#   learnt the day.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} The AUROC by counting
# :label: exercise-pairs
# :nonumber:
#
# Compute the AUROC from its meaning: compare the score of every defective image with that of every
# good one, and count how often the first is larger. A tie counts one half.
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-pairs
# :class: dropdown
# ```

# %% tags=["solution"]
if auroc is not None:
    defective, good = scores[labels == 1][:, None], scores[labels == 0][None, :]
    by_counting = ((defective > good) + 0.5 * (defective == good)).mean()
    print(f"by counting {by_counting:.6f}, by the package {auroc:.6f}")
    assert np.isclose(by_counting, auroc)

# %% [markdown] tags=["solution"]
# The two agree, ties included.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A miss costs more
# :label: exercise-cost
# :nonumber:
#
# In your factory a miss costs ten times as much as a false alarm. At which threshold are the costs
# on these test images smallest? Why must you not report the costs at that threshold as what the
# factory will pay?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-cost
# :class: dropdown
# ```

# %% tags=["solution"]
candidates = np.concatenate([[scores.min() - 1], np.unique(scores)])
costs = [
    10 * ((labels == 1) & (scores <= t)).sum() + ((labels == 0) & (scores > t)).sum()
    for t in candidates
]
cheapest = int(np.argmin(costs))
at_rule = 10 * counts["fn"] + counts["fp"]
print(f"cheapest at t = {candidates[cheapest]:.4g}, with costs of {costs[cheapest]}")
print(f"at {threshold:.4g}, the threshold of chapter 4, they are {at_rule}")

# %% [markdown] tags=["solution"]
# The threshold was chosen to suit these images, so it suits them better than it will suit the next
# ones. To know the real costs, choose on one half of the images and measure on the other.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} Nothing rejected, and what does it prove?
# :label: exercise-nothing
# :nonumber:
#
# You promise your customer a false-alarm rate of at most $0.05$. In a test with $n$ good images
# there was no false alarm. How large must $n$ be so that the whole 95-percent Wilson interval lies
# within the promise?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-nothing
# :class: dropdown
# ```

# %% tags=["solution"]
promise, n = 0.05, 1
while stats.binomtest(0, n).proportion_ci(method="wilson").high > promise:
    n += 1
print(f"{n} good images, all of them passed; this test has {n_good}")

# %% [markdown] tags=["solution"]
# For a promise that is ten times as strict, about ten times as many images are needed: to show that
# something is rare, one must have looked often.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "A detector gives every image the same score. What is its AUROC?",
        right=f"{image_auroc([0, 0, 1], [7, 7, 7]):g}",
        why="Every pair is a tie and counts one half: guessing.",
        wrong={
            "0": "That would be a detector that is always wrong, and could be turned round.",
            "1": "That needs every defective image above every good one.",
        },
    ),
    quiz.Question(
        "The threshold is raised. What cannot happen?",
        right="More false alarms",
        why="Fewer images lie above a higher line, good ones included.",
        wrong={
            "More misses": "This is the price of a higher threshold.",
            "Higher precision": "It often rises, since the false alarms vanish.",
        },
    ),
    quiz.Question(
        "A test of 20 good images has no false alarm. What do we know of the "
        "false-alarm rate?",
        right=f"It may well be as high as {stats.binomtest(0, 20).proportion_ci(method='wilson').high:.0%}",
        why="This is the upper end of the Wilson interval: twenty images cannot show more.",
        wrong={
            "It is 0%": "It was 0 in this test. The next image may be the first false alarm.",
            "Nothing": "A rate of one in two would hardly have passed twenty images.",
        },
    ),
    quiz.Question(
        "Of 10 alarms 8 are right, and 2 defects were missed. What is the recall?",
        right=f"{sklearn_metrics.recall_score([1] * 10 + [0] * 2, [1] * 8 + [0] * 2 + [1] * 2):g}",
        why="8 of the 10 defects were found.",
        wrong={
            f"{8 / 12:.2g}": "False alarms belong to the precision, not to the recall.",
            "1": "Two defects were missed.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - AUROC judges the scores, the confusion matrix judges the threshold. Report both, each with its
#   interval and the number of images.
# - A threshold is set without the test. What the best one would have reached, F1-max, is no result.
# - Look at the heatmaps: right for the right reason?
# - Look at each kind of defect: an average can hide one that is never found.
#
# **Further reading.** An introduction to ROC analysis {cite:p}`fawcett2006roc`; when precision and
# recall tell more {cite:p}`davis2006relationship`; measures for maps {cite:p}`bergmann2021mvtec`;
# the bootstrap, in a book that starts from nothing {cite:p}`efron1993bootstrap`.
#
# That is the whole method. The results pages show it on every texture of this run.
