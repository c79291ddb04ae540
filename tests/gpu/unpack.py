"""Unpacks the bundle of tests/gpu/bundle, looks for NVIDIA's libraries, and says how the programs are started.

usage: unpack.py STAGES FOLDER      # the stages' folder; where the bundle goes

FOLDER/start then runs a program of the bundle with every library in its place: `FOLDER/start saccade-gpu kernels`. What it
found is written to standard output. Nothing is installed, and nothing outside FOLDER and one link in /tmp is written.
"""

import ctypes.util
import glob
import os
import pathlib
import shutil
import stat
import subprocess
import sys
import tarfile

import stages

# Where the driver's libraries are, beside the linker's own places.
DRIVER_FOLDERS = ["/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib"]
# CUDA's, where a toolkit is installed.
TOOLKIT_FOLDERS = ["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/usr/local/tensorrt/lib"]
DRIVER = [
    ("libcuda.so.1", "the driver: nothing works without it"),
    ("libnvcuvid.so.1", "decoding"),
    ("libnvidia-encode.so.1", "encoding"),
    ("libnvidia-ml.so.1", "how busy the GPU is"),
]
# What the CUDA provider opens by itself when it has work for it.
LAZY = [("libcudnn.so.9", "convolutions"), ("libcufft.so.12", "no model here"), ("libnvrtc.so.13", "some of cuDNN's engines")]
# The programs' interpreter where the machine's C library is too old: a name that is no longer than the usual one.
LOADER = "/tmp/saccade-ld.so"
# Seconds that a program may take to say its version.
PATIENCE = 60.0


def python_folders() -> list[str]:
    """Folders with libraries of NVIDIA's among Python's packages, of each Python that there is."""
    script = "import sys; print('\\n'.join(path for path in sys.path if 'packages' in path))"
    roots = set()
    for python in dict.fromkeys([sys.executable, shutil.which("python3") or sys.executable]):
        try:
            done = subprocess.run([python, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        roots.update(done.stdout.split("\n"))
    roots.update(glob.glob("/opt/*/.venv/lib/python3*/site-packages"))
    patterns = ["nvidia/*/lib", "nvidia/*/*/lib", "tensorrt_libs", "nvidia_*/lib"]
    found = [folder for root in sorted(filter(None, roots)) for it in patterns for folder in glob.glob(f"{root}/{it}")]
    return sorted(dict.fromkeys(found))


def find(name: str, folders: list[str]) -> str | None:
    """The folder of a library; an empty text where the linker knows it anyway."""
    for folder in folders:
        if os.path.exists(os.path.join(folder, name)):
            return folder
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    return ""


def needs(folder: pathlib.Path) -> list[tuple[str, str]]:
    """Libraries that are not in the bundle, and what they are for."""
    lines = [line.split() for line in (folder / "needs.txt").read_text().splitlines()]
    short = {"libonnxruntime_providers_cuda.so": "the CUDA provider", "libonnxruntime_providers_tensorrt.so": "TensorRT"}
    of_providers: dict[str, list[str]] = {}
    for provider, name in lines:
        of_providers.setdefault(name, []).append(short.get(provider, provider))
    lazy = [(name, f"the CUDA provider, for {why}") for name, why in LAZY]
    rest = [(name, ", ".join(why)) for name, why in of_providers.items()]
    known: dict[str, str] = {}
    for name, why in [*DRIVER, *lazy, *rest]:
        known.setdefault(name, why)
    return list(known.items())


def with_own_loader(folder: pathlib.Path) -> None:
    """Has the programs use the bundle's C library: their interpreter is a link to its loader."""
    usual = b"/lib64/ld-linux-x86-64.so.2\0"
    for program in (folder / "bin").iterdir():
        code = program.read_bytes()
        if usual not in code:
            sys.exit(f"unpack: {program} has an interpreter of another name")
        program.write_bytes(code.replace(usual, LOADER.encode().ljust(len(usual), b"\0"), 1))
    loader = pathlib.Path(LOADER)
    loader.unlink(missing_ok=True)
    loader.symlink_to(folder / "libc/ld-linux-x86-64.so.2")


def works(start: pathlib.Path) -> str:
    """Nothing if the programs start, otherwise why not."""
    for program in ("saccade", "saccade-gpu"):
        try:
            done = subprocess.run([str(start), program, "--version"], capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return f"{program}: it did not say its version within {PATIENCE:g} s"
        if done.returncode:
            lines = (done.stderr or f"it ended with {done.returncode}").strip().splitlines()
            return f"{program}: {lines[-1]}"
    return ""


def write_start(folder: pathlib.Path, own_loader: bool, found: list[str]) -> pathlib.Path:
    """What starts a program, under a name that nobody looks for until it is known to work. The bundle's libraries come first,
    then the machine's own of NVIDIA's."""
    paths = [folder / "libc"] if own_loader else []
    paths += [folder / "lib", folder / "runtime", *found]
    text = f"""#!/bin/sh
program=$1
shift
LD_LIBRARY_PATH={":".join(map(str, paths))} ORT_DYLIB_PATH={folder}/runtime/libonnxruntime.so.1.31.1 \\
    exec {folder}/bin/"$program" "$@"
"""
    start = folder / "start.part"
    start.write_text(text)
    start.chmod(start.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return start


def unpack(source: pathlib.Path, folder: pathlib.Path) -> None:
    packed = folder.with_name(folder.name + ".tar.xz")
    folder.parent.mkdir(parents=True, exist_ok=True)
    stages.join(source, packed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tarfile.open(packed, "r:xz") as archive:
        archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(folder)
    packed.unlink()


def main() -> None:
    source, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    try:
        unpack(source, folder)
    except stages.Incomplete as problem:
        sys.exit(f"unpack: {problem}")
    candidates = [it for it in [*DRIVER_FOLDERS[:1], *python_folders(), *TOOLKIT_FOLDERS, *DRIVER_FOLDERS[1:]] if os.path.isdir(it)]
    wanted, found = needs(folder), []
    print(f"bundle: {(folder / 'profile.txt').read_text().strip()} build, in {folder}")
    for name, why in wanted:
        where = find(name, candidates)
        print(f"{name}: {'MISSING' if where is None else where or 'known to the linker'} ({why})")
        # The system's own folders would bring other libraries of the bundle's names.
        if where and where not in found and where not in DRIVER_FOLDERS[1:]:
            found.append(where)
    own_loader = bool(os.environ.get("SACCADE_GPU_LIBC"))
    if own_loader:
        with_own_loader(folder)
    start = write_start(folder, own_loader, found)
    problem = works(start)
    if problem and not own_loader:
        print(f"the machine's C library does not do: {problem}; the bundle's own is used")
        with_own_loader(folder)
        start = write_start(folder, True, found)
        problem = works(start)
    if problem:
        sys.exit(f"unpack: the programs do not start: {problem}")
    start = start.rename(folder / "start")
    print(f"the programs start; C library: {'the bundle' if (start.read_text().count('/libc:')) else 'the machine'}'s")


if __name__ == "__main__":
    main()
