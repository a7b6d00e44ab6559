"""What holds for any input, tried with inputs that hypothesis thinks up.

Each time the same ones, so that a failure is the fault of a change. `TEXAD_EXAMPLES=2000 pytest
tests/project/test_properties.py` tries so many, and others each time. Where a property fails,
hypothesis prints the smallest input that it found: make it an `example`, or a case of the module's
own tests.
"""

import io
import json
import math
import os
from fractions import Fraction
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from conftest import write_category
from helpers import naive_aupro
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from texad.batch import notebooks as jobs
from texad.data import datasets
from texad.errors import RunError
from texad.evaluation import pixel_metrics as pixel_metrics_module
from texad.evaluation.intervals import auroc_interval
from texad.evaluation.metrics import average_precision, decision_metrics, f1_max, image_auroc
from texad.evaluation.pixel_metrics import pixel_metrics
from texad.io import images as reading
from texad.io.json_files import read_json, write_json
from texad.model import preprocessing, registry, scoring
from texad.model.places import Grid, enlarge
from texad.model.preprocessing import Sight
from texad.model.threshold import (
    check_rule,
    conformal_threshold,
    images_needed,
    p_values,
    predict,
    sigma_threshold,
    thresholds_by_rule,
)
from texad.runs import parameters
from texad.runs.run_folder import STAGES, STUDIES, Run

EXAMPLES = int(os.environ.get("TEXAD_EXAMPLES", 0))
settings.register_profile(
    "texad",
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    deadline=None,  # a slow machine is no failure
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],  # each example writes its files anew
)
settings.load_profile("texad")

SIDES = st.integers(1, 12)


@st.composite
def levels(draw, dtype, largest, channels=0):
    """Pixels of any size; few numbers are 0, so that masks are neither empty nor full."""
    shape = (draw(SIDES), draw(SIDES), *([channels] if channels else []))
    return draw(hnp.arrays(dtype, shape, elements=st.one_of(st.just(0), st.integers(0, largest))))


# -- files of images -------------------------------------------------------------------------------


def written(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@st.composite
def lossless(draw):
    """The bytes of a file, and its pixels as RGB, worked out without the reader: (H, W, 3)."""
    mode = draw(st.sampled_from(["1", "L", "LA", "RGB", "RGBA", "P", "I;16", "I", "F"]))
    channels = {"LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 0)
    if mode in ("I;16", "I", "F"):
        deep = draw(levels(np.uint16, 65535))
        # half up or half to even is the same here: 257 is odd, so no level lies between two
        pixels = ((deep.astype(np.int64) * 2 + 257) // 514).astype(np.uint8)
        if mode == "F":
            pixels = draw(levels(np.uint8, 255))
            deep = pixels.astype(np.float32) / 255
        image = Image.fromarray(deep.astype(np.int32) if mode == "I" else deep)
        rgb = np.repeat(pixels[:, :, None], 3, axis=2)
    elif mode == "P":
        index = draw(levels(np.uint8, 7))
        colours = draw(hnp.arrays(np.uint8, (8, 3)))
        image = Image.fromarray(index)
        image.putpalette(colours.tobytes())
        rgb = colours[index]
    else:
        pixels = draw(levels(np.uint8, 255, channels))
        image = Image.fromarray(pixels > 99 if mode == "1" else pixels)
        pixels = np.where(pixels > 99, np.uint8(255), np.uint8(0)) if mode == "1" else pixels
        rgb = (
            np.repeat(pixels[..., None], 3, axis=2)
            if not channels
            else pixels[..., [0, 0, 0] if mode == "LA" else [0, 1, 2]]
        )
    assert image.mode == mode
    kinds = [
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
    ]
    kinds += [("PNG", {}), ("PNG", {"compress_level": 0})] if mode != "F" and mode != "I" else []
    kinds += [("BMP", {})] if mode in ("1", "L", "P", "RGB") else []
    kind, options = draw(st.sampled_from(kinds))
    return written(image, kind, **options), rgb


@given(lossless())
def test_every_file_without_loss_has_its_own_pixels(tmp_path, made):
    data, expected = made
    (tmp_path / "a").write_bytes(data)
    read = reading.read_image(tmp_path / "a")
    assert read.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(read), expected)
    np.testing.assert_array_equal(reading.read_pixels(tmp_path / "a"), expected)


@given(lossless())
def test_a_pixel_of_a_mask_is_defective_where_its_image_is_not_black(tmp_path, made):
    data, rgb = made
    (tmp_path / "a").write_bytes(data)
    mask = reading.read_mask(tmp_path / "a")
    with Image.open(io.BytesIO(data)) as image:
        black = (
            np.asarray(image) == 0 if image.mode.startswith(("I", "F")) else (rgb == 0).all(axis=2)
        )  # deep levels may round to 0
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, ~black)


@given(
    mode=st.sampled_from(["1", "L", "RGB", "CMYK", "YCbCr"]),
    width=SIDES,
    height=SIDES,
    quality=st.integers(1, 100),
    kind=st.sampled_from(["JPEG", "TIFF"]),
)
def test_every_file_is_read_in_its_own_size(tmp_path, mode, width, height, quality, kind):
    noise = np.random.default_rng(quality).integers(0, 256, (height, width, 3), dtype=np.uint8)
    options = {"quality": quality} if kind == "JPEG" else {}
    (tmp_path / "a").write_bytes(written(Image.fromarray(noise).convert(mode), kind, **options))
    assert reading.read_pixels(tmp_path / "a").shape == (height, width, 3)
    assert reading.read_mask(tmp_path / "a").shape == (height, width)


TURNS = {  # the EXIF orientation, and how the stored pixels become those to see
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: np.swapaxes(p, 0, 1),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(np.swapaxes(p, 0, 1), 2),
    8: lambda p: np.rot90(p),
}


@given(
    pixels=levels(np.uint8, 255, 3),
    orientation=st.integers(0, 9),
    kind=st.sampled_from(["PNG", "TIFF"]),
)
def test_an_image_is_turned_as_its_camera_was_and_its_mask_with_it(
    tmp_path, pixels, orientation, kind
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").write_bytes(written(Image.fromarray(pixels), kind, exif=exif))
    expected = TURNS.get(orientation, TURNS[1])(pixels)
    np.testing.assert_array_equal(reading.read_pixels(tmp_path / "a"), expected)
    np.testing.assert_array_equal(reading.read_mask(tmp_path / "a"), expected.any(axis=2))


# libpng names the chunk in its message, and the name is no text.
CHUNK_WITHOUT_A_NAME = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000007000000050800000000acf1a904"
    "470d0a1a0a0000000d4948445200000007000000051000000000fc617547000000"
    "564902da26c600b6bb29c149b2190111a511f3e465b5039a0013690f6c63cd0000000049454e44ae426082"
)


@st.composite
def damaged(draw):
    """A file that begins well: with bytes of it changed, cut out, or put in."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    data = bytearray(
        written(
            image.convert(draw(st.sampled_from(["RGB", "L", "1"]))),
            draw(st.sampled_from(["PNG", "JPEG", "TIFF", "BMP"])),
        )
    )
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 8))] = draw(st.binary(max_size=8))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it mends
@given(
    st.one_of(
        st.binary(max_size=200),
        damaged(),
        st.builds(
            bytes.__add__, st.just(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), st.binary(max_size=100)
        ),
    )
)
@example(CHUNK_WITHOUT_A_NAME)
@settings(max_examples=EXAMPLES or 200)
def test_any_bytes_are_an_image_or_an_error_of_one_line_that_names_the_file(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    shapes = []
    for read in (reading.read_pixels, reading.read_mask, reading.check_image):
        what = "mask" if read is reading.read_mask else "image"
        try:
            shapes.append(
                np.shape(read(tmp_path / "a.png"))[:2]
                if read is not reading.check_image
                else read(tmp_path / "a.png")
            )
        except ValueError as error:
            assert (
                str(error).startswith(f"{what} {tmp_path / 'a.png'} cannot be read (")
                and str(error).isprintable()
            )
            shapes.append(None)
    pixels, mask, checked = shapes
    assert mask in (None, pixels) or pixels is None  # levels that make no image may make a mask
    assert checked == pixels or pixels is None  # a file may have its checksums and no pixels


@given(hnp.arrays(bool, (16, 3, 16, 4)))
def test_a_place_of_a_smaller_mask_is_defective_if_any_of_its_pixels_is(tmp_path, blocks):
    Image.fromarray(blocks.reshape(48, 64)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        preprocessing.load_mask(tmp_path / "a.png", Sight(16)), blocks.any(axis=(1, 3))
    )


@given(levels(np.uint8, 255), st.sampled_from([16, 32, 48]))
def test_no_size_loses_a_defect_or_invents_one(tmp_path, pixels, size):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    mask = preprocessing.load_mask(tmp_path / "a.png", Sight(size))
    assert (
        mask.shape == (size, size)
        and mask.any() == (pixels > 0).any()
        and mask.all() >= (pixels > 0).all()
    )


# -- scores ----------------------------------------------------------------------------------------

NUMBER = st.floats(-1e6, 1e6, allow_subnormal=False)
SCORE = st.one_of(st.integers(0, 6).map(float), NUMBER)  # often tied
SCORES = st.lists(SCORE, min_size=1, max_size=40)
ALPHA = st.one_of(
    st.floats(0.001, 0.999),
    st.integers(2, 60).map(lambda m: 1 / m),
    st.sampled_from([0.01, 0.05, 0.1, 0.29, 0.57]),
)
ERRORS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=4, max_dims=4, max_side=4),
    elements=st.floats(0, 1e6, allow_subnormal=False),
)


@given(ERRORS, st.data())
def test_a_score_is_that_of_the_sorted_errors_wherever_they_lie_and_whichever_images_stand_beside(
    errors, data
):
    n, C, H, W = errors.shape
    reduction = data.draw(st.sampled_from(scoring.REDUCTIONS))
    many = C * H * W if reduction == "none" else H * W
    top_k = data.draw(st.integers(1, many))
    scores = scoring.image_score(errors, top_k, reduction)
    for image, score in zip(errors, scores, strict=True):
        values = sorted(
            (image if reduction == "none" else image.mean(axis=0)).ravel().tolist(), reverse=True
        )
        extra = math.fsum(values) / many if reduction == "local_and_global" else 0
        assert score == pytest.approx(math.fsum(values[:top_k]) / top_k + extra, rel=1e-9)
    order = data.draw(st.permutations(range(H * W)))
    moved = errors.reshape(n, C, H * W)[:, :, order].reshape(errors.shape)
    np.testing.assert_allclose(scoring.image_score(moved, top_k, reduction), scores, rtol=1e-9)
    np.testing.assert_array_equal(scoring.image_score(errors[-1:], top_k, reduction), scores[-1:])
    with pytest.raises(ValueError, match=f"at least 1 and at most {many}"):
        scoring.image_score(errors, many + 1, reduction)


@given(ERRORS, st.data())
def test_more_values_never_give_a_larger_score_and_larger_errors_never_a_smaller_one(errors, data):
    reduction = data.draw(st.sampled_from(scoring.REDUCTIONS))
    many = errors[0].size if reduction == "none" else errors[0, 0].size
    scores = [scoring.image_score(errors, k, reduction) for k in range(1, many + 1)]
    slack = 1e-9 * (1 + np.max(scores))
    assert all(
        (after <= before + slack).all() for before, after in zip(scores, scores[1:], strict=False)
    )
    grown = errors.copy()
    grown[0].flat[data.draw(st.integers(0, errors[0].size - 1))] += 1000
    assert scoring.image_score(grown, many, reduction)[0] > scores[-1][0] - slack
    np.testing.assert_allclose(
        scoring.image_score(4 * errors, 1, reduction), 4 * scores[0], rtol=1e-12
    )


@given(SCORES, st.floats(0, 10), st.floats(0.01, 100), NUMBER, st.randoms())
def test_the_threshold_follows_the_unit_of_the_scores_and_not_their_order(
    scores, n_sigma, unit, zero, random
):
    usual = sigma_threshold(np.array(scores), n_sigma)
    slack = 1e-9 * (1 + np.abs(scores).max() + abs(zero)) * (1 + n_sigma)
    assert usual >= np.mean(scores) - slack
    shuffled = random.sample(scores, len(scores))
    assert sigma_threshold(np.array(shuffled), n_sigma) == pytest.approx(usual, abs=slack)
    changed = unit * np.array(scores) + zero
    assert sigma_threshold(changed, n_sigma) == pytest.approx(
        unit * usual + zero, abs=slack * (1 + unit)
    )


@given(st.floats(0, 1e6, width=32), st.integers(1, 60))
def test_of_equal_training_scores_none_lies_above_their_threshold(score, n):
    """Their mean is rounded, and may be a little smaller than each; σ makes up for it."""
    scores = np.full(n, score, dtype=np.float32)
    assert not predict(scores, sigma_threshold(scores)).any()


@given(SCORES, ALPHA)
def test_of_all_orders_of_good_images_at_most_a_share_of_alpha_is_rejected(scores, false_alarms):
    """The promise itself, without chance: each image in turn is the new one."""
    n_rejected = 0
    for i, score in enumerate(scores):
        others = np.array(scores[:i] + scores[i + 1 :])
        (p,) = p_values(others, np.array([score]))
        assert p == float(Fraction(1 + sum(other >= score for other in others), len(scores)))
        n_rejected += p <= false_alarms
        if len(others) >= images_needed(false_alarms):
            assert (score > conformal_threshold(others, false_alarms)) == (p <= false_alarms)
        else:
            assert p > false_alarms
    assert n_rejected <= false_alarms * len(scores) * (1 + 1e-12)


@given(SCORES, SCORES)
def test_a_larger_score_never_has_a_larger_p_value_and_only_the_order_counts(calibration, scores):
    calibration, scores = np.array(calibration), np.sort(scores)
    p = p_values(calibration, scores)
    assert (np.diff(p) <= 0).all() and p.min() >= 1 / (len(calibration) + 1) and p.max() <= 1
    ranks = (
        np.unique(np.concatenate([calibration, scores]), return_inverse=True)[1].astype(float) ** 3
    )
    np.testing.assert_array_equal(p_values(ranks[: len(calibration)], ranks[len(calibration) :]), p)
    more = p_values(
        np.append(calibration, scores.max() + 1), scores
    )  # one more good image with a high score
    assert (more >= p).all()


@given(SCORES, st.lists(ALPHA, min_size=2, max_size=6))
def test_a_larger_false_alarm_rate_never_has_a_higher_threshold(calibration, alphas):
    possible = [
        false_alarms
        for false_alarms in sorted(alphas)
        if len(calibration) >= images_needed(false_alarms)
    ]
    found = [conformal_threshold(np.array(calibration), false_alarms) for false_alarms in possible]
    assert all(after <= before for before, after in zip(found, found[1:], strict=False)) and set(
        found
    ) <= set(calibration)


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
@example(5e-324)
@example(2.8e-291)
@example(8.460617862160206e-22)
@example(1 - 2**-53)
def test_the_images_that_an_alpha_needs_are_the_fewest_with_so_small_a_p_value(false_alarms):
    n = images_needed(false_alarms)
    assert n >= 1 and 1 / (n + 1) <= false_alarms
    if n < 2**50:  # beyond, neighbours have the same 1/n
        assert 1 / n > false_alarms


@given(st.data(), st.integers(1, 40), ALPHA)
def test_with_groups_a_score_is_above_the_threshold_exactly_when_its_p_value_is_small(
    data, n, false_alarms
):
    scores = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)), dtype=float)
    groups = data.draw(st.lists(st.sampled_from("abcdefghijklmnopqrst"), min_size=n, max_size=n))
    asked = np.arange(-1, 11) / 1.0
    p = p_values(scores, asked, groups)
    sizes = {group: groups.count(group) for group in groups}
    for s, found in zip(asked, p, strict=True):  # by hand: each group counts as one
        weight = sum(1 / sizes[g] for g, r in zip(groups, scores, strict=True) if r >= s)
        assert np.isclose(found, (1 + weight) / (len(sizes) + 1))
    if len(sizes) >= images_needed(false_alarms):
        line = conformal_threshold(scores, false_alarms, groups)
        assert ((asked > line) == (p <= false_alarms)).all()
    alone = [str(i) for i in range(n)]  # each image is a group of its own
    np.testing.assert_array_equal(p_values(scores, asked, alone), p_values(scores, asked))


@given(st.integers(0, 120), ALPHA, st.sampled_from(["published", "extended"]))
def test_the_rule_that_is_chosen_can_be_used_and_every_other_says_what_it_lacks(
    n, false_alarms, detector
):
    calibration = np.arange(float(n))
    found = thresholds_by_rule(np.array([1.0, 2.0]), calibration, false_alarms=false_alarms)
    assert found[registry.default_rule(detector, n, false_alarms)] is not None
    for rule, value in found.items():
        if value is None:
            with pytest.raises(ValueError, match=f"rule {rule} needs at least"):
                check_rule(rule, n, false_alarms)
        else:
            check_rule(rule, n, false_alarms)


# -- metrics ---------------------------------------------------------------------------------------


@st.composite
def judged(draw, least=1):
    """Labels with both kinds of images, and their scores."""
    n_normal, n_anomalous = draw(st.integers(least, 15)), draw(st.integers(least, 15))
    labels = np.array(draw(st.permutations([0] * n_normal + [1] * n_anomalous)))
    return labels, np.array(draw(st.lists(SCORE, min_size=len(labels), max_size=len(labels))))


def ranked(scores: np.ndarray) -> np.ndarray:
    """Other numbers in the same order."""
    return np.unique(scores, return_inverse=True)[1].astype(float) ** 3 - 7


ORDER_ONLY = [
    image_auroc,
    auroc_interval,
    average_precision,
]


@given(judged(), st.randoms())
@pytest.mark.parametrize("measure", ORDER_ONLY)
@settings(max_examples=EXAMPLES or 20)
def test_only_the_order_of_the_scores_counts_and_not_that_of_the_images(measure, made, random):
    labels, scores = made
    value = measure(labels, scores)
    assert measure(labels, ranked(scores)) == value
    order = random.sample(range(len(labels)), len(labels))
    assert measure(labels[order], scores[order]) == pytest.approx(value, abs=1e-12)


@given(judged())
def test_auroc_is_the_share_of_right_pairs_and_turns_with_the_scores_and_with_the_labels(made):
    labels, scores = made
    auroc = image_auroc(labels, scores)
    pairs = [(a > n) + 0.5 * (a == n) for a in scores[labels == 1] for n in scores[labels == 0]]
    assert auroc == pytest.approx(np.mean(pairs), abs=1e-12)
    assert image_auroc(labels, -scores) == pytest.approx(1 - auroc, abs=1e-12)
    assert image_auroc(1 - labels, scores) == pytest.approx(1 - auroc, abs=1e-12)
    assert average_precision(labels, scores) >= labels.mean() * (auroc == 1) and (
        auroc < 1 or f1_max(labels, scores)[0] == 1
    )


@given(judged(), st.floats(0.01, 0.98))
def test_an_interval_holds_its_estimate_and_grows_with_the_confidence(made, confidence):
    labels, scores = made
    auroc = image_auroc(labels, scores)
    low, high = auroc_interval(labels, scores, confidence)
    assert 0 <= low <= auroc + 1e-9 and auroc - 1e-9 <= high <= 1 and low < high
    wider = auroc_interval(labels, scores, confidence + 0.01)
    assert wider[0] <= low + 1e-12 and wider[1] >= high - 1e-12
    turned = auroc_interval(labels, -scores, confidence)
    assert turned == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(judged(), SCORE)
def test_no_threshold_has_a_larger_f1_than_the_largest(made, other):
    labels, scores = made
    best, threshold = f1_max(labels, scores)

    def f1(t):
        predicted = predict(scores, t)
        return 2 * (predicted & (labels == 1)).sum() / (predicted.sum() + labels.sum())

    assert f1(threshold) == pytest.approx(best, abs=1e-12) and f1(other) <= best + 1e-12
    assert all(
        f1(t) < best - 1e-12 for t in scores[scores > threshold]
    )  # of equally good ones it is the highest


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_decisions_are_counted_as_one_counts_them(pairs):
    labels, predictions = np.array(pairs).T
    found = decision_metrics(labels, predictions)
    tn, fp, fn, tp = (
        pairs.count(pair) for pair in ((False, False), (False, True), (True, False), (True, True))
    )
    assert found["confusion"] == {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
    assert found["accuracy"] == pytest.approx((tn + tp) / len(pairs))
    assert found["precision"] == pytest.approx(tp / (tp + fp) if tp + fp else 0)
    assert found["recall"] == pytest.approx(tp / (tp + fn) if tp + fn else 0)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0)
    assert found["miss_rate"] == (fn / (fn + tp) if fn + tp else None)
    assert found["false_alarm_rate"] == (fp / (fp + tn) if fp + tn else None)


@st.composite
def outlined(draw):
    """Masks and maps of images of different sizes; whole numbers are counted exactly."""
    masks, maps = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
        masks.append(draw(hnp.arrays(bool, shape)))
        maps.append(draw(hnp.arrays(np.float32, shape, elements=st.integers(-3, 6))))
    assume(0 < sum(mask.sum() for mask in masks) < sum(mask.size for mask in masks))
    return masks, maps


@given(outlined(), st.sampled_from([0.05, 0.3, 1]))
def test_pixel_metrics_are_the_naive_ones_and_know_no_order_side_or_unit(made, max_fpr):
    masks, maps = made
    with mock.patch.object(
        pixel_metrics_module, "N_BINS", 2**16
    ):  # exact for whole numbers up to 256, and much faster
        found = pixel_metrics(masks, maps, max_fpr)
        assert found["aupro"] == pytest.approx(naive_aupro(masks, maps, max_fpr), abs=1e-9)
        labels, scores = (
            np.concatenate([array.ravel() for array in arrays]) for arrays in (masks, maps)
        )
        assert found["pixel_auroc"] == pytest.approx(image_auroc(labels, scores), abs=1e-9)
        for same_masks, same_maps in (
            (masks[::-1], maps[::-1]),
            ([mask.T for mask in masks], [values.T for values in maps]),
            ([mask[::-1] for mask in masks], [values[::-1] for values in maps]),
            (masks, [values * np.float32(8) for values in maps]),
            (masks, [values + np.float32(100) for values in maps]),
            (masks * 2, maps * 2),  # every image twice
        ):
            assert pixel_metrics(same_masks, same_maps, max_fpr) == pytest.approx(found, abs=1e-9)


@given(
    hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-1e3, 1e3, width=32)),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_stretched_map_keeps_between_its_extremes_and_turns_with_its_map(maps, height, width):
    middle = Grid(16, (7.5, 7.5))
    large = enlarge(maps, middle, (48, 64), (height, width))
    assert large.shape == (2, height, width)
    slack = 1e-5 * (1 + np.abs(maps).max())
    for small, big in zip(maps, large, strict=True):
        assert small.min() - slack <= big.min() and big.max() <= small.max() + slack
    turned = enlarge(maps[:, ::-1], middle, (48, 64), (height, width))
    np.testing.assert_allclose(turned, large[:, ::-1], atol=slack)


# -- run folder ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steel_run(tmp_path_factory):
    """A run folder whose stages are all finished, its data, and its run.json."""
    folder = tmp_path_factory.mktemp("properties")
    write_category(folder / "surfaces" / "steel", n_train=2, n_good=1, n_defective=1, size=48)
    run = Run(folder / "surfaces", "steel", folder / "runs")
    data = datasets.load_category(folder / "surfaces", "steel")
    run.write_images(data)
    run.write(weights={"name": "random", "sha256": "0" * 64}, threshold=0.5)
    for stage in STAGES:
        run.start(stage, seed=0).finish()
    content = run.read()
    for stage in STAGES:
        content["stages"][stage] |= {"code": jobs.code_fingerprint(stage)}
    return run, data, content


@pytest.fixture
def steel(steel_run):
    """The same, whatever the test before has left in run.json."""
    run, _, content = steel_run
    write_json(run.folder / "run.json", content)
    return steel_run


# What may be the name of a file on Linux, once it is text
NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
NASTY = st.sampled_from(
    [
        "NA",
        "nan",
        "null",
        "",
        "None",
        "1",
        "1e5",
        "007",
        "True",
        "a,b",
        'say "x"',
        "a\nb",
        "a\rb",
        "a\r\nb",
        "=1+1",
        "-x",
        "@a",
        "'=1",
        "ü",
        " a ",
        "#",
    ]
)


@given(
    st.lists(
        st.tuples(NAME | NASTY, NAME | NASTY, NASTY, st.integers(0, 1), SCORE),
        min_size=1,
        max_size=5,
    )
)
@example([("\r", "\r", "a\rb", 0, 0.0)])
@example([("=1+1", "'=1+1", "'", 0, 0.0)])
def test_tables_come_back_whatever_the_images_are_called(steel, rows):
    run, _, _ = steel
    table = pd.DataFrame(rows, columns=["path", "defect", "mask", "label", "score"])
    run.write_table("table.csv", table)
    pd.testing.assert_frame_equal(run.read_table("table.csv"), table, check_dtype=False, rtol=1e-15)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=4, max_side=4)))
def test_arrays_come_back_bit_by_bit(steel, array):
    run, _, _ = steel
    run.write_array("maps/some.npy", array)
    assert np.asarray(run.read_array("maps/some.npy")).tobytes() == array.tobytes()


TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_json_comes_back(tmp_path, content):
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content


NO_RECORDS = [
    b"",
    b"{",
    b"\xff{}",
    b"[" * 100_000,
    b"1" * 5000,
    b'{"a": NaN}',
    b'{"a": Infinity}',
    b"\xef\xbb\xbf{}",
    b"[]",
    b"7",
    b"null",
    b'"text"',
    b'{"stages": "all"}',
]


@given(st.binary(max_size=60) | st.sampled_from(NO_RECORDS))
def test_any_bytes_are_json_or_one_error_that_names_the_file(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    try:
        read_json(tmp_path / "a.json")
    except RunError as error:
        assert str(tmp_path / "a.json") in str(error) and str(error).isprintable()


def changed(content, path, new):
    """A copy of a record in which what stands at a path is another value; `...` leaves it out."""
    if not path:
        return new
    copy = dict(content)
    if new is ... and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(content[path[0]], path[1:], new)
    return copy


@st.composite
def records(draw, good: dict):
    """run.json with one thing wrong: any value, or none, in the place of one of its parts."""
    path = []
    while isinstance(good, dict) and good and (not path or draw(st.integers(0, 2))):
        path.append(draw(st.sampled_from(sorted(good))))
        good = good[path[-1]]
    return path, draw(
        st.just(...) | JSON | st.sampled_from([float("nan"), "\ud800", [], {}, "", -1])
    )


def uses(run: Run, data: datasets.Category) -> dict:
    """What reads run.json."""
    fingerprint = datasets.fingerprint(data)
    return {
        "read": run.read,
        "shown": lambda: [repr(run), run._repr_html_()],
        "finished": lambda: [run.is_finished(STAGES[4]), run.finished()],
        "paths": lambda: [run.data_path("a.png"), run.data_paths(["a.png"])],
        "parameter": lambda: run.parameter("seed"),
        "current": lambda: jobs.is_current(run, STAGES[4], {"seed": 0}, data, fingerprint),
        "current study": lambda: jobs.is_current(run, STUDIES[0], {}, data, fingerprint),
        "stage again": lambda: run.start(STAGES[2], seed=0, weights="random").finish(),
        "written": lambda: run.write(threshold=1.0),
    }


def survives(run: Run, data: datasets.Category, content: bytes) -> None:
    for use in uses(run, data).values():
        (run.folder / "run.json").write_bytes(content)
        try:
            use()
        except RunError as error:
            assert str(error).isprintable()


@pytest.mark.slow
@given(st.data())
@settings(max_examples=EXAMPLES or 100)
def test_a_run_json_with_one_thing_wrong_works_or_is_one_error(steel, data):
    run, category, good = steel
    path, new = data.draw(records(good))
    survives(run, category, json.dumps(changed(good, path, new)).encode())


@pytest.mark.parametrize("content", NO_RECORDS, ids=range(len(NO_RECORDS)))
def test_a_file_that_is_no_record_works_or_is_one_error(steel, content):
    run, category, _ = steel
    survives(run, category, content)


# -- parameters ------------------------------------------------------------------------------------

KNOWN = {
    name: value
    for stage in STAGES + STUDIES
    for name, value in parameters.defaults(stage).items()
    if name not in parameters.COMMON
}


@given(
    st.sampled_from(sorted(KNOWN)),
    st.text(max_size=12)
    | st.sampled_from(
        ["", "nan", "inf", "-inf", "1e999", "1_0", "٣", "0x10", "9" * 5000, "true", "None", "a,b"]
    ),
)
@settings(max_examples=EXAMPLES or 150)
def test_any_text_for_a_parameter_has_its_type_or_is_an_error_that_names_it(name, text):
    try:
        values = parameters.parse_values({name: text})[name]
    except ValueError as error:
        assert f"parameter {name} " in str(error) and str(error).isprintable()
    else:
        assert {type(value) for value in values} == {type(KNOWN[name])}


@given(st.text(max_size=12))
@example("a\nb")
@example("\x1b[31m")
def test_a_parameter_that_no_notebook_has_is_refused_by_name_in_one_line(name):
    assume(name not in KNOWN)
    with pytest.raises(ValueError, match="parameter") as caught:
        parameters.parse_values({name: "1"})
    assert str(caught.value).isprintable() and (name in str(caught.value) or not name.isprintable())


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.sampled_from(["steps", "hidden"]))
def test_several_values_come_each_once_in_the_order_given(values, name):
    typed = {name: ", ".join(map(str, map(abs, values)))}
    assume(all(values))
    assert parameters.parse_values(typed) == {name: list(dict.fromkeys(map(abs, values)))}
