"""Keeps of a library's CUDA code what one GPU architecture needs. The file stays as long as it was, and packs far better.

usage: prune_fatbin.py LIBRARY.so OUT.so ARCHITECTURE      # 90 for compute capability 9.0

A library made by nvcc has containers in its section .nv_fatbin, one for each source file, with the same code for many
architectures in each. Of a container is kept: machine code for the architecture; where it has none, that for the newest
older one of the same generation, which runs there, too; where it has none of these either, the newest PTX that is not
newer, which the driver translates. What comes out runs on that architecture alone.

The layout is that which cuobjdump and its kin read; NVIDIA publishes none.
"""

import dataclasses
import pathlib
import struct
import sys

SECTION = b".nv_fatbin"
MAGIC = 0xBA55ED50
# Of a container: magic, version, bytes of this header, bytes behind it.
CONTAINER = struct.Struct("<IHHQ")
# Of a piece of code: kind, version, bytes of its header, bytes behind that.
PIECE = struct.Struct("<HHIQ")
# Where a piece says its architecture.
ARCHITECTURE = 28
PTX, MACHINE_CODE = 1, 2


@dataclasses.dataclass
class Summary:
    """What was done: containers, those that are empty now, and bytes of code before and after."""

    containers: int = 0
    translated: int = 0
    empty: int = 0
    before: int = 0
    after: int = 0

    def __str__(self) -> str:
        mib = f"{self.after >> 20} of {self.before >> 20} MiB of code are kept"
        return f"{mib}; of {self.containers} containers {self.translated} have PTX alone and {self.empty} nothing"


def section(library: bytes | bytearray) -> tuple[int, int]:
    """Where the section of CUDA code begins and ends in a 64-bit ELF file."""
    if library[:5] != b"\x7fELF\x02":
        raise ValueError("no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", library, 0x28)
    size, count, names = struct.unpack_from("<HHH", library, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", library, table + size * number) for number in range(count)]
    for header in headers:
        name = headers[names][4] + header[0]
        if library[name : name + len(SECTION) + 1] == SECTION + b"\0":
            return header[4], header[4] + header[5]
    raise ValueError("no CUDA code in it")


def pieces(library: bytearray, start: int, end: int) -> list[tuple[int, int, bytes]]:
    """Kind, architecture and bytes of each piece between two places."""
    found = []
    while start < end:
        kind, _, header, size = PIECE.unpack_from(library, start)
        (architecture,) = struct.unpack_from("<I", library, start + ARCHITECTURE)
        length = header + size
        if length == 0 or start + length > end:
            raise ValueError(f"a piece of {length} bytes at {start:#x} does not fit into its container")
        found.append((kind, architecture, bytes(library[start : start + length])))
        start += length
    return found


def needed(found: list[tuple[int, int, bytes]], architecture: int) -> tuple[int, list[bytes]]:
    """The kind and the bytes of what one architecture needs of a container."""
    for kind, fits in [
        (MACHINE_CODE, lambda other: other == architecture),
        (MACHINE_CODE, lambda other: other // 10 == architecture // 10 and other < architecture),
        (PTX, lambda other: other <= architecture),
    ]:
        fitting = [other for of, other, _ in found if of == kind and fits(other)]
        if fitting:
            return kind, [code for of, other, code in found if of == kind and other == max(fitting)]
    return 0, []


def prune(library: bytearray, architecture: int) -> Summary:
    """Overwrites what is not needed with zeros, the rest of each container moving to its front."""
    summary = Summary()
    at, end = section(library)
    while at + CONTAINER.size <= end:
        magic, _, header, size = CONTAINER.unpack_from(library, at)
        if magic != MAGIC:
            at += 8
            continue
        first, last = at + header, at + header + size
        kind, kept = needed(pieces(library, first, last), architecture)
        code = b"".join(kept)
        library[first:last] = code + bytes(size - len(code))
        # The length that the driver is told.
        struct.pack_into("<Q", library, at + 8, len(code))
        summary.containers += 1
        summary.translated += kind == PTX
        summary.empty += not code
        summary.before += size
        summary.after += len(code)
        at = (last + 7) // 8 * 8
    return summary


def main() -> None:
    source, target, architecture = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    library = bytearray(source.read_bytes())
    summary = prune(library, architecture)
    target.write_bytes(library)
    target.chmod(0o755)
    print(f"{target.name}: {summary}")


if __name__ == "__main__":
    main()
