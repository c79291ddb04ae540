#!/usr/bin/env python3
"""What a program asks a Saccade server for over plain HTTP: pictures, models, sessions, history.

    pip install requests
    python saccade_client.py detect photo.jpg                       # what is found, as JSON
    python saccade_client.py detect photo.jpg --kept answers.json   # a second time only asks whether it still holds
    python saccade_client.py many one.jpg two.png three.webp        # one line for each picture, as soon as it is done
    python saccade_client.py annotate photo.jpg drawn.jpg           # the picture with boxes on it
    python saccade_client.py models
    python saccade_client.py load ppe-nano
    python saccade_client.py results SESSION --count 10             # of a live session, as they come
    python saccade_client.py events --type alert_started            # what was kept, newest first

The server is at http://127.0.0.1:8080, or where `--url` or SACCADE_URL says; a token is taken from SACCADE_TOKEN. To use
it from a program, import `Saccade` and call its methods; each raises `Problem` where the server refuses, with a stable
`code` and a sentence that says what to do. Exit codes: 0 done, 1 refused, 2 wrong arguments.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import requests

# Statuses of a server that asks to be left alone for a while: too many requests, and no room.
LATER = (429, 503)
# Seconds without a word from the server before it counts as gone. Streams say something every 15 s.
SILENCE = 30.0
# Seconds to wait where the server does not say how long.
USUAL_WAIT = 1.0

Json = dict[str, Any]


class Problem(Exception):
    """The server refuses, or is not there."""

    def __init__(self, code: str, detail: str, status: int = 0) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail, self.status = code, detail, status


class Kept:
    """Answers of earlier calls with their entity tags, in a file, so that what still holds need not be sent again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Json] = json.loads(path.read_text()) if path.exists() else {}

    def of(self, picture: bytes, options: Json) -> str:
        """The name that an answer is kept under."""
        said = json.dumps(options, sort_keys=True).encode()
        return hashlib.sha256(hashlib.sha256(said).digest() + picture).hexdigest()

    def put(self, name: str, etag: str | None, result: Json) -> None:
        if etag:
            self.answers[name] = {"etag": etag, "result": result}
            self.path.write_text(json.dumps(self.answers))


class Saccade:
    """A server. `patience` are the seconds that a call may take, with all waiting because the server is full."""

    def __init__(self, url: str, token: str | None = None, patience: float = 30.0) -> None:
        self.url, self.patience = url.rstrip("/"), patience
        self.http = requests.Session()
        if token:
            self.http.headers["Authorization"] = f"Bearer {token}"

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request, made again after as long as the server says while it is full and there is time."""
        due = time.monotonic() + self.patience
        while True:
            left = max(due - time.monotonic(), 0.1)
            try:
                answer = self.http.request(method, self.url + path, timeout=(left, max(left, SILENCE)), **more)
            except requests.RequestException as error:
                detail = f"No answer from {self.url}; is the server running, and is the address right? ({type(error).__name__})"
                raise Problem("unreachable", detail) from error
            if answer.status_code not in LATER:
                break
            wait = wait_of(answer)
            if time.monotonic() + wait > due:
                break
            answer.close()
            time.sleep(wait)
        if answer.status_code >= 400:
            raise problem_of(answer)
        return answer

    # --- still pictures ---

    def detect(self, picture: bytes, kept: Kept | None = None, **options: Any) -> Json:
        """What is found in a JPEG, PNG or WebP. `options` are those of sessions, such as `model` or `score_threshold`."""
        name = kept.of(picture, options) if kept else ""
        known = kept.answers.get(name) if kept else None
        headers = {"Content-Type": type_of(picture), "Accept": "application/json"}
        if known:
            headers["If-None-Match"] = known["etag"]
        answer = self.ask("POST", "/v1/detect", params=options, data=picture, headers=headers)
        if answer.status_code == 304 and known:
            return known["result"]
        result = answer.json()
        if kept:
            kept.put(name, answer.headers.get("ETag"), result)
        return result

    def detect_many(self, pictures: list[Path], **options: Any) -> Iterator[Json]:
        """Of each picture what is found, as soon as it is done: `image` is its place, and one that cannot be read is an entry
        of type `error` with `code` and `message`."""
        # In memory, since the server may have it sent once more.
        form = [("image", (path.name, path.read_bytes())) for path in pictures]
        headers = {"Accept": "text/event-stream"}
        return events_of(self.ask("POST", "/v1/detect", params=options, files=form, headers=headers, stream=True))

    def annotate(self, picture: bytes, kind: str = "jpeg", **options: Any) -> bytes:
        """The picture with what was found drawn on it, as `jpeg` or `png`."""
        headers = {"Content-Type": type_of(picture)}
        query = options | {"annotate": kind}
        return self.ask("POST", "/v1/detect", params=query, data=picture, headers=headers).content

    # --- models ---

    def models(self, all: bool = False) -> list[Json]:
        """The models that may be asked for; with `all` those that are loading, failed or unloaded, too."""
        return self.ask("GET", "/v1/models", params={"all": "true"} if all else None).json()

    def load(self, name: str) -> Json:
        """Loads a model, or one version of it as `NAME@VERSION`, and waits until it is ready."""
        model, due = self.ask("POST", f"/v1/models/{name}/load").json(), time.monotonic() + self.patience
        while model["state"] == "loading":
            if time.monotonic() > due:
                raise Problem("timeout", f"{name} is still loading; ask for `models` later.")
            time.sleep(0.5)
            same = (model["name"], model["version"])
            model = next(it for it in self.models(all=True) if (it["name"], it["version"]) == same)
        return model

    def unload(self, name: str) -> Json:
        """Takes a model out, or one version of it."""
        return self.ask("POST", f"/v1/models/{name}/unload").json()

    # --- live sessions and history ---

    def sessions(self) -> list[Json]:
        """What runs now."""
        return self.ask("GET", "/v1/sessions").json()

    def results(self, session: str) -> Iterator[Json]:
        """What is found in each frame of a session, until it ends."""
        headers = {"Accept": "text/event-stream"}
        return events_of(self.ask("GET", f"/v1/sessions/{session}/results", headers=headers, stream=True))

    def events(self, **filters: str) -> Iterator[Json]:
        """What was kept, newest first, page by page: `camera`, `session`, `type`, `zone`, `from`, `to` and others."""
        query: dict[str, str] = dict(filters)
        while True:
            page = self.ask("GET", "/v1/events", params=query).json()
            yield from page["events"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]


def events_of(answer: requests.Response) -> Iterator[Json]:
    """The JSON of Server-Sent Events."""
    with closing(answer):
        try:
            for line in answer.iter_lines(decode_unicode=False):
                if line.startswith(b"data:"):
                    yield json.loads(line.removeprefix(b"data:"))
        except requests.RequestException as error:
            raise Problem("unreachable", "The stream broke off; ask for it again.") from error


def wait_of(answer: requests.Response) -> float:
    """Seconds to wait before the next try."""
    try:
        return max(float(answer.headers.get("Retry-After", USUAL_WAIT)), 0.0)
    except ValueError:
        return USUAL_WAIT


def problem_of(answer: requests.Response) -> Problem:
    """What the server says is wrong (RFC 9457)."""
    try:
        said = answer.json()
        return Problem(said["code"], said["detail"], answer.status_code)
    except (ValueError, KeyError, TypeError):
        return Problem("unknown", f"{answer.request.method} {answer.url} was answered with {answer.status_code}.", answer.status_code)


def type_of(picture: bytes) -> str:
    """A picture's media type, by its first bytes."""
    if picture.startswith(b"\x89PNG"):
        return "image/png"
    return "image/webp" if picture[8:12] == b"WEBP" else "image/jpeg"


def words_of(result: Json) -> str:
    """A result in one line."""
    if result["type"] == "error":
        return f"{result['code']}: {result['message']}"
    found = [f"{it['class']} {it['score']:.2f} at {it['box']}" for it in result.get("detections", [])]
    # What classifiers say of the whole picture.
    found += [f"{it['class']} {it['score']:.2f}" for it in result.get("classes", [])]
    return ", ".join(found) or "nothing"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=os.environ.get("SACCADE_URL", "http://127.0.0.1:8080"), help="the server")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds that a call may take, waiting included")
    commands = parser.add_subparsers(dest="command", required=True)
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", help="a model or a route; by default the server's")
    options.add_argument("--score-threshold", type=float)
    detect = commands.add_parser("detect", parents=[options], help="what is in a picture")
    detect.add_argument("picture", type=Path)
    detect.add_argument("--kept", type=Path, help="a file that answers are kept in")
    many = commands.add_parser("many", parents=[options], help="what is in each of several pictures")
    many.add_argument("pictures", type=Path, nargs="+")
    annotate = commands.add_parser("annotate", parents=[options], help="draw it")
    annotate.add_argument("picture", type=Path)
    annotate.add_argument("output", type=Path, help="a .jpg or .png")
    models = commands.add_parser("models", help="the models")
    models.add_argument("--all", action="store_true", help="those that cannot be asked for, too")
    for name in ("load", "unload"):
        commands.add_parser(name, help=f"{name} a model").add_argument("model", help="NAME or NAME@VERSION")
    commands.add_parser("sessions", help="what runs now")
    results = commands.add_parser("results", help="what a session finds, as it comes")
    results.add_argument("session")
    results.add_argument("--count", type=int, help="end after so many")
    events = commands.add_parser("events", help="what was kept")
    for name in ("camera", "session", "type", "zone", "from", "to"):
        events.add_argument(f"--{name}")
    return parser.parse_args(words)


def run(asked: argparse.Namespace) -> None:
    server = Saccade(asked.url, os.environ.get("SACCADE_TOKEN"), asked.patience)
    wanted = {name: getattr(asked, name, None) for name in ("model", "score_threshold")}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    match asked.command:
        case "detect":
            kept = Kept(asked.kept) if asked.kept else None
            print(json.dumps(server.detect(asked.picture.read_bytes(), kept, **wanted)))
        case "many":
            for result in server.detect_many(asked.pictures, **wanted):
                print(f"{asked.pictures[result['image']]}: {words_of(result)}", flush=True)
        case "annotate":
            kind = "png" if asked.output.suffix == ".png" else "jpeg"
            asked.output.write_bytes(server.annotate(asked.picture.read_bytes(), kind, **wanted))
        case "models":
            for it in server.models(asked.all):
                mark = " (default)" if it["default"] else ""
                print(f"{it['name']}@{it['version']}{mark}: {it['state']}, {it['task']}, finds {', '.join(it['classes'])}")
        case "load" | "unload":
            model = getattr(server, asked.command)(asked.model)
            print(f"{model['name']}@{model['version']}: {model['state']}")
        case "sessions":
            for it in server.sessions():
                print(f"{it['session_id']}: {it['state']}, {it['options']['model']}, {it['counters']['results']} results")
        case "results":
            for number, result in enumerate(server.results(asked.session), 1):
                print(f"frame {result['frame_id']}: {words_of(result)}", flush=True)
                if number == asked.count:
                    break
        case "events":
            names = ("camera", "session", "type", "zone", "from", "to")
            for it in server.events(**{name: getattr(asked, name) for name in names if getattr(asked, name)}):
                print(json.dumps(it))


def main() -> int:
    try:
        run(arguments())
    except Problem as problem:
        print(problem, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
