# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 3 Autoencoder training: learning what is normal
#
# Imagine that you must describe a carpet to a friend over the telephone in a few words, and the friend draws it. If both of you have seen only this
# carpet for years, a few words are enough. But describe a cut in it, with the same few words, and the drawing will be wrong where the cut is.
# An *autoencoder* is you, the telephone and the friend. You will learn
#
# - what encoder, bottleneck and decoder are;
# - how the autoencoder is trained, and when to stop;
# - how a feature vector and its reconstruction look.

# %% tags=["parameters"]
dataset = "synthetic"  # "synthetic", "mvtec", or a folder laid out as MVTec AD
category = "leather"  # one texture of the data set
weights = "auto"  # "auto" takes those of the features in the run folder
runs = ""  # folder for the results; empty: the folder runs of this project
seed = 0  # of the first weights, the held-out images and the order of the training
hidden = 512  # width of the layer between the features and the bottleneck
bottleneck = 256  # numbers that are left of 1024
epochs = 15  # at most; the training stops earlier when it no longer helps
batch_size = 256  # feature vectors in one step
learning_rate = 0.001
validation_fraction = 0.1  # part of the training images held out, to know when to stop
patience = 3  # epochs without improvement before it stops

# %%
import numpy as np
import torch
from IPython.display import Markdown
from torch import nn

from texad import autoencoder, features, plotting, scoring
from texad.artifacts import Run

run = Run(dataset, category, runs)
options = dict(
    hidden=hidden,
    bottleneck=bottleneck,
    epochs=epochs,
    batch_size=batch_size,
    learning_rate=learning_rate,
    validation_fraction=validation_fraction,
    patience=patience,
    seed=seed,
)
run.start("03_autoencoder_training", weights=weights, **options)

# %% [markdown]
# ## The data: features of good images
#
# We read the feature maps of the training images. Nothing of the test is touched here: a detector that has seen the test is like a pupil
# who has seen the exam.

# %%
F_train = features.load(run.folder / "features" / "train.npy")
N, C, H, W = F_train.shape
print(f"N = {N} images, C = {C} channels, H × W = {H} × {W} places")

# %% [markdown]
# ## The autoencoder
#
# The *encoder* $E$ turns a feature vector of $C$ numbers into a *code* of only a few, the *bottleneck*. The *decoder* $D$ makes $C$ numbers of the
# code again. The *reconstruction* is $\hat F = D(E(F))$. Since the code is short, the autoencoder cannot just copy. It must find
# out what normal vectors have in common.
#
# Both parts are two linear layers with a ReLU between them (ReLU sets negative numbers to zero, and makes more than a linear map possible).
# Here they are, layer by layer:

# %%
torch.manual_seed(seed)
E = nn.Sequential(nn.Linear(C, hidden), nn.ReLU(), nn.Linear(hidden, bottleneck))
D = nn.Sequential(nn.Linear(bottleneck, hidden), nn.ReLU(), nn.Linear(hidden, C))
first_image = torch.from_numpy(np.array(F_train[0]))  # (C, H, W)
vectors = first_image.permute(1, 2, 0).reshape(-1, C)  # (H·W, C), one row a place
print("vectors of one image:", tuple(vectors.shape))
print("their codes:         ", tuple(E(vectors).shape))
print("reconstructions:     ", tuple(D(E(vectors)).shape))

# %% [markdown]
# The same layers serve all places, one vector at a time. In the literature you meet this as a *1 × 1 convolution*. It is the same
# arithmetic, and the next cell shows it: a convolution with the weights of our first layer gives the same numbers.

# %%
convolution = nn.Conv2d(C, hidden, kernel_size=1)
convolution.load_state_dict({"weight": E[0].weight[:, :, None, None], "bias": E[0].bias})
with torch.inference_mode():
    as_map = convolution(first_image[None])[0]  # (hidden, H, W)
    as_vectors = as_map.permute(1, 2, 0).reshape(-1, hidden)
torch.allclose(as_vectors, E[0](vectors), rtol=1e-3, atol=1e-4)

# %% [markdown]
# ## Training
#
# The *loss* measures how wrong the reconstructions are. For $N$ training images with feature maps $F_1, \dots, F_N$ it is
#
# $$L(\theta) = \frac{1}{N} \sum_{i=1}^{N} \lVert F_i - \hat F_i \rVert^2 ,$$
#
# where $\theta$ stands for all weights of $E$ and $D$, and $\lVert\cdot\rVert^2$ is the sum of the squares of all entries. *Adam*
# {cite:p}`kingma2015adam` changes $\theta$ step by step so that $L$ falls. A step looks at one batch of vectors, drawn from all images. An *epoch* is over
# when every vector has been used once.
#
# How long? The loss on the training images falls for ever, also when the autoencoder begins to learn them by heart. So some of
# the images are *held out*: never trained on, only looked at after each epoch. When their loss no longer falls, we stop.

# %%
trained, history = autoencoder.fit(F_train, **options)
autoencoder.save(trained, run.folder / "autoencoder.safetensors")
run.write_table("training.csv", history)

# %% mystnb={"figure": {"caption": "The loss after each epoch."}, "image": {"alt": "Two falling curves over the epochs, the training loss and the loss on held-out images."}}
plotting.loss_curves(history)

# %% tags=["remove-input"]
best = history.loc[history["validation_loss"].idxmin()]
Markdown(
    f"The training ran for **{len(history)}** epochs. The held-out loss was lowest, **{best['validation_loss']:.4g}**, after epoch "
    f"**{best['epoch']:.0f}**; the weights of that epoch are kept. The training loss was {best['train_loss']:.4g} there. "
    "Curves that fall together mean that what was learnt holds for new images too; a training curve that falls alone would "
    "mean learning by heart."
)

# %% [markdown]
# ## A vector and its reconstruction
#
# One place of a training image: its 1024 numbers and what came out of the autoencoder. The two need not be equal. What matters is that
# the difference is *usually this small*.

# %% mystnb={"figure": {"caption": "One feature vector of a good image, and its reconstruction."}, "image": {"alt": "Two jagged lines over the channels that lie almost on each other: a feature vector and its reconstruction."}}
F = np.array(F_train[:1])
F_hat = scoring.reconstruct(trained, F)
row, column = H // 2, W // 2
plotting.vector_comparison(
    F[0, :, row, column],
    F_hat[0, :, row, column],
    f"place ({row}, {column}) of the first training image",
)

# %%
run.finish()

# %% [markdown]
# ## Recap
#
# - The autoencoder squeezes each feature vector through a bottleneck and rebuilds it: $\hat F = D(E(F))$.
# - It is trained on good images only, to make $\lVert F - \hat F\rVert^2$ small.
# - Held-out good images tell when to stop.
#
# Next: the error of the reconstruction becomes a score, and the score a decision.
