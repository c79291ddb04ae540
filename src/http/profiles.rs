use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use saccade_signaling::ErrorCode;
use serde::Deserialize;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Ops, Problem};
use crate::profile::{self, Profile, Recording, flame, memory, proto};

/// Seconds of a profile where the request says nothing.
const SECONDS: u64 = 10;
/// Most seconds of one.
const MOST_SECONDS: u64 = 60;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    seconds: Option<u64>,
}

/// The routes of `ops.profiles`; `/debug/pprof/profile` is where Go's programs have it, so that their tools find it.
pub(super) fn router() -> Router<Ops> {
    Router::new()
        .route("/debug/flamegraph", get(flame_graph))
        .route("/debug/pprof/profile", get(cpu))
        .route("/debug/memory", get(of_memory))
}

async fn flame_graph(wanted: Result<Query<Wanted>, QueryRejection>) -> Result<Response, Problem> {
    record(wanted, "image/svg+xml", |profile| flame::svg(profile).into_bytes()).await
}

async fn cpu(wanted: Result<Query<Wanted>, QueryRejection>) -> Result<Response, Problem> {
    record(wanted, "application/octet-stream", proto::gzipped).await
}

/// Records a profile. A client that goes away meanwhile ends it.
async fn record(
    wanted: Result<Query<Wanted>, QueryRejection>,
    kind: &'static str,
    write: impl FnOnce(&Profile) -> Vec<u8> + Send + 'static,
) -> Result<Response, Problem> {
    let seconds = wanted.ok().map(|Query(wanted)| wanted.seconds.unwrap_or(SECONDS));
    let seconds = seconds.filter(|seconds| (1..=MOST_SECONDS).contains(seconds)).ok_or_else(|| {
        let detail = format!("`seconds` has to be a whole number from 1 to {MOST_SECONDS}; nothing else is taken.");
        Problem::new(ErrorCode::BadRequest, detail)
    })?;
    let recording =
        spawn_blocking(Recording::start).await.map_err(|error| failed(&error))?.map_err(|error| refused(&error))?;
    sleep(Duration::from_secs(seconds)).await;
    let written = spawn_blocking(move || recording.finish().map(|profile| write(&profile)));
    let body = written.await.map_err(|error| failed(&error))?.map_err(|error| refused(&error))?;
    Ok(answer(kind, body))
}

async fn of_memory() -> Result<Response, Problem> {
    let looked = spawn_blocking(memory::look).await.map_err(|error| failed(&error))?;
    let memory = looked.map_err(|error| failed(&error))?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(memory)).into_response())
}

fn answer(kind: &'static str, body: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

fn refused(error: &profile::Error) -> Problem {
    match error {
        profile::Error::Busy => {
            let detail = "Another profile is being recorded; try again when it is done.";
            Problem { retry_after: Some(Duration::from_secs(SECONDS)), ..Problem::new(ErrorCode::Conflict, detail) }
        }
        profile::Error::Failed(_) => failed(error),
    }
}

fn failed(error: &impl std::fmt::Display) -> Problem {
    tracing::warn!(%error, "a profile was not made");
    Problem::new(ErrorCode::Internal, "The profile could not be made; the log says why.")
}
