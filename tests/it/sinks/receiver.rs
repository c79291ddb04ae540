use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::LIMIT;

/// Receives webhooks, and answers as it is told; 204 by default.
pub struct Receiver {
    pub url: String,
    got: mpsc::Receiver<Got>,
    serving: JoinHandle<()>,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Got {
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Status and `Retry-After` of an answer.
pub type Answer = (u16, Option<&'static str>);

#[derive(Clone)]
struct Shared {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    got: mpsc::Sender<Got>,
}

impl Receiver {
    /// The first requests get these answers.
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (told, got) = mpsc::channel(4096);
        let shared = Shared { answers: Arc::new(Mutex::new(answers.into_iter().collect())), got: told };
        let router = Router::new().route("/hook", post(receive)).with_state(shared);
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, got, serving }
    }

    pub async fn next(&mut self) -> Got {
        timeout(LIMIT, self.got.recv()).await.expect("a request in time").unwrap()
    }

    /// Reads on until there is a message of this type.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.next().await.json();
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Whether nothing more has come so far.
    pub fn is_quiet(&mut self) -> bool {
        self.got.try_recv().is_err()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn receive(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap) {
    shared.got.try_send(Got { headers, body }).ok();
    let (status, after) = shared.answers.lock().unwrap().pop_front().unwrap_or((204, None));
    let mut headers = HeaderMap::new();
    if let Some(after) = after {
        headers.insert("retry-after", HeaderValue::from_static(after));
    }
    (StatusCode::from_u16(status).unwrap(), headers)
}
