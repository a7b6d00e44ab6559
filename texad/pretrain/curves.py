"""A picture of how a training goes: its loss, and its rehearsals."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from texad.files import replacing
from texad.pretrain.lessons import DEFECTS

PICTURE = "training.svg"


def draw(folder: Path, log: pd.DataFrame) -> None:
    """Draw the curves of a training into its folder.

    Parameters
    ----------
    folder : Path
    log : DataFrame
        What `training.train` returns.
    """
    rehearsed = log.dropna(subset="all")
    figure, (above, below) = plt.subplots(2, 1, figsize=(8, 7), sharex=True, layout="constrained")
    above.plot(log["step"], log["loss"], color="0.8", linewidth=0.7)
    above.plot(log["step"], log["loss"].rolling(50, min_periods=1).mean())
    above.set_ylabel("loss, and its mean over 50 steps")
    for name in DEFECTS:
        below.plot(rehearsed["step"], rehearsed[name], linewidth=1, label=name)
    below.plot(rehearsed["step"], rehearsed["all"], color="black", linewidth=2.5, marker="o", label="all")
    below.set(xlabel="step", ylabel="AUROC in the rehearsal")
    below.legend(ncols=4, fontsize="small")
    with replacing(folder / PICTURE) as temporary:
        figure.savefig(temporary, format="svg")
    plt.close(figure)
