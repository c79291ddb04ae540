//! The figures as a table for people and as JSON for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::run::{Evaluation, Times};
use crate::accuracy::dataset::Dataset;
use crate::accuracy::{Counts, Measures, Picture, Sizes};
use crate::infer::Model;

/// Index of the first range of sizes at the model's input, behind COCO's.
const AT_INPUT: usize = Sizes::COCO.len();
/// Latency percentiles that are told.
const PERCENTILES: [(&str, usize); 4] = [("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)];

/// Picks the time of one stage.
type Stage = fn(&Times) -> Duration;

/// Everything that `saccade eval` says.
pub(super) struct Report {
    model: String,
    provider: &'static str,
    precision: &'static str,
    pictures: usize,
    score_threshold: f32,
    input_side: u32,
    /// Of all classes that the data set knows, then each of them.
    rows: Vec<Row>,
    /// Classes of the model that the data set has no category for.
    unknown: Vec<String>,
    /// Categories that are no class of the model, with their objects.
    foreign: Vec<(String, usize)>,
    /// Pictures without any object, and the detections in them from the threshold on.
    empty: (usize, usize),
    latency: Vec<(&'static str, Percentiles)>,
}

/// The figures of one class, or of all.
struct Row {
    class: Option<String>,
    /// By range of sizes.
    sizes: Vec<Figures>,
    ap75: Option<f64>,
    recall100: Option<f64>,
    counts: Counts,
}

/// The figures of one range of sizes.
#[derive(Clone, Copy)]
struct Figures {
    objects: usize,
    /// AP at IoU 0.5.
    map50: Option<f64>,
    /// AP over IoU 0.5 to 0.95.
    map: Option<f64>,
}

/// Milliseconds: by [`PERCENTILES`], then the longest.
struct Percentiles {
    at: [f64; PERCENTILES.len()],
    max: f64,
}

impl Report {
    pub(super) fn new(
        model: &Model,
        dataset: &Dataset,
        evaluation: &Evaluation,
        score_threshold: f32,
        input_side: u32,
    ) -> Self {
        let classes = model.classes().len();
        let sizes: Vec<_> = Sizes::COCO.into_iter().chain(Sizes::at_input(f64::from(input_side))).collect();
        let is_known = |class: usize| dataset.categories.get(class).is_some_and(Option::is_some);
        let pictures = evaluation.of_known_classes(dataset);
        let measures = Measures::new(&pictures, classes, &sizes);
        let counts = Counts::at(&pictures, classes, f64::from(score_threshold));
        let row = |class: Option<usize>| {
            let at = |n| Figures {
                objects: measures.objects(class, n),
                map50: measures.ap50(class, n),
                map: measures.ap(class, n),
            };
            Row {
                class: class.map(|class| model.classes()[class].name.to_string()),
                sizes: (0..sizes.len()).map(at).collect(),
                ap75: measures.ap75(class, 0),
                recall100: measures.recall(class, 0),
                counts: class.map_or_else(|| counts.iter().copied().sum(), |class| counts[class]),
            }
        };
        let named = |class: usize| model.classes()[class].name.to_string();
        let sure =
            |picture: &&Picture| picture.found.iter().filter(|found| found.score >= f64::from(score_threshold)).count();
        let empty: Vec<_> = pictures.iter().filter(|picture| picture.objects.is_empty()).collect();
        let selection = model.selection();
        Self {
            model: model.id(),
            provider: selection.provider.name(),
            precision: selection.precision.name(),
            pictures: pictures.len(),
            score_threshold,
            input_side,
            rows: std::iter::once(None)
                .chain((0..classes).filter(|class| is_known(*class)).map(Some))
                .map(row)
                .collect(),
            unknown: (0..classes).filter(|class| !is_known(*class)).map(named).collect(),
            foreign: dataset.foreign.clone(),
            empty: (empty.len(), empty.iter().map(sure).sum()),
            latency: latency(&evaluation.times),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let cell = |Figures { objects, map50, map }: &Figures| json!({"objects": objects, "map50": rounded(*map50), "map50_95": rounded(*map)});
        let sizes = |row: &Row| {
            let coco = Sizes::COCO[1..].iter().zip(&row.sizes[1..]);
            coco.map(|(sizes, figures)| (sizes.name.to_owned(), cell(figures))).collect::<serde_json::Map<_, _>>()
        };
        let row = |row: &Row| {
            let Figures { objects, map50, map } = row.sizes[0];
            json!({
                "class": row.class,
                "objects": objects,
                "map50": rounded(map50),
                "map75": rounded(row.ap75),
                "map50_95": rounded(map),
                "recall100": rounded(row.recall100),
                "by_size": sizes(row),
                "by_input_size": {"under": cell(&row.sizes[AT_INPUT]), "from": cell(&row.sizes[AT_INPUT + 1])},
                "at_threshold": {
                    "hits": row.counts.hits,
                    "false_alarms": row.counts.false_alarms,
                    "precision": rounded(row.counts.precision()),
                    "recall": rounded(row.counts.recall()),
                    "f1": rounded(row.counts.f1()),
                },
            })
        };
        let percentiles = |percentiles: &Percentiles| {
            let at =
                PERCENTILES.iter().zip(percentiles.at).map(|((name, _), value)| ((*name).to_owned(), json!(value)));
            at.chain([("max".to_owned(), json!(percentiles.max))]).collect::<serde_json::Map<_, _>>()
        };
        let latency = self.latency.iter().map(|(stage, times)| ((*stage).to_owned(), percentiles(times).into()));
        let mut all = row(&self.rows[0]);
        if let Some(object) = all.as_object_mut() {
            object.remove("class");
        }
        json!({
            "model": self.model,
            "provider": self.provider,
            "precision": self.precision,
            "pictures": self.pictures,
            "score_threshold": round(f64::from(self.score_threshold)),
            "input_side": self.input_side,
            "all": all,
            "classes": self.rows[1..].iter().map(row).collect::<Vec<_>>(),
            "classes_without_data": self.unknown,
            "categories_left_out":
                self.foreign.iter().map(|(name, objects)| json!({"category": name, "objects": objects})).collect::<Vec<_>>(),
            "without_objects": {
                "pictures": self.empty.0,
                "false_alarms": self.empty.1,
                "per_picture": rounded(self.false_alarms_a_picture()),
            },
            "latency_ms": latency.collect::<serde_json::Map<_, _>>(),
        })
    }

    fn false_alarms_a_picture(&self) -> Option<f64> {
        (self.empty.0 > 0).then(|| self.empty.1 as f64 / self.empty.0 as f64)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, provider, precision, pictures, score_threshold, input_side, .. } = self;
        writeln!(f, "{model}, {provider} in {precision}: {pictures} pictures\n")?;
        let width = self.rows.iter().map(|row| row.name().chars().count()).max().unwrap_or(0).max("from 0.55".len());
        let under = format!("<{input_side}px");
        let from = format!(">={input_side}px");
        writeln!(
            f,
            "{:width$}  objects  mAP50  mAP75  mAP50-95  small  medium  large  recall  {under:>6}  {from:>6}",
            "class"
        )?;
        for row in &self.rows {
            let Figures { objects, map50, map } = row.sizes[0];
            writeln!(
                f,
                "{:width$}  {objects:7}  {}  {}  {:>8}  {}  {:>6}  {}  {:>6}  {:>6}  {:>6}",
                row.name(),
                figure(map50),
                figure(row.ap75),
                figure(map),
                figure(row.sizes[1].map),
                figure(row.sizes[2].map),
                figure(row.sizes[3].map),
                figure(row.recall100),
                figure(row.sizes[AT_INPUT].map50),
                figure(row.sizes[AT_INPUT + 1].map50),
            )?;
        }
        writeln!(
            f,
            "\nsmall, medium, large: mAP50-95 by area in the picture (up to 32², to 96², above); \
             {under}, {from}: mAP50 by side at the model's input\n"
        )?;
        writeln!(
            f,
            "{:width$}  precision  recall     f1   hits  missed  false alarms",
            format!("from {score_threshold}")
        )?;
        for row in &self.rows {
            let Counts { objects, hits, false_alarms } = row.counts;
            writeln!(
                f,
                "{:width$}  {:>9}  {:>6}  {}  {hits:5}  {:6}  {false_alarms:12}",
                row.name(),
                figure(row.counts.precision()),
                figure(row.counts.recall()),
                figure(row.counts.f1()),
                objects - hits,
            )?;
        }
        if let Some(rate) = self.false_alarms_a_picture() {
            writeln!(f, "\n{} pictures without objects: {rate:.3} false alarms a picture", self.empty.0)?;
        }
        writeln!(f, "\nmilliseconds     p50     p90     p95     p99     max")?;
        for (stage, Percentiles { at: [p50, p90, p95, p99], max }) in &self.latency {
            writeln!(f, "{stage:12}  {p50:6.2}  {p90:6.2}  {p95:6.2}  {p99:6.2}  {max:6.2}")?;
        }
        for class in &self.unknown {
            writeln!(f, "\nnot measured: the data has no category \"{class}\"")?;
        }
        for (category, objects) in &self.foreign {
            writeln!(f, "\nleft out: {objects} of category \"{category}\", which is no class of the model")?;
        }
        Ok(())
    }
}

impl Row {
    fn name(&self) -> &str {
        self.class.as_deref().unwrap_or("all")
    }
}

fn latency(times: &[Times]) -> Vec<(&'static str, Percentiles)> {
    let stages: [(&str, Stage); 4] = [
        ("preprocess", |times| times.preprocess),
        ("inference", |times| times.inference),
        ("postprocess", |times| times.postprocess),
        ("total", |times| times.total),
    ];
    let percentiles = |stage: Stage| {
        let mut values: Vec<_> = times.iter().map(|times| stage(times).as_secs_f64() * 1000.0).collect();
        values.sort_by(f64::total_cmp);
        // The nearest rank: the smallest value that so many percent do not exceed.
        let rank = |percent: usize| (values.len() * percent).div_ceil(100).saturating_sub(1);
        let at = |percent: usize| values.get(rank(percent)).map_or(0.0, |ms| round(*ms));
        Percentiles { at: PERCENTILES.map(|(_, percent)| at(percent)), max: at(100) }
    };
    stages.into_iter().map(|(name, stage)| (name, percentiles(stage))).collect()
}

fn figure(value: Option<f64>) -> String {
    value.map_or_else(|| "    -".to_owned(), |value| format!("{value:.3}"))
}

/// Four digits behind the point.
fn round(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

fn rounded(value: Option<f64>) -> Value {
    value.map_or(Value::Null, |value| round(value).into())
}
