use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::accuracy::Accuracy;
use super::{explain, offline, open, print_refusal, refusal};
use crate::cli::{Exit, ModelsCheck};
use crate::commands::eval;
use crate::config::Config;
use crate::infer::backend::Selection;
use crate::infer::{Engine, Error, ModelSpec, Refused};

/// Loads one model after the other and runs each; with a data set, measures what lower precisions cost. Of folders and files
/// that are none of the repository's the tensors are explained. Exit codes: 0 when every model works, 70 when one does not, 64
/// for an unknown one or an unusable data set, 69 without ONNX Runtime.
pub(super) fn run(args: &ModelsCheck) -> Exit {
    let config = Config::load(&args.sources(std::env::vars_os()));
    if let Ok(config) = &config {
        offline::init_logs(&args.settings, config);
    }
    let (config, repository) = match open(config) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let (paths, names): (Vec<_>, Vec<_>) = args.names.iter().partition(|name| {
        let is_known = repository.models().iter().any(|spec| is_meant(&spec.manifest.id(), name))
            || repository.refused().iter().any(|refused| is_meant(&refused.id, name));
        explain::is_path(name, is_known)
    });
    let ids = || {
        let models = repository.models().iter().map(|spec| spec.manifest.id());
        models.chain(repository.refused().iter().map(|refused| refused.id.clone()))
    };
    if let Some(name) = names.iter().find(|name| !ids().any(|id| is_meant(&id, name))) {
        eprintln!(
            "{}; there are {}",
            Error::UnknownModel { name: (**name).clone() },
            ids().collect::<Vec<_>>().join(", ")
        );
        return Exit::Configuration;
    }
    let engine = match offline::engine(&config, 1, offline::Way { measure: true, ..offline::Way::default() }) {
        Ok(engine) => engine,
        Err(error) => {
            eprintln!("{error}");
            return offline::exit_of(&error);
        }
    };
    let wanted = |id: &str| args.names.is_empty() || names.iter().any(|name| is_meant(id, name));
    let mut exit = Exit::Clean;
    let mut reports = Vec::new();
    for path in paths {
        match explain::explain(&engine, Path::new(path), args.write) {
            Ok(explained) => {
                exit = explained.exit().unwrap_or(exit);
                if args.json { reports.push(explained.to_json()) } else { say!("{explained}") }
            }
            Err(error) => {
                exit = error.exit();
                if args.json {
                    reports.push(json!({"path": path, "status": "refused", "reasons": [error.to_string()]}));
                } else {
                    eprintln!("{path}: {error}");
                }
            }
        }
    }
    for spec in repository.models().iter().filter(|spec| wanted(&spec.manifest.id())) {
        let id = spec.manifest.id();
        match load(&engine, spec) {
            Ok(selection) => {
                let data = args.data.as_ref().zip(args.images.as_ref());
                let accuracy = data.map(|(data, images)| Accuracy::measure(&config, spec, data, images));
                if let Some(Err(error)) = &accuracy {
                    exit = error.exit();
                }
                if args.json {
                    reports.push(working(&id, &selection, accuracy.as_ref()));
                } else {
                    print_working(&id, &selection);
                    print_accuracy(accuracy.as_ref());
                }
            }
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
        say!("{:#}", Value::Array(reports));
    }
    exit
}

/// Loads a model, which warms it up and times it, and lets go of it again.
fn load(engine: &Engine, spec: &ModelSpec) -> Result<Selection, Error> {
    let model = engine.load(spec)?;
    engine.unload(&model.id());
    Ok(Selection::clone(&model.selection()))
}

/// Whether `name` means the model with this id: `NAME@VERSION`, or any version of `NAME`.
fn is_meant(id: &str, name: &str) -> bool {
    id == name || id.split_once('@').is_some_and(|(without_version, _)| without_version == name)
}

fn working(id: &str, selection: &Selection, accuracy: Option<&Result<Accuracy, eval::Error>>) -> Value {
    let batches = selection.buckets.iter().map(|(size, time)| (size.to_string(), milliseconds(*time).into()));
    let batches = batches.collect::<serde_json::Map<_, _>>();
    let mut report = json!({
        "model": id,
        "status": "ready",
        "provider": selection.provider.name(),
        "precision": selection.precision.name(),
        "measured_ms": milliseconds(selection.measured),
        "batches_ms": batches,
        "others": selection.others,
    });
    match accuracy {
        None => {}
        Some(Ok(accuracy)) => report["accuracy"] = accuracy.to_json(),
        Some(Err(error)) => report["accuracy_error"] = error.to_string().into(),
    }
    report
}

fn print_accuracy(accuracy: Option<&Result<Accuracy, eval::Error>>) {
    match accuracy {
        None => {}
        Some(Ok(accuracy)) => say!("{accuracy}"),
        Some(Err(error)) => say!("    accuracy not measured: {error}"),
    }
}

/// In hundredths.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

fn print_working(id: &str, selection: &Selection) {
    let Selection { provider, precision, measured, buckets, others, .. } = selection;
    say!("{id}: ready; {provider} in {precision}, {} ms a picture", milliseconds(*measured));
    for (size, time) in buckets.iter().skip(1) {
        say!("    {size} pictures together: {} ms", milliseconds(*time));
    }
    for other in others {
        say!("    not taken: {other}");
    }
}
