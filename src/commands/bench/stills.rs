//! `saccade bench --url http://…/v1/detect`: still pictures, from a file, a folder, or drawn.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use saccade_load::{Still, StillLoad, StillReport, Usage, still_table, stills};

use super::{Progress, footage};
use crate::cli::{Bench, Exit};
use crate::encode::picture::{self, Format};
use crate::scene::Scene;
use crate::stills::{Header, Kind};

/// How long pictures are sent where nothing else is said.
const DURATION: Duration = Duration::from_secs(30);
/// Pictures at most, so that they fit into memory.
const MAX_PICTURES: usize = 4_096;
/// Different pictures of the drawn scene, and the frames between them.
const DRAWN: u64 = 60;
const APART: u64 = 15;

pub(super) fn run(args: &Bench, interrupted: &AtomicBool) -> Result<Exit, (Exit, String)> {
    let wrong = |message: String| (Exit::Configuration, message);
    if !["http://", "https://"].iter().any(|scheme| args.url().starts_with(scheme)) {
        return Err(wrong(format!("--url {}: pictures go to http://…/v1/detect", args.url())));
    }
    if let Some(pid) = args.server_pid.filter(|pid| Usage::of(*pid).is_none()) {
        return Err(wrong(format!("--server-pid {pid}: there is no such process")));
    }
    let parameters = [("model", args.model.clone()), ("budget_ms", args.budget_ms.map(|budget| budget.to_string()))];
    let load = StillLoad {
        url: args.url().to_owned(),
        token: args.token.clone(),
        parameters: parameters.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
        pictures: pictures(&args.clip, args.size.unwrap_or((640, 480))).map_err(wrong)?,
        distinct: args.distinct,
        rate: args.rate,
        concurrency: args.concurrency,
        duration: args.duration.unwrap_or(DURATION),
        server_pid: args.server_pid,
    };
    let progress = Progress::new(args.quiet);
    let report = stills(&load, interrupted, &mut |status| {
        progress.tell(load.duration, status.elapsed, format!("{} answered, {} not", status.answered, status.others));
    });
    progress.finish();
    write(args, &report).map_err(|message| (Exit::Internal, message))?;
    Ok(if report.answered > 0 { Exit::Clean } else { Exit::Unavailable })
}

fn write(args: &Bench, report: &StillReport) -> Result<(), String> {
    if args.html.is_some() {
        return Err("--html: there is no page of pictures; use --json".to_owned());
    }
    let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
    match args.json.as_deref() {
        Some(path) if path == Path::new("-") => say!("{json}"),
        path => {
            say!("{}", still_table(report).trim_end());
            if let Some(path) = path {
                fs::write(path, json + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Pictures of the drawn scene, of a file, or of the files in a folder that are pictures by their bytes.
fn pictures(clip: &str, (width, height): (u32, u32)) -> Result<Vec<Still>, String> {
    if clip == footage::SCENE {
        return drawn(width, height);
    }
    let place = PathBuf::from(clip);
    let unread = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let files = if place.is_dir() {
        let entries = fs::read_dir(&place).map_err(|error| unread(&place, error))?;
        let mut files: Vec<PathBuf> =
            entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        files
    } else {
        vec![place.clone()]
    };
    let mut pictures = Vec::new();
    for file in files {
        let bytes = fs::read(&file).map_err(|error| unread(&file, error))?;
        if let Ok(header) = Header::read(&bytes) {
            let content_type = match header.kind {
                Kind::Jpeg => "image/jpeg",
                Kind::Png => "image/png",
                Kind::Webp => "image/webp",
            };
            pictures.push(Still { bytes, content_type });
        }
        if pictures.len() == MAX_PICTURES {
            break;
        }
    }
    if pictures.is_empty() { Err(format!("{clip}: there is no JPEG, PNG or WebP")) } else { Ok(pictures) }
}

fn drawn(width: u32, height: u32) -> Result<Vec<Still>, String> {
    let scene = Scene::new(width, height, 30, 1);
    let still = |number: u64| {
        let picture = scene.frame(number * APART);
        let bytes = picture::encode(&picture, scene.color(), Format::Jpeg).map_err(|error| error.to_string())?;
        Ok(Still { bytes, content_type: "image/jpeg" })
    };
    (0..DRAWN).map(still).collect()
}
