//! `saccade models`: which models there are, and how they run here.

use serde_json::{Value, json};

use super::offline;
use crate::cli::{Exit, Models, ModelsCheck, ModelsList};
use crate::config::Config;
use crate::infer::backend::Selection;
use crate::infer::{Engine, Error, ModelSpec, Refused, Repository};

/// Lists or checks models. Exit codes of the check: 0 when every model works, 70 when one does not, 64 for an unknown
/// one, 69 without ONNX Runtime.
pub(super) fn run(args: &Models) -> Exit {
    match args {
        Models::List(args) => list(args),
        Models::Check(args) => check(args),
        Models::Pull(_) => Exit::Internal,
    }
}

/// Looks at manifests and checksums, and loads nothing.
fn list(args: &ModelsList) -> Exit {
    let (config, repository) = match open(Config::load(&args.sources(std::env::vars_os()))) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let default = repository.find(&config.models.default).map(|spec| spec.manifest.id()).ok();
    let is_default = |spec: &ModelSpec| default.as_ref() == Some(&spec.manifest.id());
    if args.json {
        let models = repository.models().iter().map(|spec| describe(spec, is_default(spec)));
        let refused = repository.refused().iter().map(|Refused { id, error }| refusal(id, error));
        println!("{:#}", Value::Array(models.chain(refused).collect()));
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

/// Loads one model after the other and runs each.
fn check(args: &ModelsCheck) -> Exit {
    let config = Config::load(&args.sources(std::env::vars_os()));
    if let Ok(config) = &config {
        offline::init_logs(&args.settings, config);
    }
    let (config, repository) = match open(config) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let ids = || {
        let models = repository.models().iter().map(|spec| spec.manifest.id());
        models.chain(repository.refused().iter().map(|refused| refused.id.clone()))
    };
    if let Some(name) = args.names.iter().find(|name| !ids().any(|id| is_meant(&id, name))) {
        eprintln!("{}; there are {}", Error::UnknownModel { name: name.clone() }, ids().collect::<Vec<_>>().join(", "));
        return Exit::Configuration;
    }
    let engine = match offline::engine(&config, 1, None) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("{error}");
            return offline::exit_of(&error);
        }
    };
    let wanted = |id: &str| args.names.is_empty() || args.names.iter().any(|name| is_meant(id, name));
    let mut exit = Exit::Clean;
    let mut reports = Vec::new();
    for spec in repository.models().iter().filter(|spec| wanted(&spec.manifest.id())) {
        let id = spec.manifest.id();
        match load(&engine, spec) {
            Ok(selection) if args.json => reports.push(working(&id, &selection)),
            Ok(selection) => print_working(&id, &selection),
            Err(error) => {
                exit = Exit::Internal;
                if args.json { reports.push(refusal(&id, &error)) } else { print_refusal(&id, &error) }
            }
        }
    }
    for Refused { id, error } in repository.refused().iter().filter(|refused| wanted(&refused.id)) {
        exit = Exit::Internal;
        if args.json { reports.push(refusal(id, error)) } else { print_refusal(id, error) }
    }
    if args.json {
        println!("{:#}", Value::Array(reports));
    }
    exit
}

fn open(config: Result<Config, crate::config::Mistakes>) -> Result<(Config, Repository), Exit> {
    let config = config.map_err(|mistakes| {
        eprintln!("{mistakes}");
        Exit::Configuration
    })?;
    let repository = offline::repository(&config).map_err(|error| {
        eprintln!("{error}");
        Exit::Internal
    })?;
    Ok((config, repository))
}

/// Loads a model, which warms it up and times it, and lets go of it again.
fn load(engine: &Engine, spec: &ModelSpec) -> Result<Selection, Error> {
    let model = engine.load(spec)?;
    engine.unload(&model.id());
    Ok(model.selection().clone())
}

/// Whether `name` means the model with this id: `NAME@VERSION`, or any version of `NAME`.
fn is_meant(id: &str, name: &str) -> bool {
    id == name || id.split_once('@').is_some_and(|(without_version, _)| without_version == name)
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

fn working(id: &str, selection: &Selection) -> Value {
    json!({
        "model": id,
        "status": "ready",
        "provider": selection.provider.name(),
        "precision": selection.precision.name(),
        "measured_ms": milliseconds(selection),
        "others": selection.others,
    })
}

fn refusal(id: &str, error: &Error) -> Value {
    json!({"model": id, "status": "refused", "reasons": reasons(error)})
}

/// Every mistake of a manifest, or the one reason.
fn reasons(error: &Error) -> Vec<String> {
    match error {
        Error::Manifest { mistakes } => mistakes.iter().map(ToString::to_string).collect(),
        error => vec![error.to_string()],
    }
}

/// Milliseconds for one picture, in hundredths.
fn milliseconds(selection: &Selection) -> f64 {
    (selection.measured.as_secs_f64() * 100_000.0).round() / 100.0
}

fn print_working(id: &str, selection: &Selection) {
    let Selection { provider, precision, others, .. } = selection;
    println!("{id}: ready; {provider} in {precision}, {} ms a picture", milliseconds(selection));
    for other in others {
        println!("    not taken: {other}");
    }
}

fn print_refusal(id: &str, error: &Error) {
    println!("{id}: refused");
    for reason in reasons(error) {
        println!("    {reason}");
    }
}

fn print_table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
