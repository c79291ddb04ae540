//! `/v1/events` and `/v1/stats`: what happened, as lists and sums, as JSON or as a table to take away.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use saccade_signaling::{ErrorCode, EventPage, EventRecord, Latency, LineStats, StatsPoint, StatsView, ZoneStats};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::api::{NO_STORE, may_view};
use super::auth::{Claims, expiry};
use super::openapi::parameters::{EventFilters, StatsFilters};
use super::openapi::{BadRequest, NotAcceptable, NotFound, wire};
use super::{Context, Problem};
use crate::clock;
use crate::history::export::{Cell, Column, Format, Kind, Table};
use crate::history::query::MAX_POINTS;
use crate::history::{
    Counts, Cursor, Error, Event, Events, Group, LineCounts, Order, Point, Reader, Stats, ZoneCounts, instant,
};
use crate::session::Refusal;

/// Events of one answer, by default and at most.
const PAGE: (u32, u32) = (100, 1000);
/// Events of one export, by default and at most.
const MAX_EXPORT: u32 = 1_000_000;
/// Pieces of an export that wait for whoever reads it.
const EXPORT_PIECES: usize = 2;
/// Exports at a time.
pub(super) const MAX_EXPORTS: usize = 4;
/// Longest that an export may wait for its reader.
const EXPORT_STALL: Duration = Duration::from_secs(30);
/// When to ask a store again that does not answer.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The range of sums where none is asked for: a day.
const RANGE_MS: i64 = 86_400_000;
/// Points of sums where no step is asked for, about.
const POINTS: i64 = 300;
/// Steps to choose from, in milliseconds.
const STEPS: [i64; 7] = [60_000, 300_000, 900_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000];
/// Longest value of a filter, in bytes.
const MAX_FILTER_BYTES: usize = 512;

const EVENT_COLUMNS: &[Column] = &[
    Column("id", Kind::Text),
    Column("time", Kind::Time),
    Column("session_id", Kind::Text),
    Column("camera", Kind::Text),
    Column("type", Kind::Text),
    Column("zone", Kind::Text),
    Column("line", Kind::Text),
    Column("rule", Kind::Text),
    Column("class", Kind::Text),
    Column("object_id", Kind::Integer),
    Column("event", Kind::Text),
];
const POINT_COLUMNS: &[Column] = &[
    Column("time", Kind::Time),
    Column("group", Kind::Text),
    Column("frames", Kind::Integer),
    Column("results", Kind::Integer),
    Column("met", Kind::Integer),
    Column("dropped", Kind::Integer),
    Column("objects", Kind::Integer),
    Column("alerts", Kind::Integer),
    Column("latency_p50_ms", Kind::Number),
    Column("latency_p95_ms", Kind::Number),
    Column("detections", Kind::Text),
    Column("zones", Kind::Text),
    Column("lines", Kind::Text),
];

/// List events
///
/// What sessions told, with the filters that are given: empty ones say nothing. Pages are JSON; tables have all events, and
/// four may be made at a time.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "history", params(EventFilters),
    security(("token" = ["can_view"])),
    responses(
        (
            status = 200, description = "A page, or a table.",
            content((wire::EventPage = "application/json"), (String = "text/csv"), ("application/vnd.apache.parquet"))
        ),
        BadRequest, NotFound, NotAcceptable
    )
)]
pub(super) async fn events(
    State(context): State<Arc<Context>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    let reader = context.history()?;
    let mut asked = Asked::new(&uri)?;
    let format = asked.format(&headers)?;
    let query = Events { session: asked.session(&claims)?, ..asked.events()? };
    let most = if format.is_some() { MAX_EXPORT } else { PAGE.1 };
    let limit = asked.number("limit", if format.is_some() { MAX_EXPORT } else { PAGE.0 }, most)?;
    asked.end()?;
    if let Some(format) = format {
        return export(&context, claims, reader, query, limit, format).await;
    }
    // One more tells whether there is a further page.
    let mut found = reader.events(&query, limit + 1).await?;
    let rest = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| rest).map(|last| Cursor::behind(last, query.order).encode());
    let events = found.iter().map(record).collect();
    Ok(([NO_STORE], Json(EventPage { events, next_cursor })).into_response())
}

/// Sum up what happened
///
/// Frames, results, detections, zones, lines and alerts in steps of time. They are known when a minute is over, or a session.
#[utoipa::path(
    get, path = "/v1/stats", operation_id = "get_stats", tag = "history", params(StatsFilters),
    security(("token" = ["can_view"])),
    responses(
        (
            status = 200, description = "The sums.",
            content((wire::StatsView = "application/json"), (String = "text/csv"), ("application/vnd.apache.parquet"))
        ),
        BadRequest, NotFound, NotAcceptable
    )
)]
pub(super) async fn stats(
    State(context): State<Arc<Context>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    let reader = context.history()?;
    let mut asked = Asked::new(&uri)?;
    let format = asked.format(&headers)?;
    let query = Stats { session: asked.session(&claims)?, ..asked.stats()? };
    asked.end()?;
    let points = reader.stats(&query).await?;
    let Some(format) = format else {
        let view = StatsView {
            from: instant::text(query.from_ms),
            to: instant::text(query.to_ms),
            step_s: query.step_ms / 1000,
            points: points.into_iter().map(point_view).collect(),
        };
        return Ok(([NO_STORE], Json(view)).into_response());
    };
    let encoding = tokio::task::spawn_blocking(move || {
        let mut table = Table::new(format, POINT_COLUMNS)?;
        let mut bytes = table.add(points.iter().map(point_row).collect())?;
        bytes.extend(table.finish()?);
        io::Result::Ok(bytes)
    });
    match encoding.await {
        Ok(Ok(bytes)) => Ok((download(format, "stats"), bytes).into_response()),
        _ => Err(Problem::new(ErrorCode::Internal, "The table could not be made; ask for JSON.")),
    }
}

impl Context {
    fn history(&self) -> Result<Reader, Problem> {
        let missing = || Problem::new(ErrorCode::NotFound, "This server keeps no history; set store.url to have one.");
        self.settings.history.clone().ok_or_else(missing)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::TooMany(_) => Self::new(
                ErrorCode::BadRequest,
                format!(
                    "There would be more than {MAX_POINTS} points; choose a longer step, a shorter range or no group."
                ),
            ),
            _ => {
                let refusal =
                    Refusal::new(ErrorCode::Capacity, "The store of history does not answer; try again later.");
                refusal.retry_after(RETRY_AFTER).into()
            }
        }
    }
}

/// Sends a table piece by piece, read page by page, so that neither is ever in memory as a whole. What goes wrong after
/// the first page breaks the answer off.
async fn export(
    context: &Context,
    claims: Claims,
    reader: Reader,
    mut query: Events,
    limit: u32,
    format: Format,
) -> Result<Response, Problem> {
    let place = Arc::clone(&context.exports).try_acquire_owned().map_err(|_| {
        let refusal = Refusal::new(ErrorCode::Capacity, "Too many exports are being made; try again later.");
        Problem::from(refusal.retry_after(RETRY_AFTER))
    })?;
    let first = reader.events(&query, limit.min(PAGE.1)).await?;
    let (pieces, body) = mpsc::channel(EXPORT_PIECES);
    let writing = async move {
        let _place: OwnedSemaphorePermit = place;
        let mut table = Table::new(format, EVENT_COLUMNS)?;
        let (mut page, mut left) = (first, limit);
        loop {
            left -= u32::try_from(page.len()).unwrap_or(left).min(left);
            let is_last = left == 0 || page.len() < PAGE.1 as usize;
            query.after = page.last().map(|last| Cursor::behind(last, query.order));
            let encoding = tokio::task::spawn_blocking(move || {
                let bytes = table.add(page.into_iter().map(event_row).collect())?;
                io::Result::Ok((table, bytes))
            });
            let (now, bytes) = encoding.await.map_err(io::Error::other)??;
            table = now;
            send(&pieces, bytes).await?;
            if is_last {
                break;
            }
            page = reader.events(&query, left.min(PAGE.1)).await.map_err(io::Error::other)?;
        }
        let rest = tokio::task::spawn_blocking(move || table.finish()).await.map_err(io::Error::other)??;
        send(&pieces, rest).await
    };
    let (break_off, is_broken) = tokio::sync::oneshot::channel::<io::Error>();
    tokio::spawn(async move {
        let written: io::Result<()> = tokio::select! {
            written = writing => written,
            () = expiry(claims.expires) => Err(io::ErrorKind::PermissionDenied.into()),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "an export was broken off");
            let _ = break_off.send(error);
        }
    });
    let pieces = ReceiverStream::new(body);
    // A body that merely ended would pass for a whole one.
    let end = futures_util::StreamExt::filter_map(futures_util::stream::once(is_broken), async |end| end.ok().map(Err));
    let stream = futures_util::StreamExt::chain(futures_util::StreamExt::map(pieces, io::Result::Ok), end);
    Ok((download(format, "events"), Body::from_stream(stream)).into_response())
}

async fn send(pieces: &mpsc::Sender<Bytes>, bytes: Vec<u8>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    match tokio::time::timeout(EXPORT_STALL, pieces.send(bytes.into())).await {
        Ok(sent) => sent.map_err(|_| io::ErrorKind::BrokenPipe.into()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn download(format: Format, name: &str) -> [(HeaderName, HeaderValue); 3] {
    let (kind, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        Format::Parquet => (PARQUET, "parquet"),
    };
    let file = HeaderValue::from_str(&format!("attachment; filename=\"saccade-{name}.{ending}\""));
    let file = file.unwrap_or(HeaderValue::from_static("attachment"));
    [NO_STORE, (header::CONTENT_TYPE, HeaderValue::from_static(kind)), (header::CONTENT_DISPOSITION, file)]
}

/// Media type of Parquet, as it is registered.
const PARQUET: &str = "application/vnd.apache.parquet";

/// A query's parameters; those that were not asked for are mistakes.
struct Asked(BTreeMap<String, String>);

impl Asked {
    fn new(uri: &Uri) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            if value.len() > MAX_FILTER_BYTES {
                return Err(bad(format!("`{}` is too long.", cut(&name))));
            }
            if parameters.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(bad(format!("`{}` is given twice; give it once.", cut(&name))));
            }
        }
        // An empty field of a form says nothing.
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    fn end(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            Some(name) => Err(bad(format!("There is no parameter `{}` here.", cut(&name)))),
            None => Ok(()),
        }
    }

    /// A table, or JSON: as `format` says, or else the `Accept` header.
    fn format(&mut self, headers: &HeaderMap) -> Result<Option<Format>, Problem> {
        match self.0.remove("format").as_deref() {
            Some("json") => return Ok(None),
            Some("csv") => return Ok(Some(Format::Csv)),
            Some("parquet") => return Ok(Some(Format::Parquet)),
            Some(_) => return Err(bad("`format` is json, csv or parquet.")),
            None => {}
        }
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let kinds = accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or("").trim());
        let mut any = false;
        for kind in kinds {
            any = true;
            match kind.to_ascii_lowercase().as_str() {
                "application/json" | "application/*" | "*/*" => return Ok(None),
                "text/csv" | "text/*" => return Ok(Some(Format::Csv)),
                PARQUET => return Ok(Some(Format::Parquet)),
                _ => {}
            }
        }
        if !any {
            return Ok(None);
        }
        let detail = format!("There is application/json, text/csv and {PARQUET}; accept one of them.");
        Err(Problem::new(ErrorCode::UnsupportedType, detail).with_status(StatusCode::NOT_ACCEPTABLE))
    }

    /// The session that is asked for. A token for one session sees no other: whoever asks for another one finds nothing
    /// of it, as where there is none.
    fn session(&mut self, claims: &Claims) -> Result<Option<String>, Problem> {
        let asked = self.0.remove("session");
        match (&claims.session, asked) {
            (Some(own), Some(other)) if *own != other => Err(Problem::no_such_session()),
            (Some(own), _) => Ok(Some(own.clone())),
            (None, asked) => Ok(asked),
        }
    }

    fn events(&mut self) -> Result<Events, Problem> {
        let order = match self.0.remove("order").as_deref() {
            None | Some("desc") => Order::Descending,
            Some("asc") => Order::Ascending,
            Some(_) => return Err(bad("`order` is asc or desc.")),
        };
        let after = match self.0.remove("cursor") {
            None => None,
            Some(text) => Some(Cursor::decode(&text, order).ok_or_else(|| {
                bad("`cursor` is not one of this list; take the `next_cursor` of the page before, with the same `order`.")
            })?),
        };
        let (from_ms, to_ms) = (self.moment("from")?, self.moment("to")?);
        in_order(from_ms, to_ms)?;
        let mut take = |name: &str| self.0.remove(name);
        Ok(Events {
            from_ms,
            to_ms,
            session: None,
            camera: take("camera"),
            kind: take("type"),
            zone: take("zone"),
            line: take("line"),
            rule: take("rule"),
            class: take("class"),
            order,
            after,
        })
    }

    fn stats(&mut self) -> Result<Stats, Problem> {
        let to_ms = self.moment("to")?.unwrap_or_else(|| instant::millis(clock::wall()) + 1);
        let from_ms = self.moment("from")?.unwrap_or_else(|| (to_ms - RANGE_MS).max(0));
        in_order(Some(from_ms), Some(to_ms))?;
        let group = match self.0.remove("group").as_deref() {
            None | Some("none") => Group::None,
            Some("session") => Group::Session,
            Some("camera") => Group::Camera,
            Some("model") => Group::Model,
            Some(_) => return Err(bad("`group` is none, session, camera or model.")),
        };
        let range = to_ms - from_ms;
        let step_ms = match self.0.remove("step") {
            Some(text) => {
                step(&text).ok_or_else(|| bad("`step` is a multiple of a minute, such as 60s, 5m, 1h or 1d."))?
            }
            None => STEPS.into_iter().find(|step| range / step <= POINTS).unwrap_or(STEPS[STEPS.len() - 1]),
        };
        if usize::try_from(range / step_ms).is_ok_and(|points| points > MAX_POINTS) {
            return Err(Error::TooMany(crate::history::query::TooMany).into());
        }
        let (camera, model) = (self.0.remove("camera"), self.0.remove("model"));
        Ok(Stats { from_ms, to_ms, step_ms, session: None, camera, model, group })
    }

    fn moment(&mut self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.0.remove(name) else { return Ok(None) };
        let wrong = || {
            bad(format!(
                "`{name}` is a moment such as 2026-11-22T18:00:00Z (RFC 3339), or milliseconds since 1970; \
                 a plus is written as %2B."
            ))
        };
        instant::parse(&text).map(Some).ok_or_else(wrong)
    }

    fn number(&mut self, name: &str, default: u32, most: u32) -> Result<u32, Problem> {
        let Some(text) = self.0.remove(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| bad(format!("`{name}` is a whole number from 1 to {most}.")))
    }
}

fn in_order(from_ms: Option<i64>, to_ms: Option<i64>) -> Result<(), Problem> {
    match (from_ms, to_ms) {
        (Some(from), Some(to)) if from >= to => Err(bad("`from` is to be before `to`.")),
        _ => Ok(()),
    }
}

/// A step in milliseconds.
fn step(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.find(|one: char| !one.is_ascii_digit())?);
    let unit = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let millis = number.parse::<i64>().ok()?.checked_mul(unit)?;
    (millis > 0 && millis % 60_000 == 0).then_some(millis)
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(ErrorCode::BadRequest, detail)
}

/// As much of a stranger's word as an answer repeats.
fn cut(name: &str) -> String {
    name.chars().take(40).collect()
}

fn record(event: &Event) -> EventRecord {
    EventRecord {
        id: event.id.clone(),
        time: instant::text(event.time_ms),
        time_ms: event.time_ms,
        session_id: event.session.clone(),
        camera: event.camera.clone(),
        event: serde_json::from_str(&event.json).ok(),
    }
}

fn point_view(point: Point) -> StatsPoint {
    let Counts { frames, results, met, dropped, detections, objects, zones, lines, alerts, latencies } = point.counts;
    let zone = |ZoneCounts { entered, left, most }| ZoneStats { entered, left, most };
    let line = |LineCounts { left_to_right, right_to_left }| LineStats { left_to_right, right_to_left };
    StatsPoint {
        time: instant::text(point.time_ms),
        time_ms: point.time_ms,
        group: point.group,
        frames,
        results,
        met,
        dropped,
        detections,
        objects,
        zones: zones.into_iter().map(|(name, counts)| (name, zone(counts))).collect(),
        lines: lines.into_iter().map(|(name, counts)| (name, line(counts))).collect(),
        alerts,
        latency_ms: Latency { p50: tenths(latencies.quantile(0.5)), p95: tenths(latencies.quantile(0.95)) },
    }
}

fn tenths(millis: Option<f64>) -> Option<f64> {
    millis.map(|millis| (millis * 10.0).round() / 10.0)
}

fn event_row(event: Event) -> Vec<Cell> {
    vec![
        Cell::Text(event.id),
        Cell::Integer(event.time_ms),
        Cell::Text(event.session),
        event.camera.into(),
        Cell::Text(event.kind),
        event.zone.into(),
        event.line.into(),
        event.rule.into(),
        event.class.into(),
        event.object_id.map_or(Cell::Nothing, Cell::Integer),
        Cell::Text(event.json),
    ]
}

fn point_row(point: &Point) -> Vec<Cell> {
    let counts = &point.counts;
    let latency = |share| tenths(counts.latencies.quantile(share)).map_or(Cell::Nothing, Cell::Number);
    let json = |text: serde_json::Result<String>| Cell::Text(text.unwrap_or_default());
    vec![
        Cell::Integer(point.time_ms),
        point.group.clone().into(),
        counts.frames.into(),
        counts.results.into(),
        counts.met.into(),
        counts.dropped.values().sum::<u64>().into(),
        counts.objects.into(),
        counts.alerts.into(),
        latency(0.5),
        latency(0.95),
        json(serde_json::to_string(&counts.detections)),
        json(serde_json::to_string(&counts.zones)),
        json(serde_json::to_string(&counts.lines)),
    ]
}
