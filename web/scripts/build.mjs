// Builds web/dist: the SDK, its worker and types, and the page. The output depends on the sources and the locked
// packages alone, so that a fresh build equals the committed one.
//
//   node scripts/build.mjs           writes dist/
//   node scripts/build.mjs --check   exits 1 and names the files where dist/ is not what the sources give
import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { generateDtsBundle } from "dts-bundle-generator";
import { build } from "esbuild";

const root = resolve(fileURLToPath(import.meta.url), "../..");
const dist = join(root, "dist");
const check = process.argv.includes("--check");
const out = check ? await mkdtemp(join(tmpdir(), "saccade-dist-")) : dist;

try {
  if (!check) await rm(dist, { recursive: true, force: true });
  await buildInto(out);
  if (check) await compare(dist, out);
} finally {
  if (check) await rm(out, { recursive: true, force: true });
}

async function buildInto(folder) {
  await mkdir(folder, { recursive: true });
  const common = {
    absWorkingDir: root,
    bundle: true,
    target: ["chrome111", "firefox132", "safari16.4"],
    charset: "utf8",
    legalComments: "none",
    logLevel: "warning",
  };
  const banner = { js: "// Saccade browser client. MIT OR Apache-2.0" };
  await Promise.all([
    build({ ...common, entryPoints: ["sdk/index.ts"], outfile: join(folder, "saccade.js"), format: "esm", minifySyntax: true, banner }),
    build({ ...common, entryPoints: ["sdk/sightings-worker.ts"], outfile: join(folder, "saccade-worker.js"), format: "iife", minify: true }),
    build({
      ...common,
      entryPoints: ["page/main.ts"],
      outfile: join(folder, "page.js"),
      format: "esm",
      minify: true,
      // The page uses the very file that integrators load.
      plugins: [{ name: "sdk", setup: ({ onResolve }) => onResolve({ filter: /\/sdk\/index\.js$/ }, () => ({ path: "./saccade.js", external: true })) }],
    }),
    build({ ...common, entryPoints: ["page/api.ts", "page/history.ts", "page/stills.ts", "page/status.ts"], outdir: folder, format: "esm", minify: true }),
    ...["api.html", "history.html", "stills.html", "status.html"].map((name) => cp(join(root, "page", name), join(folder, name))),
    build({ ...common, entryPoints: ["page/page.css"], outfile: join(folder, "page.css"), minify: true }),
    cp(join(root, "page/index.html"), join(folder, "index.html")),
    cp(join(root, "public"), folder, { recursive: true }),
    writeTypes(join(folder, "saccade.d.ts")),
  ]);
}

async function writeTypes(file) {
  const [text] = generateDtsBundle(
    [{ filePath: join(root, "sdk/index.ts"), output: { noBanner: true, exportReferencedTypes: false } }],
    { preferredConfigPath: join(root, "tsconfig.json") },
  );
  await writeFile(file, text);
}

async function compare(committed, fresh) {
  const [old, now] = await Promise.all([files(committed), files(fresh)]);
  const names = [...new Set([...old.keys(), ...now.keys()])].sort();
  const stale = names.filter((name) => !old.get(name)?.equals(now.get(name) ?? Buffer.alloc(0)));
  if (stale.length === 0) return;
  console.error(`web/dist is not what the sources give; run \`npm run build\` in web/ and commit it:`);
  for (const name of stale) console.error(`  ${name}`);
  process.exitCode = 1;
}

async function files(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  const pairs = entries
    .filter((entry) => entry.isFile())
    .map(async (entry) => {
      const path = join(entry.parentPath ?? entry.path, entry.name);
      return [relative(folder, path), await readFile(path)];
    });
  return new Map(await Promise.all(pairs));
}
