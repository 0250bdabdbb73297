"""The rows of the inference benchmark, and what they need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class System:
    """One row of the table.

    precision: rows are compared with this toolkit's of the same precision
    packages: modules that its environment must have
    exact: its probabilities must be the network's to 1e-5
    peer: it runs in the environment of `--peer_python`
    padded: every pair costs the same, so few are enough
    slow_start: compiling takes its time; it is started once
    texts: encoding the texts is part of what is timed
    baseline: this toolkit has to be faster by a factor; None: it is shown, no more
    checkout: whose code runs; None: this one's
    """

    name: str
    title: str
    precision: str = "fp32"
    packages: tuple[str, ...] = ()
    exact: bool = True
    peer: bool = False
    padded: bool = False
    slow_start: bool = False
    texts: bool = False
    baseline: bool = False
    checkout: Optional[str] = None

    @property
    def ours(self) -> bool:
        return self.name.startswith("ours")

    @property
    def needs_onnx(self) -> bool:
        """It is one of this toolkit's that reads the exported ONNX file."""
        return self.name.startswith(("ours_onnx", "ours_openvino"))

    @property
    def contender(self) -> bool:
        """One of this toolkit's that a peer is compared with: the plain model, of which the peers have the same."""
        return self.ours and not self.texts and not self.name.endswith(("_match", "_dygraph"))


_PADDLE, _NLP = ("paddle",), ("paddle", "paddlenlp")
_TORCH, _ST = ("torch", "transformers"), ("torch", "sentence_transformers")
_ORT, _OV = ("onnxruntime",), ("openvino",)

SYSTEMS = [
    System("ours_inference", "ours: Paddle Inference", packages=_PADDLE),
    System("ours_onnx", "ours: ONNX Runtime", packages=_ORT),
    System("ours_openvino", "ours: OpenVINO", packages=_OV),
    System("ours_inference_bf16", "ours: Paddle Inference bf16", "bf16", _PADDLE, exact=False),
    System("ours_openvino_bf16", "ours: OpenVINO bf16", "bf16", _OV, exact=False),
    System("ours_onnx_int8", "ours: ONNX Runtime int8", "int8", _ORT, exact=False),
    System("ours_openvino_int8", "ours: OpenVINO int8", "int8", _OV, exact=False),
    System("ours_dygraph", "ours: dygraph", packages=_PADDLE),
    System("ours_inference_match", "ours: Paddle Inference, match embeddings", packages=_PADDLE, exact=False),
    System("ours_openvino_match", "ours: OpenVINO, match embeddings", packages=_OV, exact=False),
    System("ours_inference_texts", "ours: Paddle Inference, from texts", packages=_PADDLE, texts=True),
    System("ours_openvino_texts", "ours: OpenVINO, from texts", packages=_OV, texts=True),
    System("published", "published: eager, padded", packages=_NLP, padded=True),
    System("published_inference", "published model in Paddle Inference, padded", packages=_NLP, padded=True),
    System("torch", "transformers, eager", packages=_TORCH, peer=True, baseline=True),
    System("torch_compiled", "transformers, compiled and frozen", packages=_TORCH, peer=True, slow_start=True,
           baseline=True),
    System("sentence_transformers", "sentence-transformers, from texts", packages=_ST, peer=True, texts=True,
           baseline=True),
    System("onnxruntime", "transformers' ONNX in ONNX Runtime", packages=_ORT, peer=True, baseline=True),
    System("openvino", "transformers' ONNX in OpenVINO", packages=_OV, peer=True, baseline=True),
    System("torch_bf16", "transformers bf16, eager", "bf16", _TORCH, exact=False, peer=True, baseline=True),
    System("torch_compiled_bf16", "transformers bf16, compiled and frozen", "bf16", _TORCH, exact=False, peer=True,
           slow_start=True, baseline=True),
    System("sentence_transformers_bf16", "sentence-transformers bf16, from texts", "bf16", _ST, exact=False, peer=True,
           texts=True, baseline=True),
    System("openvino_bf16", "transformers' ONNX in OpenVINO bf16", "bf16", _OV, exact=False, peer=True, baseline=True),
    System("onnxruntime_int8", "transformers' ONNX in ONNX Runtime, dynamic int8", "int8", _ORT, exact=False,
           peer=True, baseline=True),
]  # fmt: skip

EXPORT_PACKAGES = ("torch", "transformers", "onnx", "onnxruntime")  # what writing the peers' ONNX files needs
