//! How an offer reaches the server, and its answer comes back.

mod http;
mod socket;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use saccade_signaling::OptionsPatch;
use serde::{Deserialize, Serialize};

pub(crate) use http::{new_agent, percent};

/// Longest time until a server answers.
const ANSWER: Duration = Duration::from_secs(15);
/// Largest answer in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// The manner in which a server wants its offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Saccade's WebSocket protocol, `saccade.v1`.
    Ws,
    /// `POST` of `{"sdp", "type"}`, as in aiortc's examples.
    Offer,
    /// WHIP (RFC 9725).
    Whip,
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ws" => Ok(Self::Ws),
            "offer" => Ok(Self::Offer),
            "whip" => Ok(Self::Whip),
            _ => Err("known are ws, offer and whip".to_owned()),
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ws => "ws",
            Self::Offer => "offer",
            Self::Whip => "whip",
        })
    }
}

/// The server that is driven.
#[derive(Debug, Clone)]
pub struct Target {
    /// Where offers go: `ws://…/v1/signal`, `http://…/v1/offer`, `http://…/v1/whip`.
    pub url: String,
    /// In which manner.
    pub dialect: Dialect,
    /// Sent as `Authorization: Bearer`, where the server wants one.
    pub token: Option<String>,
    /// Address of the server, for the route to it.
    pub address: IpAddr,
}

impl Target {
    /// Looks the server's address up; this waits for the network where it is a name.
    ///
    /// # Errors
    /// [`SignalError::Url`] for what is no URL of the dialect, [`SignalError::Unreachable`] for an unknown name.
    pub fn new(url: String, dialect: Dialect, token: Option<String>) -> Result<Self, SignalError> {
        let mut target = Self { url, dialect, token, address: Ipv4Addr::UNSPECIFIED.into() };
        target.address = target.resolve()?;
        Ok(target)
    }

    fn resolve(&self) -> Result<IpAddr, SignalError> {
        let uri: ureq::http::Uri = self.url.parse().map_err(|_| self.bad("no URL"))?;
        let schemes: &[&str] = if self.dialect == Dialect::Ws { &["ws", "wss"] } else { &["http", "https"] };
        let scheme = uri.scheme_str().filter(|scheme| schemes.contains(scheme));
        let scheme = scheme.ok_or_else(|| self.bad(&format!("not {}://…", schemes.join(":// or "))))?;
        if scheme == "wss" {
            return Err(self.bad("the generator has no TLS on sockets: offer by https://…/v1/offer instead"));
        }
        let host = uri.host().ok_or_else(|| self.bad("no host"))?;
        let port = uri.port_u16().unwrap_or(if ["wss", "https"].contains(&scheme) { 443 } else { 80 });
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let unreachable = |reason: String| SignalError::Unreachable { url: self.url.clone(), reason };
        let mut found = (host, port).to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
        found.next().map(|address| address.ip()).ok_or_else(|| unreachable("the name has no address".to_owned()))
    }

    fn bad(&self, reason: &str) -> SignalError {
        SignalError::Url { url: self.url.clone(), dialect: self.dialect, reason: reason.to_owned() }
    }

    /// Sends an offer, and waits for the answer.
    pub(crate) async fn negotiate(&self, sdp: String, options: &OptionsPatch) -> Result<Answer, SignalError> {
        let answer = async {
            match self.dialect {
                Dialect::Ws => socket::negotiate(self, sdp, options).await,
                Dialect::Offer => http::offer(self, sdp, options).await,
                Dialect::Whip => http::whip(self, sdp, options).await,
            }
        };
        tokio::time::timeout(ANSWER, answer).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {} s", ANSWER.as_secs());
            Err(SignalError::Unreachable { url: self.url.clone(), reason })
        })
    }
}

/// A server's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) sdp: String,
    pub(crate) link: Link,
}

/// What is left of the way that the answer came.
#[derive(Debug)]
pub(crate) enum Link {
    Socket(Box<socket::Socket>),
    Resource(http::Resource),
    None,
}

/// What comes over the link later.
#[derive(Debug)]
pub(crate) enum News {
    Candidate(String),
    Closed(String),
}

impl Link {
    /// The next message that matters; never, where none can come. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> News {
        match self {
            Self::Socket(socket) => socket.next().await,
            Self::Resource(_) | Self::None => std::future::pending().await,
        }
    }

    /// Ends the session in the server's own terms.
    pub(crate) async fn bye(self) {
        match self {
            Self::Socket(socket) => socket.bye().await,
            Self::Resource(resource) => resource.delete().await,
            Self::None => {}
        }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// A URL that the dialect can't use.
    #[error("{url}: {reason}: a URL for --signaling {dialect} is wanted")]
    Url {
        /// As given.
        url: String,
        /// In which manner it would be used.
        dialect: Dialect,
        /// What is wrong.
        reason: String,
    },
    /// Nothing answers there.
    #[error("{url}: {reason}")]
    Unreachable {
        /// As given.
        url: String,
        /// What the connection says.
        reason: String,
    },
    /// The server does not want this session.
    #[error("refused with {code}: {message}")]
    Refused {
        /// A stable string, or the status.
        code: String,
        /// In words.
        message: String,
    },
    /// The server answers, but not in this dialect.
    #[error("{url} does not speak {dialect}: {reason}")]
    Protocol {
        /// As given.
        url: String,
        /// In which manner it was spoken to.
        dialect: Dialect,
        /// What came instead.
        reason: String,
    },
}

impl SignalError {
    /// Whether the server is there and said no.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}
