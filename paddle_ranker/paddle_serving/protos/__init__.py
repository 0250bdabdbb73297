"""Messages of Paddle Serving: .proto files and their classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from paddle_ranker.protos import message_class

FOLDER = Path(__file__).resolve().parent
serving_message = partial(message_class, folder=FOLDER)  # of a full name
