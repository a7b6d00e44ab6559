# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 1 Preprocessing: from photographs to numbers
#
# A factory can photograph thousands of good surfaces a day. Defects are rare, and the next one may
# look like none before. So we show the computer **only good surfaces** and ask it, for each new
# photograph: *is this still what you know?*
#
# In this chapter we look at the photographs and bring them all to the shape that the next chapter
# needs. You will learn
#
# - how a data set for anomaly detection is organised, and why its training part has no defects;
# - how an image becomes an array of numbers between 0 and 1;
# - what resizing keeps of a defect, what it may lose, and what squeezing does to a long image.
#
# ![Three steps from left to right: a photograph of any size; the same photograph as a square; a grid of numbers between 0 and 1.](../book/images/01_preprocessing.svg)

# %% [markdown]
# ## Parameters
#
# The next cell is the only one that you need to change to use other data. `dataset` is
# `"synthetic"` (textures drawn by a program, which come with the book), `"mvtec"` (MVTec AD,
# downloaded once) or the path of your own folder.

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder like MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # used from chapter 2 on
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # chooses the calibration images, and those shown below
detector = "published"  # or "extended", the detector of chapter 8
image_size = 224  # root of the number of pixels that images are resized to
normalize = None  # True: subtract the ImageNet mean; None: as the detector wants it
calibration = "auto"  # "split": some images are kept out; "cross": each one in turn
calibration_fraction = 0.2  # of the good training images; kept out by "split"
white = 0  # level that is white in images of 16 bits; 0: found by looking at them
unreadable_limit = 0.05  # of the images of a folder; if more are damaged, stop
region = ""  # a mask, or a folder of masks: white is judged; empty: all of an image
groups = ""  # a .csv or a regular expression; empty: groups.csv, if there is one

# %%
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from texad.data import datasets, screening, splitting
from texad.errors import RunError, printable
from texad.evaluation.metrics import image_auroc
from texad.figures import plots
from texad.io import images as reading
from texad.model import preprocessing, registry
from texad.runs.parameters import check_values
from texad.runs.run_folder import Run
from texad.teaching import quiz

run = Run(dataset, category, runs)
options = dict(
    detector=detector,
    image_size=image_size,
    normalize=normalize,
    region=region,
    white=white,
    calibration=calibration,
    calibration_fraction=calibration_fraction,
    unreadable_limit=unreadable_limit,
    groups=groups,
)
try:  # "auto" is "split" for the published detector, and "cross" for the extended one
    check_values("01_preprocessing", options)
    kept_out_by = registry.calibration(detector, calibration)
    sight = registry.sight(detector, image_size, normalize, region, white)
except ValueError as error:
    raise RunError(str(error)) from None
options["region"] = sight.region
run.start("01_preprocessing", weights=weights, seed=seed, **options)

# %% [markdown]
# ## The data
#
# The folder of a category has three parts. `train/good` holds {term}`defect-free` images to learn
# from. `test` holds good images and one folder for each kind of defect. `ground_truth` holds a
# {term}`mask` for each defective image: a black picture, white where the surface is damaged. Masks
# are used to judge the result, never to train. This is the layout of MVTec AD
# {cite:p}`bergmann2019mvtec`, the data set that made this problem popular.
#
# Why no defects in the training part? Not because it would be impossible to collect some. A
# detector that has seen ten kinds of defects learns those ten. One that has only learnt what *good*
# looks like has a chance with the eleventh.
#
# Some of the good training images get a part of their own. A pupil is not examined with the
# exercises of the class: whoever has worked through them knows the answers. In the same way, the
# autoencoder knows the images that it was fit to, and makes smaller errors there than on any new
# one. So we draw a few of them by lot, the {term}`calibration images <calibration image>`, and keep
# them out of the training. In chapter 4 they tell how large an error may be on a good surface. They
# are no part of the test either.
#
# What is kept out is not learnt from. Of fewer than 20 images we can spare none. And where the
# threshold has to keep a promise, as that of the extended detector of chapter 8, there is a way to
# have both: several models, each of which has not seen some of the images, so that every image is
# learnt from *and* kept out (`calibration = "cross"`, explained in chapter 4).
#
# First we list the images, and look whether all of them can be read. A copy that was interrupted
# leaves half a file; a memory card on its last days leaves files without any picture. One damaged
# image among many is left out, and named below. Many are another matter: if most photographs of
# scratches are lost, what is left may be the harmless ones, and the result would flatter the
# detector. So the work stops if a folder would lose a larger part of its images than
# `unreadable_limit`. A defective image is also left out if its mask is damaged, or of another size:
# nobody could say where the defect is.

# %%
data = datasets.load_category(dataset, category)
data = screening.readable(data, unreadable_limit)
sight = replace(
    sight, white=white or reading.find_white(sample.path for sample in data.train)
)
run.write(sight=asdict(sight))

# %% tags=["remove-input"]
left_out = len(data.unreadable)
n_images = len(data.train) + len(data.test) + left_out
Markdown(
    f"Of **{n_images}** images, **{left_out}** could not be used. They are left out "
    "of everything that follows:"
    if left_out
    else f"All **{n_images}** images can be read."
)

# %% tags=["remove-input"]
rows = [
    (each.sample.path.relative_to(data.root), each.reason) for each in data.unreadable
]
if rows:
    table = pd.DataFrame(
        [(printable(path), reason) for path, reason in rows],
        columns=["image", "what is wrong"],
    )
    with pd.option_context("display.max_colwidth", None):
        display(table.set_index("image"))
for note in data.notes:
    print(f"note: {printable(note)}")
if sight.white < reading.WHITE:
    print(f"note: in images of 16 bits, level {sight.white} is taken for white")

# %% [markdown]
# The next cell writes the list of images into the run folder for the chapters that follow, and
# beside it those that were left out, with the reason.

# %%
fraction = calibration_fraction if kept_out_by == "split" else 0.0
if calibration == "auto" and len(data.train) < splitting.FEW:
    fraction = 0.0
images = run.write_images(data, fraction, seed, groups)
images.groupby(["split", "defect"], sort=False).size().rename("images").to_frame()

# %% [markdown]
# A row for each part and folder: this is what all later chapters work with.

# %% tags=["remove-input"]
n_train, n_calibration, n_test = (
    int((images["split"] == split).sum()) for split in ("train", "calibration", "test")
)
n_defective = int(images["label"].sum())
kept_out = (
    f"Its threshold can be set with **{n_calibration}** good images that it has not "
    "learnt from."
    if n_calibration
    else "For the threshold, each of them is kept out of one of several models."
    if kept_out_by == "cross"
    else "No good image is kept out of the training."
)
Markdown(
    f"The autoencoder will learn from **{n_train}** good images. {kept_out} It will "
    f"be tested on **{n_test}** others, "
    f"of which **{n_defective}** are defective."
)

# %% [markdown]
# ### Images that belong together
#
# Real photographs often come in groups. A magnetic tile is photographed in several exposures. The
# cells of one solar module are cut from the same block of silicon, slice by slice, and neighbours
# show nearly the same crystals. Images of one {term}`group` resemble each other more than a new
# image will resemble any of them.
#
# If one exposure of a tile is learnt from and another calibrates, the second is no new image: its
# error is too small, the threshold is set too low, and in the factory good tiles are rejected. If
# the second is in the test, the result is too good to be true. So **a group is never divided**: all
# of it is learnt from, or calibrates, or is for the test. What a threshold promises is then a
# promise for images of *new* groups, and it is groups that count: six exposures of a tile say
# little more than one.
#
# A program cannot know the groups for sure; a person has to name them. If the folder of the
# category has a table `groups.csv` with the columns `path` and `group`, it is used. Else the
# parameter `groups` says where the names come from: another `.csv`, or a regular expression. With
# `r"tile(\d+)"`, for instance, the number in `tile12_dark.png` is the group. (The command `texad
# fit` of chapter 9 also takes the word `folder`: each sub-folder of good images is then a group.)

# %% tags=["remove-input"]
found = run.read()["data"]["groups"]
known = set(images["group"][images["split"] != "test"])
shared = images["group"][images["split"] == "test"].isin(known - {""}).sum()
if found["source"]:
    text = (
        f"The training images are in **{found['n_train'] + found['n_calibration']}** "
        f"groups ({printable(found['source'])}); **{found['n_calibration']}** of them "
        "calibrate."
    )
else:
    text = "Here nobody has named any groups: each image counts as a group of its own."
if shared:
    text += (
        f"\n\n**Warning:** {shared} of {n_test} test images are of groups that the "
        "training has, too. The detector half knows them, and all results of this run "
        "are better than they would be with new images. The usual random split of the magnetic "
        "tiles has this fault. Divide the data again, group by group."
    )
Markdown(text)

# %% [markdown]
# Some of the good training images. *What to look for:* what differs between them although nothing
# is wrong. The light, the scale, the angle, the place on the surface. The detector must learn to
# ignore all this.

# %% mystnb={"figure": {"caption": "Defect-free training images."}, "image": {"alt": "A row of photographs of the same defect-free material. They differ a little in light, scale and position, and no two show the same piece."}}
rng = np.random.default_rng(seed)
picks = rng.choice(len(data.train), size=min(4, len(data.train)), replace=False)
chosen = [data.train[i] for i in picks]
plots.image_grid([reading.read_image(sample.path, sight.white) for sample in chosen])

# %% [markdown]
# One defective test image of each kind, with the border of its mask. *What to look for:* how small
# most defects are, and how different from each other. Some jump to the eye; for others you need the
# outline.

# %% mystnb={"figure": {"caption": "One test image of each kind of defect; the line is the border of the mask."}, "image": {"alt": "One photograph for each kind of defect, named above it. A line runs around the damaged area, which covers a small part of the image."}}
kinds = sorted({sample.defect for sample in data.test if sample.label})
shown = []
for kind in kinds:
    shown.append(rng.choice([sample for sample in data.test if sample.defect == kind]))
pictures = [reading.read_image(sample.path, sight.white) for sample in shown]
masks = [reading.read_mask(sample.mask) if sample.mask else None for sample in shown]
plots.image_grid(pictures, titles=kinds, masks=masks, columns=5)

# %% [markdown]
# ## One image, step by step
#
# We follow one image by hand. First it is read and brought to three colours (red, green, blue), 8
# bits each. A grey photograph gets three equal colours, since the network of the next chapter
# expects three.
#
# Cameras for industry often measure 10, 12 or 14 bits, and store them in files of 16. Such a file
# does not say which grey level is white. With 12 bits it is 4095; taken for a small part of 65535, a
# photograph would be all but black, with 16 grey levels of 4096 left. So we look at all training
# images: if none has a level above 4095, that is white, for every image of the run (the parameter
# `white` says otherwise). We do not stretch each image by its own brightest pixel: then a surface
# that is too dark would look like any other.

# %%
photograph = reading.read_image(chosen[0].path, sight.white)
print(chosen[0].path.name, "has", photograph.width, "×", photograph.height, "pixels")

# %% [markdown]
# Then it is resized. The network was trained on squares of 224 × 224 pixels, so the published method
# gives it squares of that size. (The extended detector of chapter 8 keeps the image's aspect ratio,
# and takes about as many pixels; below we shall see why.) *Bilinear* resizing computes each new pixel as a weighted mean of the old pixels
# around it, of as many as the new pixel covers. We do not crop: a crop could cut a defect off.
#
# The next cell shows the first three pixels of the first two rows: red, green and blue, each from 0
# to 255.

# %%
shape = sight.shape(photograph.height, photograph.width)
small = preprocessing.resize(photograph, shape)  # (H, W, 3)
small[:2, :3]

# %% [markdown]
# Last, the values are divided by 255. An image is now a *tensor* (an array with several axes) of
# floating-point numbers between 0 and 1. Let $N$ be the number of images. PyTorch wants the three
# colours before height and width, so all images together are
#
# $$x \quad\text{of shape}\quad (N, 3, 224, 224), \qquad 0 \le x \le 1 .$$
#
# The published method stops here. The extended detector also subtracts the mean colour of ImageNet
# and divides by its standard deviation, as is often done, since the network was trained on such
# numbers. The parameter `normalize` switches it on or off.
#
# The package does the three steps in one call. The `assert` makes sure that it does what we did by
# hand.

# %%
by_hand = small.astype(np.float32) / 255  # (H, W, 3)
x = preprocessing.load_image(chosen[0].path, sight)  # N is 1 here
print("x:", tuple(x.shape), x.dtype, f"from {x.min():.2f} to {x.max():.2f}")
assert sight.region or np.array_equal(by_hand.transpose(2, 0, 1), x[0].numpy())

# %% [markdown]
# ## What resizing does to a defect
#
# Left, the photograph in its own size; right, what the network will see. *What to look for:* can
# you still see the defect on the right? If you cannot, no method can find it there.

# %% mystnb={"figure": {"caption": "A test image before and after resizing."}, "image": {"alt": "The same surface twice: the original photograph, and the square that the network sees. The damaged area is outlined in both, and finer details are gone in the square."}}
sample = shown[0] if shown else data.test[0]
before = reading.read_image(sample.path, sight.white)
shape = sight.shape(before.height, before.width)
after = preprocessing.resize(before, shape)
masks = [None, None]
if sample.mask:
    small_mask = preprocessing.load_mask(sample.mask, sight)
    masks = [reading.read_mask(sample.mask), small_mask]
titles = ["photograph", "{} × {}".format(*shape)]
plots.image_grid([before, after], titles=titles, masks=masks)

# %% [markdown]
# ### A long image
#
# Parts are often long and narrow: a rail, a blade, a strip of metal. Squeezed into a square, such
# an image loses most along its length. We try it: the two halves of the photograph, laid side by side,
# make a strip, and we draw a black hairline across it, one pixel wide. The strip is resized twice, to
# the same number of pixels: once to a square, once with its aspect ratio kept. How many grey levels
# are left between the hairline and the strip without it?

# %%
half = photograph.height // 2
upper, lower = np.array(photograph)[:half], np.array(photograph)[half : 2 * half]
strip = np.hstack([upper, lower])  # (H, W, 3)
cracked = strip.copy()
cracked[:, photograph.width // 2] = 0
kept = preprocessing.Sight(image_size, keep_aspect=True).shape(*strip.shape[:2])
shapes = {"square": (image_size, image_size), "aspect kept": kept}
strips, contrast = {}, {}
for way, shape in shapes.items():
    strips[way] = preprocessing.resize(cracked, shape)
    difference = strips[way].astype(float) - preprocessing.resize(strip, shape)
    contrast[way] = np.abs(difference).mean(axis=(0, 2)).max()  # of the darkest column

# %% mystnb={"figure": {"caption": "The strip with the hairline in two shapes of equally many pixels."}, "image": {"alt": "The same strip of the surface twice: stretched in height and squeezed in length to a square, and as the long strip that it is. A dark line runs across it, fainter in the square."}} tags=["remove-input"]
plots.image_grid(
    list(strips.values()), [f"{way}, {h} × {w}" for way, (h, w) in shapes.items()]
)

# %% tags=["remove-input"]
Markdown(
    f"In the square **{contrast['square']:.0f}** of 255 grey levels are left of the "
    f"hairline, with the aspect ratio kept **{contrast['aspect kept']:.0f}**. "
    + (
        "This run keeps the aspect ratio."
        if sight.keep_aspect
        else "This run makes squares of all images, as the published method does."
    )
)

# %% [markdown]
# *What to look for:* both pictures have as many pixels, so the network works as long on each. What
# differs is how many of them lie along the strip.

# %%
run.finish()

# %% [markdown]
# :::{admonition} What could go wrong
# :class: warning
# - **Test images in the training folder.** Someone copies all good images to both places. The
#   detector then knows the good test images by heart, the false alarms vanish, and they come back
#   in the factory. Good images for the test must be *other* images, best of another day.
# - **One piece on both sides.** Exposures of one tile, or cells of one module, are in the training
#   and in the test, or calibrate. Nobody notices, since no file is there twice. Name the groups;
#   chapter 2 warns if images look like copies of each other.
# - **A defect in the training folder.** One overlooked scratch among the good images, and scratches
#   are normal. Look through the training images once, in a grid as above.
# - **Files that cannot be read.** A few are left out, as above. If the work stops because there are
#   too many, do not raise the limit first. Ask why: a copy that ended early, a full disk, a kind of
#   file that this book does not know. Half of a data set is not a smaller data set, it is another
#   one.
# - **The light tells it.** If defective parts were photographed under another lamp, the detector
#   learns the lamp. The second exercise shows how to check.
# :::
#
# ## Exercises

# %% [markdown]
# ```{exercise} How small is too small?
# :label: exercise-size
# :nonumber:
#
# Resize a defective image to 224, 96, 48 and 32 pixels, and show the results side by side. From
# which size on can you no longer tell that something is wrong?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-size
# :class: dropdown
# ```

# %% mystnb={"figure": {"caption": "The same image in smaller and smaller squares."}, "image": {"alt": "Four squares side by side. The first shows the surface in detail, the last is a mosaic of coarse blocks in which the defect can hardly be told."}} tags=["solution"]
sizes = (224, 96, 48, 32)
squares = [preprocessing.resize(before, size) for size in sizes]
plots.image_grid(squares, titles=[f"{size} × {size}" for size in sizes])

# %% [markdown] tags=["solution"]
# A defect vanishes when it is about as small as one pixel of the square: its colour is then mixed
# with that of its surroundings. If your defects are small and your photographs large, cut the
# photographs into several squares rather than squeeze each into one.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ```{exercise} A detector without a network
# :label: exercise-brightness
# :nonumber:
#
# The simplest detector of all measures how bright an image is, and calls it suspicious if that is
# far from the usual. Compute the mean of $x$ for each training and each test image. Take as score
# of a test image the distance of its brightness from the mean brightness of the training images.
# `image_auroc(labels, scores)` gives 1 for a perfect detector and 0.5 for guessing (chapter 5
# explains it). How good is this one?
# ```

# %% [markdown] tags=["solution"]
# ```{solution-start} exercise-brightness
# :class: dropdown
# ```


# %% tags=["solution"]
def brightness(samples):
    batches = preprocessing.image_batches(
        [sample.path for sample in samples],
        preprocessing.Sight(64, white=sight.white),
    )
    return np.concatenate([batch.mean(dim=(1, 2, 3)).numpy() for batch in batches])


labels = [sample.label for sample in data.test]
distance = np.abs(brightness(data.test) - brightness(data.train).mean())
auroc = image_auroc(labels, distance)
print("AUROC of brightness alone:", auroc if auroc is None else round(auroc, 3))

# %% [markdown] tags=["solution"]
# Near 0.5 means that brightness tells nothing, and the data set is a fair test. A value near 1
# would be a warning, not a success: the defective images were taken in another light, and any
# detector will look good on them for the wrong reason.

# %% [markdown] tags=["solution"]
# ```{solution-end}
# ```

# %% [markdown]
# ## Quiz

# %% jupyter={"source_hidden": true} tags=["remove-input"]
quiz.Quiz(
    quiz.Question(
        "What are the masks used for?",
        right="To judge the anomaly maps on test images",
        why="They say where the defect truly is, so that the map can be compared with it.",
        wrong={
            "To train the autoencoder": "It is trained on good images only, and they have no masks.",
            "To cut the defects out": "Nothing is cut out; the image goes in as a whole.",
        },
    ),
    quiz.Question(
        "How many numbers does the network get for one image?",
        right=f"{x[0].numel():,}",
        why="Three colours times height times width.",
        wrong={
            f"{x[0, 0].numel():,}": "That is the number of pixels; each has three colours.",
            f"{3 * x.shape[3]:,}": "That is one row of pixels.",
        },
    ),
    quiz.Question(
        "Why do we not crop the photograph to a square?",
        right="A defect near the edge could be cut off",
        why="What the network does not see, it cannot find.",
        wrong={
            "Cropping is slower than resizing": "It is faster, in fact.",
            "A crop would change the colours": "It would not; resizing changes them more.",
        },
    ),
)

# %% [markdown]
# ## Recap
#
# - Training images are all good; defects appear only in the test.
# - A few damaged images are left out and listed. Many stop the work, since what is left may no
#   longer stand for the whole.
# - A few good images are kept out of the training, to set a threshold with.
# - Images that belong together stay together: no split divides a group.
# - Preprocessing is: read as RGB, resize to a square, divide by 255. Nothing else.
# - The list of images is in the run folder, so that every later chapter uses the same images in the
#   same order.
#
# **Further reading.** The MVTec AD papers {cite:p}`bergmann2019mvtec,bergmann2021mvtec` describe
# how such a data set is made, and what the first methods could and could not do with it.
#
# Next: what a network that knows a million photographs sees in these squares.
