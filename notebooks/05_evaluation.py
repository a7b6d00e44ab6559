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
# Now, and only now, we use the labels of the test images. Two questions are often mixed up, and we keep them apart: *do defective images score higher than good
# ones?* and *is the threshold at the right place?* You will learn
#
# - to read the five figures of the method;
# - what the area under the ROC curve means, and what it does not say;
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
from sklearn import metrics as sklearn_metrics

from texad import evaluation, explorer, plotting, preprocessing, quiz
from texad.artifacts import Run

run = Run(dataset, category, runs)
run.start("05_evaluation", weights=weights, seed=seed, n_heatmaps=n_heatmaps)
table = run.read_table("scores.csv")
test = table[table["split"] == "test"].reset_index(drop=True)
scores, labels = test["score"].to_numpy(), test["label"].to_numpy()
defects = test["defect"].to_numpy()
threshold = run.read()["threshold"]
run

# %% [markdown]
# Throughout, $s$ is the score of an image and $t$ the threshold of chapter 4. The label $y$ is 1 for a defective image and 0 for a good one. The prediction
# $\hat y$ is 1 if $s > t$, else 0.
#
# ## Figure 1: the distribution of the scores
#
# Each test image is one count. A good detector has two heaps, with the threshold between them.

# %% mystnb={"figure": {"caption": "Figure 1. Scores of normal and of anomalous test images."}, "image": {"alt": "Two histograms over the anomaly score, normal images in blue and anomalous images in orange, with the threshold as a dashed line."}}
figure = plotting.score_distribution(scores, labels, threshold)
run.write_figure("1_score_distribution.svg", figure)
figure

# %% [markdown]
# *What to look for:* where the heaps overlap, no threshold can be right for all images. Blue to the right of the line are {term}`false alarms <false alarm>`,
# orange to its left are missed defects.
#
# ## Figure 2: heatmaps
#
# Where does the detector look? The upper row shows test images, the lower row their anomaly maps, all on one scale. The line is the border of the true defect.

# %% mystnb={"figure": {"caption": "Figure 2. Test images, and below them the same images with their anomaly maps."}, "image": {"alt": "A row of test images with outlined defects, and below each the same image covered by its anomaly map."}}
image_size = run.parameter("image_size")
small_maps = run.read_array("maps/test.npy")  # (N, H, W)
images = run.images("test")
paths = run.data_paths(images["path"])
masks = [
    preprocessing.load_mask(run.data_path(mask), image_size) for mask in images["mask"]
]

rng = np.random.default_rng(seed)
kinds = ["good", *sorted(set(defects) - {"good"})]
kinds = [kind for kind in kinds if (defects == kind).any()][:n_heatmaps]
picks = [int(rng.choice(np.flatnonzero(defects == kind))) for kind in kinds]


def heatmaps(picks):
    return plotting.heatmaps(
        preprocessing.load_pictures([paths[i] for i in picks], image_size),
        evaluation.upsample(small_maps[picks], image_size),
        [masks[i] for i in picks],
        [f"{defects[i]}\nscore {scores[i]:.3g}" for i in picks],
    )


figure = heatmaps(picks)
run.write_figure("2_heatmaps.png", figure)
figure

# %% [markdown]
# *What to look for:* a map that is bright at the defect and dark elsewhere is right for the right reason. A high score with a bright spot somewhere else is right
# by luck. The maps are coarse: each place stands for 16 pixels, and has seen a wider piece of the image.
#
# ## Figure 3: the ROC curve
#
# Move the threshold from the highest score to the lowest. At each position, count two shares:
#
# $$\text{TPR} = \frac{\text{defective images with } s > t}{\text{all defective images}}$$
#
# $$\text{FPR} = \frac{\text{good images with } s > t}{\text{all good images}}$$
#
# The *true-positive rate* TPR is the share of defects that are found, the *false-positive rate* FPR the share of good images that are rejected. The curve of the two is
# the {term}`ROC curve`, the *receiver operating characteristic* {cite:p}`fawcett2006roc`.

# %% mystnb={"figure": {"caption": "Figure 3. ROC curve of the test images."}, "image": {"alt": "The ROC curve, rising from the lower left corner to the upper right one, above the diagonal of guessing."}}
auroc = evaluation.image_auroc(labels, scores)
fpr, tpr = [], []
if auroc is not None:  # the curve needs both kinds of images
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores)
figure = plotting.roc_curve(fpr, tpr, auroc)
run.write_figure("3_roc_curve.svg", figure)
figure

# %% tags=["remove-input"]
shown_auroc = "not defined here, since the test has only one kind of image" if auroc is None else f"**{auroc:.3f}**"
Markdown(f"The area under the curve, the AUROC, is {shown_auroc}.")

# %% [markdown]
# *What to look for:* the corner at the upper left. A curve that goes through it belongs to a detector that ranks every defective image above every good one.
#
# The area under the curve, the {term}`AUROC`, has a plain meaning: it is the chance that a random defective image scores higher than a random good one
# {cite:p}`hanley1982meaning`. 0.5 is guessing, 1 is perfect. It does not depend on the threshold, and so says nothing about whether the threshold is any good.
#
# ## Figure 4: the confusion matrix
#
# With the threshold fixed, every image is one of four cases: normal and called normal (*true negative*), normal and called anomalous (*false positive*, a false
# alarm), anomalous and called normal (*false negative*, a miss), anomalous and called anomalous (*true positive*, a hit).

# %% mystnb={"figure": {"caption": "Figure 4. Decisions against truth."}, "image": {"alt": "A table of two by two counts: true against predicted, normal and anomalous."}}
decisions = evaluation.decision_metrics(labels, test["prediction"])
figure = plotting.confusion_matrix(decisions["confusion"])
run.write_figure("4_confusion_matrix.svg", figure)
figure

# %% tags=["remove-input"]
counts = decisions["confusion"]
Markdown(
    f"Of {counts['tn'] + counts['fp']} good images, **{counts['fp']}** were rejected; of {counts['tp'] + counts['fn']} defective images, "
    f"**{counts['fn']}** were missed. *Precision*, the share of alarms that are right, is **{decisions['precision']:.3f}**; *recall*, the share of defects that are "
    f"found, is **{decisions['recall']:.3f}**; *F1*, their harmonic mean, is **{decisions['f1']:.3f}**; *accuracy*, the share of right "
    f"decisions, is **{decisions['accuracy']:.3f}**."
)

# %% [markdown]
# *What to look for:* the two cells off the diagonal, the misses and the false alarms. Which of them costs more is for the factory to say, not for the method.
#
# ## Figure 5: the scores of each kind of defect
#
# One average hides much. Here each kind of defect has a row of its own, one dot an image.

# %% mystnb={"figure": {"caption": "Figure 5. Scores by defect type, with the threshold."}, "image": {"alt": "For the good images and for each kind of defect, a box with dots that shows the distribution of the scores, and the threshold as a dashed line."}}
figure = plotting.scores_by_defect(scores, defects, threshold)
run.write_figure("5_scores_by_defect.svg", figure)
figure

# %%
by_defect = evaluation.auroc_by_defect(labels, scores, defects)
pd.Series(by_defect, name="AUROC against good", dtype=float).to_frame().round(3)

# %% [markdown]
# *What to look for:* a row that lies left of the line. This kind of defect is not found, however good the average looks.
#
# ## Move the threshold yourself
#
# Drag the line, or use the slider. Watch the point on the ROC curve and the four counts. Click on a dot to see its image.

# %% tags=["explorer", "remove-input"]
explorer.write_pictures(run.folder / "pictures", paths, small_maps, masks, image_size)
explorer.ThresholdExplorer(test, threshold, run.folder / "pictures")

# %% [markdown]
# *What to look for:* how far you can move the line to the left before the first good image is rejected, and what you gain by it.
#
# ## All numbers
#
# The {term}`pixel AUROC` asks the question of the ROC curve for every pixel: does the anomaly map score defective pixels higher than good ones? It needs masks.

# %%
record = run.read()
pixel_auroc = None
if (images["mask"] != "").any():
    maps = evaluation.upsample(small_maps, image_size)
    pixel_auroc = evaluation.pixel_auroc(np.stack(masks), maps)
metrics = {
    "image_auroc": auroc,
    **decisions,
    "threshold": threshold,
    "auroc_by_defect": by_defect,
    "pixel_auroc": pixel_auroc,
    "n_train": record["data"]["n_train"],
    "n_test": record["data"]["n_test"],
    "weights": record["weights"],
}
run.write_metrics(metrics)
names = ["image_auroc", "pixel_auroc", "accuracy", "precision", "recall", "f1"]
names += ["threshold"]
values = pd.Series({name: metrics[name] for name in names}, name="value", dtype=float)
values.to_frame().round(3)

# %% [markdown]
# ## Where it is wrong
#
# The defective image with the lowest score and the good image with the highest one: the two from which most is learnt.

# %% mystnb={"figure": {"caption": "The hardest defective image and the most suspicious good one."}, "image": {"alt": "Two test images with their anomaly maps: the defective image with the lowest score, and the good image with the highest one."}}
worst = [
    int(np.flatnonzero(labels == label)[choose(scores[labels == label])])
    for label, choose in ((1, np.argmin), (0, np.argmax))
    if (labels == label).any()
]
heatmaps(worst)

# %% [markdown]
# *What to look for:* would you have found the defect in the first image? And what could have alarmed the detector in the second?

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **A perfect AUROC, and every good image rejected.** The scores are in the right order, and the threshold is below all of them. This happens, with few training
#   images, and the AUROC does not show it. Report the confusion matrix beside it.
# - **Forty images.** With so few, one image more or less changes the AUROC visibly. A difference in the third digit means nothing.
# - **Mixed conditions.** Good images of Monday and defective ones of Friday: the detector may have learnt the day.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} The AUROC by counting
# :label: exercise-pairs
# :nonumber:
#
# Compute the AUROC from its meaning: compare the score of every defective image with that of every good one, and count how often the first is larger. A tie counts
# one half.
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
# In your factory a miss costs ten times as much as a false alarm. At which threshold are the costs on these test images smallest? Why must you not report the costs
# at that threshold as what the factory will pay?
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
# The threshold was chosen to suit these images, so it suits them better than it will suit the next ones. To know the real costs, choose on one half of the
# images and measure on the other.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% tags=["remove-input"] jupyter={"source_hidden": true}
quiz.Quiz(
    quiz.Question(
        "A detector gives every image the same score. What is its AUROC?",
        right=f"{evaluation.image_auroc([0, 0, 1], [7, 7, 7]):g}",
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
# - AUROC judges the scores, the confusion matrix judges the threshold. Report both.
# - Look at the heatmaps: right for the right reason?
# - Look at each kind of defect: an average can hide one that is never found.
#
# **Further reading.** An introduction to ROC analysis {cite:p}`fawcett2006roc`; when precision and recall tell more {cite:p}`davis2006relationship`.
#
# That is the whole method. The results pages show it on every texture of this run.
