use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::accuracy::{Measures, Sizes};
use crate::commands::eval::{self, run::Evaluation};
use crate::commands::offline::Way;
use crate::commands::progress::Progress;
use crate::config::Config;
use crate::infer::backend::{Provider, Selection};
use crate::infer::manifest::{BackendChoice, Precision};
use crate::infer::{Model, ModelSpec};

/// What a model's precisions are worth on a data set, by what computes them.
pub(super) struct Accuracy {
    pictures: usize,
    /// The first is fp32, against which the others lose.
    rows: Vec<Row>,
    /// Lower precisions that were measured: the name, what is lost, and what the manifest says of it.
    losses: Vec<(Precision, f64, Option<f64>)>,
    /// Precisions that do not run here, with the reason.
    missing: Vec<String>,
}

struct Row {
    precision: Precision,
    provider: Provider,
    map50: f64,
    map: f64,
}

impl Accuracy {
    /// Runs a model over the data set in fp32 and in every lower precision that it has and this machine can do, on
    /// everything that can compute it: what is fastest may be another one next time.
    pub(super) fn measure(config: &Config, spec: &ModelSpec, data: &Path, images: &Path) -> Result<Self, eval::Error> {
        let mut accuracy = Self { pictures: 0, rows: Vec::new(), losses: Vec::new(), missing: Vec::new() };
        let stated = spec.manifest.accuracy;
        for (precision, stated) in [
            (Precision::Fp32, None),
            (Precision::Int8, stated.int8),
            (Precision::Bf16, stated.bf16),
            (Precision::Fp16, stated.fp16),
        ] {
            let before = accuracy.rows.len();
            let mut missing = Vec::new();
            let ways = [
                (BackendChoice::Cpu, Provider::Cpu),
                (BackendChoice::OpenVino, Provider::OpenVino),
                (BackendChoice::Cuda, Provider::Cuda),
            ];
            for (backend, provider) in ways {
                let way = Way { precision: Some(precision), backend: Some(backend), ..Way::default() };
                match eval::load(config, spec, way) {
                    // Where a provider is missing, another one stands in, which is measured on its own turn.
                    Ok(model) if model.selection().provider != provider => {}
                    Ok(model) => accuracy.add(&model, data, images)?,
                    Err(eval::Error::Precision { reasons, .. }) if precision != Precision::Fp32 => {
                        let reason = reasons.into_iter().find(|reason| reason.starts_with(precision.name()));
                        let reason = reason.unwrap_or_else(|| format!("{precision}: {provider} does not have it"));
                        if !missing.contains(&reason) {
                            missing.push(reason);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
            // What one provider computes is measured, whatever the other lacks.
            if accuracy.rows.len() == before {
                accuracy.missing.append(&mut missing);
            }
            let lost = accuracy.rows[before..].iter().map(|row| accuracy.loss(row)).reduce(f64::max);
            if let Some(lost) = lost.filter(|_| precision != Precision::Fp32) {
                // As the manifest writes it: four digits are what is measured here.
                let stated = stated.map(|stated| round(f64::from(stated)));
                accuracy.losses.push((precision, lost, stated));
            }
        }
        Ok(accuracy)
    }

    fn add(&mut self, model: &Model, data: &Path, images: &Path) -> Result<(), eval::Error> {
        let dataset = eval::run::read(data, model.classes())?;
        let params = Arc::new(eval::params(model, None));
        let mut progress = Progress::new(1, false);
        progress.begin(data, Some(dataset.pictures.len() as u64));
        let evaluation = Evaluation::run(model, &params, &dataset, images, &progress, &AtomicBool::new(false));
        progress.finish();
        let pictures = evaluation?.of_known_classes(&dataset);
        let measures = Measures::new(&pictures, model.classes().len(), &Sizes::COCO);
        let (Some(map50), Some(map)) = (measures.ap50(None, 0), measures.ap(None, 0)) else {
            return Err(eval::Error::NoObjects { path: data.to_owned() });
        };
        self.pictures = pictures.len();
        let Selection { precision, provider, .. } = *model.selection();
        self.rows.push(Row { precision, provider, map50, map });
        Ok(())
    }

    /// AP that a row loses against fp32: the greater loss of AP50 and AP50-95, never less than nothing, rounded up to
    /// four digits.
    fn loss(&self, row: &Row) -> f64 {
        let loss = (self.rows[0].map50 - row.map50).max(self.rows[0].map - row.map).max(0.0);
        (loss * 10_000.0).ceil() / 10_000.0
    }

    pub(super) fn to_json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "precision": row.precision.name(),
                "provider": row.provider.name(),
                "map50": round(row.map50),
                "map50_95": round(row.map),
                "loss": self.loss(row),
            })
        };
        let loss = |(precision, loss, stated): &(Precision, f64, Option<f64>)| json!({"precision": precision.name(), "loss": loss, "loss_in_manifest": stated});
        json!({
            "pictures": self.pictures,
            "measured": self.rows.iter().map(row).collect::<Vec<_>>(),
            "losses": self.losses.iter().map(loss).collect::<Vec<_>>(),
            "missing": self.missing,
        })
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    on {} pictures:", self.pictures)?;
        for Row { precision, provider, map50, map } in &self.rows {
            writeln!(f, "        {:6} {:9} mAP50 {map50:.4}  mAP50-95 {map:.4}", precision.name(), provider.name())?;
        }
        for reason in &self.missing {
            writeln!(f, "    not measured: {reason}")?;
        }
        if !self.losses.is_empty() {
            writeln!(f, "    for the manifest:\n        [accuracy]")?;
        }
        for (precision, loss, stated) in &self.losses {
            write!(f, "        {precision} = {loss}")?;
            match stated {
                Some(stated) if stated >= loss => writeln!(f)?,
                Some(stated) => writeln!(f, "  # the manifest says {stated}, which is too little")?,
                None => writeln!(f, "  # not in the manifest yet")?,
            }
        }
        Ok(())
    }
}

/// Four digits behind the point.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}
