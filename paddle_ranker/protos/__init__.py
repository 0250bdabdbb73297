"""Messages of SentencePiece, and the loader of message classes from .proto files, with protobuf 3.20 and 7.

Each folder of .proto files has its descriptors beside them. The classes of a folder are in a descriptor pool of their
own, since packages of Paddle Serving and SentencePiece may be imported in the same process, and register the same names
in protobuf's default pool.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
DESCRIPTORS = "descriptors.binpb"

Message = Any  # protobuf makes the classes when it reads the descriptors; no type checker knows their fields


@cache
def message_class(name: str, folder: Path = FOLDER) -> Message:
    """Return the class of the message with this full name, from the descriptors in a folder."""
    from google.protobuf import message_factory

    descriptor = _pool(folder).FindMessageTypeByName(name)
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory(_pool(folder)).GetPrototype(descriptor)  # protobuf 3.20


@cache
def _pool(folder: Path) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString((folder / DESCRIPTORS).read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
