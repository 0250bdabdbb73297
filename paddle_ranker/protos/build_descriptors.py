"""Compile the .proto files of a folder into one set of descriptors.

python -m paddle_ranker.protos.build_descriptors --folder paddle_ranker/paddle_serving/protos

Needs grpcio-tools, which the complete stack has; its protoc wrote the file in the repository.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.errors import RankerError, package_for
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.protos import DESCRIPTORS, FOLDER
from paddle_ranker.storage.atomic import new_file


@dataclass(frozen=True)
class DescriptorOptions(Options):
    folder: str = option(str(FOLDER), help="the folder of the .proto files, which gets the descriptors")


def compile_descriptors(folder: Path) -> bytes:
    """Return the serialized FileDescriptorSet of a folder's .proto files. One protoc always makes the same bytes."""
    with package_for("compiling .proto files", "grpcio-tools"):
        from grpc_tools import protoc
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / DESCRIPTORS
        sources = sorted(file.name for file in folder.glob("*.proto"))
        status = protoc.main(["protoc", f"--proto_path={folder}", f"--descriptor_set_out={target}", *sources])
        if status:
            raise RankerError(f"protoc failed with status {status}; what is wrong stands above")
        return target.read_bytes()


def build(options: DescriptorOptions) -> None:
    """Write the descriptors."""
    compiled, target = compile_descriptors(Path(options.folder)), Path(options.folder) / DESCRIPTORS
    with new_file(target, "wb") as stream:
        stream.write(compiled)
    print(f"{target}: {len(compiled):,} bytes")


main = main_of(build, DescriptorOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
