// The server under test, in a process of its own, on free ports.
import { spawn } from "node:child_process";
import { createWriteStream, existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "./waiting.mjs";

export const ROOT = resolve(fileURLToPath(import.meta.url), "../../..");

/** Where the server's binary is, or null. */
export function findBinary() {
  const { SACCADE_BIN, SACCADE_TEST_SERVER, CARGO_TARGET_DIR } = process.env;
  if (SACCADE_BIN) return existsSync(SACCADE_BIN) ? SACCADE_BIN : null;
  const target = resolve(ROOT, CARGO_TARGET_DIR || "target");
  const places = [SACCADE_TEST_SERVER, join(target, "debug/saccade"), join(target, "release/saccade")];
  return places.find((place) => place && existsSync(place)) ?? null;
}

/** A running server. */
export class Server {
  #child;
  #ended;

  constructor(child, url, ended) {
    this.#child = child;
    this.#ended = ended;
    /** Address of the page, without a slash at its end. */
    this.url = url;
  }

  /**
   * Starts one with these keys of the configuration, and waits until it is ready. Its log goes to the file `log`. `within`
   * are words before its command, `flags` some after it.
   */
  static async start(binary, log, settings = {}, { within = [], flags = [] } = {}) {
    const keys = {
      "http.listen": "127.0.0.1:0",
      "ops.listen": "127.0.0.1:0",
      "media.listen": "127.0.0.1",
      "media.port": "0",
      "models.dir": join(ROOT, "models"),
      "models.routes_file": "off",
      "store.url": "off",
      ...settings,
    };
    const args = Object.entries(keys).flatMap(([key, value]) => ["--set", `${key}=${value}`]);
    const [program, ...words] = [...within, binary, "serve", ...flags, ...args];
    const child = spawn(program, words, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
    const ended = new Promise((done) => {
      child.on("error", (error) => done({ code: null, signal: null, error }));
      child.on("exit", (code, signal) => done({ code, signal }));
    });
    let end = null;
    void ended.then((how) => (end = how));
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text) => (said += text));
    child.stderr.pipe(createWriteStream(log));
    try {
      const url = await until("the server says where it is", 60_000, () => {
        if (end) throw new Error(`the server ended at its start: ${JSON.stringify(end)}; see ${log}`);
        return /ready: (http\S+?)\/?\s/.exec(said)?.[1];
      });
      return new Server(child, url, ended);
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    }
  }

  /** What `GET /v1/sessions` lists. */
  async sessions() {
    const response = await fetch(`${this.url}/v1/sessions`, { signal: AbortSignal.timeout(5_000) });
    if (response.status !== 200) throw new Error(`GET /v1/sessions answered ${response.status}`);
    return response.json();
  }

  /** Asks the server to end, and tells how it did: `{ code, signal }`. Kills it when it takes longer than `ms`. */
  async stop(ms = 35_000) {
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), ms);
    try {
      return await this.#ended;
    } finally {
      clearTimeout(timer);
    }
  }
}
