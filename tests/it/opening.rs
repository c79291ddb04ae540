//! Offers that the transport does not answer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use saccade::infer::{Engine, ModelSpec};
use saccade::pipeline::{Codecs, Sessions, Settings, Workers};
use saccade::rtc::{Accepted, Error, Listen, PeerConfig, Transport, WebRtc};
use saccade::session::machine::Timeouts;
use saccade::session::{OpenRequest, Opener, Rate, Registry};
use saccade::{clock, decode};
use saccade_signaling::{ErrorCode, OptionsPatch};
use tokio::sync::Semaphore;

use crate::client::{LIMIT, Peer};

/// Answers offers when it is let.
struct Slow {
    leave: Arc<Semaphore>,
    inner: Arc<WebRtc>,
}

#[async_trait]
impl Transport for Slow {
    async fn accept(&self, offer: &str, config: PeerConfig) -> Result<Accepted, Error> {
        let accepted = self.inner.accept(offer, config).await;
        let _leave = self.leave.acquire().await.unwrap();
        accepted
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_is_not_answered_in_time_is_refused_and_what_it_opened_is_closed() {
    let engine = Arc::new(Engine::new(saccade::infer::Options::default()).unwrap());
    let model = engine.load(&ModelSpec::embedded().unwrap()).unwrap();
    let registry = Arc::new(Registry::new(None));
    let workers = Arc::new(Workers::start(1).unwrap());
    let leave = Arc::new(Semaphore::new(0));
    let settings = Settings {
        timeouts: Timeouts { offer: Duration::from_millis(100), ..Timeouts::default() },
        default_model: model.manifest().name.clone(),
        budget_ms: 200,
        limits: decode::Limits::default(),
        max_fps: 60.0,
        max_received_bps: u64::MAX,
        ice_lite: false,
        channel_buffer: 1 << 20,
        max_bitrate: 4_000_000,
        control_rate: Rate::default(),
        degradation: true,
        measured_admission: false,
        still: None,
        codecs: Codecs::unknown(1),
        network_bps: None,
        tracer: saccade::traces::Tracer::off(),
    };
    let listen = Listen { addresses: vec![Ipv4Addr::LOCALHOST.into()], port: 0, advertise: Vec::new() };
    let inner = WebRtc::bind(listen).unwrap_or_else(|(address, error)| panic!("{address}: {error}"));
    let inner = Arc::new(inner);
    let transport = Arc::new(Slow { leave: Arc::clone(&leave), inner: Arc::clone(&inner) });
    let sessions =
        Sessions::new(transport, Arc::clone(&workers), Arc::clone(&engine), Arc::clone(&registry), settings, None);
    let mut peer = Peer::new(saccade::media::Codec::Vp8).await;
    let request = OpenRequest {
        sdp: peer.offer().await,
        options: OptionsPatch::default(),
        trickle: true,
        signals: None,
        claims: saccade::session::Claims::everything(),
        address: None,
        caller: None,
    };
    let refusal = sessions.open(request).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Internal);
    assert!(refusal.message.contains("too long"), "{refusal}");
    // Its place is taken for as long as the transport holds something of it.
    assert!(!registry.wait_empty(clock::now()).await);
    assert!(inner.has_peers(), "the transport lets the peer in");
    leave.add_permits(1);
    assert!(registry.wait_empty(clock::now() + LIMIT).await);
    assert_eq!((inner.has_peers(), workers.lanes()), (false, 0));
    peer.close().await;
    engine.shutdown();
    workers.stop();
}
