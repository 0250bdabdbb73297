"""Worker of `benchmarks.sounds`: computes the vector of one sound again and again, as a line of its input asks for it.

python sound_worker.py FOLDER transformers|dygraph SECONDS
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Callable

import numpy as np


def opened(folder: str, system: str, sound: np.ndarray) -> Callable[[], np.ndarray]:
    """Return a function that computes the vector, `[1, size]`."""
    if system != "transformers":
        from paddle_ranker.model.load_options import LoadOptions
        from paddle_ranker.recordings.towers import encode_sounds
        from paddle_ranker.retrieval.vectors.text_vectors import Tower

        tower = Tower.open(folder, LoadOptions(threads=1))
        return lambda: encode_sounds(tower, [sound])
    import torch
    from transformers import Wav2Vec2Model

    torch.set_num_threads(1)
    model = Wav2Vec2Model.from_pretrained(folder).eval()

    def compute() -> np.ndarray:
        scaled = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        with torch.no_grad():
            vector: np.ndarray = model(torch.tensor(scaled)[None]).last_hidden_state.mean(1).numpy()
        return vector

    return compute


def main() -> None:
    """Print processor seconds, megabytes and the vector's first number for each line of the input."""
    folder, system, seconds = sys.argv[1:]
    sound = np.random.default_rng(0).standard_normal(int(seconds) * 16_000).astype(np.float32)
    compute = opened(folder, system, sound)
    compute()
    for _ in sys.stdin:
        began = time.process_time()
        vector = compute()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("result", time.process_time() - began, memory, float(vector[0, 0]), flush=True)


if __name__ == "__main__":
    main()
