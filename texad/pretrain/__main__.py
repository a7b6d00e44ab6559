"""`python -m texad.pretrain FOLDER`: train weights on drawn textures alone, or go on with a training."""

import argparse
import sys
from pathlib import Path

from texad.pretrain.training import Settings, train


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    usual = Settings()
    top = argparse.ArgumentParser("python -m texad.pretrain", description=__doc__, allow_abbrev=False)
    top.add_argument("folder", type=Path, metavar="FOLDER", help="for the checkpoint, the log and its picture, and the weights; a training in it goes on")
    top.add_argument("--steps", type=int, default=usual.steps, metavar="N", help=f"of the whole training (default: {usual.steps})")
    top.add_argument("--until", type=int, default=None, metavar="N", help="stop after this step; the same command goes on")
    top.add_argument("--surfaces", type=int, default=usual.surfaces, metavar="N", help=f"new textures in a step (default: {usual.surfaces})")
    top.add_argument("--views", type=int, default=usual.views, metavar="N", help=f"drawings of each, an even number (default: {usual.views})")
    sizes = ",".join(f"{size}:{until:g}" for size, until in usual.sizes)
    top.add_argument("--sizes", type=_sizes, default=usual.sizes, metavar="S:P,…", help=f"pixels, and up to which part of the training (default: {sizes})")
    top.add_argument("--learning-rate", type=float, default=usual.learning_rate, metavar="R", help=f"(default: {usual.learning_rate})")
    top.add_argument("--rehearse-every", type=int, default=usual.rehearse_every, metavar="N", help=f"steps (default: {usual.rehearse_every})")
    top.add_argument("--seed", type=int, default=usual.seed, metavar="S", help=f"(default: {usual.seed})")
    given = vars(top.parse_args(arguments))
    folder, until = given.pop("folder"), given.pop("until")
    try:
        train(folder, Settings(**given), until, progress=True)
    except (ValueError, OSError) as error:
        print(f"texad.pretrain: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("texad.pretrain: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


def _sizes(text: str) -> tuple[tuple[int, float], ...]:
    try:
        return tuple((int(size), float(part)) for size, part in (pair.split(":") for pair in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"pairs of a size and a part with commas between, such as 64:0.5,96:1, not {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
