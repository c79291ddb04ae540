//! Several pictures in one request: each is worked on as soon as it is whole, and what is wrong with one is told in its
//! place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, HttpBody};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{Stream, StreamExt};
use hyper::body::{Frame, SizeHint};
use multer::{Constraints, Multipart, SizeLimit};
use saccade_signaling::{ErrorCode, ImageError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout, timeout_at};

use super::super::api::NO_STORE;
use super::super::results::{self, Origin};
use super::super::{Context, Problem};
use super::bodies::{Held, Part, next_part, too_slow};
use super::{Order, Picture, Tell};
use crate::clock;
use crate::traces::Context as TraceContext;

/// Pictures of one request that are worked on at a time; while so many are, no further one is read.
const PARALLEL: usize = 4;
/// How long a client may leave an answer unread; its other pictures are withdrawn then.
const TELL_LIMIT: Duration = Duration::from_secs(30);
/// How often something is sent while no picture is done, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Bytes of a form besides its pictures, for each of them.
const FORM_BYTES: u64 = 4096;

/// What is told of one picture of several.
pub(super) struct Entry {
    place: u32,
    told: Result<Bytes, (Option<String>, Problem)>,
    origin: Option<Origin>,
    /// Whether it is the request that something is wrong with.
    is_fatal: bool,
}

/// The picture of a request without a form, as the only one of several.
pub(super) fn single(
    context: Arc<Context>,
    (picture, held): (Picture, Held),
    order: Arc<Order>,
) -> impl Stream<Item = Entry> + Send + 'static {
    Driven::start(move |entries| async move {
        let entry = work(context, picture, held, order).await;
        // There is room for one.
        let _ = entries.try_send(entry);
    })
}

/// The pictures of a form, in the order in which they are done. Whoever drops the stream withdraws them.
pub(super) fn parts(
    context: Arc<Context>,
    body: Body,
    boundary: String,
    order: Arc<Order>,
    caller: Option<TraceContext>,
) -> impl Stream<Item = Entry> + Send + 'static {
    Driven::start(|entries| drive(context, body, boundary, (order, caller), entries))
}

/// What a task of its own tells, so that pictures are done however slowly that is read. The task ends with its listener.
struct Driven {
    told: mpsc::Receiver<Entry>,
    driver: JoinHandle<()>,
    is_over: bool,
}

impl Driven {
    fn start<F>(drive: impl FnOnce(mpsc::Sender<Entry>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (entries, told) = mpsc::channel(PARALLEL);
        Self { told, driver: tokio::spawn(drive(entries)), is_over: false }
    }
}

impl Stream for Driven {
    type Item = Entry;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Entry>> {
        if let Some(entry) = ready!(self.told.poll_recv(task)) {
            return Poll::Ready(Some(entry));
        }
        if !self.is_over {
            let ended = ready!(Pin::new(&mut self.driver).poll(task));
            self.is_over = true;
            // The request fails as it would have without a task.
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                resume_unwind(panic);
            }
        }
        Poll::Ready(None)
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(
    context: Arc<Context>,
    body: Body,
    boundary: String,
    (order, caller): (Arc<Order>, Option<TraceContext>),
    entries: mpsc::Sender<Entry>,
) {
    let bounds = context.settings.stills;
    let due = (clock::now() + bounds.timeout).into();
    let most = u64::from(bounds.pictures + 1) * (bounds.picture_bytes as u64 + FORM_BYTES);
    let constraints = Constraints::new().size_limit(SizeLimit::new().whole_stream(most));
    let form = Multipart::with_constraints(Paced::new(body), boundary, constraints);
    let (mut place, mut working) = (0, FuturesUnordered::new());
    // What is told but has not found room, and until when the first of it may wait.
    let (mut untold, mut patience) = (VecDeque::new(), clock::now() + TELL_LIMIT);
    let mut reading = Some(Box::pin(next_part(Arc::clone(&context), form, place)));
    while reading.is_some() || !working.is_empty() || !untold.is_empty() {
        let read = async {
            match reading.as_mut() {
                Some(reading) => timeout_at(due, reading).await,
                None => std::future::pending().await,
            }
        };
        let entry = tokio::select! {
            room = entries.reserve(), if !untold.is_empty() => {
                let Ok(room) = room else { return };
                if let Some(entry) = untold.pop_front() {
                    room.send(entry);
                }
                patience = clock::now() + TELL_LIMIT;
                None
            }
            () = sleep_until(patience.into()), if !untold.is_empty() => {
                tracing::debug!("answers to pictures are not read; the others are withdrawn");
                return;
            }
            Some(entry) = working.next() => Some(entry),
            part = read, if working.len() + untold.len() < PARALLEL => {
                let (told, form) = match part {
                    Err(_) => (Some((None, too_slow(), true)), None),
                    Ok((_, Part::End)) if place == 0 => {
                        let problem = Problem::new(ErrorCode::BadRequest, "The form has no parts; send a picture in each.");
                        (Some((None, problem, true)), None)
                    }
                    Ok((_, Part::End)) => (None, None),
                    Ok((_, Part::Broken(problem))) => (Some((None, problem, true)), None),
                    Ok((form, Part::Bad { name, problem })) => {
                        // The one beyond all that may be is the last that is looked at.
                        let goes_on = place < bounds.pictures;
                        (Some((name, problem, false)), goes_on.then_some(form))
                    }
                    Ok((form, Part::Picture(picture, held))) => {
                        let picture = picture.traced(&context, caller.as_ref());
                        working.push(work(Arc::clone(&context), picture, held, Arc::clone(&order)));
                        (None, Some(form))
                    }
                };
                let entry = told.map(|(name, problem, is_fatal)| Entry { place, told: Err((name, problem)), origin: None, is_fatal });
                place += 1;
                reading = form.map(|form| Box::pin(next_part(Arc::clone(&context), form, place)));
                entry
            }
        };
        if let Some(entry) = entry {
            if untold.is_empty() {
                patience = clock::now() + TELL_LIMIT;
            }
            untold.push_back(entry);
        }
    }
}

async fn work(context: Arc<Context>, picture: Picture, held: Held, order: Arc<Order>) -> Entry {
    let (place, name) = (picture.place, picture.name.clone());
    let told = context.stills.detect(picture, order).await;
    let origin = told.as_ref().ok().and_then(|told| told.origin);
    let told = told.map_err(Problem::from).and_then(|Tell { body, .. }| held.keep(&context.uploads, body));
    let told = told.map_err(|problem| (name, problem));
    Entry { place, told, origin, is_fatal: false }
}

impl Entry {
    fn into_json(self) -> Bytes {
        let (name, problem) = match self.told {
            Ok(body) => return body,
            Err(problem) => problem,
        };
        let error = ImageError {
            image: self.place,
            name,
            code: problem.code,
            message: problem.detail.into_owned(),
            status: problem.status.as_u16(),
            retry_after_ms: problem.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        serde_json::to_vec(&error).unwrap_or_default().into()
    }
}

/// One event for each picture, as it is done. The bytes of answers are sent as they are, so that they hold their room until
/// then; they are JSON on one line.
pub(super) fn events(entries: impl Stream<Item = Entry> + Send + 'static) -> Response {
    let events = stream::unfold(Box::pin(entries), |mut entries| async {
        let chunks = match timeout(KEEP_ALIVE, entries.next()).await {
            Ok(Some(entry)) => vec![Bytes::from_static(b"data: "), entry.into_json(), Bytes::from_static(b"\n\n")],
            Ok(None) => return None,
            // A comment.
            Err(_) => vec![Bytes::from_static(b":\n\n")],
        };
        Some((stream::iter(chunks.into_iter().map(Ok::<_, Infallible>)), entries))
    });
    let kind = (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    let buffering = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([kind, NO_STORE, buffering], Body::from_stream(events.flatten())).into_response()
}

/// All of them as a list, in the order of the request.
pub(super) async fn list(entries: impl Stream<Item = Entry>, asked: &HeaderMap) -> Result<Response, Problem> {
    let mut entries: Vec<Entry> = entries.collect().await;
    entries.sort_unstable_by_key(|entry| entry.place);
    // A request that is none as a whole, and nothing of which was answered, is refused as a whole.
    if entries.len() == 1
        && entries[0].is_fatal
        && let Some(Entry { told: Err((_, problem)), .. }) = entries.pop()
    {
        return Err(problem);
    }
    let origins: Vec<_> = entries.iter().map(|entry| entry.origin).collect();
    let mut chunks = VecDeque::with_capacity(2 * entries.len() + 1);
    for (at, entry) in entries.into_iter().enumerate() {
        chunks.push_back(Bytes::from_static(if at == 0 { b"[" } else { b"," }));
        chunks.push_back(entry.into_json());
    }
    chunks.push_back(Bytes::from_static(if chunks.is_empty() { b"[]" } else { b"]" }));
    let response = ([(header::CONTENT_TYPE, "application/json")], Body::new(Chunks(chunks))).into_response();
    Ok(results::finish(response, &origins, asked))
}

/// A body of known length, each of whose pieces is dropped once it was sent.
struct Chunks(VecDeque<Bytes>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|chunk| chunk.len() as u64).sum())
    }
}

/// A body that is pending after each chunk, since the reader of forms takes all that there is at once.
struct Paced {
    body: BodyDataStream,
    rests: bool,
}

impl Paced {
    fn new(body: Body) -> Self {
        Self { body: body.into_data_stream(), rests: false }
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.rests) {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.body.poll_next_unpin(task);
        self.rests = matches!(polled, Poll::Ready(Some(Ok(_))));
        polled
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn pictures_are_worked_on_unread_and_withdrawn_with_their_listener() {
        let (begin, begun) = oneshot::channel();
        let (hold, held) = oneshot::channel::<()>();
        let driven = Driven::start(move |entries| async move {
            let _ = begin.send(());
            std::future::pending::<()>().await;
            drop((entries, hold));
        });
        begun.await.unwrap();
        drop(driven);
        held.await.unwrap_err();
    }
}
