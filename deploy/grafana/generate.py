"""Writes dashboards/*.json from boards.py; with --check, says which differ and writes nothing.

    python3 deploy/grafana/generate.py [--check]

Exit codes: 0 all is as it should be, 1 `--check` found a difference, 64 a wrong argument.
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from boards import BOARDS  # noqa: E402

FOLDER = Path(__file__).parent / "dashboards"


def files() -> dict[Path, str]:
    """What belongs into which file."""
    return {FOLDER / f"{board.uid}.json": json.dumps(board.json(), indent=1, ensure_ascii=False) + "\n" for board in BOARDS}


def main(words: list[str]) -> int:
    if words not in ([], ["--check"]):
        print("usage: generate.py [--check]", file=sys.stderr)
        return 64
    wanted = files()
    there = {path: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if words:
        wrong = sorted(path.name for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))
        if wrong:
            print(f"not what boards.py says: {', '.join(wrong)}; run python3 deploy/grafana/generate.py", file=sys.stderr)
        return 1 if wrong else 0
    for path in there.keys() - wanted.keys():
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
