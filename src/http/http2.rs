//! HTTP/2 (RFC 9113): the same requests as over HTTP/1.1, many on one connection, and what keeps a connection from taking
//! more than its part.
//!
//! The library itself ends connections that flood it with empty frames, with headers that go on and on, or with requests
//! that break its rules. Here is what it knows nothing of: connections that ask nothing, requests that are begun to be
//! taken back (CVE-2023-44487), answers that nobody takes.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tower::{ServiceExt, service_fn};

use super::connection::WRITE_TIMEOUT;
use super::listen::{Arrival, HEAD_TIMEOUT, stopped};
use crate::clock;
use crate::session::{Allowance, Rate};

/// What a client that knows that HTTP/2 is spoken sends first (section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests of one connection at a time.
const MAX_STREAMS: u32 = 128;
/// Bytes of one body that are on their way unread, and of all bodies of a connection: one that waits does not hold up the
/// others.
const STREAM_WINDOW: u32 = 1024 * 1024;
const WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes of an answer that wait to be written, and those that are handed over at once.
const SEND_BUFFER: usize = 64 * 1024;
const CHUNK: usize = 32 * 1024;
/// Bytes of a request's headers, counted as in section 10.5.1.
const HEADERS: u32 = 32 * 1024;
/// How often a silent client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a connection is kept without a request. Before the first it is [`HEAD_TIMEOUT`].
const IDLE: Duration = Duration::from_secs(60);
/// Requests that may be taken back before they are answered.
const TAKEN_BACK: Rate = Rate { per_second: 50, burst: 200 };
/// Those that may be taken back before they were looked at, and those that may be refused for what breaks a rule.
const MAX_RESET: usize = 100;
/// How long a client that was told that the connection ends may take to let it.
const FAREWELL: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// Of the request that a task answers.
    static HANDED: Handed;
}

/// Serves a connection whose client speaks HTTP/2, until it ends, or `stop` turns true and the last answer is out.
pub(super) async fn serve<S>(stream: S, router: Router, arrival: Arrival, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let tally = Arc::new(Tally::new());
    let counted = Arc::clone(&tally);
    let service = service_fn(move |request| answer(router.clone(), request, arrival, Arc::clone(&counted)));
    let mut builder = http2::Builder::new(Streams(Arc::clone(&tally)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS)
        .max_pending_accept_reset_streams(MAX_RESET)
        .max_local_error_reset_streams(MAX_RESET)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let told = |served: Result<(), hyper::Error>| {
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
    };
    loop {
        let idle = if tally.has_asked() { IDLE } else { HEAD_TIMEOUT };
        tokio::select! {
            served = connection.as_mut() => return told(served),
            () = stopped(&mut stop) => break,
            () = sleep(idle), if tally.is_idle() => break,
            () = tally.changed.notified() => {
                // Whoever connects too often is told so once.
                if tally.is_flooded() || arrival.refused.is_some() && tally.has_answered() {
                    break;
                }
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let mut end = pin!(sleep(FAREWELL));
    let is_flooded = tally.is_flooded();
    if is_flooded {
        cut("resets");
    }
    loop {
        tokio::select! {
            served = connection.as_mut() => return told(served),
            () = end.as_mut(), if is_flooded => return,
            () = sleep(FAREWELL), if tally.is_idle() => return,
            () = tally.changed.notified() => {}
        }
    }
}

async fn answer(
    router: Router,
    mut request: Request<Incoming>,
    arrival: Arrival,
    tally: Arc<Tally>,
) -> Result<Response<Paced>, Infallible> {
    let mut asked = Asked { tally, is_answered: false };
    request.extensions_mut().insert(arrival);
    let response = router.oneshot(request).await?;
    asked.is_answered = true;
    let handed = HANDED.try_with(Clone::clone).unwrap_or_default();
    Ok(response.map(|body| Paced { body, left: Bytes::new(), handed }))
}

fn cut(reason: &'static str) {
    counter!("saccade_http2_cut_total", "reason" => reason).increment(1);
}

/// What became of a connection's requests.
struct Tally {
    /// Tasks that answer one.
    open: AtomicU32,
    asked: AtomicU32,
    answered: AtomicU32,
    taken_back: Mutex<(Allowance, bool)>,
    /// Told of each change.
    changed: Notify,
}

impl Tally {
    fn new() -> Self {
        Self {
            open: AtomicU32::new(0),
            asked: AtomicU32::new(0),
            answered: AtomicU32::new(0),
            taken_back: Mutex::new((Allowance::new(clock::now(), TAKEN_BACK), false)),
            changed: Notify::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    fn has_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) > 0
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed) > 0
    }

    fn is_flooded(&self) -> bool {
        self.taken_back.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    fn take_back(&self) {
        let mut taken_back = self.taken_back.lock().unwrap_or_else(PoisonError::into_inner);
        taken_back.1 |= !taken_back.0.take(clock::now());
    }
}

/// A request that is being answered.
struct Asked {
    tally: Arc<Tally>,
    is_answered: bool,
}

impl Drop for Asked {
    fn drop(&mut self) {
        if self.is_answered {
            self.tally.answered.fetch_add(1, Ordering::Relaxed);
        } else {
            self.tally.take_back();
        }
        self.tally.changed.notify_one();
    }
}

/// Runs the task of each request, until its client has not taken a part of the answer for too long.
#[derive(Clone)]
struct Streams(Arc<Tally>);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let open = Open::new(&self.0);
        let handed = Handed::default();
        let watched = handed.clone();
        tokio::spawn(HANDED.scope(handed, async move {
            let _open = open;
            tokio::select! {
                () = stream => {}
                // Dropped, it is reset.
                () = watched.stalled() => cut("stalled"),
            }
        }));
    }
}

/// A task's place in the tally.
struct Open(Arc<Tally>);

impl Open {
    fn new(tally: &Arc<Tally>) -> Self {
        tally.open.fetch_add(1, Ordering::AcqRel);
        tally.asked.fetch_add(1, Ordering::Relaxed);
        tally.changed.notify_one();
        Self(Arc::clone(tally))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

/// Parts of an answer that were handed over, and asked for: odd while one waits to be taken.
#[derive(Debug, Clone, Default)]
struct Handed(Arc<AtomicU32>);

impl Handed {
    fn set(&self, waits: bool) {
        let count = self.0.load(Ordering::Relaxed);
        if (count % 2 == 1) != waits {
            self.0.store(count.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Waits until a part has waited for too long.
    async fn stalled(&self) {
        let (mut seen, mut times) = (0, 0);
        loop {
            sleep(WRITE_TIMEOUT / 2).await;
            let count = self.0.load(Ordering::Relaxed);
            times = if count % 2 == 1 && count == seen { times + 1 } else { 0 };
            seen = count;
            if times >= 2 {
                return;
            }
        }
    }
}

/// An answer's body in parts of bounded size, of which one is handed over after the other was taken.
struct Paced {
    body: Body,
    left: Bytes,
    handed: Handed,
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.handed.set(false);
        if self.left.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?.map(Frame::into_data) {
                None => return Poll::Ready(None),
                Some(Ok(data)) => self.left = data,
                Some(Err(other)) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let most = self.left.len().min(CHUNK);
        let part = self.left.split_to(most);
        self.handed.set(true);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, left) = (self.body.size_hint(), self.left.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower().saturating_add(left));
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(left));
        }
        whole
    }
}
