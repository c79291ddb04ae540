//! Requests for sessions of other servers: [`forward`] takes them from clients to the session's owner, [`admit`] lets in what
//! other servers forward, and [`Remote`] is a signaling socket at the owner.
//!
//! A request is forwarded once at most: what [`admit`] has let in is answered by this server, whatever the registry says.

mod forward;
mod peers;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, header};
use metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::cluster::Cluster;

pub(super) use forward::forward;
pub(super) use peers::{Forwarded, admit};
pub(super) use relay::{Heard, Remote};

/// Where signaling sockets are opened.
pub(super) const SIGNAL: &str = "/v1/signal";
/// How long a connection to another server may take; a server that is gone answers nothing at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Requests that are forwarded at a time, each over a connection of its own.
const MAX_REQUESTS: usize = 1024;
/// Sockets and streams of events that are: they last, and must not keep requests from getting through.
const MAX_LASTING: usize = 1024;

/// What forwarding needs.
pub(super) struct Forwarding {
    pub(super) cluster: Arc<Cluster>,
    /// Places of requests.
    requests: Arc<Semaphore>,
    /// Places of what lasts.
    lasting: Arc<Semaphore>,
}

impl Forwarding {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        let [requests, lasting] = [MAX_REQUESTS, MAX_LASTING].map(|most| Arc::new(Semaphore::new(most)));
        Self { cluster, requests, lasting }
    }

    /// A place for a request or for what lasts, if one is free.
    fn place(&self, lasts: bool) -> Option<OwnedSemaphorePermit> {
        let places = if lasts { &self.lasting } else { &self.requests };
        Arc::clone(places).try_acquire_owned().ok()
    }
}

/// The session that a path is about: `/v1/sessions/{id}`, what is below it, and `/v1/whep/{id}`.
fn session_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/sessions/").or_else(|| path.strip_prefix("/v1/whep/"))?;
    rest.split('/').next().filter(|id| !id.is_empty())
}

/// Whether a request about a session asks for a stream of events.
fn is_stream(method: &Method, path: &str) -> bool {
    *method == Method::GET && (path.ends_with("/results") || path.ends_with("/events"))
}

/// The bytes of a header that a proof covers.
fn covered(headers: &HeaderMap, name: &header::HeaderName) -> Vec<u8> {
    headers.get(name).map(|value| value.as_bytes().to_vec()).unwrap_or_default()
}

fn count(kind: &'static str, outcome: &'static str) {
    counter!("saccade_cluster_forwarded_total", "kind" => kind, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::{is_stream, session_of};

    #[test]
    fn streams_are_known() {
        assert!(is_stream(&Method::GET, "/v1/sessions/a/results") && is_stream(&Method::GET, "/v1/sessions/a/events"));
        assert!(!is_stream(&Method::HEAD, "/v1/sessions/a/events") && !is_stream(&Method::GET, "/v1/sessions/a"));
    }

    #[test]
    fn paths_of_one_session_are_known() {
        for path in ["/v1/sessions/a", "/v1/sessions/a/", "/v1/sessions/a/viewers/b", "/v1/whep/a"] {
            assert_eq!(session_of(path), Some("a"), "{path}");
        }
        for path in ["/v1/sessions", "/v1/sessions/", "/v1/whep/", "/v1/signal", "/v2/models/a", "/sessions/a"] {
            assert_eq!(session_of(path), None, "{path}");
        }
    }
}
