use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use url::Url;

use super::backlog::Numbered;
use super::backoff::{Backoff, chance};
use super::client::Client;
use super::outlet::{Outcome, Outlet, State};
use super::signature::Key;
use super::{Failure, Retry};
use crate::clock;
use crate::secret::Secret;

/// The longest wait that an answer may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Where messages are posted to, `http` or `https`. It is hidden, since some have a secret in it.
    pub url: Secret,
    /// What they are signed with; by default they are not.
    pub key: Option<Key>,
    /// Sent as `Authorization: Bearer`, if there is one.
    pub token: Option<Secret>,
    /// User name and password, if there are.
    pub login: Option<(String, Secret)>,
    /// Messages in one request at most; with 1 its body is the message, with more a list of them.
    pub batch: usize,
    /// How long a request may take.
    pub timeout: Duration,
    /// How often and when it is tried again.
    pub retry: Retry,
}

impl Webhook {
    /// A client for it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn client(&self, tls: rustls::ClientConfig) -> Result<Client, String> {
        let url = Url::parse(self.url.expose()).map_err(|error| format!("url: {error}"))?;
        // So that what no request can have is found at the start.
        self.request(&url, "id", 0, Bytes::new())?;
        Ok(Client::new(url, tls))
    }

    /// Posts what the outlet has until the server stops: one request at a time, so that the order is kept. After the stop
    /// it goes on until nothing is left or a request fails that was made after it.
    pub(super) async fn run(&self, client: &mut Client, outlet: &Outlet) {
        let mut backoff = Backoff::new(self.retry.shortest..=self.retry.longest);
        loop {
            let taken = self.take(outlet).await;
            if taken.is_empty() {
                if outlet.is_closing() {
                    return;
                }
                tokio::select! {
                    () = outlet.ready() => {}
                    () = outlet.closing() => {}
                }
                continue;
            }
            match self.deliver(client, outlet, taken, &mut backoff).await {
                Delivery::Done => {}
                Delivery::Stopped => return,
                Delivery::Disabled => return disabled(outlet).await,
            }
        }
    }

    /// The oldest messages, one request's worth.
    async fn take(&self, outlet: &Outlet) -> Vec<Numbered> {
        let mut taken = Vec::new();
        while taken.len() < self.batch {
            let Some(next) = outlet.pop().await else { break };
            taken.push(next);
        }
        taken
    }

    /// Tries to post these until the receiver takes or refuses them, or it is time to give up.
    async fn deliver(
        &self,
        client: &mut Client,
        outlet: &Outlet,
        taken: Vec<Numbered>,
        backoff: &mut Backoff,
    ) -> Delivery {
        let oldest = taken.first().map_or_else(clock::now, |first| first.message.at);
        let id = Arc::clone(&taken[0].message.id);
        let body: Bytes = self.body(&taken).into();
        let messages = |taken: Vec<Numbered>| taken.into_iter().map(|one| one.message).collect();
        for attempt in 1.. {
            let (started, is_last) = (clock::now(), outlet.is_closing());
            let answer = self.post(client, &id, body.clone()).await;
            let now = clock::now();
            let (failure, wait) = match answer {
                Answer::Accepted => {
                    outlet.delivered(taken.len(), now.duration_since(started));
                    backoff.reset();
                    return Delivery::Done;
                }
                Answer::Gone => {
                    outlet.failed(Failure::Gone, State::Disabled);
                    outlet.give_up(messages(taken), Outcome::Disabled, attempt).await;
                    return Delivery::Disabled;
                }
                Answer::Refused(failure) => {
                    // The receiver is there, and others may please it better.
                    outlet.failed(failure, State::Up);
                    outlet.give_up(messages(taken), Outcome::Refused, attempt).await;
                    backoff.reset();
                    return Delivery::Done;
                }
                Answer::Later(failure, after) => (failure, after.unwrap_or_else(|| backoff.wait(chance()))),
            };
            outlet.failed(failure, State::Waiting);
            if is_last {
                outlet.put_back(taken.into_iter());
                return Delivery::Stopped;
            }
            let outcome = if attempt >= self.retry.max_attempts {
                Outcome::Exhausted
            } else if now.saturating_duration_since(oldest) + wait > outlet.target.max_age {
                Outcome::Expired
            } else {
                outlet.pause(wait).await;
                continue;
            };
            outlet.give_up(messages(taken), outcome, attempt).await;
            // The next one is not to find the receiver as it was.
            outlet.pause(wait).await;
            return Delivery::Done;
        }
        Delivery::Done
    }

    fn body(&self, taken: &[Numbered]) -> String {
        if self.batch == 1 {
            return taken.iter().map(|one| &*one.message.body).collect();
        }
        let bodies: Vec<_> = taken.iter().map(|one| &*one.message.body).collect();
        format!("[{}]", bodies.join(","))
    }

    async fn post(&self, client: &mut Client, id: &str, body: Bytes) -> Answer {
        let seconds = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let Ok(request) = self.request(client.url(), id, seconds, body) else {
            return Answer::Refused(Failure::Protocol);
        };
        match tokio::time::timeout(self.timeout, client.send(request)).await {
            Ok(Ok((status, headers))) => Answer::of(status, &headers, clock::wall()),
            Ok(Err(failure)) => Answer::Later(failure, None),
            Err(_) => Answer::Later(Failure::Timeout, None),
        }
    }

    fn request(&self, url: &Url, id: &str, seconds: u64, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
        let host = url.host_str().ok_or("url: there is no host in it")?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("saccade/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", key.sign(id, seconds, &body));
        }
        let login = self
            .login
            .as_ref()
            .map(|(name, password)| format!("Basic {}", STANDARD.encode(format!("{name}:{}", password.expose()))));
        let token = self.token.as_ref().map(|token| format!("Bearer {}", token.expose()));
        if let Some(authorization) = login.or(token) {
            let mut value = HeaderValue::try_from(authorization).map_err(|_| "the token holds what no header can")?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::new(body)).map_err(|error| error.to_string())
    }
}

/// The receiver wants nothing any more: what comes goes to nobody.
async fn disabled(outlet: &Outlet) {
    outlet.give_up_all(Outcome::Disabled).await;
    outlet.closing().await;
}

/// How a delivery ended.
enum Delivery {
    Done,
    /// The server stops, and the receiver does not answer.
    Stopped,
    Disabled,
}

/// What a receiver's answer means.
#[derive(Debug, PartialEq)]
enum Answer {
    Accepted,
    /// Try again, after so long if it says so.
    Later(Failure, Option<Duration>),
    /// It never takes this.
    Refused(Failure),
    /// It takes nothing any more.
    Gone,
}

impl Answer {
    /// As Standard Webhooks advises: 2xx is success, 410 the end; of the others, only what may pass is tried again.
    fn of(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Self {
        let failure = match status.as_u16() {
            401 | 403 => Failure::Unauthorized,
            code => Failure::Status(code),
        };
        match status {
            _ if status.is_success() => Self::Accepted,
            StatusCode::GONE => Self::Gone,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Self::Later(failure, retry_after(headers, now))
            }
            StatusCode::REQUEST_TIMEOUT => Self::Later(failure, None),
            _ if status.is_server_error() => Self::Later(failure, None),
            _ => Self::Refused(failure),
        }
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), an hour at most.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn answer(status: u16, after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert(header::RETRY_AFTER, after.parse().unwrap());
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        Answer::of(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    #[test]
    fn answers_mean_what_standard_webhooks_says() {
        use Failure::{Status, Unauthorized};
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (status, after, expected) in [
            (200, None, Answer::Accepted),
            (204, Some("5"), Answer::Accepted),
            (410, Some("5"), Answer::Gone),
            (301, None, Answer::Refused(Status(301))),
            (400, Some("5"), Answer::Refused(Status(400))),
            (401, None, Answer::Refused(Unauthorized)),
            (408, None, Answer::Later(Status(408), None)),
            (429, Some("7"), Answer::Later(Status(429), seconds(7))),
            (503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), Answer::Later(Status(503), seconds(60))),
            (503, Some("Sun, 06 Nov 1994 08:40:00 GMT"), Answer::Later(Status(503), seconds(0))),
            (503, Some("99999999999"), Answer::Later(Status(503), Some(MAX_RETRY_AFTER))),
            (503, Some("soon"), Answer::Later(Status(503), None)),
            (500, Some("7"), Answer::Later(Status(500), None)),
        ] {
            assert_eq!(answer(status, after), expected, "{status} {after:?}");
        }
    }
}
