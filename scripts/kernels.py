#!/usr/bin/env python3
"""Translates the kernels in src/device/kernels to PTX, which is committed beside them; `make kernels` calls it.

It needs NVRTC, the compiler alone of NVIDIA's, from the package that tests/requirements.txt pins, and no GPU. The PTX
depends on NVRTC's version, so that another one is refused.
"""

import argparse
import ctypes
import importlib.util
import pathlib
import sys

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "src/device/kernels"
# PTX of CUDA 12.2 is version 8.2, which drivers from R535 on read.
VERSION = (12, 2)
OPTIONS = ("--gpu-architecture=compute_75", "--fmad=false", "--std=c++17")
INSTALL = "install it with `make setup-test`, and run this with the Python of the tests: `make kernels` does both"


class Failed(Exception):
    """Something that people have to mend; the text says what."""


def nvrtc() -> ctypes.CDLL:
    try:
        package = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        package = None
    if package is None:
        raise Failed(f"the package nvidia-cuda-nvrtc-cu12 is missing: {INSTALL}")
    folder = pathlib.Path(next(iter(package.submodule_search_locations))) / "lib"
    for builtins in folder.glob("libnvrtc-builtins.so.*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libnvrtc.so.12"))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    major, minor = ctypes.c_int(), ctypes.c_int()
    library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    if (major.value, minor.value) != VERSION:
        raise Failed(f"NVRTC {major.value}.{minor.value} instead of {VERSION[0]}.{VERSION[1]}: {INSTALL}")
    return library


def translate(library: ctypes.CDLL, name: str, source: str) -> str:
    """PTX of a source, which messages call `name`."""

    def text(size_of: str, get: str) -> str:
        size = ctypes.c_size_t()
        check(getattr(library, size_of)(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        check(getattr(library, get)(program, buffer))
        return buffer.value.decode()

    def check(code: int) -> None:
        if code:
            raise Failed(f"{name}: {library.nvrtcGetErrorString(code).decode()}")

    program = ctypes.c_void_p()
    check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), 0, None, None))
    try:
        options = (ctypes.c_char_p * len(OPTIONS))(*(option.encode() for option in OPTIONS))
        code = library.nvrtcCompileProgram(program, len(OPTIONS), options)
        log = text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog").strip()
        if code or log:
            raise Failed(f"{name} has mistakes:\n{log}")
        return text("nvrtcGetPTXSize", "nvrtcGetPTX")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Translate the kernels to PTX.")
    parser.add_argument("--check", action="store_true", help="compare only: fail if the PTX is not that of the sources")
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="where the sources are")
    options = parser.parse_args(arguments)
    try:
        library = nvrtc()
        stale = []
        sources = sorted(options.folder.glob("*.cu"))
        if not sources:
            raise Failed(f"there are no sources in {options.folder}")
        for source in sources:
            ptx, made = source.with_suffix(".ptx"), translate(library, source.name, source.read_text())
            if ptx.exists() and ptx.read_text() == made:
                continue
            stale.append(ptx.name)
            if not options.check:
                ptx.write_text(made)
                print(f"wrote {ptx.name}")
        if options.check:
            known = {source.with_suffix(".ptx") for source in sources}
            stale += sorted(ptx.name for ptx in options.folder.glob("*.ptx") if ptx not in known)
            if stale:
                raise Failed(f"not what the sources give: {', '.join(stale)}. Run `make kernels` and commit the result.")
    except Failed as error:
        print(f"kernels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
