"""Make demo posts, texts with pictures, with a known best possible accuracy for each set of inputs.

paddle-ranker make-demo-posts --output posts
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.options import Options, main_of, option
from paddle_ranker.storage.atomic import made_once


@dataclass(frozen=True)
class MakeDemoPostsOptions(Options):
    output_dir: str = option(
        help="new folder for train.csv, validation.csv, test.csv, images/, truth.json", name="output"
    )
    size: int = option(3000, help="number of training pairs; validation has a fifth, test half as many", minimum=10)
    seed: int = option(7, help="random seed; the same seed gives the same posts", minimum=0)
    if_missing: bool = option(False, help="do nothing if the folder exists")


def make(options: MakeDemoPostsOptions) -> None:
    """Make the posts; print the best possible accuracy of each subset of the inputs."""
    from multimodal_entailment.demo_posts import make_demo_posts

    folder = Path(options.output_dir)
    with contextlib.ExitStack() as alone:
        if options.if_missing and not _is_made(folder):
            # Scripts that start at the same time may want the posts at the same time.
            alone.enter_context(made_once(folder))
        if options.if_missing and _is_made(folder):
            print(f"{folder}: the demo posts are there")
            return
        truth = make_demo_posts(folder, options.size, options.seed)
    pairs = ", ".join(f"{part} {count:,}" for part, count in truth["pairs"].items())
    shares = ", ".join(f"{label} {share:.1%}" for label, share in truth["class_shares"].items())
    print(f"{folder}: pairs: {pairs}; seed {options.seed}; labels: {shares}")
    print(f"{'inputs':36}{'best accuracy':>14}{'on this test':>14}")
    for name, best in truth["best_accuracy"].items():
        print(f"{name:36}{best['accuracy']:>13.1%} {truth['best_guesses_on_test'][name]:>13.1%}")


def _is_made(folder: Path) -> bool:
    return (folder / "truth.json").is_file()


main = main_of(make, MakeDemoPostsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
