use std::time::Duration;

use super::{Check, KeptRoutes, measured};
use crate::calibration::Calibration;
use crate::config::Config;
use crate::infer::manifest::{BackendChoice, Manifest, Precision, Run};
use crate::infer::{Cuda, Engine, ModelSpec, Options, Routes, backend::Selection, matches_name};
use crate::models;
use crate::tuning::Tuning;

/// How each model would be run by the server, and whether sessions would get those that they may ask for.
pub(super) fn all(
    config: &Config,
    cuda: Result<Cuda, String>,
    tuning: &Tuning,
    calibration: Calibration,
    routes: &KeptRoutes,
) -> Vec<Check> {
    let (kept, around_model) = (calibration.keeps(), tuning.codecs.around_model());
    // Without the library there is a check that says so.
    let options = Options { around_model, ..models::options(config, calibration, cuda) };
    let Ok(engine) = Engine::new(options) else { return Vec::new() };
    let repository = match models::repository(config) {
        Ok(repository) => repository,
        Err(error) => {
            return vec![Check::fail("models", error.to_string(), "make models.dir readable, or set another")];
        }
    };
    let bad = |id: &str, error: String| {
        Check::warn(&name(id), error, "it is left out: correct it, or take it out of models.dir")
    };
    let mut usable = Vec::new();
    let look = |spec: &ModelSpec| match engine.look(spec) {
        Ok(selection) => {
            usable.push(spec.manifest.clone());
            let found = found(&selection, &spec.manifest, models::backend(config));
            measured(&name(&spec.manifest.id()), found, selection.disturbance, kept)
        }
        Err(error) => bad(&spec.manifest.id(), error.to_string()),
    };
    let mut checks: Vec<_> = repository.models().iter().map(look).collect();
    checks.extend(repository.refused().iter().map(|refused| bad(&refused.id, refused.error.to_string())));
    checks.extend(names(config, &usable, routes));
    checks
}

/// What sessions may ask for, as the server will see it.
fn names(config: &Config, usable: &[Manifest], kept: &KeptRoutes) -> [Check; 2] {
    let task = |name: &str| usable.iter().rfind(|manifest| matches_name(manifest, name)).map(|manifest| manifest.task);
    let is_there = |name: &str| task(name).is_some();
    let (routes, mut told, mut is_whole) = (Routes::default(), Vec::new(), true);
    let restore = || {
        for (name, route) in kept.iter().flatten() {
            let models: Vec<_> = route.models().chain(route.shadow()).collect();
            let missing: Vec<_> = models.iter().copied().filter(|model| !is_there(model)).collect();
            let problem = match routes.restore(name, route.clone(), is_there) {
                Err(error) => format!(": left out, {error}"),
                Ok(()) if !missing.is_empty() => format!(": there is no model {}", missing.join(", ")),
                Ok(()) => String::new(),
            };
            is_whole &= problem.is_empty();
            told.push(format!("{name} ({}){problem}", models.join(", ")));
        }
    };
    let default = match models::name(config, &routes, task, restore) {
        Ok(()) => {
            let default = &config.models.default;
            let kind = if routes.get(default).is_some() { "route" } else { "model" };
            Check::ok("default model", format!("the {kind} {default}"))
        }
        Err(error) => {
            Check::fail("default model", error.to_string(), "set models.default and routes to models that are there")
        }
    };
    let kept = match kept {
        Err(error) => {
            let advice = "correct the file, or take it away: the server puts it aside, and starts without its routes";
            Check::warn("kept routes", format!("they cannot be read: {error}"), advice)
        }
        Ok(kept) if kept.is_empty() => Check::ok("kept routes", "none"),
        Ok(_) if is_whole => Check::ok("kept routes", told.join("; ")),
        Ok(_) => {
            let advice = "put the models into models.dir, or put or remove the route by /v1/routes/NAME";
            Check::warn("kept routes", told.join("; "), advice)
        }
    };
    [default, kept]
}

fn name(id: &str) -> String {
    format!("model {id}")
}

/// `cpu in int8, batches of 1: 5.2 ms, 2: 9.3 ms, 1 instance, measured now`, and what is pinned or not to be had.
fn found(selection: &Selection, manifest: &Manifest, backend: Option<BackendChoice>) -> String {
    let Selection { provider, precision, buckets, instances, origin, .. } = selection;
    let Run { instances: pinned, precision: wanted, backend: listed, .. } = manifest.run;
    let pin = |pinned: bool| if pinned { " (pinned)" } else { "" };
    let wanted_backend = Some(backend.unwrap_or(listed)).filter(|backend| *backend != BackendChoice::Auto);
    let provider_note = match wanted_backend {
        Some(BackendChoice::Gpu) if provider.is_device() => note("", Some("")),
        wanted => note(provider.name(), wanted.map(BackendChoice::name)),
    };
    let wanted = wanted.filter(|precision| *precision != Precision::Auto);
    let precision_note = note(precision.name(), wanted.map(Precision::name));
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
    let times: Vec<_> = buckets.iter().map(|(size, time)| format!("{size}: {:.1} ms", milliseconds(time))).collect();
    let plural = if *instances == 1 { "instance" } else { "instances" };
    format!(
        "{provider}{provider_note} in {precision}{precision_note}, batches of {}, {instances} {plural}{}, {}",
        times.join(", "),
        pin(pinned.is_some()),
        origin.name()
    )
}

/// What somebody asked for, beside what it came to.
fn note(used: &str, wanted: Option<&str>) -> String {
    match wanted {
        None => String::new(),
        Some(wanted) if wanted == used => " (pinned)".to_owned(),
        Some(wanted) => format!(" instead of {wanted}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::calibration::{Disturbance, Origin};
    use crate::config::Sources;
    use crate::doctor::Status;
    use crate::infer::ModelSpec;
    use crate::infer::backend::Provider;
    use crate::route::{Route, Share};

    #[test]
    fn a_model_is_told_with_its_times_and_what_is_pinned() {
        let ms = Duration::from_millis;
        let selection = Selection {
            provider: Provider::Cpu,
            precision: Precision::Int8,
            measured: ms(5),
            buckets: vec![(1, ms(5)), (2, ms(9))],
            in_place: false,
            instances: 2,
            origin: Origin::Kept,
            disturbance: Disturbance::default(),
            others: Vec::new(),
        };
        let mut manifest = ModelSpec::embedded().unwrap().manifest;
        let text = found(&selection, &manifest, None);
        assert_eq!(text, "cpu in int8, batches of 1: 5.0 ms, 2: 9.0 ms, 2 instances, measured at an earlier start");
        manifest.run.instances = Some(2);
        let text = found(&selection, &manifest, Some(BackendChoice::Cpu));
        assert!(text.starts_with("cpu (pinned) in int8, ") && text.contains("2 instances (pinned), "), "{text}");
        // fp32 that nobody asked for, that somebody did, and that is there for want of what somebody asked for.
        let fp32 = Selection { precision: Precision::Fp32, ..selection };
        for (backend, precision, begins) in [
            (BackendChoice::Auto, None, "cpu in fp32, "),
            (BackendChoice::Cpu, Some(Precision::Fp32), "cpu (pinned) in fp32 (pinned), "),
            (BackendChoice::OpenVino, Some(Precision::Bf16), "cpu instead of openvino in fp32 instead of bf16, "),
        ] {
            (manifest.run.backend, manifest.run.precision) = (backend, precision);
            let text = found(&fp32, &manifest, None);
            assert!(text.starts_with(begins), "{text}");
        }
    }

    #[test]
    fn names_that_the_server_refuses_to_start_with_fail() {
        let manifest = ModelSpec::embedded().unwrap().manifest;
        let none = Ok(BTreeMap::new());
        let check = |settings: &[(&str, &str)]| {
            let mut sources = Sources::default();
            settings.iter().for_each(|(key, value)| sources.flag(key, "--set", *value));
            let [default, kept] = names(&Config::load(&sources).unwrap(), std::slice::from_ref(&manifest), &none);
            assert_eq!((kept.status, kept.found.as_str()), (Status::Ok, "none"));
            default
        };
        let good = r#"{"split":[{"model":"ppe-nano@2","weight":1}]}"#;
        for settings in [&[][..], &[("models.default", "ppe-nano@2")], &[("routes.r", good), ("models.default", "r")]] {
            assert_eq!(check(settings).status, Status::Ok, "{settings:?}");
        }
        for (settings, says) in [
            (&[("models.default", "nobody")][..], "models.default: no model nobody"),
            (&[("models.default", "ppe-nano@9")], "no model ppe-nano@9"),
            (
                &[("routes.r", r#"{"split":[{"model":"nobody","weight":1}]}"#)],
                "routes.r: no loaded model is called `nobody`",
            ),
            (&[("routes.ppe-nano", good)], "routes.ppe-nano: a loaded model has the name"),
        ] {
            let check = check(settings);
            assert!(check.status == Status::Fail && check.found.contains(says), "{check:?}");
        }
    }

    #[test]
    fn kept_routes_are_told_with_what_they_lack() {
        let manifest = ModelSpec::embedded().unwrap().manifest;
        let split = |model: &str| {
            let shares = vec![Share { model: model.to_owned(), weight: 1 }];
            Route::Split { shares, shadow: Some("ppe-nano".to_owned()) }
        };
        let check = |settings: &[(&str, &str)], kept: &[(&str, &str)]| {
            let mut sources = Sources::default();
            settings.iter().for_each(|(key, value)| sources.flag(key, "--set", *value));
            let kept = kept.iter().map(|(name, model)| ((*name).to_owned(), split(model))).collect();
            names(&Config::load(&sources).unwrap(), std::slice::from_ref(&manifest), &Ok(kept))
        };
        // A kept route may be the default, as it may for the server.
        let [default, kept] = check(&[("models.default", "r")], &[("r", "ppe-nano@2")]);
        assert_eq!((default.status, default.found.as_str()), (Status::Ok, "the route r"));
        assert_eq!((kept.status, kept.found.as_str()), (Status::Ok, "r (ppe-nano@2, ppe-nano)"));
        let of_the_file = r#"{"split":[{"model":"ppe-nano","weight":1}]}"#;
        let all = [("a", "nobody"), ("b", "ppe-nano"), ("c", "ppe-nano"), ("ppe-nano", "ppe-nano")];
        let [default, kept] = check(&[("routes.c", of_the_file)], &all);
        assert_eq!((default.status, kept.status), (Status::Ok, Status::Warn));
        assert!(kept.found.starts_with("a (nobody, ppe-nano): there is no model nobody; b (ppe-nano, ppe-nano); c ("));
        assert_eq!(kept.found.matches(": left out, ").count(), 2, "{}", kept.found);
        let config = Config::load(&Sources::default()).unwrap();
        let [_, kept] = names(&config, std::slice::from_ref(&manifest), &Err("the file is too large".to_owned()));
        assert!(kept.status == Status::Warn && kept.found.contains("too large"), "{kept:?}");
    }

    #[test]
    fn the_embedded_model_runs_here() {
        let mut sources = Sources::default();
        sources.flag("models.calibration", "--set", "off");
        let config = Config::load(&sources).unwrap();
        let tuning = Tuning::find(&config, &Calibration::Off);
        let none = Ok(BTreeMap::new());
        let checks = all(&config, Err("not looked for".to_owned()), &tuning, Calibration::Off, &none);
        let embedded = checks.iter().find(|check| check.name == "model ppe-nano@2").unwrap();
        assert_eq!(embedded.status, Status::Ok, "{}", embedded.found);
        assert!(embedded.found.ends_with("measured now"), "{}", embedded.found);
    }
}
