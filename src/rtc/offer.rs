use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::sdp::{MediaDescription, SessionDescription};

use crate::media::Codec;

/// What an offer says about its video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The codec chosen from those that the offer and this server both speak.
    pub codec: Codec,
    /// RTP payload type that the offer gives to that codec.
    pub payload_type: u8,
    /// Format parameters that the offer gives to that codec.
    pub fmtp: String,
    /// Whether the offerer takes video back.
    pub returns_video: bool,
    /// Whether data channels are offered.
    pub data_channels: bool,
    /// Identification tag of the video's media section.
    pub mid: String,
}

/// Why an offer cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is no session description of type offer.
    #[error("the SDP cannot be parsed: send the offer as the browser's createOffer() made it")]
    BadSdp,
    /// It wants several transports.
    #[error("the offer must bundle its media sections and give each its own mid")]
    NotBundled,
    /// It sends no video.
    #[error("the offer sends no video: add a video track or a sendrecv transceiver")]
    NoVideo,
    /// Its codecs are none of ours.
    #[error("the offer has no codec that this server speaks: offer H264, VP8 or VP9 profile 0")]
    NoCommonCodec,
}

/// Reads an offer and chooses the codec: H.264 with packetization mode 1 first, in the profile that our encoder
/// emits where it is offered, then VP8, then VP9 profile 0, then H.264 with mode 0.
///
/// # Errors
/// [`Rejected`] says what is wrong.
pub(super) fn inspect(sdp: &str) -> Result<Inspected, Rejected> {
    let description = RTCSessionDescription::offer(sdp.to_owned()).map_err(|_| Rejected::BadSdp)?;
    let description = description.unmarshal().map_err(|_| Rejected::BadSdp)?;
    if description.media_descriptions.is_empty() {
        return Err(Rejected::NoVideo);
    }
    if !is_bundled(&description) {
        return Err(Rejected::NotBundled);
    }
    let data_channels = description.media_descriptions.iter().any(|media| media.media_name.media == "application");
    let video = description
        .media_descriptions
        .iter()
        .find(|media| media.media_name.media == "video" && media.media_name.port.value != 0 && sends(media))
        .ok_or(Rejected::NoVideo)?;
    let best = codecs(video).min_by_key(|offered| offered.rank).ok_or(Rejected::NoCommonCodec)?;
    Ok(Inspected {
        codec: best.codec,
        payload_type: best.payload_type,
        fmtp: best.fmtp,
        returns_video: !video.has_attribute("sendonly"),
        data_channels,
        mid: mid(video).unwrap_or_default().to_owned(),
    })
}

/// Whether all media sections share one transport (RFC 9143), as the session has only one.
fn is_bundled(description: &SessionDescription) -> bool {
    let live: Vec<&MediaDescription> =
        description.media_descriptions.iter().filter(|media| media.media_name.port.value != 0).collect();
    let mids: Vec<&str> = live.iter().filter_map(|media| mid(media)).collect();
    let unique = mids.iter().enumerate().all(|(index, mid)| !mids[..index].contains(mid));
    let group = description.attributes.iter().find_map(|attribute| match (attribute.key.as_str(), &attribute.value) {
        ("group", Some(value)) => value.strip_prefix("BUNDLE"),
        _ => None,
    });
    let bundled = |mid: &str| group.is_some_and(|group| group.split(' ').any(|member| member == mid));
    unique && (live.len() <= 1 || (mids.len() == live.len() && mids.into_iter().all(bundled)))
}

fn mid(media: &MediaDescription) -> Option<&str> {
    media.attribute("mid").flatten()
}

fn sends(media: &MediaDescription) -> bool {
    !media.has_attribute("recvonly") && !media.has_attribute("inactive")
}

struct Offered {
    codec: Codec,
    payload_type: u8,
    fmtp: String,
    rank: u8,
}

fn codecs(media: &MediaDescription) -> impl Iterator<Item = Offered> {
    media.media_name.formats.iter().filter_map(|format| {
        let payload_type: u8 = format.parse().ok().filter(|pt| *pt < 128)?;
        let (name, clock) = attribute(media, "rtpmap", format)?.split_once('/')?;
        let codec: Codec = name.parse().ok()?;
        if clock.split('/').next() != Some("90000") {
            return None;
        }
        let fmtp = ours(attribute(media, "fmtp", format).unwrap_or_default());
        let rank = rank(codec, &fmtp)?;
        Some(Offered { codec, payload_type, fmtp, rank })
    })
}

/// The value that an attribute has for one payload type: `a=name:FORMAT value`.
fn attribute<'a>(media: &'a MediaDescription, name: &str, format: &str) -> Option<&'a str> {
    media.attributes.iter().filter(|attribute| attribute.key == name).find_map(|attribute| {
        let (of, value) = attribute.value.as_deref()?.split_once(' ')?;
        (of == format).then_some(value.trim())
    })
}

/// The format parameters that an answer repeats. Others tell of the offerer's own stream, such as
/// `sprop-parameter-sets` (RFC 6184 section 8.1), and would be wrong of ours.
fn ours(fmtp: &str) -> String {
    const KEPT: [&str; 4] = ["level-asymmetry-allowed", "packetization-mode", "profile-level-id", "profile-id"];
    let kept = fmtp.split(';').map(str::trim).filter(|pair| {
        pair.split_once('=').is_some_and(|(key, _)| KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(key)))
    });
    kept.collect::<Vec<_>>().join(";")
}

/// Lower is better; `None` is not spoken here.
fn rank(codec: Codec, fmtp: &str) -> Option<u8> {
    let parameter = |name: &str| {
        fmtp.split(';').filter_map(|pair| pair.trim().split_once('=')).find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    match codec {
        Codec::H264 => {
            let mode_one = parameter("packetization-mode").is_some_and(|(_, value)| value == "1");
            let profile = parameter("profile-level-id").map_or("42000a", |(_, value)| value).to_ascii_lowercase();
            let baseline = match profile.get(..4) {
                Some("42e0" | "42c0") => 0,
                Some("4200") => 1,
                _ => 2,
            };
            // Mode 0 forbids fragments, which every keyframe that we return needs.
            Some(if mode_one { baseline } else { 8 + baseline })
        }
        Codec::Vp8 => Some(6),
        Codec::Vp9 => parameter("profile-id").is_none_or(|(_, value)| value == "0").then_some(7),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 00\r\n\
                        a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";

    fn video(formats: &str, lines: &[&str]) -> String {
        let mut sdp = format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF {formats}\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n");
        for line in lines {
            sdp.push_str(line);
            sdp.push_str("\r\n");
        }
        sdp
    }

    #[test]
    fn h264_constrained_baseline_in_mode_one_is_preferred() {
        let sdp = video(
            "96 100 109 98",
            &[
                "a=sendrecv",
                "a=rtpmap:96 VP8/90000",
                "a=rtpmap:100 H264/90000",
                "a=fmtp:100 level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f",
                "a=rtpmap:109 H264/90000",
                "a=fmtp:109 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
                "a=rtpmap:98 VP9/90000",
                "a=fmtp:98 profile-id=0",
            ],
        );
        let found = inspect(&sdp).unwrap();
        assert_eq!((found.codec, found.payload_type, found.returns_video), (Codec::H264, 109, true));
        assert!(!found.data_channels);
    }

    #[test]
    fn parameters_of_the_offerers_own_stream_are_not_repeated() {
        let fmtp = "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IA,aM4;profile-level-id=42e01f";
        let found = inspect(&video("96", &["a=sendrecv", "a=rtpmap:96 H264/90000", fmtp])).unwrap();
        assert_eq!(found.fmtp, "packetization-mode=1;profile-level-id=42e01f");
    }

    #[test]
    fn what_is_offered_alone_is_taken() {
        let found = inspect(&video("96", &["a=sendonly", "a=rtpmap:96 VP8/90000"])).unwrap();
        assert_eq!((found.codec, found.returns_video), (Codec::Vp8, false));
    }

    #[test]
    fn several_transports_are_refused() {
        let video = video("96", &["a=sendrecv", "a=rtpmap:96 VP8/90000"]);
        let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n";
        let bundle = |offer: &str| offer.replacen("t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0 1\r\n", 1);
        let both = format!("{video}{data}");
        assert!(inspect(&bundle(&both)).unwrap().data_channels);
        assert_eq!(inspect(&both), Err(Rejected::NotBundled));
        assert_eq!(inspect(&bundle(&both.replace("a=mid:1", "a=mid:0"))), Err(Rejected::NotBundled));
    }

    #[test]
    fn unusable_offers_are_told_apart() {
        assert_eq!(inspect("hello"), Err(Rejected::BadSdp));
        assert_eq!(inspect(HEAD), Err(Rejected::NoVideo));
        assert_eq!(inspect(&video("96", &["a=recvonly", "a=rtpmap:96 VP8/90000"])), Err(Rejected::NoVideo));
        assert_eq!(inspect(&video("35", &["a=rtpmap:35 AV1/90000"])), Err(Rejected::NoCommonCodec));
        let deep = video("98", &["a=rtpmap:98 VP9/90000", "a=fmtp:98 profile-id=2"]);
        assert_eq!(inspect(&deep), Err(Rejected::NoCommonCodec));
    }
}
