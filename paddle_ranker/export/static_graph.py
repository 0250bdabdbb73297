"""Write a ranker as a static model, and see that it is the ranker: `python -m paddle_ranker export`.

The graph takes `input_ids` and `token_type_ids`, int64 `[batch, length]`, both dimensions free, and makes the mask,
the match levels and the lexical features itself. It returns `predict`, the probability `[batch, 1]`, calibrated where
the ranker is, and `logit` `[batch, 1]`, not calibrated. An export ends with scoring pairs by the network and by Paddle
Inference from the written files, and leaves nothing behind where they differ.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn
from paddle.static import InputSpec

from paddle_ranker.errors import RankerError
from paddle_ranker.export.parity import Parity, checks_of, compare, network_outputs, parity_batches
from paddle_ranker.export.static_model import StaticModel
from paddle_ranker.export.static_outputs import name_outputs
from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.config import write_config
from paddle_ranker.model.exported import FORMATS, INPUTS, OUTPUTS, ExportedFolder, prefix_of
from paddle_ranker.model.folder import RankerParts
from paddle_ranker.model.info import INFO_FILE, RankerInfo
from paddle_ranker.model.network import RankerNetwork
from paddle_ranker.storage.atomic import UNFINISHED, make_folder, new_folder, remove_unfinished


class ScoringNetwork(nn.Layer):
    """What is exported: a network whose logit becomes a probability, calibrated where the ranker is."""

    def __init__(self, network: RankerNetwork, calibration: Optional[Calibration]):
        super().__init__()
        self.network = network
        self.scale, self.shift = (1.0, 0.0) if calibration is None else (calibration.scale, calibration.shift)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities and the logits, `[batch, 1]` float32 each, of `[batch, length]` int64 inputs."""
        logit = self.network(input_ids, token_type_ids).unsqueeze(-1)
        return F.sigmoid(logit * self.scale + self.shift), logit


def export_ranker(
    parts: RankerParts, output: Path, prefix: Optional[str] = None, *, onnx: bool = False
) -> tuple[ExportedFolder, dict[str, Parity]]:
    """Write a ranker's static model into the folder `output`, which appears whole or not at all.

    Args:
        parts: a loaded ranker; its `info.max_seq_length` becomes the exported folder's.
        output: the folder; an older export there is replaced once the new one is complete.
        prefix: what the files' names begin with; default: the contract's for the kind.
        onnx: write `<prefix>.onnx` as well.

    Returns:
        The folder, and by engine how far the exported model was from the network.

    Raises `RankerError` where the static model's scores are not the network's, or `output` holds anything else.
    """
    if onnx:
        from paddle_ranker.export.onnx import require_onnx, write_onnx

        require_onnx()
    prefix = prefix or prefix_of(parts.info.kind)
    output = output.resolve()
    _require_replaceable(output, parts.info.kind)
    remove_unfinished(make_folder(output.parent))
    was_training = parts.network.training
    parts.network.eval()
    try:
        with new_folder(output, replace=True) as temporary:
            batches = list(parity_batches(parts.pair_encoder))
            network = ScoringNetwork(parts.network, parts.info.calibration)
            expected = network_outputs(network, batches)
            checks = checks_of(network, batches, parts.pair_encoder.pad_id)
            # Another one: what Paddle has made static once computes by its graph ever after.
            write_static_model(ScoringNetwork(parts.network, parts.info.calibration), temporary / prefix)
            _write_descriptions(temporary, parts)
            model = StaticModel(program_file(temporary, prefix), temporary / f"{prefix}.pdiparams")
            parities = {"paddle_inference": compare(expected, batches, model.outputs, "the static model")}
            if onnx:
                parities["onnxruntime"] = write_onnx(
                    program_file(temporary, prefix), temporary / f"{prefix}.onnx", batches, expected
                )
            facts = {**_facts(temporary, prefix, parities), "checks": checks}
            info = dataclasses.replace(parts.info, export=facts)
            info.write(temporary, parts.network.config)
    finally:
        if was_training:
            parts.network.train()
    return ExportedFolder.open(output, prefix), parities


def write_static_model(
    network: nn.Layer,
    target: Path,
    inputs: Optional[Sequence[InputSpec]] = None,
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write `network` as `<target>.json` or `<target>.pdmodel`, and `<target>.pdiparams`.

    `inputs` and `outputs` are those of another network than a ranker's.
    """
    network.eval()
    spec = [InputSpec([None, None], "int64", name) for name in INPUTS] if inputs is None else list(inputs)
    static = paddle.jit.to_static(network, input_spec=spec, full_graph=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Paddle about its own doings: "Tensor do not have 'place' interface"
            paddle.jit.save(static, str(target))
    except (OSError, RuntimeError) as error:
        raise RankerError(f"{target}: could not be written ({str(error).strip().splitlines()[-1][:200]})") from error
    target.with_name(f"{target.name}.pdiparams.info").unlink(missing_ok=True)  # for further training, which we do not
    name_outputs(program_file(target.parent, target.name), outputs)


def program_file(folder: Path, prefix: str) -> Path:
    """Return the file of a static model's graph, whichever Paddle wrote it."""
    return next(path for path in (folder / f"{prefix}.{format}" for format in FORMATS) if path.is_file())


def _write_descriptions(folder: Path, parts: RankerParts) -> None:
    """Write the tokenizer's files and the encoder's shape; of a blend, into one folder for each member."""
    if not parts.members:
        write_config(folder, parts.network.config)
        parts.pair_encoder.save(folder)
        return
    assert parts.info.blend is not None
    for name, member in zip(parts.info.blend["members"], parts.members):
        (folder / name).mkdir()
        _write_descriptions(folder / name, member)
        member.info.write(folder / name, member.network.config)


def _facts(folder: Path, prefix: str, parities: dict[str, Parity]) -> dict[str, Any]:
    program = program_file(folder, prefix)
    names = [path.name for path in sorted(folder.glob(f"{prefix}.*")) if path.is_file()]
    return {
        "prefix": prefix,
        "format": program.suffix[1:],
        "paddle": paddle.__version__,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
        "parity": {engine: parity.to_dict() for engine, parity in parities.items()},
        "files": {name: (folder / name).stat().st_size for name in names},
    }


_OWN_FILES = {"README.md", "config.json", INFO_FILE, "vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}


def _require_replaceable(output: Path, kind: str) -> None:
    """Raise `RankerError` where `output` holds another kind of ranker, or what an export does not write."""
    if not output.exists():
        return
    if not output.is_dir():
        raise RankerError(f"{output}: is a file; choose another --output_path")
    info = RankerInfo.read(output)
    own = set(_OWN_FILES)
    if info and info.export:
        if info.kind != kind:
            raise RankerError(f"{output}: holds an exported {info.kind} ranker; choose another --output_path")
        prefix = str(info.export.get("prefix"))
        own |= {*info.export.get("files", {}), f"{prefix}.onnx", f"{prefix}.int8.onnx"}
        own |= set((info.blend or {}).get("members", ()))
    foreign = sorted(path.name for path in output.iterdir() if path.name not in own and UNFINISHED not in path.name)
    if foreign:
        raise RankerError(
            f"{output}: holds {foreign[0]}, which is not of an export and would be lost; choose another --output_path, "
            "or move it away"
        )
