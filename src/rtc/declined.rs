//! Declined media sections (RFC 9429 section 5.3.1). The stack knows nothing of them: it would take a second video
//! section for one more of its own codec, and leave out sections of a kind that it does not know. It is given an offer
//! of the answered sections alone, and the declined ones go back to their places in its answer.

/// Attributes of the transport, which are the same in every section of a bundle (RFC 9143 section 7.1.3).
const TRANSPORT: [&str; 5] = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=rtcp-mux"];
/// What a declined section repeats of the offered one, beside its first line: its tag, and what its formats mean.
const REPEATED: [&str; 4] = ["a=mid:", "a=rtpmap:", "a=fmtp:", "a=sctp-port:"];

/// An offer with these media sections alone, counted from 0. What the first section of a bundle says for all, its
/// transport and its candidates, stays, even if that section goes.
pub(super) fn reduce(offer: &str, answered: &[usize]) -> String {
    let (session, sections) = split(offer);
    let kept: Vec<&str> = answered.iter().filter_map(|index| sections.get(*index).copied()).collect();
    let mids: Vec<&str> = kept.iter().filter_map(|section| value(section, "a=mid:")).collect();
    let mut out = String::with_capacity(offer.len());
    for line in session.lines() {
        if !line.starts_with("a=group:BUNDLE") {
            push(&mut out, line);
        }
    }
    push(&mut out, &format!("a=group:BUNDLE {}", mids.join(" ")));
    for (position, section) in kept.iter().enumerate() {
        let bundle_only = section.lines().any(|line| line == "a=bundle-only");
        for (number, line) in section.lines().enumerate() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                // Used, after all; the section that it was bundled with may be gone.
                [kind, "0", ref rest @ ..] if number == 0 && bundle_only => {
                    push(&mut out, &format!("{kind} 9 {}", rest.join(" ")));
                }
                _ if line == "a=bundle-only" => {}
                _ => push(&mut out, line),
            }
        }
        if position == 0 {
            let transport = sections.iter().copied().find(|section| value(section, "a=ice-ufrag:").is_some());
            let lacking = transport.into_iter().flat_map(str::lines).filter(|line| {
                TRANSPORT
                    .iter()
                    .any(|prefix| line.starts_with(prefix) && !has(section, prefix) && !has(session, prefix))
            });
            lacking.for_each(|line| push(&mut out, line));
            let ufrag = value(section, "a=ice-ufrag:").or_else(|| value(transport?, "a=ice-ufrag:"));
            let gone = sections.iter().enumerate().filter(|(index, _)| !answered.contains(index));
            for (_, gone) in gone.filter(|(_, gone)| value(gone, "a=ice-ufrag:").is_none_or(|it| Some(it) == ufrag)) {
                gone.lines().filter(|line| line.starts_with("a=candidate:")).for_each(|line| push(&mut out, line));
            }
        }
    }
    out
}

/// The answer to the whole offer, from the one to [`reduce`]d.
pub(super) fn restore(answer: &str, offer: &str, answered: &[usize]) -> String {
    let (session, accepted) = split(answer);
    let (offered_session, offered) = split(offer);
    let mut accepted = accepted.into_iter();
    let mut out = String::with_capacity(offer.len() + answer.len());
    // Who offers no bundle gets none (RFC 9143 section 7.3).
    let bundle = has(offered_session, "a=group:BUNDLE");
    let said = session.lines().filter(|line| bundle || !line.starts_with("a=group:BUNDLE"));
    said.for_each(|line| push(&mut out, line));
    for (index, offered) in offered.into_iter().enumerate() {
        if answered.contains(&index) {
            out.push_str(accepted.next().unwrap_or_default());
        } else {
            decline(&mut out, offered);
        }
    }
    complete(&out)
}

/// Declines one section: same kind, protocol and formats, port zero (RFC 3264 section 6).
fn decline(out: &mut String, offered: &str) {
    let mut fields = offered.lines().next().unwrap_or_default().splitn(3, ' ');
    let (kind, _, rest) = (fields.next().unwrap_or_default(), fields.next(), fields.next().unwrap_or_default());
    push(out, &format!("{kind} 0 {rest}"));
    push(out, "c=IN IP4 0.0.0.0");
    push(out, "a=inactive");
    let repeated = offered.lines().filter(|line| REPEATED.iter().any(|prefix| line.starts_with(prefix)));
    repeated.for_each(|line| push(out, line));
}

/// Repeats the transport of the first accepted section in declined ones: nothing is sent there, but some clients want
/// it nevertheless (aiortc, for one, whenever a microphone is offered beside the camera).
fn complete(answer: &str) -> String {
    let (session, sections) = split(answer);
    let accepted = sections.iter().find(|section| !is_declined(section)).copied().unwrap_or_default();
    let lines: Vec<&str> = accepted.lines().chain(session.lines()).collect();
    let transport = TRANSPORT.map(|prefix| (prefix, lines.iter().copied().find(|line| line.starts_with(prefix))));
    let mut out = session.to_owned();
    for section in sections {
        out.push_str(section);
        if is_declined(section) {
            for (prefix, line) in transport {
                if let Some(line) = line.filter(|_| !has(section, prefix)) {
                    push(&mut out, line);
                }
            }
        }
    }
    out
}

/// What is said for the whole session, and each media section from its `m=` line to the next.
fn split(sdp: &str) -> (&str, Vec<&str>) {
    let mut starts: Vec<usize> = sdp.match_indices("\nm=").map(|(at, _)| at + 1).collect();
    starts.push(sdp.len());
    let sections = starts.windows(2).filter_map(|ends| sdp.get(ends[0]..ends[1])).collect();
    (sdp.get(..starts[0]).unwrap_or_default(), sections)
}

fn push(out: &mut String, line: &str) {
    out.push_str(line);
    out.push_str("\r\n");
}

fn has(section: &str, prefix: &str) -> bool {
    section.lines().any(|line| line.starts_with(prefix))
}

fn value<'a>(section: &'a str, prefix: &str) -> Option<&'a str> {
    section.lines().find_map(|line| line.strip_prefix(prefix))
}

/// Port zero declines a section (RFC 3264 section 6).
fn is_declined(section: &str) -> bool {
    section.lines().next().and_then(|line| line.split(' ').nth(1)) == Some("0")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::rtc::offer;

    /// A browser's offer of a microphone, two cameras and data channels, all in one bundle.
    const OFFER: &str = include_str!("testdata/two_videos_offer.sdp");
    /// What the stack answers to the camera and the data channels alone.
    const STACK: &str = include_str!("testdata/two_videos_stack.sdp");
    /// The answer.
    const ANSWER: &str = include_str!("testdata/two_videos_answer.sdp");

    fn crlf(text: &str) -> String {
        text.lines().fold(String::new(), |mut out, line| {
            push(&mut out, line);
            out
        })
    }

    #[test]
    fn all_but_the_first_video_and_the_data_are_declined_at_their_places() {
        let offer = crlf(OFFER);
        let inspected = offer::inspect(&offer, None).unwrap();
        assert_eq!((inspected.mid.as_str(), &inspected.answered[..]), ("1", &[1, 3][..]));
        assert_eq!(restore(&crlf(STACK), &offer, &inspected.answered), crlf(ANSWER));
    }

    #[test]
    fn the_stack_is_offered_what_is_answered_with_the_transport_of_the_bundle() {
        let reduced = reduce(&crlf(OFFER), &[1, 3]);
        let (session, sections) = split(&reduced);
        assert_eq!(value(session, "a=group:"), Some("BUNDLE 1 3"));
        assert_eq!(sections.len(), 2);
        assert!(sections[0].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n"), "{}", sections[0]);
        assert!(sections[1].starts_with("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{}", sections[1]);
        // The tagged section, which is declined, has the candidates.
        assert!(sections[0].contains("a=candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host"), "{}", sections[0]);
        assert_eq!(sections[0].matches("a=ice-ufrag:").count(), 1);
        assert!(!reduced.contains("bundle-only"));
    }

    #[test]
    fn the_transport_may_be_told_in_the_first_section_of_the_bundle_alone() {
        let without = |section: &str| {
            let lines = section.lines().filter(|line| !TRANSPORT[..4].iter().any(|prefix| line.starts_with(prefix)));
            lines.fold(String::new(), |mut out, line| {
                push(&mut out, line);
                out
            })
        };
        let offer = crlf(OFFER);
        let (session, sections) = split(&offer);
        let lean =
            format!("{session}{}{}", sections[0], sections[1..].iter().map(|it| without(it)).collect::<String>());
        let reduced = reduce(&lean, &[1, 3]);
        for prefix in ["a=ice-ufrag:u", "a=ice-pwd:", "a=fingerprint:", "a=setup:actpass"] {
            assert_eq!(reduced.matches(prefix).count(), 1, "{prefix} in {reduced}");
        }
    }

    #[test]
    fn candidates_of_another_transport_are_left_out() {
        let offer = crlf(OFFER).replacen("a=ice-ufrag:ufra", "a=ice-ufrag:else", 1);
        assert!(!reduce(&offer, &[1, 3]).contains("a=candidate:"));
    }

    #[test]
    fn a_single_video_needs_no_bundle() {
        let offer = "v=0\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:u\r\n";
        assert_eq!(reduce(offer, &[0]), "v=0\r\na=group:BUNDLE 0\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:u\r\n");
        let answer = "v=0\r\na=group:BUNDLE 0\r\nm=video 9 X 96\r\na=mid:0\r\n";
        assert_eq!(restore(answer, offer, &[0]), "v=0\r\nm=video 9 X 96\r\na=mid:0\r\n");
    }

    #[test]
    fn a_declined_section_gets_the_transport_of_the_accepted_one() {
        let answer = "v=0\r\na=fingerprint:sha-256 AA\r\nm=audio 0 X 0\r\na=mid:0\r\n\
                      m=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=setup:active\r\na=rtcp-mux\r\n";
        let expected = "v=0\r\na=fingerprint:sha-256 AA\r\nm=audio 0 X 0\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\n\
                        a=fingerprint:sha-256 AA\r\na=setup:active\r\na=rtcp-mux\r\n\
                        m=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=setup:active\r\na=rtcp-mux\r\n";
        assert_eq!(complete(answer), expected);
        assert_eq!(complete(expected), expected);
        assert_eq!(complete("v=0\r\n"), "v=0\r\n");
    }
}
