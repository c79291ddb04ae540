"""The committed PTX is what the sources give; NVRTC needs no GPU for that."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "src/device/kernels"


def check(folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-B", str(ROOT / "scripts/kernels.py"), "--check", "--folder", str(folder)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> pathlib.Path:
    for file in [*KERNELS.glob("*.cu"), *KERNELS.glob("*.ptx")]:
        shutil.copy(file, tmp_path)
    return tmp_path


def test_committed_ptx_is_what_the_sources_give() -> None:
    done = check(KERNELS)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_changed_source_is_noticed(copy: pathlib.Path) -> None:
    source = copy / "frames.cu"
    text = source.read_text()
    assert "+ 2) / 4" in text
    source.write_text(text.replace("+ 2) / 4", "+ 1) / 4"))
    done = check(copy)
    assert done.returncode == 1
    assert "not what the sources give: frames.ptx" in done.stderr


def test_changed_ptx_and_ptx_without_source_are_noticed(copy: pathlib.Path) -> None:
    with (copy / "detections.ptx").open("a") as ptx:
        ptx.write("\n")
    (copy / "other.ptx").write_text("")
    done = check(copy)
    assert done.returncode == 1
    assert "detections.ptx, other.ptx" in done.stderr


def test_mistakes_in_a_source_are_shown(copy: pathlib.Path) -> None:
    (copy / "frames.cu").write_text('extern "C" __global__ void broken(int *a) { *a = nowhere; }\n')
    done = check(copy)
    assert done.returncode == 1
    assert 'frames.cu(1): error: identifier "nowhere" is undefined' in done.stderr
