use std::time::Duration;

use super::{Check, measured};
use crate::calibration::Calibration;
use crate::config::{Config, Hardware};
use crate::infer::manifest::{BackendChoice, Manifest, Precision, Run};
use crate::infer::{Engine, Options, Repository, backend::Selection};
use crate::tuning::Tuning;

/// How each model would be run by the server.
pub(super) fn all(config: &Config, tuning: &Tuning, calibration: Calibration) -> Vec<Check> {
    let backend = (config.hw.infer == Hardware::Off).then_some(BackendChoice::Cpu);
    let (kept, around_model) = (calibration.keeps(), tuning.codecs.around_model());
    // Without the library there is a check that says so.
    let options = Options { backend, calibration, around_model, ..Options::default() };
    let Ok(engine) = Engine::new(options) else { return Vec::new() };
    let repository = match Repository::scan(Some(config.models.dir.as_path()).filter(|folder| folder.is_dir())) {
        Ok(repository) => repository,
        Err(error) => {
            return vec![Check::fail("models", error.to_string(), "make models.dir readable, or set another")];
        }
    };
    let bad = |id: &str, error: String| {
        Check::warn(&name(id), error, "it is left out: correct it, or take it out of models.dir")
    };
    let look = |spec: &crate::infer::ModelSpec| match engine.look(spec) {
        Ok(selection) => {
            let found = found(&selection, &spec.manifest, backend);
            measured(&name(&spec.manifest.id()), found, selection.disturbance, kept)
        }
        Err(error) => bad(&spec.manifest.id(), error.to_string()),
    };
    let mut checks: Vec<_> = repository.models().iter().map(look).collect();
    checks.extend(repository.refused().iter().map(|refused| bad(&refused.id, refused.error.to_string())));
    checks
}

fn name(id: &str) -> String {
    format!("model {id}")
}

/// `cpu in int8, 1: 5.2 ms, 2: 9.3 ms, 1 instance, measured now`, and what is pinned.
fn found(selection: &Selection, manifest: &Manifest, backend: Option<BackendChoice>) -> String {
    let Selection { provider, precision, buckets, instances, origin, .. } = selection;
    let Run { instances: pinned, precision: wanted, backend: listed, .. } = manifest.run;
    let pin = |pinned: bool| if pinned { " (pinned)" } else { "" };
    let provider_pin = pin(backend.unwrap_or(listed) != BackendChoice::Auto);
    let precision_pin = pin(wanted != Precision::Auto);
    let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
    let times: Vec<_> = buckets.iter().map(|(size, time)| format!("{size}: {:.1} ms", milliseconds(time))).collect();
    let plural = if *instances == 1 { "instance" } else { "instances" };
    format!(
        "{provider}{provider_pin} in {precision}{precision_pin}, batches of {}, {instances} {plural}{}, {}",
        times.join(", "),
        pin(pinned.is_some()),
        origin.name()
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::calibration::{Disturbance, Origin};
    use crate::config::Sources;
    use crate::doctor::Status;
    use crate::infer::ModelSpec;
    use crate::infer::backend::Provider;

    #[test]
    fn a_model_is_told_with_its_times_and_what_is_pinned() {
        let ms = Duration::from_millis;
        let selection = Selection {
            provider: Provider::Cpu,
            precision: Precision::Int8,
            measured: ms(5),
            buckets: vec![(1, ms(5)), (2, ms(9))],
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
    }

    #[test]
    fn the_embedded_model_runs_here() {
        let mut sources = Sources::default();
        sources.flag("models.calibration", "--set", "off");
        let config = Config::load(&sources).unwrap();
        let checks = all(&config, &Tuning::find(&config, &Calibration::Off), Calibration::Off);
        let embedded = checks.iter().find(|check| check.name == "model ppe-nano@2").unwrap();
        assert_eq!(embedded.status, Status::Ok, "{}", embedded.found);
        assert!(embedded.found.ends_with("measured now"), "{}", embedded.found);
    }
}
