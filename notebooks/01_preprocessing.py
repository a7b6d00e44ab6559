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
# A factory can photograph thousands of good surfaces a day. Defects are rare, and the next one may look like none
# before. So we show the computer **only good surfaces** and ask it, for each new photograph: *is this still what you know?*
#
# In this chapter we look at the photographs and bring them all to the shape that the next chapter needs. You will learn
#
# - how an anomaly detection data set is organised, and why its training part has no defects;
# - how an image becomes an array of numbers between 0 and 1;
# - what resizing keeps of a defect, and what it may lose.

# %% [markdown]
# ## Parameters
#
# The next cell is the only one that you need to change to use other data. `dataset` is `"synthetic"` (textures drawn by a program,
# which come with the book), `"mvtec"` (MVTec AD, downloaded once) or the path of your own folder.

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder laid out as MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # used from chapter 2 on: "auto", "imagenet", "random", or a file
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # chooses the images shown below
image_size = 224  # height and width in pixels that every image is resized to

# %%
import numpy as np
from IPython.display import Markdown
from PIL import Image

from texad import datasets, plotting, preprocessing
from texad.artifacts import Run

run = Run(dataset, category, runs)
run.start("01_preprocessing", weights=weights, seed=seed, image_size=image_size)

# %% [markdown]
# ## The data
#
# The folder of a category has three parts. `train/good` holds defect-free images to learn from. `test` holds good images and one
# folder for each kind of defect. `ground_truth` holds a *mask* for each defective image: a black picture, white where
# the surface is damaged. Masks are used to judge the result, never to train. This is the layout of MVTec AD
# {cite:p}`bergmann2019mvtec`, the data set that made this problem popular.
#
# The next cell lists the images, and writes the list into the run folder for the chapters that follow.

# %%
data = datasets.load_category(dataset, category)
images = run.write_images(data)
images.groupby(["split", "defect"], sort=False).size().rename("images").to_frame()

# %% tags=["remove-input"]
n_train, n_test = len(data.train), len(data.test)
n_defective = sum(sample.label for sample in data.test)
Markdown(
    f"The autoencoder will learn from **{n_train}** good images. It will be tested on **{n_test}** others, "
    f"of which **{n_defective}** are defective."
)

# %% [markdown]
# Some of the good training images. Look for what differs between them although nothing is wrong: the light, the scale, the angle, the
# place. The detector must learn to ignore all this.

# %% mystnb={"figure": {"caption": "Defect-free training images."}, "image": {"alt": "A row of photographs of the same defect-free material, each slightly different in light, scale and position."}}
rng = np.random.default_rng(seed)
chosen = [data.train[i] for i in rng.choice(n_train, size=min(4, n_train), replace=False)]
plotting.image_grid([datasets.read_image(sample.path) for sample in chosen])

# %% [markdown]
# One defective test image of each kind, with the border of its mask. Some defects jump to the eye, others are hardly there.

# %% mystnb={"figure": {"caption": "One test image of each kind of defect; the line is the border of the mask."}, "image": {"alt": "One photograph for each kind of defect, the damaged area outlined."}}
kinds = sorted({sample.defect for sample in data.test if sample.label})
shown = [rng.choice([sample for sample in data.test if sample.defect == kind]) for kind in kinds]
pictures = [datasets.read_image(sample.path) for sample in shown]
masks = [datasets.read_mask(sample.mask) if sample.mask else None for sample in shown]
plotting.image_grid(pictures, titles=kinds, masks=masks, columns=5)

# %% [markdown]
# ## One image, step by step
#
# We follow one image by hand. First it is read and brought to three colours (red, green, blue), 8 bits each. A grey photograph
# gets three equal colours, since the network of the next chapter expects three.

# %%
photograph = datasets.read_image(chosen[0].path)
f"{chosen[0].path.name}: {photograph.width} × {photograph.height} pixels, mode {photograph.mode}"

# %% [markdown]
# Then it is resized. The network was trained on squares of 224 × 224 pixels, so we give it squares of that size. *Bilinear*
# resizing computes each new pixel as a weighted mean of the old pixels around it. We do not crop: a crop could cut a defect off.

# %%
small = photograph.resize((image_size, image_size), Image.Resampling.BILINEAR)
np.asarray(small)[:2, :3]  # the first 3 pixels of the first 2 rows: red, green, blue from 0 to 255

# %% [markdown]
# Last, the values are divided by 255. An image is now a *tensor* of floating-point numbers between 0 and 1. We write its shape
# as (height, width, colours). PyTorch wants the colours first, and a batch of $N$ images at a time: $x$ has the
# shape $(N, 3, 224, 224)$.
#
# The published method stops here: it does not subtract the mean colour of ImageNet, as is often done. Chapter 2 has a switch for it.

# %%
by_hand = np.asarray(small, dtype=np.float32) / 255
x = preprocessing.load_images([sample.path for sample in chosen], image_size)
print("x:", tuple(x.shape), x.dtype, f"from {x.min():.2f} to {x.max():.2f}")
assert np.array_equal(by_hand.transpose(2, 0, 1), x[0].numpy())  # by hand, the same as the package's

# %% [markdown]
# ## What resizing does to a defect
#
# Left, the photograph in its own size; right, what the network will see. If you cannot see the defect in the right one, no method
# can find it there. Try a smaller `image_size` (a multiple of 16) and look again.

# %% mystnb={"figure": {"caption": "A defective image before and after resizing."}, "image": {"alt": "The same defective surface twice: the original photograph and the resized square, the damaged area outlined in both."}}
sample = shown[0] if shown else data.test[0]
before = datasets.read_image(sample.path)
after = preprocessing.to_array(before, image_size)
masks = [datasets.read_mask(sample.mask), preprocessing.load_mask(sample.mask, image_size)] if sample.mask else None
plotting.image_grid([before, after], titles=["photograph", f"{image_size} × {image_size}"], masks=masks)

# %%
run.finish()

# %% [markdown]
# ## Recap
#
# - Training images are all good; defects appear only in the test.
# - Preprocessing is: read as RGB, resize to a square, divide by 255. Nothing else.
# - The list of images is in the run folder, so that every later chapter uses the same images in the same order.
#
# Next: what a network that knows a million photographs sees in these squares.
