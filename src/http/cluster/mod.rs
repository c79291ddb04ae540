//! Requests for sessions of other servers: [`forward`] takes them from clients to the session's owner, [`admit`] lets in what
//! other servers forward, and [`Remote`] is a signaling socket at the owner.
//!
//! A request is forwarded once at most: what [`admit`] has let in is answered by this server, whatever the registry says.

mod forward;
mod peers;
mod relay;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use metrics::counter;
use tokio::sync::Semaphore;

use crate::cluster::Cluster;

pub(super) use forward::forward;
pub(super) use peers::{Forwarded, admit};
pub(super) use relay::{Heard, Remote};

/// Where signaling sockets are opened.
pub(super) const SIGNAL: &str = "/v1/signal";
/// How long a connection to another server may take; a server that is gone answers nothing at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Requests and sockets that are forwarded at a time, each over a connection of its own.
const MAX_FORWARDED: usize = 1024;

/// What forwarding needs.
pub(super) struct Forwarding {
    pub(super) cluster: Arc<Cluster>,
    /// Places of what is forwarded.
    places: Arc<Semaphore>,
}

impl Forwarding {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, places: Arc::new(Semaphore::new(MAX_FORWARDED)) }
    }
}

/// The session that a path is about: `/v1/sessions/{id}`, what is below it, and `/v1/whep/{id}`.
fn session_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v1/sessions/").or_else(|| path.strip_prefix("/v1/whep/"))?;
    rest.split('/').next().filter(|id| !id.is_empty())
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
    use super::session_of;

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
