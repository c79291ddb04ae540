//! Rules of the repository that no compiler checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use saccade::telemetry::metrics;

/// Modules that anyone may import.
const LEAVES: [&str; 31] = [
    "accuracy",
    "advice",
    "assignment",
    "cache",
    "calibration",
    "capacity",
    "child",
    "claims",
    "clock",
    "cluster",
    "device",
    "draw",
    "estimate",
    "frame",
    "hardware",
    "history",
    "ice",
    "kserve",
    "media",
    "memory",
    "offload",
    "openapi",
    "profile",
    "queue",
    "reload",
    "route",
    "secret",
    "state",
    "stillness",
    "telemetry",
    "traces",
];
/// Modules that wire others together and may import anything.
const WIRING: [&str; 7] = ["app", "commands", "detect", "main", "models", "pipeline", "tuning"];
/// What a module imports beyond leaves. A stage is not listed: it imports leaves only.
const IMPORTS: [(&str, &[&str]); 5] = [
    ("cli", &["config", "token"]),
    ("config", &["session", "sinks"]),
    ("doctor", &["cli", "config", "infer", "models", "tuning"]),
    ("http", &["session"]),
    ("token", &["config"]),
];
/// What leaves import; those that are not listed import nothing.
const LEAF_IMPORTS: [(&str, &[&str]); 14] = [
    ("accuracy", &["assignment", "media"]),
    ("cache", &["clock", "offload", "secret", "telemetry"]),
    ("calibration", &["clock"]),
    ("child", &["clock"]),
    ("cluster", &["cache", "clock", "secret", "telemetry"]),
    ("device", &["clock", "draw", "media", "queue"]),
    ("draw", &["media"]),
    ("frame", &["device", "media"]),
    ("hardware", &["child", "clock"]),
    ("history", &["clock", "queue", "secret"]),
    ("ice", &["secret"]),
    ("kserve", &["claims", "clock", "openapi", "secret", "traces"]),
    ("profile", &["clock"]),
    ("traces", &["clock", "secret", "telemetry"]),
];
/// Where wire types may be touched.
const EDGE: [&str; 6] = ["app", "commands", "egress", "http", "pipeline", "session"];
/// Lines of a file before its tests.
const MAX_LINES: usize = 650;

struct Source {
    /// Relative to the root of the repository.
    path: PathBuf,
    /// Top-level module, such as `decode`.
    module: String,
    text: String,
}

impl Source {
    /// The lines before the tests.
    fn body(&self) -> impl Iterator<Item = &str> {
        let is_test = self.path.file_name().is_some_and(|name| name == "tests.rs");
        self.text.lines().take_while(move |line| !is_test && *line != "#[cfg(test)]")
    }

    /// [`Source::body`] without lines of comment.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.body().filter(|line| !line.trim_start().starts_with("//"))
    }

    fn is_top(&self) -> bool {
        self.path.components().count() == 2 || self.path.ends_with(Path::new(&self.module).join("mod.rs"))
    }

    /// Modules of the crate that the code names.
    fn imports(&self, modules: &BTreeSet<String>) -> BTreeSet<String> {
        let code: String = self.code().flat_map(|line| [line, "\n"]).collect();
        let mut found = BTreeSet::new();
        for root in ["crate::", "super::"] {
            if root == "super::" && !self.is_top() {
                continue;
            }
            for (_, rest) in code.match_indices(root).map(|(at, _)| code.split_at(at + root.len())) {
                found.extend(first_names(rest));
            }
        }
        found.retain(|name| modules.contains(name) && *name != self.module);
        found
    }
}

/// `a::b` → a; `{a::{x, y}, b}` → a, b.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|one| one.is_alphanumeric() || *one == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, one) in group.char_indices() {
        match one {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            one if start && depth == 0 && !one.is_whitespace() => {
                names.push(name(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    names
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut folders = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let inside = entry.strip_prefix(root().join(folder)).unwrap();
                let module = Path::new(inside.components().next().unwrap().as_os_str()).with_extension("");
                found.push(Source {
                    path: entry.strip_prefix(root()).unwrap().to_owned(),
                    module: module.to_str().unwrap().to_owned(),
                    text: fs::read_to_string(&entry).unwrap(),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn stages_import_leaves_and_nothing_of_each_other() {
    let sources = sources("src");
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module.clone()).collect();
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.module != "lib" && !WIRING.contains(&source.module.as_str())) {
        let module = source.module.as_str();
        let listed = |table: &[(&str, &'static [&'static str])]| {
            table.iter().find(|(name, _)| *name == module).map_or(&[][..], |(_, imports)| imports)
        };
        for import in source.imports(&modules) {
            let import = import.as_str();
            let allowed = if LEAVES.contains(&module) {
                listed(&LEAF_IMPORTS).contains(&import)
            } else {
                LEAVES.contains(&import) || listed(&IMPORTS).contains(&import)
            };
            if !allowed {
                broken.push(format!("{} imports {import}", source.path.display()));
            }
        }
    }
    assert_none(&broken, "only pipeline, app and detect know several stages");
}

#[test]
fn wire_types_are_touched_at_the_edge_only() {
    let touches = |source: &&Source| source.code().any(|line| line.contains("saccade_signaling"));
    let outside = sources("src").into_iter().filter(|source| !EDGE.contains(&source.module.as_str()));
    let broken: Vec<_> =
        outside.filter(|source| touches(&source)).map(|source| source.path.display().to_string()).collect();
    assert_none(&broken, "the wire types belong to session, http, egress, pipeline, app and the commands");

    let manifest = read("signaling/Cargo.toml");
    assert!(!manifest.contains("path ="), "saccade-signaling depends on no crate of ours");
}

#[test]
fn files_are_short() {
    let all = sources("src").into_iter().chain(sources("signaling/src"));
    let lines = all.map(|source| (source.body().count(), source.path.display().to_string()));
    let broken: Vec<_> =
        lines.filter(|(lines, _)| *lines > MAX_LINES).map(|(lines, path)| format!("{path}: {lines} lines")).collect();
    assert_none(&broken, "a file has at most 650 lines before its tests; split it along its ideas");
}

#[test]
fn only_the_clock_asks_for_the_time() {
    let mut broken = Vec::new();
    for source in sources("src").iter().chain(&sources("signaling/src")).filter(|source| source.module != "clock") {
        for (number, line) in source.text.lines().enumerate() {
            let asks = ["Instant::now", "SystemTime::now", "UNIX_EPOCH.elapsed", "thread::sleep"];
            if !line.trim_start().starts_with("//") && asks.iter().any(|ask| line.contains(ask)) {
                broken.push(format!("{}:{}", source.path.display(), number + 1));
            }
        }
    }
    assert_none(&broken, "ask crate::clock for the time, and wait for a condition with a deadline");
}

/// Routes that are in no description: aliases, what answers that there is nothing, and other listeners'.
#[test]
fn every_other_route_of_the_api_is_described() {
    let hidden = [
        "/offer",
        "/v1/{*rest}",
        "/v2/",
        "/v2/{*rest}",
        "/healthz",
        "/readyz",
        "/metrics",
        "/debug/flamegraph",
        "/debug/pprof/profile",
        "/debug/memory",
    ];
    for source in sources("src").into_iter().filter(|source| ["http", "kserve"].contains(&source.module.as_str())) {
        if source.path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let code: String = source.code().collect();
        for route in code.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            let path = source.path.display();
            assert!(
                hidden.contains(&route),
                "{path}: {route}: describe it (#[utoipa::path]), and register it by `routes!`"
            );
        }
    }
}

#[test]
fn every_metric_in_the_code_is_in_the_table() {
    let known: BTreeSet<&str> = metrics::ALL.iter().map(|metric| metric.name).collect();
    let mut broken = Vec::new();
    for source in sources("src") {
        for line in source.code() {
            let literals = line.match_indices("\"saccade_").map(|(at, _)| &line[at + 1..]);
            for literal in literals.filter_map(|rest| rest.split_once('"').map(|(literal, _)| literal)) {
                let is_name = literal.chars().all(|one| one.is_ascii_lowercase() || one == '_');
                if is_name && !known.contains(literal) {
                    broken.push(format!("{literal} in {}", source.path.display()));
                }
            }
        }
    }
    assert_none(&broken, "add these to the table in src/telemetry/metrics.rs");
}

#[test]
fn every_metric_in_the_table_is_recorded() {
    let table = Path::new("src/telemetry/metrics.rs");
    let code: String = sources("src")
        .iter()
        .filter(|source| source.path != table)
        .flat_map(Source::code)
        .collect::<Vec<_>>()
        .join("\n");
    let names = metrics::ALL.iter().map(|metric| metric.name).filter(|name| *name != metrics::BUILD_INFO);
    let broken: Vec<_> = names.filter(|name| !code.contains(&format!("\"{name}\""))).map(str::to_owned).collect();
    assert_none(&broken, "nothing records these");
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let rows: Vec<String> = read("deploy/METRICS.md").lines().map(str::to_owned).collect();
    let mut broken = Vec::new();
    for metric in metrics::ALL {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let row = format!("| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help);
        if !rows.contains(&row) {
            broken.push(row);
        }
    }
    assert_none(&broken, "deploy/METRICS.md lacks these rows");

    let known: BTreeSet<String> = metrics::ALL.iter().map(|metric| format!("`{}`", metric.name)).collect();
    let documented = rows.iter().filter_map(|row| row.strip_prefix("| ")?.split_once(" |").map(|(name, _)| name));
    let unknown: Vec<_> = documented.filter(|name| name.starts_with("`saccade_") && !known.contains(*name)).collect();
    assert!(unknown.is_empty(), "deploy/METRICS.md names metrics that do not exist: {unknown:?}");
}

#[test]
fn names_of_imports_are_found() {
    for (path, names) in [
        ("decode::Frame;", vec!["decode"]),
        ("{decode::{self, Frame}, queue}", vec!["decode", "queue"]),
        ("{\n    clock,\n    media::{Codec, Frame},\n};", vec!["clock", "media"]),
    ] {
        assert_eq!(first_names(path), names);
    }
    let modules = BTreeSet::from(["decode", "encode", "infer", "queue"].map(str::to_owned));
    let source =
        |path: &str, text: &str| Source { path: path.into(), module: "decode".to_owned(), text: text.to_owned() };
    let text = "//! See crate::encode.\nuse crate::queue::Fifo;\nuse super::infer;\n\n#[cfg(test)]\nmod t { use crate::encode; }\n";
    assert_eq!(
        source("src/decode/mod.rs", text).imports(&modules),
        BTreeSet::from(["queue", "infer"].map(str::to_owned))
    );
    assert_eq!(source("src/decode/software.rs", text).imports(&modules), BTreeSet::from(["queue".to_owned()]));
}
