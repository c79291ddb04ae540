use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use retina::client::{
    InitialSequenceNumberPolicy, PacketItem, PlayOptions, Playing, Session, SessionGroup, SessionIdPolicy,
    SessionOptions, SetupOptions,
};
use retina::codec::{ParametersRef, VideoParametersCodec};

use super::relay::Packet;
use super::{Config, Credentials, Failure, Transport};
use crate::clock;

const USER_AGENT: &str = concat!("saccade/", env!("CARGO_PKG_VERSION"));
/// The one encoding that is taken, as its media type has it.
const H264: &str = "h264";
/// How the library's errors begin where no connection was made, and where one was lost; it tells by nothing else.
const NOT_CONNECTED: &str = "Unable to connect";
const LOST: [&str; 3] = ["Error reading", "Error writing", "Error receiving"];

/// A camera that has agreed to send.
pub(super) struct Connection {
    session: Session<Playing>,
    /// Parameter sets as described, if they were.
    parameters: Vec<Bytes>,
}

impl Connection {
    /// Asks a camera for its first H.264 stream; audio and whatever else it has are left alone.
    pub(super) async fn open(config: &Config, group: &Arc<SessionGroup>) -> Result<Self, Failure> {
        let opened = tokio::time::timeout(config.timeout, Self::negotiate(config, group));
        opened.await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn negotiate(config: &Config, group: &Arc<SessionGroup>) -> Result<Self, Failure> {
        let credentials = config
            .credentials
            .clone()
            .map(|Credentials { username, password }| retina::client::Credentials { username, password });
        let options = SessionOptions::default()
            .creds(credentials)
            .user_agent(USER_AGENT.to_owned())
            .session_id(SessionIdPolicy::UseFirst)
            .session_group(Arc::clone(group));
        let mut session = Session::describe(config.url.clone(), options).await.map_err(|error| failure(&error))?;
        let videos = || session.streams().iter().enumerate().filter(|(_, stream)| stream.media() == "video");
        let Some((index, stream)) = videos().find(|(_, stream)| stream.encoding_name() == H264) else {
            let codec = videos().next().map(|(_, stream)| name_of(stream.encoding_name()));
            return Err(codec.map_or(Failure::NoVideo, |codec| Failure::Codec { codec }));
        };
        let parameters = match stream.parameters() {
            Some(ParametersRef::Video(video)) => match video.codec_params() {
                VideoParametersCodec::H264 { sps, pps } => vec![sps.clone(), pps.clone()],
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        let transport = match config.transport {
            Transport::Tcp => retina::client::Transport::Tcp(Default::default()),
            Transport::Udp => retina::client::Transport::Udp(Default::default()),
        };
        let setup = session.setup(index, SetupOptions::default().transport(transport)).await;
        setup.map_err(|error| failure(&error))?;
        // What cameras say of the first number is often wrong.
        let play = PlayOptions::default().initial_seq(InitialSequenceNumberPolicy::Ignore);
        let session = session.play(play).await.map_err(|error| failure(&error))?;
        Ok(Self { session, parameters })
    }

    /// Parameter sets that the camera describes.
    pub(super) fn parameters(&self) -> &[Bytes] {
        &self.parameters
    }

    /// The next packet of the video.
    pub(super) async fn packet(&mut self, timeout: Duration) -> Result<Packet, Failure> {
        let due = clock::now() + timeout;
        loop {
            let item = tokio::time::timeout_at(due.into(), self.session.next()).await;
            match item.map_err(|_| Failure::Stalled)? {
                Some(Ok(PacketItem::Rtp(packet))) => {
                    let header = packet.header();
                    return Ok(Packet {
                        sequence: header.sequence_number(),
                        time: header.timestamp(),
                        marker: header.mark(),
                        payload: packet.into_payload_bytes(),
                    });
                }
                // Reports of the sender: that it lives, not that it sends.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(failure(&error)),
                None => return Err(Failure::Ended),
            }
        }
    }
}

/// Why a request or a connection failed. The detail goes to the log at debug, since it holds addresses.
fn failure(error: &retina::Error) -> Failure {
    tracing::debug!(%error, "a camera's connection failed");
    let begins = |start: &&str| error.to_string().starts_with(start);
    match error.status_code() {
        // An answer that cannot be used counts as an error with its status.
        Some(200..300) => Failure::Malformed,
        Some(status) => Failure::of_status(status),
        None if begins(&NOT_CONNECTED) => Failure::Unreachable,
        None if LOST.iter().any(begins) => Failure::Ended,
        None => Failure::Malformed,
    }
}

/// A codec as people know it.
fn name_of(encoding: &str) -> String {
    match encoding {
        "h265" => "H.265".to_owned(),
        "jpeg" => "Motion JPEG".to_owned(),
        "mp4v-es" => "MPEG-4".to_owned(),
        // What the camera calls it; it may call it anything.
        other => other.chars().filter(char::is_ascii_alphanumeric).take(16).collect::<String>().to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codecs_are_named_as_people_know_them_whatever_a_camera_calls_them() {
        for (encoding, name) in [("h265", "H.265"), ("jpeg", "Motion JPEG"), ("vp8", "VP8"), ("x\u{1b}[2j<b>", "X2JB")]
        {
            assert_eq!(name_of(encoding), name);
        }
        assert_eq!(name_of(&"a".repeat(99)).len(), 16);
    }

    #[test]
    fn each_status_says_what_to_do() {
        for (status, code, part) in [
            (401, "unauthorized", "`password_file`"),
            (403, "forbidden", "right"),
            (404, "not_found", "`url`"),
            (461, "transport_refused", "`transport`"),
            (503, "refused", "503"),
        ] {
            let failure = Failure::of_status(status);
            assert_eq!(failure.code(), code);
            assert!(failure.to_string().contains(part), "{failure}");
        }
    }
}
