//! Media sections that carry nothing: declined ones (RFC 9429 section 5.3.1), and audio, which is idle. The stack knows
//! nothing of them: it would take a second video section for one more of its own codec, and leave out sections of a
//! kind that it does not know. It is given an offer of the answered sections alone, and the others go back to their
//! places in its answer.

use super::offer::Sections;

/// Attributes of the transport, which are the same in every section of a bundle (RFC 9143 section 7.1.3).
const TRANSPORT: [&str; 5] = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=rtcp-mux"];
/// What a declined section repeats of the offered one, beside its first line: its tag, and what its formats mean.
const REPEATED: [&str; 4] = ["a=mid:", "a=rtpmap:", "a=fmtp:", "a=sctp-port:"];

/// An offer of the answered sections alone. What the first section of a bundle says for all, its transport and its
/// candidates, stays, even if that section goes.
pub(super) fn reduce(offer: &str, Sections { answered, idle }: &Sections) -> String {
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
    // The bundle's transport is that of its first section that is not declined (RFC 9143 section 7.3.2).
    let first = answered.iter().chain(idle).min().and_then(|index| sections.get(*index).copied());
    let first = first.filter(|section| value(section, "a=ice-ufrag:").is_some());
    let transport = first.or_else(|| sections.iter().copied().find(|it| value(it, "a=ice-ufrag:").is_some()));
    let ufrag = transport.and_then(|section| value(section, "a=ice-ufrag:"));
    let of_transport = |section: &str| value(section, "a=ice-ufrag:").is_none_or(|it| Some(it) == ufrag);
    for (position, section) in kept.iter().enumerate() {
        let bundle_only = section.lines().any(|line| line == "a=bundle-only");
        let foreign = !of_transport(section);
        for (number, line) in section.lines().enumerate() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                // Used, after all; the section that it was bundled with may be gone.
                [kind, port, ref rest @ ..] if number == 0 && bundle_only && is_zero(port) => {
                    push(&mut out, &format!("{kind} 9 {}", rest.join(" ")));
                }
                _ if line == "a=bundle-only" => {}
                _ if foreign && is_of_one_transport(line) => {}
                _ => push(&mut out, line),
            }
        }
        if position == 0 {
            let lacking = transport.into_iter().flat_map(str::lines).filter(|line| {
                TRANSPORT.iter().any(|prefix| {
                    let told = has(section, prefix) && !(foreign && is_of_one_transport(prefix));
                    line.starts_with(prefix) && !told && !has(session, prefix)
                })
            });
            lacking.for_each(|line| push(&mut out, line));
            let gone = sections.iter().enumerate().filter(|(index, _)| !answered.contains(index));
            for (_, gone) in gone.filter(|(_, gone)| of_transport(gone)) {
                gone.lines().filter(|line| line.starts_with("a=candidate:")).for_each(|line| push(&mut out, line));
            }
        }
    }
    out
}

/// Whether a media section's port, with or without a number of ports, is zero.
fn is_zero(port: &str) -> bool {
    port.split('/').next().is_some_and(|port| port.parse() == Ok(0u32))
}

/// Whether the line tells of the transport that the section would have without its bundle.
fn is_of_one_transport(line: &str) -> bool {
    ["a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"].iter().any(|prefix| line.starts_with(prefix))
}

/// The answer to the whole offer, from the one to [`reduce`]d.
pub(super) fn restore(answer: &str, offer: &str, Sections { answered, idle }: &Sections) -> String {
    let (session, accepted) = split(answer);
    let (offered_session, offered) = split(offer);
    let mut accepted = accepted.into_iter();
    let mut out = String::with_capacity(offer.len() + answer.len());
    // Who offers no bundle gets none (RFC 9143 section 7.3).
    let bundle = has(offered_session, "a=group:BUNDLE");
    for line in session.lines() {
        if !line.starts_with("a=group:BUNDLE") {
            push(&mut out, line);
        } else if bundle {
            let taken =
                offered.iter().enumerate().filter(|(index, _)| answered.contains(index) || idle.contains(index));
            let mids: Vec<&str> = taken.filter_map(|(_, section)| value(section, "a=mid:")).collect();
            push(&mut out, &format!("a=group:BUNDLE {}", mids.join(" ")));
        }
    }
    for (index, offered) in offered.into_iter().enumerate() {
        if answered.contains(&index) {
            out.push_str(accepted.next().unwrap_or_default());
        } else {
            without_media(&mut out, offered, if idle.contains(&index) { "9" } else { "0" });
        }
    }
    complete(&out)
}

/// Answers one section without media: same kind, protocol and formats, and port zero to decline it (RFC 3264 section 6).
fn without_media(out: &mut String, offered: &str, port: &str) {
    let mut fields = offered.lines().next().unwrap_or_default().splitn(3, ' ');
    let (kind, _, rest) = (fields.next().unwrap_or_default(), fields.next(), fields.next().unwrap_or_default());
    push(out, &format!("{kind} {port} {rest}"));
    push(out, "c=IN IP4 0.0.0.0");
    push(out, "a=inactive");
    let repeated = offered.lines().filter(|line| REPEATED.iter().any(|prefix| line.starts_with(prefix)));
    repeated.for_each(|line| push(out, line));
}

/// Repeats the transport of the first accepted section in those without media, and in the first of a bundle also its
/// candidates. Declined ones need none, but some clients want it nevertheless.
fn complete(answer: &str) -> String {
    let (session, sections) = split(answer);
    let accepted = sections.iter().find(|section| has(section, "a=ice-ufrag:")).copied().unwrap_or_default();
    let lines: Vec<&str> = accepted.lines().chain(session.lines()).collect();
    let transport = TRANSPORT.map(|prefix| (prefix, lines.iter().copied().find(|line| line.starts_with(prefix))));
    let mut out = session.to_owned();
    let mut first = true;
    for section in sections {
        out.push_str(section);
        for (prefix, line) in transport.iter().filter(|_| !has(section, "a=ice-ufrag:")) {
            if let Some(line) = line.filter(|_| !has(section, prefix)) {
                push(&mut out, line);
            }
        }
        if !is_declined(section) && std::mem::take(&mut first) && !has(section, "a=ice-ufrag:") {
            let candidates = |line: &&str| line.starts_with("a=candidate:") || *line == "a=end-of-candidates";
            accepted.lines().filter(candidates).for_each(|line| push(&mut out, line));
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

    fn sections(answered: &[usize], idle: &[usize]) -> Sections {
        Sections { answered: answered.to_vec(), idle: idle.to_vec() }
    }

    #[test]
    fn audio_is_idle_and_a_second_video_is_declined_at_its_place() {
        let offer = crlf(OFFER);
        let inspected = offer::inspect(&offer, crate::rtc::Role::Publisher, None).unwrap();
        assert_eq!((inspected.mid.as_str(), &inspected.sections), ("1", &sections(&[1, 3], &[0])));
        assert_eq!(restore(&crlf(STACK), &offer, &inspected.sections), crlf(ANSWER));
    }

    #[test]
    fn the_stack_is_offered_what_is_answered_with_the_transport_of_the_bundle() {
        let reduced = reduce(&crlf(OFFER), &sections(&[1, 3], &[0]));
        let (session, kept) = split(&reduced);
        assert_eq!(value(session, "a=group:"), Some("BUNDLE 1 3"));
        assert_eq!(kept.len(), 2);
        assert!(kept[0].starts_with("m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n"), "{}", kept[0]);
        assert!(kept[1].starts_with("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{}", kept[1]);
        // The tagged section, which is idle, has the candidates.
        assert!(kept[0].contains("a=candidate:1 1 udp 2122260223 192.0.2.7 50000 typ host"), "{}", kept[0]);
        assert_eq!(kept[0].matches("a=ice-ufrag:").count(), 1);
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
        let (session, all) = split(&offer);
        let lean = format!("{session}{}{}", all[0], all[1..].iter().map(|it| without(it)).collect::<String>());
        let reduced = reduce(&lean, &sections(&[1, 3], &[0]));
        for prefix in ["a=ice-ufrag:u", "a=ice-pwd:", "a=fingerprint:", "a=setup:actpass"] {
            assert_eq!(reduced.matches(prefix).count(), 1, "{prefix} in {reduced}");
        }
    }

    #[test]
    fn candidates_of_another_transport_are_left_out() {
        let offer = crlf(OFFER).replacen("a=ice-ufrag:ufra", "a=ice-ufrag:else", 1);
        let declined = reduce(&offer, &sections(&[1, 3], &[]));
        assert!(declined.contains("a=ice-ufrag:ufra") && !declined.contains("a=candidate:"), "{declined}");
    }

    #[test]
    fn the_transport_is_that_of_the_idle_section_where_it_is_the_first() {
        let offer = crlf(OFFER).replacen("a=ice-ufrag:ufra", "a=ice-ufrag:else", 1);
        let reduced = reduce(&offer, &sections(&[1, 3], &[0]));
        assert_eq!((reduced.matches("a=ice-ufrag:else").count(), reduced.matches("a=ice-ufrag:").count()), (1, 1));
        assert_eq!((reduced.matches("a=ice-pwd:").count(), reduced.matches("a=candidate:").count()), (1, 1));
    }

    #[test]
    fn the_first_section_of_the_bundle_has_the_candidates() {
        let offer = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 X 0\r\na=mid:0\r\nm=video 9 X 96\r\na=mid:1\r\n";
        let stack = "v=0\r\na=group:BUNDLE 1\r\nm=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:u\r\na=candidate:1 x\r\n\
                     a=end-of-candidates\r\n";
        let expected = "v=0\r\na=group:BUNDLE 0 1\r\nm=audio 9 X 0\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:0\r\n\
                        a=ice-ufrag:u\r\na=candidate:1 x\r\na=end-of-candidates\r\nm=video 9 X 96\r\na=mid:1\r\n\
                        a=ice-ufrag:u\r\na=candidate:1 x\r\na=end-of-candidates\r\n";
        assert_eq!(restore(stack, offer, &sections(&[1], &[0])), expected);
    }

    #[test]
    fn a_single_video_needs_no_bundle() {
        let offer = "v=0\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:u\r\n";
        assert_eq!(
            reduce(offer, &sections(&[0], &[])),
            "v=0\r\na=group:BUNDLE 0\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:u\r\n"
        );
        let answer = "v=0\r\na=group:BUNDLE 0\r\nm=video 9 X 96\r\na=mid:0\r\n";
        assert_eq!(restore(answer, offer, &sections(&[0], &[])), "v=0\r\nm=video 9 X 96\r\na=mid:0\r\n");
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
