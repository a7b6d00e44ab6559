import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from texad.commands import report
from texad.commands.messages import words
from texad.detector import AnomalyDetector
from texad.evaluation import drift
from texad.figures import svg
from texad.model.preprocessing import Sight

HISTORY = pd.DataFrame(
    {
        "step": [100, 200, 300],
        "train_loss": [100.0, 10.0, 1.0],
        "validation_loss": [90.0, 12.0, 2.0],
    }
)
HOSTILE = "</style><script>alert(1)</script>\x1b[31m\udcff.png"


def fitted(n_train=300, n=100, false_alarms=0.01, weights="imagenet", seed=0) -> AnomalyDetector:
    """A detector with made-up scores, and no network in it."""
    rng = np.random.default_rng(seed)
    detector = AnomalyDetector(false_alarms=false_alarms, calibration_fraction=0.2)
    detector.autoencoder_ = None
    detector.train_scores_ = rng.lognormal(3, 0.2, n_train).astype(np.float32)
    detector.origin_ = {
        "weights": {"name": weights, "sha256": "0" * 64},
        "n_train": n_train,
        "versions": {"texad": "1"},
    }
    detector.history_ = HISTORY
    detector.sight_ = Sight()
    return detector.calibrate_with(rng.lognormal(3, 0.2, n))


def html_of(detector, name="steel.safetensors", images=()) -> str:
    strangest = {"calibration": list(images), "train": []}
    return report.fit_page(detector, name, ["300 images"], strangest)


def strange(name, score=30.0, size=(9, 9), stands_apart=False) -> dict:
    picture = Image.new("RGB", size)
    images = {"picture": picture, "covered": picture}
    return {"name": name, "score": score, **images, "stands_apart": stands_apart}


# -- promises --------------------------------------------------------------------------------------


def test_with_images_enough_the_rate_is_promised_and_the_smallest_is_told():
    said = " ".join(words("promise", detector=fitted(n=199, false_alarms=0.05)))
    assert (
        "Promised: a good image, made as these were, is called anomalous" in said
        and "with a probability of at most 5%" in said
    )
    assert (
        "The smallest false-alarm rate that can be asked for with 199 images to calibrate with "
        "is 0.5% (1 in 200)" in said
    )
    assert "score of the strangest image" not in said
    low, high = (f"{100 * rate:.3g}%" for rate in drift.rate_interval(199, 0.05))
    assert f"between {low} and {high}" in said


def test_a_threshold_that_hangs_on_one_image_is_said_to():
    assert "The threshold is the score of the strangest image" in " ".join(
        words("promise", detector=fitted(n=100))
    )


@pytest.mark.parametrize(
    "n, rule, instead",
    [
        (98, "held_out", "--false-alarms 0.011"),
        (5, "held_out", "--false-alarms 0.167"),
        (1, "sigma", "or more."),
    ],
)
def test_with_too_few_nothing_is_promised_and_the_way_out_is_told(n, rule, instead):
    detector = fitted(n=n)
    said = " ".join(words("promise", detector=detector))
    assert detector.rule_ == rule and said.startswith(
        "NO false-alarm rate is promised. For 1% at least 99 images must be kept out"
    )
    assert "fit with 198 good images or more" in said and instead in said
    if match := re.search(r"--false-alarms (\S+)", said):  # the advice is good
        detector.false_alarms = float(match[1])
        assert detector.calibrate_with(detector.calibration_scores_).rule_ == "conformal"


def test_a_detector_of_few_images_says_that_it_is_for_trying():
    assert "It has learnt from 3 images only" in " ".join(
        words("promise", detector=fitted(n_train=3))
    )
    assert "It has learnt from" not in " ".join(words("promise", detector=fitted(n_train=20)))


# -- drawings --------------------------------------------------------------------------------------


def bars(drawing: str) -> dict[str, float]:
    """Total height of the bars of each colour."""
    found = re.findall(r'height="([\d.]+)" style="fill: var\((--\w+)\)"', drawing)
    return {
        color: sum(float(height) for height, each in found if each == color)
        for color in ("--normal", "--anomalous")
    }


@pytest.mark.parametrize(
    "scores, threshold",
    [([1, 2, 3, 10], 3), ([1, 1, 1, 1.5], 1), ([5, 5, 5, 500], 5), ([-3, -2, -1, 4], -1)],
)
def test_what_is_not_above_the_threshold_is_drawn_as_normal(scores, threshold):
    edges, _ = svg.bin_edges({"all": np.array(scores)}, threshold)
    counts = np.histogram(scores, edges)[0]
    above = edges[:-1] > threshold
    assert np.all(np.diff(edges) > 0) and counts.sum() == 4 and counts[above].sum() == 1
    drawn = bars(svg.histograms({"all": np.array(scores)}, threshold))
    assert drawn["--normal"] > drawn["--anomalous"] > 0


@pytest.mark.parametrize("scores", [[1.0], [2.0, 2.0], [0.0], [1e-9, 1e9]])
def test_any_scores_can_be_drawn(scores):
    drawing = svg.histograms({"<few>": np.array(scores)}, 2.0)
    assert "&lt;few&gt;" in drawing and not re.search("<few>|nan|inf", drawing)
    assert "threshold" in svg.text_histograms({"few": np.array(scores)}, 2.0)


def test_the_terminal_has_a_line_at_the_threshold_and_bars_on_both_sides():
    text = svg.text_histograms(
        {"old": np.array([1.0, 2, 2, 3]), "new": np.array([2.0, 9])}, 5, bar="#"
    )
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if "threshold" in line)
    assert lines[0].split() == ["old", "(4)", "new", "(2)"]
    assert (
        any("#" in line for line in lines[1:at])
        and any("#" in line for line in lines[at:])
        and text.isascii()
    )


def test_losses_are_drawn_logarithmically():
    drawing = svg.losses(HISTORY)
    heights = [
        float(point.split(",")[1]) for point in re.findall(r'points="([^"]+)"', drawing)[0].split()
    ]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_the_losses_of_one_look_can_be_drawn():
    assert "nan" not in svg.losses(HISTORY[:1])


def test_where_no_image_was_held_out_the_training_loss_is_drawn_alone():
    alone = svg.losses(HISTORY.assign(validation_loss=np.nan))
    assert svg.losses(HISTORY).count("<polyline") == 2 and alone.count("<polyline") == 1
    assert "alidation" not in alone and "nan" not in alone


# -- pages -----------------------------------------------------------------------------------------


def test_a_page_is_one_file_without_script_and_network():
    page = html_of(fitted(), images=[strange("a.png")])
    assert (
        "<script" not in page
        and "http" not in page
        and "@import" not in page
        and "url(" not in page
    )
    assert re.findall(r'src="(.{22})', page) == ["data:image/jpeg;base64"] * 2
    assert "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_names_cannot_change_the_page():
    page = html_of(fitted(), name=HOSTILE, images=[strange(HOSTILE)])
    found = drift.compare(np.arange(9.0), np.arange(9.0), 5, None)
    page += report.check_page(found, {HOSTILE: np.arange(9.0)}, 5.0, HOSTILE, HOSTILE, [HOSTILE])
    assert "<script" not in page and "\x1b" not in page and page.count("</style>") == 2
    assert page.encode()


def test_images_above_the_threshold_and_apart_from_the_others_are_marked():
    images = [strange("worst.png", 1e6, stands_apart=True), strange("usual.png", 1.0)]
    page = html_of(fitted(), images=images)
    worst, usual = page.split('alt="usual.png"')
    assert "above the threshold" in worst and "stands apart from the others" in worst
    assert "above the threshold" not in usual and "stands apart" not in usual


def test_random_weights_are_a_warning_on_the_page():
    assert "RANDOM WEIGHTS" in html_of(
        fitted(weights="random")
    ) and "RANDOM WEIGHTS" not in html_of(fitted())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_screen_and_can_be_read_in_the_dark(browser, tmp_path, width, scheme):
    file = tmp_path / "page.html"
    file.write_text(
        html_of(
            fitted(weights="random"),
            name="a" * 90,
            images=[strange("b" * 90 + ".png", 1e6, (320, 40))] * 3,
        ),
        encoding="utf-8",
    )
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    color = "getComputedStyle(document.body)"
    text, paper = (
        sum(map(int, re.findall(r"\d+", page.evaluate(f"{color}.{name}"))[:3]))
        for name in ("color", "backgroundColor")
    )
    assert (text > paper) == (scheme == "dark") and abs(text - paper) > 500
    letters = "[...document.querySelectorAll('svg text')]"
    size = page.evaluate(f"{letters}.map(text => text.getBoundingClientRect().height)")
    assert min(size) >= 11  # pixels
    context.close()
