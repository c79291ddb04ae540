"""A large file in stages of a bounded size, with a checksum of each and of the whole.

usage: stages.py split FILE FOLDER MIB      # FOLDER/FILE.00, FILE.01, … and FOLDER/SHA256SUMS
       stages.py join FOLDER FILE           # checks each stage and the whole; says which stages are still missing
"""

import hashlib
import pathlib
import sys

SUMS = "SHA256SUMS"
CHUNK = 1 << 20


class Incomplete(Exception):
    """Stages are missing, or are not those that were made."""


def digest(path: pathlib.Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def split(whole: pathlib.Path, folder: pathlib.Path, size: int) -> list[pathlib.Path]:
    """Writes the stages, `size` bytes each but the last, and the list of checksums; older stages go."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob(f"{whole.name}.[0-9][0-9]"), folder / SUMS]:
        old.unlink(missing_ok=True)
    stages = []
    with whole.open("rb") as source:
        while first := source.read(min(size, CHUNK)):
            stage = folder / f"{whole.name}.{len(stages):02}"
            left = size - len(first)
            with stage.open("wb") as target:
                target.write(first)
                while left and (more := source.read(min(left, CHUNK))):
                    target.write(more)
                    left -= len(more)
            stages.append(stage)
    lines = [f"{digest(path)}  {path.name}\n" for path in [*stages, whole]]
    (folder / SUMS).write_text("".join(lines))
    return stages


def listed(folder: pathlib.Path) -> tuple[list[tuple[str, str]], tuple[str, str]]:
    """Checksum and name of each stage, and of the whole."""
    path = folder / SUMS
    if not path.is_file():
        raise Incomplete(f"{path} is missing: it goes with each stage")
    lines = [line.split("  ", 1) for line in path.read_text().splitlines()]
    if not lines or any(len(line) != 2 for line in lines):
        raise Incomplete(f"{path} is no list of checksums")
    for _, name in lines:
        # They are of one folder: no list leads out of it.
        if "/" in name or name in ("", ".", ".."):
            raise Incomplete(f"{path} names {name!r}, which is no file of its folder")
    *stages, whole = [(line[0], line[1]) for line in lines]
    return stages, whole


def join(folder: pathlib.Path, target: pathlib.Path) -> None:
    """Puts the stages of a folder together. The file appears only when it is whole."""
    stages, (checksum, _) = listed(folder)
    problems = []
    for expected, name in stages:
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif digest(path) != expected:
            problems.append(f"{name} is damaged")
    if problems:
        raise Incomplete(f"{folder}: {', '.join(problems)}")
    part = target.with_name(target.name + ".part")
    with part.open("wb") as whole:
        for _, name in stages:
            with (folder / name).open("rb") as stage:
                while chunk := stage.read(CHUNK):
                    whole.write(chunk)
    if digest(part) != checksum:
        part.unlink()
        raise Incomplete(f"{folder}: the stages together are not the file that was split")
    part.rename(target)


def main() -> None:
    what, first, second = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    if what == "split":
        for stage in split(first, second, int(sys.argv[4]) << 20):
            print(f"{stage} {stage.stat().st_size / 2**20:.1f} MiB")
        return
    try:
        join(first, second)
    except Incomplete as problem:
        sys.exit(f"stages: {problem}")


if __name__ == "__main__":
    main()
