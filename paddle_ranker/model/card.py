"""A model card in Markdown, made from what `ranker.json` holds."""

from __future__ import annotations

from typing import Any, Optional

from paddle_ranker.metrics.calibration import Calibration
from paddle_ranker.model.config import EncoderConfig


def model_card(info: dict[str, Any], config: EncoderConfig) -> str:
    """Return the card of a ranker: what it is, how to use it, how it was trained, on what, with what result."""
    kind = info["kind"].replace("_", "-")
    lines = [
        f"# {kind} ranker",
        "",
        f"Scores how well a title answers a query. {config.num_hidden_layers} layers, {config.hidden_size} wide, "
        f"{config.vocab_size:,} word pieces, pairs of up to {info['max_seq_length']} tokens"
        f"{', exact-match embeddings' if info['match_embeddings'] else ''}.",
        "",
        "```python",
        "from paddle_ranker import Ranker",
        "",
        'Ranker.load("this folder").rank("a query", ["a title", "another title"], top_k=1)',
        "```",
        "",
        _probability(info.get("calibration")),
    ]
    for title, values in (("Results", info["results"]), ("Training", info["training"]), ("Versions", info["versions"])):
        if values:
            lines += ["", f"## {title}", "", "| | |", "| --- | --- |"]
            lines += [f"| {name} | {_cell(value)} |" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def _probability(calibration: Optional[dict[str, Any]]) -> str:
    """Say what a score of this ranker is."""
    if not calibration:
        return (
            "Not calibrated: a score orders titles, and need not be the share of relevant ones among titles that score "
            "like it. `python -m paddle_ranker calibrate` makes it so."
        )
    data, figures = calibration["fitted_on"], calibration["figures"]
    text = f"Calibrated ({calibration['method']}): probability = {Calibration.from_dict(calibration)}"
    if {"pairs", "queries"} <= set(data):
        text += f", fitted on {data['pairs']:,} pairs of {data['queries']:,} queries"
    if {"as_trained", "out_of_fold"} <= set(figures):
        before, after = figures["as_trained"], figures["out_of_fold"]
        text += (
            f". Expected calibration error {before['calibration_error']:.4f} as trained, "
            f"{after['calibration_error']:.4f} on queries that the fit has not seen"
        )
    return text + "."


def _cell(value: Any) -> str:
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|")
