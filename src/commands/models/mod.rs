//! `saccade models`: which models there are, and how they run here, and how they come here.

mod accuracy;
mod check;
mod explain;
mod list;
mod pull;

use serde_json::{Value, json};

use super::offline;
use crate::cli::{Exit, Models};
use crate::config::Config;
use crate::infer::{Error, Repository};

/// Lists, checks or fetches models.
pub(super) fn run(args: Models) -> Exit {
    match args {
        Models::List(args) => list::run(&args),
        Models::Check(args) => check::run(&args),
        Models::Pull(args) => pull::run(args),
    }
}

fn open(config: Result<Config, crate::config::Mistakes>) -> Result<(Config, Repository), Exit> {
    let config = config.map_err(|mistakes| {
        eprintln!("{mistakes}");
        Exit::Configuration
    })?;
    let repository = crate::models::repository(&config).map_err(|error| {
        eprintln!("{error}");
        Exit::Internal
    })?;
    Ok((config, repository))
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

fn print_refusal(id: &str, error: &Error) {
    say!("{id}: refused");
    for reason in reasons(error) {
        say!("    {reason}");
    }
}

fn print_table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}
