use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Value, json};

use crate::accuracy::{Measures, Sizes};
use crate::commands::eval::{self, run::Evaluation};
use crate::commands::progress::Progress;
use crate::config::Config;
use crate::infer::ModelSpec;
use crate::infer::manifest::Precision;

/// What a model's precisions are worth on a data set: the first is fp32, against which the others lose.
pub(super) struct Accuracy {
    pictures: usize,
    rows: Vec<Row>,
    /// Precisions that do not run here, with the reason.
    missing: Vec<String>,
}

struct Row {
    precision: Precision,
    provider: &'static str,
    map50: f64,
    map: f64,
    /// What the manifest says that it loses.
    stated: Option<f32>,
}

impl Accuracy {
    /// Runs a model over the data set in fp32 and in every lower precision that it has and this machine can do.
    pub(super) fn measure(config: &Config, spec: &ModelSpec, data: &Path, images: &Path) -> Result<Self, eval::Error> {
        let mut accuracy = Self { pictures: 0, rows: Vec::new(), missing: Vec::new() };
        let stated = spec.manifest.accuracy;
        for (precision, stated) in
            [(Precision::Fp32, None), (Precision::Int8, stated.int8), (Precision::Bf16, stated.bf16)]
        {
            let model = match eval::load(config, spec, Some(precision)) {
                Ok(model) => model,
                Err(error @ eval::Error::Precision { .. }) if precision != Precision::Fp32 => {
                    accuracy.missing.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let dataset = eval::run::read(data, &model)?;
            let params = Arc::new(eval::params(&model, None));
            let mut progress = Progress::new(1, false);
            progress.begin(data, Some(dataset.pictures.len() as u64));
            let evaluation = Evaluation::run(&model, &params, &dataset, images, &progress, &AtomicBool::new(false));
            progress.finish();
            let pictures = evaluation?.of_known_classes(&dataset);
            let measures = Measures::new(&pictures, model.classes().len(), &Sizes::COCO);
            let (Some(map50), Some(map)) = (measures.ap50(None, 0), measures.ap(None, 0)) else {
                return Err(eval::Error::NoObjects { path: data.to_owned() });
            };
            accuracy.pictures = pictures.len();
            accuracy.rows.push(Row { precision, provider: model.selection().provider.name(), map50, map, stated });
        }
        Ok(accuracy)
    }

    /// AP that a row loses against fp32: the greater loss of AP50 and AP50-95, never less than nothing, rounded up to
    /// four digits.
    fn loss(&self, row: &Row) -> f64 {
        let loss = (self.rows[0].map50 - row.map50).max(self.rows[0].map - row.map).max(0.0);
        (loss * 10_000.0).ceil() / 10_000.0
    }

    pub(super) fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let round = |value: f64| (value * 10_000.0).round() / 10_000.0;
            json!({
                "precision": row.precision.name(),
                "provider": row.provider,
                "map50": round(row.map50),
                "map50_95": round(row.map),
                "loss": self.loss(row),
                "loss_in_manifest": row.stated,
            })
        };
        json!({
            "pictures": self.pictures,
            "precisions": self.rows.iter().map(row).collect::<Vec<_>>(),
            "missing": self.missing,
        })
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    on {} pictures:", self.pictures)?;
        for row in &self.rows {
            let Row { precision, provider, map50, map, .. } = row;
            writeln!(f, "        {:6} {provider:9} mAP50 {map50:.4}  mAP50-95 {map:.4}", precision.name())?;
        }
        for reason in &self.missing {
            writeln!(f, "    not measured: {reason}")?;
        }
        let lower = self.rows.get(1..).unwrap_or_default();
        if !lower.is_empty() {
            writeln!(f, "    for the manifest:\n        [accuracy]")?;
        }
        for row in lower {
            write!(f, "        {} = {}", row.precision, self.loss(row))?;
            match row.stated {
                Some(stated) if f64::from(stated) >= self.loss(row) => writeln!(f)?,
                Some(stated) => writeln!(f, "  # the manifest says {stated}, which is too little")?,
                None => writeln!(f, "  # not in the manifest yet")?,
            }
        }
        Ok(())
    }
}
