use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{
    Codec, ConnAck, Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
    Unsubscribe,
};
use tokio_util::codec::Framed;

use super::super::Failure;
use super::super::backlog::Numbered;
use super::super::stream::{self, Stream};
use super::Mqtt;
use crate::clock;

/// Seconds after which the broker takes a silent client for lost (MQTT 3.1.1 section 3.1.2.10).
const KEEP_ALIVE: u16 = 30;
/// Bytes of a packet of the broker's at most: it sends other people's descriptions of entities.
const MAX_INCOMING: usize = 256 * 1024;
/// Bytes of a packet of ours at most.
const MAX_OUTGOING: usize = 16 * 1024 * 1024;

/// A connection to a broker, MQTT 3.1.1, and what it has not acknowledged yet.
pub(super) struct Link {
    framed: Framed<Box<dyn Stream>, Codec>,
    limit: Duration,
    next_id: u16,
    pub(super) flying: BTreeMap<u16, Flying>,
    last_sent: Instant,
    last_received: Instant,
}

/// What waits to be acknowledged, since when.
pub(super) enum Flying {
    Message(Numbered, Instant),
    Topic(String, Instant),
    Subscription(Instant),
}

impl Flying {
    const fn since(&self) -> Instant {
        match self {
            Self::Message(_, since) | Self::Topic(_, since) | Self::Subscription(since) => *since,
        }
    }
}

/// What a broker says.
pub(super) enum Heard {
    Acknowledged(Flying),
    Message { topic: String, payload: bytes::Bytes, retained: bool },
    Nothing,
}

impl Link {
    /// Connects; the broker says `offline` at `status` when the connection is lost.
    pub(super) async fn open(to: &Mqtt, tls: &Arc<rustls::ClientConfig>, status: String) -> Result<Self, Failure> {
        let opening = async {
            let secured = (to.url.scheme() == "mqtts").then_some(tls);
            let port = to.url.port().unwrap_or(if secured.is_some() { 8883 } else { 1883 });
            let stream = stream::open(&to.url, port, secured).await?;
            let now = clock::now();
            let mut link = Self {
                framed: Framed::new(stream, Codec { max_incoming_size: MAX_INCOMING, max_outgoing_size: MAX_OUTGOING }),
                limit: to.timeout,
                next_id: 0,
                flying: BTreeMap::new(),
                last_sent: now,
                last_received: now,
            };
            let mut hello = Connect::new(to.client_id.clone());
            hello.keep_alive = KEEP_ALIVE;
            hello.clean_session = true;
            hello.last_will = Some(LastWill::new(status, "offline", QoS::AtLeastOnce, true));
            hello.login = to.login.as_ref().map(|(name, password)| Login::new(name.clone(), password.expose()));
            link.send(Packet::Connect(hello)).await?;
            match link.packet().await? {
                Packet::ConnAck(ConnAck { code, .. }) => match code {
                    ConnectReturnCode::Success => Ok(link),
                    ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                        Err(Failure::Unauthorized)
                    }
                    ConnectReturnCode::ServiceUnavailable => Err(Failure::Closed),
                    _ => Err(Failure::Protocol),
                },
                _ => Err(Failure::Protocol),
            }
        };
        tokio::time::timeout(to.timeout, opening).await.unwrap_or(Err(Failure::Timeout))
    }

    /// What the broker says next. It may be dropped while it waits.
    pub(super) async fn hear(&mut self) -> Result<Heard, Failure> {
        Ok(match self.packet().await? {
            Packet::PubAck(PubAck { pkid }) => self.acknowledged(pkid)?,
            Packet::SubAck(ack) => self.acknowledged(ack.pkid)?,
            Packet::UnsubAck(ack) => self.acknowledged(ack.pkid)?,
            // Subscriptions are made with QoS 0 only, so that none is to be acknowledged.
            Packet::Publish(Publish { topic, payload, retain, .. }) => {
                Heard::Message { topic, payload, retained: retain }
            }
            Packet::PingResp => Heard::Nothing,
            _ => return Err(Failure::Protocol),
        })
    }

    /// Publishes a message that is to be acknowledged if `flying` says who waits for it.
    pub(super) async fn publish(
        &mut self,
        topic: String,
        payload: &str,
        retain: bool,
        flying: Option<Flying>,
    ) -> Result<(), Failure> {
        let qos = if flying.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let mut publish = Publish::from_bytes(topic, qos, bytes::Bytes::copy_from_slice(payload.as_bytes()));
        publish.retain = retain;
        if let Some(flying) = flying {
            publish.pkid = self.fly(flying);
        }
        self.send(Packet::Publish(publish)).await
    }

    pub(super) async fn subscribe(&mut self, topics: impl IntoIterator<Item = String>) -> Result<(), Failure> {
        let filters = topics.into_iter().map(|topic| SubscribeFilter::new(topic, QoS::AtMostOnce));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = self.fly(Flying::Subscription(clock::now()));
        self.send(Packet::Subscribe(subscribe)).await
    }

    pub(super) async fn unsubscribe(&mut self, topics: Vec<String>) -> Result<(), Failure> {
        let pkid = self.fly(Flying::Subscription(clock::now()));
        self.send(Packet::Unsubscribe(Unsubscribe { pkid, topics })).await
    }

    pub(super) async fn disconnect(&mut self) -> Result<(), Failure> {
        self.send(Packet::Disconnect).await
    }

    /// To be called every second or so: keeps the connection alive, and fails when the broker does not answer.
    pub(super) async fn look(&mut self) -> Result<(), Failure> {
        let (now, alive) = (clock::now(), Duration::from_secs(KEEP_ALIVE.into()));
        let oldest = self.flying.values().map(Flying::since).min();
        if oldest.is_some_and(|since| now >= since + self.limit) || now >= self.last_received + alive + self.limit {
            return Err(Failure::Timeout);
        }
        // The broker's answers are to come, too, so that what was received counts as much as what was sent.
        if now >= self.last_sent.min(self.last_received) + alive / 2 && now >= self.last_sent + alive / 6 {
            return self.send(Packet::PingReq).await;
        }
        Ok(())
    }

    /// A free identifier for what is to be acknowledged; never 0.
    fn fly(&mut self, flying: Flying) -> u16 {
        loop {
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            if !self.flying.contains_key(&self.next_id) {
                self.flying.insert(self.next_id, flying);
                return self.next_id;
            }
        }
    }

    fn acknowledged(&mut self, id: u16) -> Result<Heard, Failure> {
        self.flying.remove(&id).map(Heard::Acknowledged).ok_or(Failure::Protocol)
    }

    async fn send(&mut self, packet: Packet) -> Result<(), Failure> {
        self.last_sent = clock::now();
        match tokio::time::timeout(self.limit, self.framed.send(packet)).await {
            Ok(sent) => sent.map_err(|_| Failure::Closed),
            Err(_) => Err(Failure::Timeout),
        }
    }

    async fn packet(&mut self) -> Result<Packet, Failure> {
        let packet = match self.framed.next().await {
            Some(Ok(packet)) => packet,
            Some(Err(rumqttc::mqttbytes::Error::Io(_))) | None => return Err(Failure::Closed),
            Some(Err(_)) => return Err(Failure::Protocol),
        };
        self.last_received = clock::now();
        Ok(packet)
    }
}
