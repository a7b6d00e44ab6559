"""From photographs on disk to stored features, against the forward pass alone on images that are in
memory already.

1 would mean that reading, decoding, resizing and storing cost nothing, because they are done while
the network works. The files lie in the system's cache after the first round, as they do on a
machine that has just received them.
"""

from functools import partial

from benchmarks import material
from benchmarks.material import Options, texad_forward
from benchmarks.measure import Row, median, seconds_in_turn, spread
from texad.model import extraction, preprocessing
from texad.model.base import device
from texad.model.preprocessing import Sight

BAR = 0.80


def run(options: Options) -> list[Row]:
    paths = material.photographs(options)
    fast, _ = material.networks(options, paths)
    images = preprocessing.load_images(paths, Sight(options.image_size)).to(device())

    with material.folder(options) as folder:
        file = folder / "features.npy"

        def from_disk():
            file.unlink(missing_ok=True)
            extraction.extract(fast, paths, file, sight=Sight(options.image_size), progress=False)

        seconds = seconds_in_turn(
            {"forward": partial(texad_forward, fast, images), "end to end": from_disk},
            options.repeats,
            "end to end",
        )
    speed = {name: len(paths) / values for name, values in seconds.items()}
    details = {
        "images_per_second": {name: spread(values) for name, values in speed.items()},
        "images": len(paths),
        "file_mb": round(sum(path.stat().st_size for path in paths) / len(paths) / 1e6, 2),
    }
    return [
        Row(
            "end_to_end",
            "from PNG files to stored features",
            median(speed["end to end"]),
            "images/s",
            details=details,
        ),
        Row(
            "end_to_end",
            "from PNG files / forward alone",
            median(speed["end to end"] / speed["forward"]),
            at_least=BAR,
        ),
    ]
