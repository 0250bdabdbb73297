"""Compile the .proto files here into one set of descriptors: `python -m paddle_ranker.protos.build_descriptors`.

Needs grpcio-tools, which the complete stack has; its protoc wrote the file in the repository.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paddle_ranker.errors import RankerError, package_for
from paddle_ranker.options import Options, main_of, option
from paddle_ranker.protos import DESCRIPTORS, FOLDER, SOURCES
from paddle_ranker.storage.atomic import new_file


@dataclass(frozen=True)
class DescriptorOptions(Options):
    output_file: str = option(str(DESCRIPTORS), help="where to write the descriptors")


def compile_descriptors() -> bytes:
    """Return the serialized FileDescriptorSet of the .proto files; the same protoc always makes the same bytes."""
    with package_for("compiling .proto files", "grpcio-tools"):
        from grpc_tools import protoc
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / DESCRIPTORS.name
        status = protoc.main(["protoc", f"--proto_path={FOLDER}", f"--descriptor_set_out={target}", *SOURCES])
        if status:
            raise RankerError(f"protoc failed with status {status}; what is wrong stands above")
        return target.read_bytes()


def build(options: DescriptorOptions) -> None:
    """Write the descriptors."""
    compiled = compile_descriptors()
    with new_file(options.output_file, "wb") as stream:
        stream.write(compiled)
    print(f"{options.output_file}: {len(compiled):,} bytes of {', '.join(SOURCES)}")


main = main_of(build, DescriptorOptions, __doc__)


if __name__ == "__main__":
    sys.exit(main())
