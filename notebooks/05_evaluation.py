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
# Now, and only now, we use the labels of the test images. Two questions are often mixed up, and we keep them apart: *do defective images score
# higher than good ones?* and *is the threshold at the right place?* You will learn
#
# - to read the five figures of the method;
# - what the area under the ROC curve means, and what it does not say;
# - where to look when the detector is wrong.

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder laid out as MVTec AD
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

from texad import evaluation, plotting, preprocessing
from texad.artifacts import Run

run = Run(dataset, category, runs)
run.start("05_evaluation", weights=weights, seed=seed, n_heatmaps=n_heatmaps)
table = run.read_table("scores.csv")
test = table[table["split"] == "test"].reset_index(drop=True)
scores, labels, defects = (test[name].to_numpy() for name in ("score", "label", "defect"))
threshold = run.read()["threshold"]
run

# %% [markdown]
# ## Figure 1: the distribution of the scores
#
# Each test image is one count. A good detector has two heaps, with the threshold between them.

# %% mystnb={"figure": {"caption": "Scores of normal and of anomalous test images."}, "image": {"alt": "Two histograms over the anomaly score, normal images in blue and anomalous images in orange, with the threshold as a dashed line."}}
figure = plotting.score_distribution(scores, labels, threshold)
run.write_figure("1_score_distribution.svg", figure)
figure

# %% [markdown]
# Where the heaps overlap, no threshold can be right for all images. Blue to the right of the line are false alarms, orange to its left are
# missed defects.
#
# ## Figure 2: heatmaps
#
# Where does the detector look? The upper row shows test images, the lower row their anomaly maps, all on one scale. The line is the border of the true defect.

# %% mystnb={"figure": {"caption": "Test images, and below them the same images with their anomaly maps."}, "image": {"alt": "A row of test images with outlined defects, and below each the same image covered by its anomaly map."}}
image_size = run.parameter("image_size")
maps = evaluation.upsample(run.read_array("maps/test.npy"), image_size)
images = run.images("test")
rng = np.random.default_rng(seed)
kinds = ["good", *sorted(set(defects) - {"good"})]
kinds = [kind for kind in kinds if (defects == kind).any()][:n_heatmaps]
picks = [int(rng.choice(np.flatnonzero(defects == kind))) for kind in kinds]
pictures = preprocessing.load_pictures(run.data_paths(images["path"][picks]), image_size)
masks = np.stack([preprocessing.load_mask(run.data_path(mask), image_size) for mask in images["mask"]])
titles = [f"{defects[i]}\nscore {scores[i]:.3g}" for i in picks]
figure = plotting.heatmaps(pictures, maps[picks], masks[picks], titles)
run.write_figure("2_heatmaps.png", figure)
figure

# %% [markdown]
# A map that is bright at the defect and dark elsewhere is right for the right reason. A high score with a bright spot somewhere else is right by
# luck. The maps are coarse: each place stands for 16 pixels and has seen a wider piece of the image.
#
# ## Figure 3: the ROC curve
#
# Move the threshold from the highest score to the lowest. At each position, count the *true-positive rate* (the share of defective images that are found)
# and the *false-positive rate* (the share of good images that are rejected). The curve of the two is the *receiver operating characteristic*, ROC. The area
# under it, the **AUROC**, is the chance that a random defective image scores higher than a random good one: 0.5 is guessing, 1 is perfect. It
# does not depend on the threshold.

# %% mystnb={"figure": {"caption": "ROC curve of the test images."}, "image": {"alt": "The ROC curve, rising from the lower left corner to the upper right one, above the diagonal of guessing."}}
auroc = evaluation.image_auroc(labels, scores)
fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores) if auroc is not None else ([], [], [])
figure = plotting.roc_curve(fpr, tpr, auroc)
run.write_figure("3_roc_curve.svg", figure)
figure

# %% [markdown]
# ## Figure 4: the confusion matrix
#
# With the threshold fixed, every image is one of four cases: normal and called normal (*true negative*), normal and called anomalous (*false positive*, a
# false alarm), anomalous and called normal (*false negative*, a miss), anomalous and called anomalous (*true positive*).

# %% mystnb={"figure": {"caption": "Decisions against truth."}, "image": {"alt": "A table of two by two counts: true against predicted, normal and anomalous."}}
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
# ## Figure 5: the scores of each kind of defect
#
# One average hides much. Here each kind of defect has a row of its own, one dot an image.

# %% mystnb={"figure": {"caption": "Scores by defect type, with the threshold."}, "image": {"alt": "For the good images and for each kind of defect, a box with dots that shows the distribution of the scores, and the threshold as a dashed line."}}
figure = plotting.scores_by_defect(scores, defects, threshold)
run.write_figure("5_scores_by_defect.svg", figure)
figure

# %%
by_defect = evaluation.auroc_by_defect(labels, scores, defects)
pd.Series(by_defect, name="AUROC against good", dtype=float).to_frame().style.format("{:.3f}")

# %% [markdown]
# ## All numbers
#
# The *pixel AUROC* asks the question of the ROC curve for every pixel: does the anomaly map score defective pixels higher than good ones? It needs masks.

# %%
has_masks = (images["mask"] != "").any()
record = run.read()
metrics = {
    "image_auroc": auroc,
    **decisions,
    "threshold": threshold,
    "auroc_by_defect": by_defect,
    "pixel_auroc": evaluation.pixel_auroc(masks, maps) if has_masks else None,
    "n_train": record["data"]["n_train"],
    "n_test": record["data"]["n_test"],
    "weights": record["weights"],
}
run.write_metrics(metrics)
names = ["image_auroc", "pixel_auroc", "accuracy", "precision", "recall", "f1", "threshold"]
shown = pd.Series({name: metrics[name] for name in names}, name="value", dtype=float)
shown.to_frame().style.format("{:.3f}", na_rep="–")

# %% [markdown]
# ## Where it is wrong
#
# The missed defect with the lowest score and the good image with the highest one: the two images from which most is learnt.

# %% mystnb={"figure": {"caption": "The hardest defective image and the most suspicious good one."}, "image": {"alt": "Two test images with their anomaly maps: the defective image with the lowest score, and the good image with the highest one."}}
worst = [
    int(np.flatnonzero(labels == label)[choose(scores[labels == label])])
    for label, choose in ((1, np.argmin), (0, np.argmax))
    if (labels == label).any()
]
pictures = preprocessing.load_pictures(run.data_paths(images["path"][worst]), image_size)
titles = [f"{defects[i]}\nscore {scores[i]:.3g}" for i in worst]
plotting.heatmaps(pictures, maps[worst], masks[worst], titles)

# %%
run.finish()

# %% [markdown]
# ## Recap
#
# - AUROC judges the scores, the confusion matrix judges the threshold. Report both.
# - Look at the heatmaps: right for the right reason?
# - Look at each kind of defect: an average can hide one that is never found.
#
# That is the whole method. The results pages show it on every texture of this run.
