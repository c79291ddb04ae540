use serde_json::{Value, json};

use super::{open, print_refusal, print_table, refusal};
use crate::cli::{Exit, ModelsList};
use crate::config::Config;
use crate::infer::{ModelSpec, Refused};

/// Looks at manifests and checksums, and loads nothing.
pub(super) fn run(args: &ModelsList) -> Exit {
    let (config, repository) = match open(Config::load(&args.sources(std::env::vars_os()))) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let default = repository.find(&config.models.default).map(|spec| spec.manifest.id()).ok();
    let is_default = |spec: &ModelSpec| default.as_ref() == Some(&spec.manifest.id());
    if args.json {
        let models = repository.models().iter().map(|spec| describe(spec, is_default(spec)));
        let refused = repository.refused().iter().map(|Refused { id, error }| refusal(id, error));
        say!("{:#}", Value::Array(models.chain(refused).collect()));
        return Exit::Clean;
    }
    let mut rows = vec![["MODEL", "TASK", "INPUT", "CLASSES", "LICENCE", "FROM", "STATE"].map(str::to_owned)];
    for spec in repository.models() {
        let (manifest, [width, height]) = (&spec.manifest, spec.manifest.input.size);
        let state = if is_default(spec) { "ready (default)" } else { "ready" };
        rows.push([
            manifest.id(),
            manifest.task.name().to_owned(),
            format!("{width}x{height}"),
            manifest.classes.len().to_string(),
            manifest.licence.clone(),
            source(spec).to_owned(),
            state.to_owned(),
        ]);
    }
    print_table(&rows);
    for Refused { id, error } in repository.refused() {
        print_refusal(id, error);
    }
    Exit::Clean
}

const fn source(spec: &ModelSpec) -> &'static str {
    if spec.is_embedded() { "embedded" } else { "folder" }
}

fn describe(spec: &ModelSpec, default: bool) -> Value {
    let manifest = &spec.manifest;
    json!({
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task.name(),
        "input": manifest.input.size,
        "classes": manifest.classes.iter().map(|class| &*class.name).collect::<Vec<_>>(),
        "licence": manifest.licence,
        "source": source(spec),
        "default": default,
        "status": "ready",
    })
}
