use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::sdp::{MediaDescription, SessionDescription};

use super::Role;
use crate::media::Codec;

/// Media sections that an offer may have: those of a browser that has called several people.
const MAX_SECTIONS: usize = 32;
/// Candidates that an offer may have, of all its sections.
const MAX_CANDIDATES: usize = 256;

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
    /// What becomes of the media sections.
    pub sections: Sections,
    /// Whether the offerer insists on being the client of the DTLS handshake, or on being its server (RFC 8842
    /// section 4.1).
    pub is_dtls_client: Option<bool>,
}

/// Media sections of an offer, by index. Those that are in neither list are declined.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sections {
    /// The video's and the data channels'.
    pub answered: Vec<usize>,
    /// Audio in the same bundle: accepted, and nothing is sent or taken there. Declining it would be as good a word, but
    /// aiortc does not connect then, and Chromium only if it is not the first section of an offer with `max-bundle`.
    pub idle: Vec<usize>,
}

/// Why an offer cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is no session description of type offer.
    #[error("the SDP cannot be parsed: send the offer as the browser's createOffer() made it")]
    BadSdp,
    /// It has more sections or candidates than any client needs.
    #[error("the offer may have {MAX_SECTIONS} media sections and {MAX_CANDIDATES} candidates")]
    TooMany,
    /// It wants several transports.
    #[error("the offer must bundle its video and its data channels and give each media section its own mid")]
    NotBundled,
    /// It sends no video.
    #[error("the offer sends no video: add a video track or a sendrecv transceiver")]
    NoVideo,
    /// It takes no video.
    #[error("the offer takes no video: add a recvonly video transceiver")]
    TakesNoVideo,
    /// The session that it would watch has another codec.
    #[error("the offer lacks the codec of the session's video: offer {0}")]
    OtherCodec(Codec),
    /// Its codecs are none of ours.
    #[error("the offer has no codec that this server speaks: offer H264, VP8 or VP9 profile 0")]
    NoCommonCodec,
}

/// Reads an offer and chooses the codec: H.264 with packetization mode 1 first, in the profile that our encoder
/// emits where it is offered, then VP8, then VP9 profile 0, then H.264 with mode 0. Of several video sections the
/// first is taken that sends in such a codec; in a renegotiation, the section of the session's video, `mid`. Of a
/// viewer's offer, the first that takes video of the session's codec.
///
/// # Errors
/// [`Rejected`] says what is wrong.
pub(super) fn inspect(sdp: &str, role: Role, session: Option<&str>) -> Result<Inspected, Rejected> {
    if !has_clean_lines(sdp) {
        return Err(Rejected::BadSdp);
    }
    let description = RTCSessionDescription::offer(sdp.to_owned()).map_err(|_| Rejected::BadSdp)?;
    let description = description.unmarshal().map_err(|_| Rejected::BadSdp)?;
    let sections = &description.media_descriptions;
    let attributes = sections.iter().flat_map(|media| &media.attributes).chain(&description.attributes);
    let candidates = attributes.filter(|attribute| attribute.key == "candidate").count();
    if sections.len() > MAX_SECTIONS || candidates > MAX_CANDIDATES {
        return Err(Rejected::TooMany);
    }
    let mut fitting = sections.iter().enumerate().filter(|(_, media)| {
        media.media_name.media == "video"
            && is_live(media)
            && fits(media, role)
            && session.is_none_or(|session| mid(media) == Some(session))
    });
    let (mut rejected, no_codec) = match role {
        Role::Publisher => (Rejected::NoVideo, Rejected::NoCommonCodec),
        Role::Viewer(codec) => (Rejected::TakesNoVideo, Rejected::OtherCodec(codec)),
    };
    let is_spoken = |offered: &Offered| matches!(role, Role::Publisher) || role == Role::Viewer(offered.codec);
    let found = fitting.find_map(|(index, video)| {
        rejected = no_codec;
        Some((index, video, codecs(video).filter(is_spoken).min_by_key(|offered| offered.rank)?))
    });
    let (index, video, best) = found.ok_or(rejected)?;
    let data = sections.iter().position(|media| carries_data(media) && is_live(media));
    let mut answered: Vec<usize> = data.into_iter().chain([index]).collect();
    answered.sort_unstable();
    if !is_bundled(&description, &answered) {
        return Err(Rejected::NotBundled);
    }
    let bundle = bundle(&description);
    let is_bundled_video = mid(video).is_some_and(|mid| bundle.contains(&mid));
    let is_idle = |media: &&MediaDescription| {
        media.media_name.media == "audio" && is_live(media) && mid(media).is_some_and(|mid| bundle.contains(&mid))
    };
    let idle = sections.iter().enumerate().filter(|(_, media)| is_bundled_video && is_idle(media));
    let idle: Vec<usize> = idle.map(|(index, _)| index).collect();
    let first = answered.iter().chain(&idle).min().copied().unwrap_or(index);
    let tag = |index: usize| sections.get(index).and_then(mid).unwrap_or_default().to_owned();
    Ok(Inspected {
        codec: best.codec,
        payload_type: best.payload_type,
        fmtp: best.fmtp,
        returns_video: takes(video),
        data_channels: data.is_some(),
        mid: tag(index),
        is_dtls_client: sections.get(first).and_then(|media| is_dtls_client(&description, media)),
        sections: Sections { answered, idle },
    })
}

/// Whether no value has a carriage return or a zero in it, as none may (RFC 8866 section 9): the answer repeats some of
/// them, and there are readers for whom a line ends at either.
fn has_clean_lines(sdp: &str) -> bool {
    sdp.lines().all(|line| !line.contains(['\r', '\0']))
}

fn carries_data(media: &MediaDescription) -> bool {
    media.media_name.media == "application" && media.media_name.formats == ["webrtc-datachannel"]
}

/// Port zero means that a section is not used, unless it is there only as a part of the bundle (RFC 9143 section 6).
fn is_live(media: &MediaDescription) -> bool {
    media.media_name.port.value != 0 || media.has_attribute("bundle-only")
}

/// Whether the answered media sections share one transport (RFC 9143), as the session has only one.
fn is_bundled(description: &SessionDescription, answered: &[usize]) -> bool {
    let sections = &description.media_descriptions;
    let mids: Vec<&str> = sections.iter().filter(|media| is_live(media)).filter_map(mid).collect();
    let unique = mids.iter().enumerate().all(|(index, mid)| !mids[..index].contains(mid));
    let bundle = bundle(description);
    let bundled = |index: &usize| sections.get(*index).and_then(mid).is_some_and(|mid| bundle.contains(&mid));
    unique && (answered.len() <= 1 || answered.iter().all(bundled))
}

/// The tags of the sections that are offered as one bundle.
fn bundle(description: &SessionDescription) -> Vec<&str> {
    let group = description.attributes.iter().find_map(|attribute| match (attribute.key.as_str(), &attribute.value) {
        ("group", Some(value)) => value.strip_prefix("BUNDLE"),
        _ => None,
    });
    group.unwrap_or_default().split_whitespace().collect()
}

fn mid(media: &MediaDescription) -> Option<&str> {
    media.attribute("mid").flatten()
}

/// What `a=setup` says of a section, or of all.
fn is_dtls_client(description: &SessionDescription, media: &MediaDescription) -> Option<bool> {
    let of_all = || description.attributes.iter().find(|attribute| attribute.key == "setup")?.value.as_deref();
    match media.attribute("setup").flatten().or_else(of_all)? {
        "active" => Some(true),
        "passive" => Some(false),
        _ => None,
    }
}

fn fits(media: &MediaDescription, role: Role) -> bool {
    match role {
        Role::Publisher => !media.has_attribute("recvonly") && !media.has_attribute("inactive"),
        Role::Viewer(_) => takes(media),
    }
}

fn takes(media: &MediaDescription) -> bool {
    !media.has_attribute("sendonly") && !media.has_attribute("inactive")
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

    /// As a publisher's.
    fn inspect(sdp: &str, session: Option<&str>) -> Result<Inspected, Rejected> {
        super::inspect(sdp, Role::Publisher, session)
    }

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
        let found = inspect(&sdp, None).unwrap();
        assert_eq!((found.codec, found.payload_type, found.returns_video), (Codec::H264, 109, true));
        assert!(!found.data_channels);
    }

    #[test]
    fn parameters_of_the_offerers_own_stream_are_not_repeated() {
        let fmtp = "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IA,aM4;profile-level-id=42e01f";
        let found = inspect(&video("96", &["a=sendrecv", "a=rtpmap:96 H264/90000", fmtp]), None).unwrap();
        assert_eq!(found.fmtp, "packetization-mode=1;profile-level-id=42e01f");
    }

    #[test]
    fn values_that_would_end_a_line_of_the_answer_are_refused() {
        let fmtp = |end: &str| format!("a=fmtp:96 packetization-mode=1;profile-level-id=42e01f{end}");
        let offer = |end: &str| video("96", &["a=sendrecv", "a=rtpmap:96 H264/90000", &fmtp(end)]);
        assert!(inspect(&offer(""), None).is_ok());
        assert!(inspect(&offer("").replace('\r', ""), None).is_ok(), "lines may end in a line feed alone");
        for end in ["\ra=candidate:1", "\r", "\0"] {
            assert_eq!(inspect(&offer(end), None), Err(Rejected::BadSdp), "{end:?}");
        }
        assert_eq!(inspect(offer("").strip_suffix('\n').unwrap(), None), Err(Rejected::BadSdp), "half a line end");
    }

    #[test]
    fn what_is_offered_alone_is_taken() {
        let found = inspect(&video("96", &["a=sendonly", "a=rtpmap:96 VP8/90000"]), None).unwrap();
        assert_eq!((found.codec, found.returns_video), (Codec::Vp8, false));
    }

    #[test]
    fn several_transports_are_refused() {
        let video = video("96", &["a=sendrecv", "a=rtpmap:96 VP8/90000"]);
        let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\n";
        let bundle = |offer: &str| offer.replacen("t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0 1\r\n", 1);
        let both = format!("{video}{data}");
        assert!(inspect(&bundle(&both), None).unwrap().data_channels);
        assert_eq!(inspect(&both, None), Err(Rejected::NotBundled));
        assert_eq!(inspect(&bundle(&both.replace("a=mid:1", "a=mid:0")), None), Err(Rejected::NotBundled));
    }

    #[test]
    fn the_first_video_of_a_codec_spoken_here_is_taken_and_kept() {
        let section = |mid: u8, port: u16, codec: &str, more: &str| {
            format!("m=video {port} UDP/TLS/RTP/SAVPF 96\r\na=mid:{mid}\r\n{more}a=rtpmap:96 {codec}/90000\r\n")
        };
        let videos = [
            section(0, 9, "AV1", ""),
            section(1, 9, "VP8", "a=recvonly\r\n"),
            section(2, 0, "VP8", ""),
            section(3, 0, "VP8", "a=bundle-only\r\n"),
            section(4, 9, "H264", ""),
        ];
        let offer = format!("{HEAD}{}", videos.concat());
        let found = inspect(&offer, None).unwrap();
        assert_eq!((found.codec, found.mid.as_str(), &found.sections.answered[..]), (Codec::Vp8, "3", &[3][..]));
        let again = inspect(&offer, Some("4")).unwrap();
        assert_eq!((again.codec, again.mid.as_str()), (Codec::H264, "4"));
        assert_eq!(inspect(&offer, Some("0")), Err(Rejected::NoCommonCodec));
        assert_eq!(inspect(&offer, Some("1")), Err(Rejected::NoVideo));
        assert_eq!(inspect(&offer, Some("9")), Err(Rejected::NoVideo));
    }

    #[test]
    fn sections_and_candidates_are_bounded() {
        let section = |mid: usize| format!("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:a{mid}\r\n");
        let good = video("96", &["a=sendrecv", "a=rtpmap:96 VP8/90000"]);
        let with = |sections: usize| format!("{good}{}", (1..sections).map(section).collect::<String>());
        assert!(inspect(&with(MAX_SECTIONS), None).is_ok());
        assert_eq!(inspect(&with(MAX_SECTIONS + 1), None), Err(Rejected::TooMany));
        let line = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
        assert!(inspect(&format!("{good}{}", line.repeat(MAX_CANDIDATES)), None).is_ok());
        assert_eq!(inspect(&format!("{good}{}", line.repeat(MAX_CANDIDATES + 1)), None), Err(Rejected::TooMany));
    }

    #[test]
    fn unusable_offers_are_told_apart() {
        assert_eq!(inspect("hello", None), Err(Rejected::BadSdp));
        assert_eq!(inspect(HEAD, None), Err(Rejected::NoVideo));
        assert_eq!(inspect(&video("96", &["a=recvonly", "a=rtpmap:96 VP8/90000"]), None), Err(Rejected::NoVideo));
        assert_eq!(inspect(&video("35", &["a=rtpmap:35 AV1/90000"]), None), Err(Rejected::NoCommonCodec));
        let deep = video("98", &["a=rtpmap:98 VP9/90000", "a=fmtp:98 profile-id=2"]);
        assert_eq!(inspect(&deep, None), Err(Rejected::NoCommonCodec));
    }

    #[test]
    fn a_viewer_takes_the_codec_of_the_session() {
        let lines = [
            "a=rtpmap:96 VP8/90000",
            "a=rtpmap:97 H264/90000",
            "a=fmtp:97 packetization-mode=0;profile-level-id=42e01f",
            "a=rtpmap:98 H264/90000",
            "a=fmtp:98 packetization-mode=1;profile-level-id=42e01f",
        ];
        let offer = |direction: &'static str| video("96 97 98", &[&[direction][..], &lines].concat());
        for direction in ["a=recvonly", "a=sendrecv"] {
            let chosen = |codec| {
                let found = super::inspect(&offer(direction), Role::Viewer(codec), None)?;
                Ok((found.codec, found.payload_type, found.returns_video))
            };
            assert_eq!(chosen(Codec::Vp8), Ok((Codec::Vp8, 96, true)));
            assert_eq!(chosen(Codec::H264), Ok((Codec::H264, 98, true)));
            assert_eq!(chosen(Codec::Vp9), Err(Rejected::OtherCodec(Codec::Vp9)));
        }
        for direction in ["a=sendonly", "a=inactive"] {
            let refused = super::inspect(&offer(direction), Role::Viewer(Codec::Vp8), None);
            assert_eq!(refused, Err(Rejected::TakesNoVideo));
        }
    }
}
