use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::reader::{Raw, Reader, show};
use crate::route::{Fusion, LEGAL_NAME, Mistake, Route, Share, WEIGHT, is_name};

/// What a table may have, as the configuration's other keys are listed.
const KEYS: [&str; 4] = ["routes.NAME.split", "routes.NAME.shadow", "routes.NAME.ensemble", "routes.NAME.fusion"];

/// `[routes.NAME]`: every table that is right, by its name.
pub(super) fn read(from: &mut Reader) -> BTreeMap<String, Route> {
    let mut routes = BTreeMap::new();
    for (name, raw) in from.named("routes", &KEYS) {
        let key = format!("routes.{name}");
        if !is_name(&name) {
            let given = from.given(&key, &raw, false);
            from.mistake(&given, format!("must have as its name {LEGAL_NAME}"));
        }
        let Some(table) = raw.table() else {
            let given = from.given(&key, &raw, false);
            from.mistake(
                &given,
                "must be a table with split and perhaps shadow, or with ensemble (JSON in the environment)",
            );
            continue;
        };
        let table = Table { from: &mut *from, key, given: raw, table, is_right: true };
        routes.extend(table.read().map(|route| (name, route)));
    }
    routes
}

/// One route's table, while it is read.
struct Table<'a> {
    from: &'a mut Reader,
    key: String,
    given: Raw,
    table: Dict,
    is_right: bool,
}

impl Table<'_> {
    fn read(mut self) -> Option<Route> {
        let (split, ensemble) = (self.table.remove("split"), self.table.remove("ensemble"));
        let route = match (split, ensemble) {
            (Some(split), None) => {
                let shares = self.list("split", &split, Self::share);
                let shadow = self.table.remove("shadow").and_then(|shadow| self.text("shadow", &shadow));
                Some(Route::Split { shares, shadow })
            }
            (None, Some(ensemble)) => {
                let models = self.list("ensemble", &ensemble, |table, key, model| table.text(key, model));
                let fusion = self.table.remove("fusion");
                if let Some(fusion) = fusion.filter(|fusion| fusion.as_str() != Some(Fusion::Wbf.name())) {
                    self.mistake("fusion", &fusion, "must be \"wbf\"");
                }
                Some(Route::Ensemble { models, fusion: Fusion::Wbf })
            }
            _ => {
                let given = self.from.given(&self.key, &self.given, false);
                self.from.mistake(&given, "must have either split or ensemble");
                self.table.retain(|key, _| key != "shadow" && key != "fusion");
                None
            }
        };
        for (key, value) in std::mem::take(&mut self.table) {
            self.mistake(&key, &value, "unknown key; a route has split and perhaps shadow, or ensemble and fusion");
        }
        // What could not be read is not complained about twice.
        let route = route.filter(|_| self.is_right)?;
        let mistakes = route.mistakes();
        for Mistake { key, value, legal } in &mistakes {
            self.refuse(key, value.clone(), legal);
        }
        mistakes.is_empty().then_some(route)
    }

    fn list<T>(&mut self, key: &str, value: &Value, read: impl Fn(&mut Self, &str, &Value) -> Option<T>) -> Vec<T> {
        match value {
            Value::Array(_, items) => {
                let items = items.iter().enumerate();
                items.filter_map(|(index, item)| read(self, &format!("{key}[{index}]"), item)).collect()
            }
            value => {
                self.mistake(key, value, "must be a list");
                Vec::new()
            }
        }
    }

    fn share(&mut self, key: &str, value: &Value) -> Option<Share> {
        let legal = "must be a table with model and weight";
        let (model, weight) = match value {
            Value::Dict(_, share) if share.keys().all(|key| key == "model" || key == "weight") => {
                (share.get("model"), share.get("weight"))
            }
            _ => (None, None),
        };
        let (Some(model), Some(weight)) = (model, weight) else {
            self.mistake(key, value, legal);
            return None;
        };
        let model = self.text(&format!("{key}.model"), model);
        // TOML's numbers are signed, JSON's are not unless they have to be.
        let signed = weight.to_i128().and_then(|number| u32::try_from(number).ok());
        let number = signed.or_else(|| u32::try_from(weight.to_u128()?).ok());
        if number.is_none() {
            let legal = format!("must be a whole number from {} to {}", WEIGHT.start(), WEIGHT.end());
            self.mistake(&format!("{key}.weight"), weight, &legal);
        }
        Some(Share { model: model?, weight: number? })
    }

    fn text(&mut self, key: &str, value: &Value) -> Option<String> {
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.mistake(key, value, "must be a text");
        }
        text
    }

    fn mistake(&mut self, key: &str, value: &Value, legal: &str) {
        self.is_right = false;
        self.refuse(key, show(value), legal);
    }

    fn refuse(&mut self, key: &str, value: String, legal: &str) {
        let given = self.from.given(&format!("{}.{key}", self.key), &self.given, false);
        self.from.mistake(&given.showing(value), legal);
    }
}
