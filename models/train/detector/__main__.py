"""The command line: `python -m detector COMMAND RECIPE`."""

from __future__ import annotations

import argparse
import pathlib

from . import config


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m detector", description=__doc__.splitlines()[0])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe")
    parser.add_argument(
        "--work", type=pathlib.Path, default=pathlib.Path("work"), help="folder for checkpoints and logs"
    )
    parser.add_argument("--threads", type=int, default=2)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train, or go on with an interrupted run")
    train.add_argument("recipe", type=pathlib.Path)
    train.add_argument("--workers", type=int, default=1, help="processes that make samples")
    train.add_argument("--stop-after", type=float, default=0, metavar="MINUTES", help="leave early, to go on later")
    export = commands.add_parser("export", help="write model.onnx, model.int8.onnx and model.fp16.onnx")
    export.add_argument("recipe", type=pathlib.Path)
    export.add_argument("--out", type=pathlib.Path, required=True, help="folder for the graphs")
    export.add_argument("--pictures", type=int, default=200, help="photos to calibrate int8 with")
    half = commands.add_parser("half", help="write a graph of any origin in half precision, for GPUs")
    half.add_argument("graph", type=pathlib.Path, help="the graph in fp32")
    half.add_argument("--out", type=pathlib.Path, required=True, help="the file to write")
    half.add_argument(
        "--rounded",
        action="store_true",
        help="write in fp32 what rounds as half precision does: its figures on a processor are those of half precision",
    )
    parts = commands.add_parser("parts", help="write the parts of the split as COCO JSON, for `saccade eval`")
    parts.add_argument("recipe", type=pathlib.Path)
    parts.add_argument("--out", type=pathlib.Path, required=True, help="folder for the files")
    scenes = commands.add_parser("scenes", help="make pictures and boxes of the drawn scene")
    scenes.add_argument("--renderer", type=pathlib.Path, required=True, help="the built example render_scene")
    scenes.add_argument("--seeds", type=int, nargs=2, required=True, metavar=("FIRST", "BEHIND"))
    arguments = parser.parse_args()
    if arguments.command == "scenes":
        from .scenes import make

        make(arguments.renderer, arguments.work, range(*arguments.seeds))
        return
    if arguments.command == "half":
        from .half import write

        write(arguments.graph, arguments.out, arguments.rounded)
        return
    recipe = config.load(arguments.recipe, arguments.set)
    if arguments.command == "train":
        from .train import train as run

        run(recipe, arguments.work, arguments.threads, arguments.workers, arguments.stop_after)
    elif arguments.command == "parts":
        from .dataset import write_parts

        write_parts(recipe.data, recipe.classes, arguments.out)
    elif arguments.command == "export":
        from .export import export as run

        run(recipe, arguments.work / "last.pt", arguments.out, arguments.pictures)


if __name__ == "__main__":
    main()
