"""The bundle's parts that no GPU is needed for: pruning, stages, what is looked for on the other machine."""

import os
import pathlib
import re
import shutil
import struct
import subprocess
import tarfile

import prune_fatbin
import pytest
import stages
import unpack

HERE = pathlib.Path(__file__).resolve().parent
PTX, CODE = prune_fatbin.PTX, prune_fatbin.MACHINE_CODE


def piece(kind: int, architecture: int, content: bytes) -> bytes:
    """A piece of code with a header of 64 bytes."""
    header = bytearray(64)
    prune_fatbin.PIECE.pack_into(header, 0, kind, 0x101, len(header), len(content))
    struct.pack_into("<I", header, prune_fatbin.ARCHITECTURE, architecture)
    return bytes(header) + content


def container(*pieces: bytes) -> bytes:
    body = b"".join(pieces)
    whole = prune_fatbin.CONTAINER.pack(prune_fatbin.MAGIC, 1, prune_fatbin.CONTAINER.size, len(body)) + body
    return whole.ljust((len(whole) + 7) // 8 * 8, b"\0")


def library(code: bytes, section: bytes = prune_fatbin.SECTION) -> bytearray:
    """An ELF file with code in one section, and text before and behind it."""
    names = b"\0.text\0" + section + b"\0.shstrtab\0"
    start = 64 + 16
    parts = [(b".text", 64, 16), (section, start, len(code)), (b".shstrtab", start + len(code) + 16, len(names))]
    elf = bytearray(b"\x7fELF\x02\x01\x01".ljust(64, b"\0")) + b"T" * 16 + code + b"U" * 16 + names
    table = len(elf)
    elf += bytes(64)
    for name, offset, size in parts:
        elf += struct.pack("<IIQQQQIIQQ", names.index(name), 1, 0, 0, offset, size, 0, 0, 1, 0)
    struct.pack_into("<Q", elf, 0x28, table)
    struct.pack_into("<HHH", elf, 0x3A, 64, 4, 3)
    return elf


def read(elf: bytearray) -> list[list[tuple[int, int, bytes]]]:
    """Kind, architecture and content of the pieces of each container, as the driver finds them."""
    at, end = prune_fatbin.section(elf)
    found = []
    while at + prune_fatbin.CONTAINER.size <= end:
        magic, _, header, size = prune_fatbin.CONTAINER.unpack_from(elf, at)
        if magic != prune_fatbin.MAGIC:
            at += 8
            continue
        pieces = prune_fatbin.pieces(elf, at + header, at + header + size)
        found.append([(kind, architecture, code[64:]) for kind, architecture, code in pieces])
        at = (at + header + size + 7) // 8 * 8
    return found


def test_one_architecture_is_kept_and_the_file_stays_as_long() -> None:
    code = container(piece(CODE, 75, b"a" * 40), piece(CODE, 90, b"b" * 24), piece(PTX, 90, b"c" * 9))
    code += container(piece(CODE, 90, b"d" * 8), piece(CODE, 90, b"e" * 16), piece(CODE, 120, b"f" * 8))
    elf = library(code)
    before = bytes(elf)
    summary = prune_fatbin.prune(elf, 90)
    assert read(elf) == [[(CODE, 90, b"b" * 24)], [(CODE, 90, b"d" * 8), (CODE, 90, b"e" * 16)]]
    assert (summary.containers, summary.empty, summary.translated) == (2, 0, 0)
    assert summary.before - summary.after == sum(64 + size for size in (40, 9, 8))
    start, end = prune_fatbin.section(elf)
    assert (len(elf), elf[:start], elf[end:]) == (len(before), before[:start], before[end:])
    assert (prune_fatbin.prune(elf, 90).after, read(elf)[0]) == (summary.after, [(CODE, 90, b"b" * 24)])


def test_without_its_own_code_an_architecture_gets_what_runs_there() -> None:
    older = container(piece(CODE, 80, b"a"), piece(CODE, 86, b"b"), piece(CODE, 90, b"c"), piece(PTX, 70, b"d"))
    text = container(piece(CODE, 75, b"e"), piece(PTX, 50, b"f"), piece(PTX, 80, b"g"), piece(PTX, 100, b"h"))
    none = container(piece(CODE, 120, b"i"))
    elf = library(older + text + none)
    summary = prune_fatbin.prune(elf, 89)
    assert read(elf) == [[(CODE, 86, b"b")], [(PTX, 80, b"g")], []]
    assert (summary.containers, summary.translated, summary.empty) == (3, 1, 1)


def test_files_that_can_not_be_pruned_are_refused() -> None:
    with pytest.raises(ValueError, match="no 64-bit ELF"):
        prune_fatbin.prune(bytearray(b"#!/bin/sh\n" * 20), 90)
    with pytest.raises(ValueError, match="no CUDA code"):
        prune_fatbin.prune(library(b"", b".data"), 90)
    broken = bytearray(container(piece(CODE, 90, b"a" * 8)))
    struct.pack_into("<Q", broken, prune_fatbin.CONTAINER.size + 8, 1 << 20)
    with pytest.raises(ValueError, match="does not fit"):
        prune_fatbin.prune(library(bytes(broken)), 90)


@pytest.fixture
def whole(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "whole.bin"
    path.write_bytes(os.urandom(3 * (1 << 20) + 12_345))
    return path


def test_stages_put_together_are_the_file(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "stages"
    made = stages.split(whole, folder, (1 << 20) + 7)
    size = (1 << 20) + 7
    assert [stage.stat().st_size for stage in made] == [size] * 3 + [whole.stat().st_size - 3 * size]
    stages.join(folder, tmp_path / "joined.bin")
    assert (tmp_path / "joined.bin").read_bytes() == whole.read_bytes()
    # Fewer of them the next time.
    assert len(stages.split(whole, folder, 4 << 20)) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["SHA256SUMS", "whole.bin.00"]


def test_missing_and_damaged_stages_are_named(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    folder, joined = tmp_path / "stages", tmp_path / "joined.bin"
    with pytest.raises(stages.Incomplete, match="SHA256SUMS is missing"):
        stages.join(folder, joined)
    made = stages.split(whole, folder, 1 << 20)
    made[1].unlink()
    made[3].write_bytes(b"other")
    with pytest.raises(stages.Incomplete, match=r"whole\.bin\.01 is missing, whole\.bin\.03 is damaged"):
        stages.join(folder, joined)
    assert not joined.exists()


def fake_program(path: pathlib.Path, version: str) -> None:
    """A script in a program's place that says what it is started with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "#!/bin/sh\n# /lib64/ld-linux-x86-64.so.2\n"
        f'[ "$1" != --version ] || {version}\n'
        'echo "| $* | found |"; echo "|---|---|"; echo "| libraries | $LD_LIBRARY_PATH |"\n'
        'for word in "$@"; do [ "$word" != kernels ] || exit 1; [ "$word" != probe ] || exit 69; done\n'
    )
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> dict[str, str]:
    """A bundle of scripts in two stages, and the environment to run it in."""
    root = tmp_path / "root"
    for name in ("saccade", "saccade-gpu"):
        fake_program(root / "bin" / name, "exit 0")
    (root / "needs.txt").write_text("libonnxruntime_providers_cuda.so libcublas.so.99\n")
    (root / "profile.txt").write_text("dev\n")
    for folder in ("lib", "libc", "runtime", "files"):
        (root / folder).mkdir()
    (root / "lib" / "noise").write_bytes(os.urandom(5_000))
    packed = tmp_path / "saccade-gpu.tar.xz"
    with tarfile.open(packed, "w:xz") as archive:
        archive.add(root, ".")
    stages.split(packed, tmp_path / "stages", 4_096)
    folder = tmp_path / "there"
    path = f"{pathlib.Path(shutil.which('python3') or '/usr/bin/python3').parent}:/usr/bin:/bin"
    return {"PATH": path, "SACCADE_GPU_DIR": str(folder), "STAGES": str(tmp_path / "stages")}


def run(machine: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HERE / "run", *words], env=machine, capture_output=True, text=True, timeout=60)


def test_stages_may_come_in_several_calls_and_each_part_runs_alone(machine: dict[str, str]) -> None:
    made = sorted(pathlib.Path(machine["STAGES"]).iterdir())
    assert len(made) >= 3, "two stages and their sums"
    assert run(machine, "put", str(made[0]), str(made[1])).returncode == 0
    early = run(machine, "decode")
    assert (early.returncode, "is missing" in early.stdout) == (70, True), early
    assert run(machine, "put", *map(str, made[2:])).returncode == 0
    done = run(machine, "decode", "--seconds", "1")
    assert done.returncode == 0, done
    bundle = pathlib.Path(machine["SACCADE_GPU_DIR"]) / "bundle"
    assert f"| --files {bundle}/files --limit 150 decode --seconds 1 | found |" in done.stdout
    assert f"{bundle}/lib:{bundle}/runtime" in done.stdout
    assert "libcublas.so.99: MISSING (the CUDA provider)" in done.stdout
    assert "the programs start; C library: the machine's" in done.stdout
    unknown = run(machine, "nothing")
    assert (unknown.returncode, "there are probe kernels decode" in unknown.stderr) == (64, True)


def test_a_part_that_fails_stops_no_other_and_all_are_in_the_table(machine: dict[str, str]) -> None:
    run(machine, "put", *map(str, pathlib.Path(machine["STAGES"]).iterdir()))
    done = run(machine, "all", "probe", "kernels", "goldens")
    table = (pathlib.Path(machine["SACCADE_GPU_DIR"]) / "out/table.md").read_text()
    assert done.returncode == 1, done
    for line in ["probe ended with 69.", "kernels ended with 1.", "goldens ended with 0."]:
        assert line in table
    assert table.count("| found |") == 3
    assert run(machine, "all", "probe").returncode == 69
    # One file for the logs of all of them, beside the table.
    log = (pathlib.Path(machine["SACCADE_GPU_DIR"]) / "out/log.txt").read_text()
    assert "the programs start" in log and " probe | found |" in log and " goldens | found |" in log
    assert len(list((pathlib.Path(machine["SACCADE_GPU_DIR"]) / "out").iterdir())) == 2
    short = run({**machine, "SACCADE_GPU_SECONDS": "30"}, "all", "goldens")
    assert (short.returncode, "goldens: not run, for want of time" in short.stdout) == (1, True)


def test_all_begins_with_what_is_most_worth_knowing_and_ends_in_time(machine: dict[str, str]) -> None:
    run(machine, "put", *map(str, pathlib.Path(machine["STAGES"]).iterdir()))
    to = pathlib.Path(machine["SACCADE_GPU_DIR"]) / "elsewhere"
    done = run({**machine, "OUT": str(to)}, "all")
    assert done.returncode == 1, done
    lines = re.findall(r"^\| --files \S+ --limit (\d+) (.+) \| found \|$", (to / "table.md").read_text(), re.MULTILINE)
    first = ["probe", "kernels --rounds 50", "sweep --sides 640 --batches 8,32"]
    first += ["sessions --counts 100 --models yolo-640", "decode", "goldens", "sweep", "sessions"]
    assert [words for _, words in lines] == first
    limits = [int(limit) for limit, _ in lines]
    # The last may have all that is left: of 540 s, less what it takes to end it.
    assert 100 <= limits[0] <= 103 and 500 <= limits[-1] <= 515, limits
    own = run({**machine, "OUT": str(to), "SACCADE_GPU_OUT": str(to / "own")}, "all", "goldens")
    assert (own.returncode, (to / "own/table.md").exists()) == (0, True)


def test_lists_that_lead_elsewhere_are_refused(tmp_path: pathlib.Path) -> None:
    for name in ["../whole.bin.00", "/etc/passwd", ".."]:
        (tmp_path / "SHA256SUMS").write_text(f"00  {name}\n11  whole.bin\n")
        with pytest.raises(stages.Incomplete, match="no file of its folder"):
            stages.join(tmp_path, tmp_path / "joined.bin")
    (tmp_path / "SHA256SUMS").write_text("")
    with pytest.raises(stages.Incomplete, match="no list of checksums"):
        stages.join(tmp_path, tmp_path / "joined.bin")


def test_programs_that_do_not_start_are_tried_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpack, "PATIENCE", 0.2)
    for name, version, why in [("a", "exec sleep 20", "within 0.2 s"), ("b", "exit 3", "ended with 3")]:
        folder = tmp_path / name
        for program in ("saccade", "saccade-gpu"):
            fake_program(folder / "bin" / program, version)
        start = unpack.write_start(folder, False, [])
        assert why in unpack.works(start)
        # Nothing takes it for unpacked.
        assert not (folder / "start").exists()


def test_an_old_c_library_is_replaced_by_the_bundles(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bundle"
    program = folder / "bin" / "saccade"
    program.parent.mkdir(parents=True)
    code = b"\x7fELF" + bytes(60) + b"/lib64/ld-linux-x86-64.so.2\0" + b"more"
    program.write_bytes(code)
    loader = tmp_path / "link"
    monkeypatch.setattr(unpack, "LOADER", "/tmp/saccade-test-ld.so")
    monkeypatch.setattr(unpack.pathlib.Path, "symlink_to", lambda self, target: loader.write_text(str(target)))
    unpack.with_own_loader(folder)
    assert program.read_bytes() == code.replace(b"/lib64/ld-linux-x86-64.so.2", b"/tmp/saccade-test-ld.so\0\0\0\0")
    assert loader.read_text() == str(folder / "libc/ld-linux-x86-64.so.2")
    start = unpack.write_start(folder, True, ["/there"])
    assert f"LD_LIBRARY_PATH={folder}/libc:{folder}/lib:{folder}/runtime:/there" in start.read_text()


def test_libraries_are_looked_for_where_they_may_be(tmp_path: pathlib.Path) -> None:
    (tmp_path / "libcudnn.so.9").write_text("")
    assert unpack.find("libcudnn.so.9", ["/nowhere", str(tmp_path)]) == str(tmp_path)
    assert unpack.find("libc.so.6", []) == ""
    assert unpack.find("libsaccade-has-no-such.so.1", [str(tmp_path)]) is None
    assert len(unpack.LOADER) <= len("/lib64/ld-linux-x86-64.so.2")
