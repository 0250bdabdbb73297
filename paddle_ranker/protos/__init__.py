"""Messages of Paddle Serving and SentencePiece: .proto files, their descriptors, and classes of protobuf 3.20 and 7.

The classes are in a separate descriptor pool, since packages of Paddle Serving and SentencePiece may be imported in the
same process, and register the same names in protobuf's default pool.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
DESCRIPTORS = FOLDER / "descriptors.binpb"
SOURCES = (
    "baidu_std.proto",
    "general_model.proto",
    "general_model_config.proto",
    "pipeline.proto",
    "sentencepiece_model.proto",
    "server_configure.proto",
)

Message = Any  # protobuf makes the classes when it reads the descriptors; no type checker knows their fields


@cache
def message_class(name: str) -> Message:
    """Return the class of the message with this full name."""
    from google.protobuf import message_factory

    descriptor = _pool().FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_pool()).GetPrototype(descriptor)  # protobuf 3.20


@cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
