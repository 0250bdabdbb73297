"""Random Qwen3 models, with a byte-level tokenizer, and transformers' answers to texts and pairs in `decoders.json`.

Weights follow from names, as in `family_cases`. The answers were computed by the code of the models' cards, with
transformers 5.23.0, which the tests do not need. Where it is installed, this computes them anew:

    PYTHONPATH=. python tests/model/decoder_cases.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.model.family_cases import weights

FILE = Path(__file__).with_name("decoders.json")
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
LONGEST = 420  # tokens of a pair; the template takes most of them, since the tokenizer has few tokens of several bytes
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    f"{START}system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    f'Note that the answer can only be "yes" or "no".{STOP}\n{START}user\n'
)
SUFFIX = f"{STOP}\n{START}assistant\n<think>\n\n</think>\n\n"
QUERY, DOCUMENT = (f'messages | selectattr("role", "eq", "{role}") | map(attribute="content") | first' for role in (
    "query", "document"))  # fmt: skip
# The template of Qwen/Qwen3-Reranker's; Jinja removes the last line's end.
CHAT = (
    '{%- set asked = messages | selectattr("role", "eq", "system") | map(attribute="content") | first '
    f'| default("{INSTRUCTION}") -%}}\n'
    f"{PREFIX}<Instruct>: {{{{ asked }}}}\n<Query>: {{{{ {QUERY} }}}}\n<Document>: {{{{ {DOCUMENT} }}}}{SUFFIX}\n"
)
TEXTS = ["yes", "", "What is the capital of China? 北京", "a  b\n\nc", "long " * 80, "<think> 12 no"]
PAIRS = [
    ("yes or no?", "The answer is no."),
    ("yes or no?", " (12) yes!\n\n"),
    ("北京", "北京是中国的首都。"),
    ("yes or no?", ""),
    ("a query that ends in a line\n", "\n\ttabs and e\u0301 accents"),
    ("yes or no?", "a long document " * 40),
    ("北京", "x"),
]
GRADIENTS = ("layers.0.self_attn.q_norm.weight", "layers.1.self_attn.k_proj.weight", "layers.2.self_attn.k_norm.weight")
_MERGES = ["y e", "ye s", "n o", "t h", "th e", "Ġ a", "Ġ the", "Ċ Ċ", "? Ċ", "o r", "Ġ n", "Ġn o", "å Į", "Ġ ("]
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SHAPE = {
    "model_type": "qwen3",
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 40,
    "hidden_act": "silu",
    "max_position_embeddings": 1200,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 3,
    "rope_scaling": None,
    "torch_dtype": "bfloat16",
}
CASES: dict[str, dict[str, Any]] = {
    "embedding": {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
    "reranker": {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
    "untied": {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": False, "attention_bias": True},
    "classifier": {
        "architectures": ["Qwen3ForSequenceClassification"],
        "tie_word_embeddings": True,
        "num_labels": 1,
        "id2label": {"0": "LABEL_0"},
        "num_key_value_heads": 6,
    },
}
CASES["plain"] = CASES["classifier"]  # without a chat template: a title follows its query


def shapes(config: dict[str, Any], case: str) -> dict[str, list[int]]:
    """Return the shapes of a case's parameters by transformers' names."""
    width, inner, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, shared = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    found = {"embed_tokens.weight": [config["vocab_size"], width], "norm.weight": [width]}
    for number in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm": [width],
            "post_attention_layernorm": [width],
            "self_attn.q_norm": [size],
            "self_attn.k_norm": [size],
            "self_attn.q_proj": [heads, width],
            "self_attn.k_proj": [shared, width],
            "self_attn.v_proj": [shared, width],
            "self_attn.o_proj": [width, heads],
            "mlp.gate_proj": [inner, width],
            "mlp.up_proj": [inner, width],
            "mlp.down_proj": [width, inner],
        }
        for name, shape in layer.items():
            found[f"layers.{number}.{name}.weight"] = shape
            if config["attention_bias"] and name.endswith("_proj") and name.startswith("self"):
                found[f"layers.{number}.{name}.bias"] = shape[:1]
    if case == "embedding":
        return found  # files of Qwen3-Embedding have no prefix
    found = {f"model.{name}": shape for name, shape in found.items()}
    if case == "untied":
        found["lm_head.weight"] = [config["vocab_size"], width]
    if "num_labels" in CASES[case]:
        found["score.weight"] = [1, width]
    return found


def write_tokenizer(folder: Path, adds_end: bool) -> None:
    """Write the tokenizer: bytes and a few merges, split as Qwen's; `adds_end`: texts end with a special token."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in _MERGES)]
    merges = [tuple(merge.split(" ")) for merge in _MERGES]
    library = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    library.normalizer = normalizers.NFC()
    splits = [
        pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    library.pre_tokenizer = pre_tokenizers.Sequence(splits)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (END, START, STOP)])
    library.add_tokens([AddedToken(token, special=False, normalized=False) for token in ("<think>", "</think>")])
    steps: list[Any] = [processors.ByteLevel(add_prefix_space=False, use_regex=False, trim_offsets=False)]
    if adds_end:
        ends = [(END, library.token_to_id(END))]
        steps.append(processors.TemplateProcessing(single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=ends))
    library.post_processor = processors.Sequence(steps)
    library.save(str(folder / "tokenizer.json"))
    settings = {
        "add_bos_token": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "pad_token": END,
        "unk_token": None,
        "model_max_length": 1000,
        "tokenizer_class": "Qwen2Tokenizer",
        "errors": "replace",
        "split_special_tokens": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_folder(folder: Path, case: str) -> Path:
    """Write a case's folder of transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**_SHAPE, **CASES[case]}
    if "num_labels" in CASES[case]:
        write_tokenizer(folder, False)
        config["pad_token_id"] = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][0]["id"]
    if case == "classifier":
        (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights(shapes(config, case)), folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(folder, case == "embedding")
    if case == "embedding":
        steps = ("Transformer", "Pooling", "Normalize")
        names = ("", "1_Pooling", "2_Normalize")
        modules = [
            {"idx": n, "name": str(n), "path": name, "type": f"sentence_transformers.models.{step}"}
            for n, (name, step) in enumerate(zip(names, steps))
        ]
        (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
        for name in names[1:]:
            (folder / name).mkdir()
        pooling = {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True, "include_prompt": True}
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
        prompts = {"query": f"Instruct: {INSTRUCTION}\nQuery:", "document": ""}
        settings = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def expected() -> dict[str, Any]:
    """Return transformers' answers: by case, `ids` and `logits` of `PAIRS`, and gradients of the logits' sum.

    Of towers: `ids` and `vectors` of `TEXTS`.
    """
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Write the answers of transformers."""
    answers = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = write_folder(Path(name) / case, case)
            answers[case] = _vectors(folder) if case == "embedding" else _logits(folder, case)
    FILE.write_text(json.dumps(answers, sort_keys=True) + "\n", encoding="utf-8")


def _vectors(folder: Path) -> dict[str, Any]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state[:, -1]
    vectors = torch.nn.functional.normalize(states, p=2, dim=1)
    ids = [row[mask.bool()].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"])]
    return {"ids": ids, "vectors": np.round(vectors.double().numpy(), 8).tolist()}


def _logits(folder: Path, case: str) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    is_classifier = "num_labels" in CASES[case]
    kind = AutoModelForSequenceClassification if is_classifier else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (PREFIX, SUFFIX))
    pairs = [f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {title}" for query, title in PAIRS]
    room = LONGEST - len(before) - len(after)
    rows = tokenizer(pairs, padding=False, truncation="longest_first", max_length=room)["input_ids"]
    rows = [[*before, *row, *after] for row in rows]
    if case == "plain":
        rows = tokenizer(*map(list, zip(*PAIRS)), truncation=True, max_length=LONGEST)["input_ids"]
    batch = tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt")
    logits = model(**batch).logits
    if is_classifier:
        found = logits[:, 0]
    else:
        yes, no = (tokenizer.convert_tokens_to_ids(answer) for answer in ("yes", "no"))
        found = logits[:, -1, yes] - logits[:, -1, no]
    found.sum().backward()
    gradients = {
        name: np.round(p.grad.double().numpy(), 6).tolist()
        for name, p in model.named_parameters()
        if name.endswith(GRADIENTS)
    }
    return {"ids": rows, "logits": found.detach().double().tolist(), "gradients": gradients}


if __name__ == "__main__":
    main()
