// A client and a server in network namespaces of their own, with two ways between them: Wi-Fi and mobile.
import { execFile, spawnSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";

/** Where the server is, whichever way one takes. */
export const SERVER = "10.78.0.1";
/** Links, with their networks; the first is preferred while it is up. */
const LINKS = [
  { name: "wifi", net: "10.78.1", metric: 100 },
  { name: "mobile", net: "10.78.2", metric: 600 },
];

/** What keeps this machine from making network namespaces, or null. */
export function lacksNamespaces() {
  for (const [program, flag] of [["ip", "-V"], ["nft", "-v"]]) {
    if (spawnSync(program, [flag]).error) return `the program ${program}`;
  }
  const name = `sce${process.pid}`;
  if (spawnSync("ip", ["netns", "add", name]).status !== 0) return "the right to make network namespaces";
  run("ip", "netns", "del", name);
  return null;
}

/** Both namespaces; made and removed by the test that needs them. Where they cannot be made whole, nothing is left of them. */
export class Networks {
  static #made = 0;

  constructor() {
    const stem = `sce${process.pid}x${(Networks.#made += 1)}`;
    this.client = `${stem}c`;
    this.server = `${stem}s`;
    try {
      this.#make();
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  #make() {
    for (const name of [this.client, this.server]) {
      run("ip", "netns", "add", name);
      run("ip", "-n", name, "link", "set", "lo", "up");
    }
    run("ip", "-n", this.server, "address", "add", `${SERVER}/32`, "dev", "lo");
    for (const { name, net, metric } of LINKS) {
      const ends = [name, "netns", this.client, "type", "veth", "peer", "name", name, "netns", this.server];
      run("ip", "link", "add", ...ends);
      run("ip", "-n", this.client, "address", "add", `${net}.2/24`, "dev", name);
      run("ip", "-n", this.server, "address", "add", `${net}.1/24`, "dev", name);
      for (const side of [this.client, this.server]) run("ip", "-n", side, "link", "set", name, "up");
      run("ip", "-n", this.client, "route", "add", "default", "via", `${net}.1`, "dev", name, "metric", `${metric}`);
    }
    this.down("mobile");
  }

  /** Words before a command that run it on this side. */
  within(side) {
    return ["ip", "netns", "exec", this[side]];
  }

  /** An executable that runs `program` on the client's side. */
  wrapped(program, folder) {
    const path = join(folder, `within-${this.client}`);
    writeFileSync(path, `#!/bin/sh\nexec ${this.within("client").join(" ")} '${program}' "$@"\n`);
    chmodSync(path, 0o755);
    return path;
  }

  /** Takes a link down, as when a phone leaves its Wi-Fi: addresses and routes stay away until {@link up}. */
  down(name) {
    run("ip", "-n", this.client, "link", "set", name, "down");
  }

  /** Brings a link up again, with its route. */
  up(name) {
    const { net, metric } = LINKS.find((link) => link.name === name);
    run("ip", "-n", this.client, "link", "set", name, "up");
    run("ip", "-n", this.client, "route", "replace", "default", "via", `${net}.1`, "dev", name, "metric", `${metric}`);
  }

  /** Loses every packet between client and server, and nobody is told; or ends that. */
  silence(silent) {
    const rules = 'table inet silence {\nchain input {\ntype filter hook input priority 0\niifname != "lo" drop\n}\n}\n';
    for (const side of [this.client, this.server]) {
      if (silent) runWith(rules, "ip", "netns", "exec", side, "nft", "-f", "-");
      else run("ip", "netns", "exec", side, "nft", "delete", "table", "inet", "silence");
    }
  }

  /** Lets a link carry so many kbit/s to the client, with a queue of half a second. */
  narrow(name, kbits) {
    const rate = ["tbf", "rate", `${kbits}kbit`, "burst", "6kb", "latency", "500ms"];
    run("ip", "netns", "exec", this.server, "tc", "qdisc", "replace", "dev", name, "root", ...rate);
  }

  /** What the server at `url` says to a request from its own side. */
  async ask(url) {
    const script = "fetch(process.argv[1]).then((it) => it.text()).then((it) => process.stdout.write(it))";
    const [program, ...words] = [...this.within("server"), process.execPath, "-e", script, url];
    const { stdout } = await promisify(execFile)(program, words, { timeout: 10_000 });
    return JSON.parse(stdout);
  }

  /** Removes both, whatever still is in them. */
  remove() {
    for (const name of [this.client, this.server]) spawnSync("ip", ["netns", "del", name]);
  }
}

function run(...words) {
  return runWith("", ...words);
}

function runWith(input, program, ...words) {
  const { status, stdout, stderr, error } = spawnSync(program, words, { input, encoding: "utf8", timeout: 10_000 });
  if (status !== 0) throw new Error(`${program} ${words.join(" ")}: ${error ?? stderr}`);
  return stdout;
}
