//! What clients say before media flows: messages, session descriptions, candidates.

use std::collections::BTreeSet;

use rtc::ice::candidate::unmarshal_candidate;
use rtc::peer_connection::sdp::RTCSessionDescription;
use saccade::media::Codec;
use saccade::rtc::{Role, fuzzing};
use saccade::session::fragment::{self, Credentials, Fragment, MAX_CANDIDATES};
use saccade::session::options::{self, BUDGET_MS, MAX_DETECTIONS, ModelFacts, Models, THRESHOLD};
use saccade::session::{IfMatch, proto};
use saccade_signaling::{
    ClientMessage, MAX_LINES, MAX_MESSAGE_BYTES, MAX_NAME_CHARS, MAX_POLYGON_POINTS, MAX_RULES, MAX_ZONES, Options,
    OptionsPatch, ReturnMode,
};

/// Bytes of a refusal at most, whatever it is about.
const MAX_REFUSAL: usize = 8 * 1024;
/// Candidates of an offer at most.
const MAX_REMOTE_CANDIDATES: usize = 256;

/// Two models.
struct Two;

impl Models for Two {
    fn facts(&self, name: &str) -> Option<ModelFacts> {
        let classes: &[&str] = match name {
            "ppe-nano" => &["head", "helmet"],
            "faces" => &["face"],
            _ => return None,
        };
        Some(ModelFacts {
            task: None,
            name: name.to_owned(),
            classes: classes.iter().map(|&class| class.to_owned()).collect(),
            score_threshold: 0.35,
            iou_threshold: 0.45,
            max_detections: 100,
        })
    }

    fn names(&self) -> Vec<String> {
        vec!["ppe-nano".to_owned(), "faces".to_owned()]
    }
}

/// A text message: it is read or refused in few words; what is read is written and read again the same; options are taken
/// whole and in range, or not at all.
pub(crate) fn json(data: &[u8]) {
    let Some(text) = std::str::from_utf8(data).ok().filter(|text| text.len() <= MAX_MESSAGE_BYTES) else { return };
    let message = match proto::parse(text) {
        Ok(message) => message,
        Err(bad) => {
            assert!(!bad.refusal.message.is_empty() && bad.refusal.message.len() <= MAX_REFUSAL);
            return;
        }
    };
    let patch = match &message {
        ClientMessage::Offer { options, .. } => options.clone().unwrap_or_default(),
        ClientMessage::Configure { options } => options.clone(),
        _ => OptionsPatch::default(),
    };
    if is_finite(&patch) {
        let written = serde_json::to_string(&message).unwrap();
        assert_eq!(proto::parse(&written).as_ref(), Ok(&message), "{written}");
    }
    match options::open(&Two, 200, &patch) {
        Ok(options) => {
            check(&options);
            assert_eq!(options::apply(&Two, &options, &patch).as_ref(), Ok(&options), "once is enough");
            let written = serde_json::to_string(&options).unwrap();
            assert_eq!(serde_json::from_str::<Options>(&written).unwrap(), options, "{written}");
        }
        Err(refusal) => assert!(!refusal.message.is_empty() && refusal.message.len() <= MAX_REFUSAL),
    }
}

/// JSON has no words for what is too large for single precision.
fn is_finite(patch: &OptionsPatch) -> bool {
    let zones = patch.zones.iter().flatten().flat_map(|zone| &zone.polygon);
    let lines = patch.lines.iter().flatten().flat_map(|line| &line.points);
    let thresholds = patch.score_threshold.iter().chain(&patch.iou_threshold);
    zones.chain(lines).flatten().chain(thresholds).all(|value| value.is_finite())
}

fn check(options: &Options) {
    assert!(BUDGET_MS.contains(&options.budget_ms) && MAX_DETECTIONS.contains(&options.max_detections));
    assert!(THRESHOLD.contains(&options.score_threshold) && THRESHOLD.contains(&options.iou_threshold));
    let facts = Two.facts(&options.model).unwrap();
    for class in
        options.classes.iter().flatten().chain(options.rules.iter().flat_map(|rule| rule.classes.iter().flatten()))
    {
        assert!(facts.classes.contains(class));
    }
    assert!(options.zones.len() <= MAX_ZONES && options.lines.len() <= MAX_LINES && options.rules.len() <= MAX_RULES);
    let watches = !(options.zones.is_empty() && options.lines.is_empty() && options.rules.is_empty());
    assert!(options.track || (!watches && options.return_mode != ReturnMode::Predicted));
    let inside = |point: &[f32; 2]| point.iter().all(|value| (0.0..=1.0).contains(value));
    for zone in &options.zones {
        assert!((3..=MAX_POLYGON_POINTS).contains(&zone.polygon.len()) && zone.polygon.iter().all(inside));
        assert!((1..=MAX_NAME_CHARS).contains(&zone.name.chars().count()));
        assert!(zone.dwell_s.is_none_or(|seconds| (0.0..=86_400.0).contains(&seconds)));
    }
    assert!(options.lines.iter().all(|line| line.points.iter().all(inside) && line.points[0] != line.points[1]));
    for rule in &options.rules {
        assert!(options.zones.iter().any(|zone| zone.name == rule.zone));
        assert!((0.0..=86_400.0).contains(&rule.longer_than_s));
    }
}

/// An offer, its first byte saying whose: what the stack is offered of it is an offer of the same video, and what goes back
/// has a section for each of its own.
pub(crate) fn offer(data: &[u8]) {
    let Some((&first, rest)) = data.split_first() else { return };
    let Ok(sdp) = std::str::from_utf8(rest) else { return };
    let role = match first & 3 {
        0 | 1 => Role::Publisher,
        2 => Role::Viewer(Codec::H264),
        _ => Role::Viewer(Codec::Vp8),
    };
    let filtered = fuzzing::filter(sdp);
    assert!(filtered.len() <= sdp.len());
    assert!(filtered.lines().filter(|line| line.starts_with("a=candidate:")).count() <= MAX_REMOTE_CANDIDATES);
    assert_eq!(fuzzing::filter(&filtered), filtered, "once is enough");
    check_candidates(&filtered);
    let told = fragment::describe(sdp);
    assert!(told.len() <= 2 * sdp.len() + 2);

    let Ok(inspected) = fuzzing::inspect(sdp, role, None) else { return };
    assert!(inspected.payload_type < 128);
    assert!(!inspected.fmtp.contains(['\r', '\n']) && !inspected.mid.contains(['\r', '\n']));
    let (answered, idle) = (&inspected.sections.answered, &inspected.sections.idle);
    let sections: BTreeSet<_> = answered.iter().chain(idle).collect();
    assert!(sections.len() == answered.len() + idle.len() && (1..=2).contains(&answered.len()));
    if let Role::Viewer(codec) = role {
        assert_eq!(inspected.codec, codec);
    }
    let again = fuzzing::inspect(sdp, role, Some(&inspected.mid));
    assert!(inspected.mid.is_empty() || again.as_ref().is_ok_and(|again| again.mid == inspected.mid), "{again:?}");

    let reduced = fuzzing::reduce(sdp, &inspected.sections);
    let found = fuzzing::inspect(&reduced, role, None);
    let found = found.unwrap_or_else(|error| panic!("{error}: {reduced}"));
    assert_eq!(
        (found.codec, found.payload_type, &found.mid),
        (inspected.codec, inspected.payload_type, &inspected.mid)
    );
    assert_eq!(found.data_channels, inspected.data_channels);
    assert_eq!(found.sections.answered.len(), answered.len());

    let candidates = ["candidate:1 1 udp 2130706431 192.0.2.4 8189 typ host".to_owned()];
    let answer = fuzzing::restore(&as_stack(answered.len()), sdp, &inspected.sections, &candidates);
    let count = |text: &str, line: &str| text.lines().filter(|it| it.starts_with(line)).count();
    assert_eq!(count(&answer, "m="), count(sdp, "m="), "{answer}");
    assert!((1..=2).contains(&count(&answer, "a=candidate:")), "{answer}");
    assert_eq!(Credentials::of(&answer).unwrap().ufrag, "here");
}

/// What the stack reads of an offer has no candidate that it must not hear of.
fn check_candidates(offer: &str) {
    let Ok(offer) = RTCSessionDescription::offer(offer.to_owned()) else { return };
    let Ok(offer) = offer.unmarshal() else { return };
    let attributes = offer.media_descriptions.iter().flat_map(|media| &media.attributes).chain(&offer.attributes);
    for candidate in attributes.filter(|attribute| attribute.key == "candidate").filter_map(|it| it.value.as_deref()) {
        assert_never_heard_of(candidate);
    }
}

/// A candidate that the stack is told of is no name of multicast DNS, and none over TCP.
fn assert_never_heard_of(candidate: &str) {
    if let Ok(read) = unmarshal_candidate(candidate) {
        assert!(!read.address().to_ascii_lowercase().ends_with(".local"), "{candidate}");
        assert!(!read.network_type().is_tcp(), "{candidate}");
    }
}

/// What the stack answers to so many sections, as far as it matters.
fn as_stack(sections: usize) -> String {
    let mut sdp = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n".to_owned();
    for section in 0..sections {
        sdp += &format!(
            "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{section}\r\na=ice-ufrag:here\r\n\
             a=ice-pwd:0123456789012345678901\r\na=setup:active\r\na=rtcp-mux\r\n"
        );
    }
    sdp
}

/// A fragment that trickles candidates or restarts ICE: bounded, and a restart has the new credentials and no candidates.
pub(crate) fn fragment(data: &[u8]) {
    const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\n\
                         a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=rtcp-mux\r\n\
                         a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n";
    let Ok(text) = std::str::from_utf8(data) else { return };
    let tags = IfMatch::parse(text);
    assert!(tags != IfMatch::Any || tags.holds("whatever"));
    assert!(!tags.holds("no such tag") || text.contains("no such tag") || tags == IfMatch::Any);

    let Ok(fragment) = Fragment::parse(text) else { return };
    assert!(fragment.candidates.len() <= MAX_CANDIDATES && fragment.mids.len() <= 32);
    assert!(fragment.ends || fragment.ufrag.is_some() || !fragment.candidates.is_empty());
    for candidate in &fragment.candidates {
        assert!(candidate.candidate.len() <= 600 && !candidate.candidate.contains(['\r', '\n']));
    }
    if let (Some(ufrag), Some(pwd)) = (&fragment.ufrag, &fragment.pwd) {
        let next = Credentials { ufrag, pwd };
        let restarted = next.restart(OFFER);
        assert_eq!(Credentials::of(&restarted), Some(next));
        assert!(!restarted.lines().any(|line| line.starts_with("a=candidate") || line == "a=end-of-candidates"));
        assert!(fragment::mids(&restarted).eq(["0"]));
        assert_eq!(next.restart(&restarted), restarted, "once is enough");
        let told = Fragment::parse(&fragment::describe(&restarted)).unwrap();
        assert_eq!((told.ufrag.as_deref(), told.pwd.as_deref()), (Some(ufrag.as_str()), Some(pwd.as_str())));
    }
    let (count, ufrag) = (fragment.candidates.len(), fragment.ufrag.clone().unwrap_or_else(|| "abcd".to_owned()));
    let current: Vec<_> = fragment.into_candidates("abcd").collect();
    assert!(current.len() <= count);
    assert!(current.iter().all(|it| it.username_fragment.as_ref().is_none_or(|named| *named == ufrag)));
}

/// A candidate as it is handed to the stack: read or refused, and what names a host that only multicast DNS knows, or TCP,
/// never gets there.
pub(crate) fn candidate(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if fuzzing::is_of_use(text) {
        assert_never_heard_of(text.strip_prefix("candidate:").unwrap_or(text));
    }
}
