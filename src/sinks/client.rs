use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::task::JoinSet;
use url::Url;

use super::{Failure, stream};

/// Bytes of an answer that are read, so that the connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;

/// HTTP/1.1 to one host: a connection that is kept while the host keeps it. It follows no redirect and asks no proxy.
pub(super) struct Client {
    url: Url,
    tls: Option<Arc<ClientConfig>>,
    open: Option<Open>,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// Drives the connection; ends with it.
    _driver: JoinSet<()>,
}

impl Client {
    pub(super) fn new(url: Url, tls: ClientConfig) -> Self {
        let tls = (url.scheme() == "https").then(|| Arc::new(tls));
        Self { url, tls, open: None }
    }

    pub(super) const fn url(&self) -> &Url {
        &self.url
    }

    /// What the host answers. The caller has the deadline; what is given up then is never taken up again.
    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, HeaderMap), Failure> {
        // One that was kept may have ended meanwhile, which shows only when it is used.
        if let Some(mut open) = self.open.take()
            && open.sender.ready().await.is_ok()
            && let Ok(response) = open.sender.send_request(request.clone()).await
        {
            return Ok(self.read(open, response).await);
        }
        let mut open = self.connect().await?;
        let response = open.sender.send_request(request).await;
        let response = response.map_err(|error| if error.is_parse() { Failure::Protocol } else { Failure::Closed })?;
        Ok(self.read(open, response).await)
    }

    async fn connect(&self) -> Result<Open, Failure> {
        let port = self.url.port_or_known_default().unwrap_or(80);
        let stream = stream::open(&self.url, port, self.tls.as_ref()).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Closed)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // How it ended shows in the answer.
            let _ = connection.await;
        });
        Ok(Open { sender, _driver: driver })
    }

    /// Reads an answer away, and keeps the connection if that was all of it.
    async fn read(&mut self, open: Open, response: Response<Incoming>) -> (StatusCode, HeaderMap) {
        let (head, mut body) = response.into_parts();
        let mut read = 0;
        let is_whole = loop {
            match body.frame().await {
                None => break true,
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => break false,
            }
            if read > MAX_ANSWER {
                break false;
            }
        };
        if is_whole {
            self.open = Some(open);
        }
        (head.status, head.headers)
    }
}
