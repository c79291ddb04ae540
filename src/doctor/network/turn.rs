//! The requests of STUN and TURN that a browser makes, with every refusal's code.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtc::crypto::{RTCCryptoProvider, default_provider};
use rtc::stun::attributes::{ATTR_NONCE, ATTR_REALM, ATTR_USERNAME};
use rtc::stun::error_code::ErrorCodeAttribute;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    BINDING_REQUEST, CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter,
    METHOD_ALLOCATE, METHOD_BINDING, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH, METHOD_SEND, Message,
    MessageType, Method, Setter, TransactionId,
};
use rtc::stun::textattrs::{Nonce, Realm, TextAttribute, Username};
use rtc::stun::xoraddr::XorMappedAddress;
use rtc::turn::proto::PROTO_UDP;
use rtc::turn::proto::data::Data;
use rtc::turn::proto::lifetime::Lifetime;
use rtc::turn::proto::peeraddr::PeerAddress;
use rtc::turn::proto::relayaddr::RelayedAddress;
use rtc::turn::proto::reqtrans::RequestedTransport;
use tokio::time::timeout;

use super::failure::Failure;
use super::link::Link;
use crate::ice::Credentials;

/// First wait before a datagram is sent again; each further one is twice as long (RFC 8489 section 6.2.1).
const RESEND: Duration = Duration::from_millis(500);
/// Unauthorized (RFC 8489 section 14.8).
const UNAUTHORIZED: u16 = 401;
/// Stale nonce (RFC 8489 section 14.8).
const STALE_NONCE: u16 = 438;

type Setters<'a> = Vec<Box<dyn Setter + 'a>>;

/// This side's address as the server sees it.
///
/// # Errors
/// Why there was no answer, or what the answer was. The caller bounds the wait.
pub(super) async fn reflexive(link: &mut Link) -> Result<SocketAddr, Failure> {
    let request = build(vec![Box::new(BINDING_REQUEST), Box::new(FINGERPRINT)], TransactionId::new())?;
    let answer = ask(link, &request).await?;
    refusal(&answer)?;
    let mut address = XorMappedAddress::default();
    address.get_from(&answer)?;
    Ok(SocketAddr::new(address.ip, address.port))
}

/// A check as ICE makes it, with this transaction.
pub(super) fn check(transaction: TransactionId) -> Result<Vec<u8>, Failure> {
    Ok(build(vec![Box::new(BINDING_REQUEST), Box::new(FINGERPRINT)], transaction)?.raw)
}

/// The answer to a check that came from `from`, if it is a check.
pub(super) fn answer_to(datagram: &[u8], from: SocketAddr) -> Option<(TransactionId, Vec<u8>)> {
    let check = parse(datagram).filter(|it| it.typ.method == METHOD_BINDING && it.typ.class == CLASS_REQUEST)?;
    let success = MessageType::new(METHOD_BINDING, CLASS_SUCCESS_RESPONSE);
    let address = XorMappedAddress { ip: from.ip(), port: from.port() };
    let setters: Setters = vec![Box::new(success), Box::new(address), Box::new(FINGERPRINT)];
    Some((check.transaction_id, build(setters, check.transaction_id).ok()?.raw))
}

/// Whether this is the answer to the check with this transaction.
pub(super) fn is_answer(datagram: &[u8], transaction: TransactionId) -> bool {
    parse(datagram).is_some_and(|it| it.transaction_id == transaction && it.typ.class == CLASS_SUCCESS_RESPONSE)
}

/// A place at a TURN server.
pub(super) struct Allocation {
    link: Link,
    /// Where it takes what it relays to this side.
    pub(super) relayed: SocketAddr,
    session: Session,
}

impl Allocation {
    /// Asks for a place, at first without credentials as the protocol has it (RFC 8656 section 7.1).
    ///
    /// # Errors
    /// As for [`reflexive`].
    pub(super) async fn new(mut link: Link, credentials: Option<Credentials>) -> Result<Self, Failure> {
        let mut session = Session { signing: None, credentials, provider: provider()? };
        let attributes: fn() -> Setters<'static> = || vec![Box::new(RequestedTransport { protocol: PROTO_UDP })];
        let answer = session.ask(&mut link, METHOD_ALLOCATE, attributes).await?;
        let mut relayed = RelayedAddress::default();
        relayed.get_from(&answer)?;
        Ok(Self { link, relayed: SocketAddr::new(relayed.ip, relayed.port), session })
    }

    /// Asks it to relay to and from this address (RFC 8656 section 9).
    ///
    /// # Errors
    /// As for [`reflexive`].
    pub(super) async fn permit(&mut self, peer: SocketAddr) -> Result<(), Failure> {
        let attributes = || -> Setters<'static> { vec![Box::new(PeerAddress { ip: peer.ip(), port: peer.port() })] };
        let Self { link, session, .. } = self;
        session.ask(link, METHOD_CREATE_PERMISSION, attributes).await.map(drop)
    }

    /// Sends a check to `peer` through the server until its answer has come the same way.
    ///
    /// # Errors
    /// As for [`reflexive`].
    pub(super) async fn check(&mut self, peer: SocketAddr, transaction: TransactionId) -> Result<(), Failure> {
        let check = check(transaction)?;
        // Whatever the server is asked over, it relays datagrams.
        let mut wait = RESEND;
        loop {
            let setters: Setters = vec![
                Box::new(MessageType::new(METHOD_SEND, CLASS_INDICATION)),
                Box::new(PeerAddress { ip: peer.ip(), port: peer.port() }),
                Box::new(Data(check.clone())),
                Box::new(FINGERPRINT),
            ];
            self.link.send(&build(setters, TransactionId::new())?.raw).await?;
            if let Ok(answered) = timeout(wait, self.relayed_answer(transaction)).await {
                return answered;
            }
            wait *= 2;
        }
    }

    async fn relayed_answer(&mut self, transaction: TransactionId) -> Result<(), Failure> {
        loop {
            let Some(message) = parse(&self.link.receive().await?) else { continue };
            let mut data = Data::default();
            if message.typ.method == METHOD_DATA && data.get_from(&message).is_ok() && is_answer(&data.0, transaction) {
                return Ok(());
            }
        }
    }

    /// Gives the place back (RFC 8656 section 8).
    pub(super) async fn release(mut self) {
        let attributes: fn() -> Setters<'static> = || vec![Box::new(Lifetime(Duration::ZERO))];
        // If this fails, the server takes the place back by itself in a few minutes.
        let _ = timeout(RESEND, self.session.ask(&mut self.link, METHOD_REFRESH, attributes)).await;
    }
}

/// What requests are signed with.
struct Session {
    credentials: Option<Credentials>,
    /// What the server asked to be told.
    signing: Option<(Realm, Nonce)>,
    provider: Arc<dyn RTCCryptoProvider>,
}

impl Session {
    /// Asks, and once more with what the server wants to have in the request.
    async fn ask<'a>(
        &mut self,
        link: &mut Link,
        method: Method,
        attributes: impl Fn() -> Setters<'a>,
    ) -> Result<Message, Failure> {
        let mut renewed = false;
        loop {
            let was_signed = self.signing.is_some();
            let request = self.signed(method, attributes())?;
            let answer = ask(link, &request).await?;
            let Err(failure) = refusal(&answer) else { return Ok(answer) };
            let Failure::Denied { code, .. } = failure else { return Err(failure) };
            let wants_more = (code == UNAUTHORIZED && !was_signed && self.credentials.is_some())
                || (code == STALE_NONCE && !renewed);
            if !wants_more {
                return Err(failure);
            }
            renewed |= code == STALE_NONCE;
            let realm = TextAttribute::get_from_as(&answer, ATTR_REALM)?;
            self.signing = Some((realm, TextAttribute::get_from_as(&answer, ATTR_NONCE)?));
        }
    }

    fn signed(&self, method: Method, attributes: Setters) -> Result<Message, Failure> {
        let mut setters: Setters = vec![Box::new(MessageType::new(method, CLASS_REQUEST))];
        setters.extend(attributes);
        if let (Some((realm, nonce)), Some(Credentials { username, credential })) = (&self.signing, &self.credentials) {
            let integrity = MessageIntegrity::new_long_term_integrity_with_provider(
                username.clone(),
                realm.text.clone(),
                credential.expose().to_owned(),
                self.provider.crypto(),
            )?;
            setters.push(Box::new(Username::new(ATTR_USERNAME, username.clone())));
            setters.push(Box::new(realm.clone()));
            setters.push(Box::new(nonce.clone()));
            setters.push(Box::new(integrity));
        }
        setters.push(Box::new(FINGERPRINT));
        build(setters, TransactionId::new())
    }
}

fn provider() -> Result<Arc<dyn RTCCryptoProvider>, Failure> {
    default_provider().map_err(|error| Failure::Io(std::io::Error::other(error.to_string())))
}

fn build(setters: Setters, transaction: TransactionId) -> Result<Message, Failure> {
    let mut all: Setters = vec![Box::new(transaction)];
    all.extend(setters);
    let mut message = Message::new();
    message.build(&all)?;
    Ok(message)
}

fn parse(datagram: &[u8]) -> Option<Message> {
    let mut message = Message::new();
    message.unmarshal_binary(datagram).ok().map(|()| message)
}

/// Sends a request until its answer has come.
async fn ask(link: &mut Link, request: &Message) -> Result<Message, Failure> {
    let mut wait = RESEND;
    link.send(&request.raw).await?;
    loop {
        // A stream loses nothing, and half a message that was read would be gone.
        if !link.loses() {
            return answer(link, request.transaction_id).await;
        }
        if let Ok(answered) = timeout(wait, answer(link, request.transaction_id)).await {
            return answered;
        }
        link.send(&request.raw).await?;
        wait *= 2;
    }
}

/// The next answer to this transaction; other messages are passed over.
async fn answer(link: &mut Link, transaction: TransactionId) -> Result<Message, Failure> {
    loop {
        match parse(&link.receive().await?) {
            Some(message) if message.transaction_id == transaction => return Ok(message),
            Some(_) => {}
            None => return Err(Failure::Garbled("it cannot be read".to_owned())),
        }
    }
}

fn refusal(answer: &Message) -> Result<(), Failure> {
    if answer.typ.class != CLASS_ERROR_RESPONSE {
        return Ok(());
    }
    let mut error = ErrorCodeAttribute::default();
    error.get_from(answer)?;
    let reason: String =
        String::from_utf8_lossy(&error.reason).chars().filter(|one| !one.is_control()).take(64).collect();
    Err(Failure::Denied { code: error.code.0, reason })
}
