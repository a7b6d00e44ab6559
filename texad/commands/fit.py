"""`texad fit`: learn from a folder of good images; write a detector and a page about it."""

import math
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from texad.commands import files, messages
from texad.commands import report as pages
from texad.data import groups as find_groups
from texad.data.inputs import GoodImages, good_images
from texad.detector import AnomalyDetector
from texad.errors import check_range
from texad.evaluation import outliers
from texad.io.atomic import write_text
from texad.io.images import WHITE, find_white
from texad.model.weights import RandomWeightsWarning

# Pixels of the network's input. A round spot of 12 pixels, darker by 45%, on good images that were
# not learnt from was told from none with an AUROC of 0.99 or more on each of 9 surfaces; one darker
# by 20% with 0.75 or more, and with 0.90 or more if it had 16 pixels.
SMALLEST_DEFECT = 12


def fit(
    folder: str,
    out: str,
    *,
    weights: str = "auto",
    detector: str = "published",
    false_alarms: float = 0.05,
    calibration_fraction: float | None = None,
    image_size: int | None = None,
    white: int | None = None,
    region: str | None = None,
    groups: str = "",
    unreadable_limit: float = 0.05,
    drop: int = 0,
    seed: int = 0,
    report: str | None = None,
    progress: bool = True,
) -> int:
    """Learn from a folder of good images; write the detector and a page about it.

    Parameters
    ----------
    folder, unreadable_limit
        As in `texad.data.inputs.good_images`.
    out : str
        The file to write.
    weights, detector, false_alarms, calibration_fraction, image_size, white, region, seed, progress
        As `AnomalyDetector` takes them.
    groups : str, default ""
        Where groups come from, see `texad.data.groups.groups`; paths start in `folder`.
    drop : int, default 0
        So many images are left out, the strangest to models that have not seen them.
    report : str, optional
        Where the page goes; by default beside the detector, with its name.

    Returns
    -------
    int
        The exit status.

    Raises
    ------
    ValueError, OSError
        An option is out of range, a file cannot be written, the folder is none of good images, or
        an image has no group; in one line.
    """
    made = AnomalyDetector(
        detector,
        weights=weights,
        image_size=image_size,
        white=white,
        region=region,
        calibration_fraction=calibration_fraction,
        false_alarms=false_alarms,
        seed=seed,
        progress=progress,
    )
    made.check_parameters()
    file, page = _targets(out, report)
    good = good_images(folder, "train", unreadable_limit, progress)
    most = len(good.paths) // 2
    check_range("--drop", drop, at_least=0, at_most=most, hint="half of the good images")
    top = Path(folder).expanduser()
    group_of = find_groups.groups(good.paths, top, groups)
    notes = messages.words("images", good=good, seen=())
    made.white = white or find_white(good.paths)
    notes += _sight(made, good.sizes)
    if group_of:
        values = {"n": len({*group_of}), "source": find_groups.source(top, groups)}
        notes += messages.words("groups", **values)
    messages.say(*notes, to=sys.stderr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)  # it is said below, in full
        order, dropped = _strangest_first(made, good, group_of) if drop else ([], [])
        kept = sorted(order[drop:]) or range(len(good.paths))
        made.fit([good.paths[i] for i in kept], groups=group_of and [group_of[i] for i in kept])
    hashes = {str(path): digest for digest, path in good.images.items()}
    made.origin_["images"] = {
        part: [hashes[path] for path in paths] for part, paths in made.paths_.items()
    }
    strangest = pages.strangest(made, good.root)
    apart = [
        Path(made.paths_[part][i]).relative_to(good.root)
        for part in strangest
        for i in outliers.apart(getattr(made, f"{part}_scores_"))
    ]
    made.save(file)
    copies = []
    if (found := made.near_copies_) and found.many:
        pairs = [[Path(path).relative_to(good.root) for path in pair] for pair in found.pairs]
        copies = messages.words("near_copies", found=found, pairs=pairs)
    strange = []
    if drop:
        strangest["dropped"] = dropped[:drop]
        names = [good.paths[i].relative_to(good.root) for i in order[:drop]]
        strange = messages.words("dropped", detector=made, names=names, n=len(good.paths))
    write_text(page, pages.fit_page(made, file.name, notes, strangest, copies, strange))
    messages.warn_of_random_weights(made)
    values = {"copies": copies, "dropped": strange, "apart": apart, "file": file, "page": page}
    messages.say(*messages.words("fit", detector=made, **values))
    return 0


def _strangest_first(
    made: AnomalyDetector, good: GoodImages, groups: Sequence[str] | None
) -> tuple[list[int], list[dict[str, Any]]]:
    """Number the good images, the strangest to models that have not seen them first."""
    judge = clone(made).set_params(calibration_fraction=None).fit(good.paths, groups=groups)
    order = np.argsort(-judge.calibration_scores_, kind="stable").tolist()
    return order, pages.strangest(judge, good.root)["calibration"]


def _sight(made: AnomalyDetector, sizes: Collection[tuple[int, int]]) -> list[str]:
    """Say where defects can be found, how small in the images that shrink most; what is white."""
    sight = made.check_parameters()

    def shrinks(size: tuple[int, int]) -> float:
        return max(side / seen for side, seen in zip(size, sight.shape(*size), strict=True))

    height, width = largest = max(sizes, key=shrinks)
    seen = sight.shape(height, width)
    inside = sight.inside(Path(), seen)[0] if isinstance(sight.region, bytes) else None
    return messages.words(
        "sight",
        region=made.region,
        share=None if inside is None else inside.mean(),
        various=len(sizes) > 1,
        height=height,
        width=width,
        size=sight.size,
        seen=seen,
        smallest=math.ceil(SMALLEST_DEFECT * shrinks(largest)),
        most=SMALLEST_DEFECT,
        white=sight.white if sight.white < WHITE else None,
    )


def _targets(out: str, report: str | None) -> tuple[Path, Path]:
    """Where the detector and its page go."""
    file = Path(out).expanduser()
    page = Path(report or f"{str(file).removesuffix('.safetensors')}.html").expanduser()
    if page == file:
        raise ValueError(
            f"the detector and its report cannot both be {file}: choose another --out, for "
            "instance steel.safetensors"
        )
    files.check_target(file)
    files.check_writable(page)
    return file, page
