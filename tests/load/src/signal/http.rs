//! Offers by HTTP: `POST` of JSON, and WHIP.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use saccade_signaling::OptionsPatch;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{Method, Request, Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use super::{Answer, Link, MAX_ANSWER, SignalError, Target};

const CONNECT: Duration = Duration::from_secs(5);

/// What a server made for the session, to be deleted in the end.
#[derive(Debug)]
pub(crate) struct Resource {
    url: String,
    token: Option<String>,
}

pub(super) async fn offer(target: &Target, sdp: String, options: &OptionsPatch) -> Result<Answer, SignalError> {
    let mut body = json!({ "sdp": sdp, "type": "offer" });
    let options = serde_json::to_value(options).unwrap_or_default();
    // Servers of others need not know the key.
    if options.as_object().is_some_and(|options| !options.is_empty()) {
        body["options"] = options;
    }
    let response = post(target, target.url.clone(), "application/json", body.to_string()).await?;
    let (status, text) = (response.status(), response.into_body());
    let value: Value = serde_json::from_str(&text).unwrap_or_default();
    match value["sdp"].as_str() {
        Some(sdp) if status.is_success() => {
            let session = value["session_id"].as_str().and_then(|id| sibling(&target.url, id));
            let link = session.map_or(Link::None, |url| Link::Resource(Resource { url, token: target.token.clone() }));
            Ok(Answer { sdp: sdp.to_owned(), link })
        }
        _ => Err(refused(target, status, &text)),
    }
}

pub(super) async fn whip(target: &Target, sdp: String, options: &OptionsPatch) -> Result<Answer, SignalError> {
    let mut url = target.url.clone();
    let options = serde_json::to_value(options).unwrap_or_default();
    for (key, value) in options.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!("{key}={}", percent(&value)));
    }
    let response = post(target, url, "application/sdp", sdp).await?;
    let status = response.status();
    let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
    if status != StatusCode::CREATED {
        return Err(refused(target, status, response.body()));
    }
    let url = location.and_then(|location| absolute(&target.url, &location));
    let link = url.map_or(Link::None, |url| Link::Resource(Resource { url, token: target.token.clone() }));
    Ok(Answer { sdp: response.into_body(), link })
}

/// A query's value (RFC 3986 section 2.1).
pub(crate) fn percent(value: &str) -> String {
    value.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

fn refused(target: &Target, status: StatusCode, body: &str) -> SignalError {
    if status.is_success() {
        let reason = format!("{status} without an answer");
        return SignalError::Protocol { url: target.url.clone(), dialect: target.dialect, reason };
    }
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    let code = problem["code"].as_str().map_or_else(|| status.as_u16().to_string(), str::to_owned);
    let message = problem["detail"].as_str().or_else(|| status.canonical_reason()).unwrap_or_default().to_owned();
    SignalError::Refused { code, message }
}

/// `…/v1/offer` → `…/v1/sessions/ID`.
fn sibling(url: &str, id: &str) -> Option<String> {
    let plain = url.split(['?', '#']).next()?;
    Some(format!("{}/sessions/{id}", plain.rsplit_once('/')?.0))
}

/// A location, which may be relative to where the offer went (RFC 9110, section 10.2.2).
fn absolute(url: &str, location: &str) -> Option<String> {
    if location.contains("://") {
        return Some(location.to_owned());
    }
    let plain = url.split(['?', '#']).next()?;
    let rest = plain.find("://")? + 3;
    let host = plain[rest..].find('/').map_or(plain.len(), |end| rest + end);
    if location.starts_with('/') {
        return Some(format!("{}{location}", &plain[..host]));
    }
    let folder = plain[host..].rfind('/').map_or(plain.len(), |end| host + end);
    Some(format!("{}/{location}", &plain[..folder]))
}

async fn post(target: &Target, url: String, kind: &'static str, body: String) -> Result<Response<String>, SignalError> {
    let unreachable = |reason: String| SignalError::Unreachable { url: target.url.clone(), reason };
    send(Method::POST, url, Some(kind), target.token.clone(), body).await.map_err(unreachable)
}

/// One request on a thread of its own: few are made, and none while anything is measured closely.
async fn send(
    method: Method,
    url: String,
    kind: Option<&'static str>,
    token: Option<String>,
    body: String,
) -> Result<Response<String>, String> {
    let send = move || {
        let mut request = Request::builder().method(method).uri(url);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(|error| error.to_string())?;
        let response = agent().run(request).map_err(|error| error.to_string())?;
        let (parts, mut body) = response.into_parts();
        let text = body.with_config().limit(MAX_ANSWER as u64).read_to_string().map_err(|error| error.to_string())?;
        Ok(Response::from_parts(parts, text))
    };
    tokio::task::spawn_blocking(send).await.map_err(|error| error.to_string())?
}

fn agent() -> &'static Agent {
    static AGENT: OnceLock<Agent> = OnceLock::new();
    AGENT.get_or_init(|| new_agent(super::ANSWER))
}

/// A client with connections of its own, whose requests may take so long.
pub(crate) fn new_agent(answer: Duration) -> Agent {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let certificates = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::from(certificates))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(answer))
        .build()
        .new_agent()
}

impl Resource {
    pub(super) async fn delete(self) {
        // A server that is gone has no resource either.
        let _ = send(Method::DELETE, self.url, None, self.token, String::new()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_several_words_fit_a_query() {
        assert_eq!(percent(r#"["hard hat"]"#), "%5B%22hard%20hat%22%5D");
        assert_eq!(percent("ppe-nano@1.2_~"), "ppe-nano%401.2_~");
    }

    #[test]
    fn the_sessions_address_is_found_beside_the_offers() {
        let url = "http://127.0.0.1:8080/v1/offer?x=1";
        assert_eq!(sibling(url, "abc").as_deref(), Some("http://127.0.0.1:8080/v1/sessions/abc"));
        assert_eq!(absolute(url, "/v1/s/1").as_deref(), Some("http://127.0.0.1:8080/v1/s/1"));
        assert_eq!(absolute(url, "http://other/1").as_deref(), Some("http://other/1"));
        assert_eq!(absolute("http://host", "/a").as_deref(), Some("http://host/a"));
        assert_eq!(absolute(url, "s/1").as_deref(), Some("http://127.0.0.1:8080/v1/s/1"));
        assert_eq!(absolute("http://host", "s/1").as_deref(), Some("http://host/s/1"));
    }
}
