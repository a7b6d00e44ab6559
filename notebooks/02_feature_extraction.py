# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 2 Feature extraction: what the network sees
#
# Two photographs of the same leather differ in almost every pixel, and yet they are the same leather. To compare *textures*, we need
# numbers that describe the pattern and not the pixels. A network that has learnt to recognise objects computes such numbers on
# its way, and we borrow them. You will learn
#
# - what a feature map is, and why we stop at `layer3` of a ResNet-50;
# - why the network is *frozen*, and how its BatchNorm layers can be folded away;
# - what a network with random weights can and cannot do.

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder laid out as MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto", "imagenet", "random", or a .safetensors or .pth file
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the random weights, and of the images shown
normalize = False  # subtract the ImageNet mean colour first; the published method does not
feature_batch_size = 16  # images in one forward pass

# %%
import numpy as np
import pandas as pd
import torch

from texad import features, plotting, preprocessing
from texad import weights as backbone_weights
from texad.artifacts import Run

run = Run(dataset, category, runs)
run.start("02_feature_extraction", weights=weights, seed=seed, normalize=normalize)
image_size = run.parameter("image_size")
train, test = run.images("train"), run.images("test")
train_paths, test_paths = run.data_paths(train["path"]), run.data_paths(test["path"])

# %% [markdown]
# ## The backbone
#
# ResNet-50 {cite:p}`he2016resnet` is a chain of convolutions in five steps. Each step looks at a larger piece of the
# image and describes it by more numbers. *ImageNet weights* are what the network learnt from 1.3 million photographs of a
# thousand kinds of objects. Nothing in it will be changed: it is *frozen*, and works as a measuring instrument.

# %%
loaded = backbone_weights.load(weights, seed)
run.write_weights(loaded)
backbone = features.build_backbone(loaded)
run

# %% [markdown]
# If the weights are **random**, the network has learnt nothing. It still mixes neighbouring pixels into 1024 different patterns, which is
# better than nothing, provided that its numbers do not vanish or explode on the way. *BatchNorm* layers take care of that: each
# subtracts a mean and divides by a standard deviation. In a trained network these are known; in a random one we measure them on
# the training images. With trained weights the next cell does nothing.

# %%
if loaded.is_random:
    features.calibrate_batchnorm(
        backbone,
        train_paths,
        image_size=image_size,
        normalize=normalize,
        batch_size=feature_batch_size,
    )

# %% [markdown]
# ## From pixels to places
#
# We send one image through the chain and write down the shape after each step. The picture gets smaller, the description
# longer.

# %%
x = preprocessing.load_images(train_paths[:1], image_size)
output, rows = preprocessing.normalize(x) if normalize else x, []
with torch.inference_mode():
    for name, part in backbone.named_children():
        output = part(output)
        _, channels, height, width = output.shape
        rows.append({"part": name, "channels": channels, "height": height, "width": width})
pd.DataFrame(rows).set_index("part")

# %% [markdown]
# The last row is the *feature map* $F$. It has 14 × 14 *places* for an image of 224 × 224 pixels, so neighbouring places are 16 pixels
# apart, and each place has a *feature vector* of 1024 numbers, the *channels*.
#
# Why `layer3`? The layers before it describe small things such as edges and dots, and would find any scratch but also any harmless
# speck. The layers behind it answer the question "which object is this?", and textures are no objects.
#
# ## Folding BatchNorm
#
# In a frozen network BatchNorm multiplies each channel by a fixed number and adds another. A convolution can do both by itself, if we
# change its weights accordingly. The result is the same up to rounding, with half the layers to compute.

# %%
folded = features.fold_batchnorm(backbone)
with torch.inference_mode():
    again = folded(preprocessing.normalize(x) if normalize else x)
largest = float((again - output).abs().max() / output.abs().max())
f"largest difference, relative to the largest feature: {largest:.1e}"

# %% [markdown]
# ## Extracting all features
#
# This is the slow part of the method, and it is done once: the features of an image never change. They go to disk as they come, and
# later chapters read only the part that they need.

# %%
options = dict(image_size=image_size, normalize=normalize, batch_size=feature_batch_size)
folder = run.folder / "features"
F_train = features.extract(folded, train_paths, folder / "train.npy", **options)
F_test = features.extract(folded, test_paths, folder / "test.npy", **options)
print("F of the training images:", F_train.shape, F_train.dtype)
print("F of the test images:    ", F_test.shape, F_test.dtype)

# %% [markdown]
# ## Looking at features
#
# First a good image, then a defective one, and five of the 1024 channels of each. Bright means that the channel found
# its pattern there. We show the channels that differ most between the two images.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Two images and five channels of their feature maps."}, "image": {"alt": "Two rows: a good image with five small maps, and a defective image with the same five maps. Some maps are bright at the defect."}}
rng = np.random.default_rng(seed)
labels = test["label"].to_numpy()
pair = [rng.choice(np.flatnonzero(labels == label)) for label in (0, 1) if (labels == label).any()]
maps = [np.array(F_test[i]) for i in pair]
difference = np.abs(maps[0].max(axis=(1, 2)) - maps[-1].max(axis=(1, 2)))
channels = np.argsort(difference)[:-6:-1]  # the five largest, the largest first
shown, titles = [], []
for i, F in zip(pair, maps, strict=True):
    grey = preprocessing.load_images([test_paths[i]], image_size)[0].mean(dim=0).numpy()
    shown += [grey, *F[channels]]
    titles += [test["defect"][i], *(f"channel {c}" for c in channels)]
plotting.map_grid(shown, titles, columns=6)

# %% [markdown]
# A channel that lights up at a defect is a good sign, but no single channel is a detector: each reacts to harmless things too. The next
# chapter learns which *combinations* of the 1024 numbers are normal.

# %%
run.finish()

# %% [markdown]
# ## Recap
#
# - A frozen ResNet-50, stopped at `layer3`, turns an image into 14 × 14 vectors of 1024 numbers.
# - Features are computed once and kept on disk.
# - With random weights the method runs, and its results say little about what it can do.
#
# Next: an autoencoder learns what normal vectors look like.
