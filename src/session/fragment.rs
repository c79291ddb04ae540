//! Fragments of session descriptions that carry ICE alone (RFC 8840 section 9), as WHIP and WHEP trickle candidates and
//! restart ICE with them. Pure: text in, text out.

use std::fmt;

use saccade_signaling::IceCandidate;

/// Candidates of one fragment at most.
pub const MAX_CANDIDATES: usize = 64;
/// Media sections that a fragment may name: as many as an offer may have.
const MAX_MIDS: usize = 32;
/// Bytes of one candidate at most.
const MAX_CANDIDATE_BYTES: usize = 512;
/// Characters of a user fragment and of a password (RFC 8839 section 5.4).
const UFRAG: std::ops::RangeInclusive<usize> = 4..=256;
const PWD: std::ops::RangeInclusive<usize> = 22..=256;

/// What a fragment says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// Of which ICE session; none says: of the present one.
    pub ufrag: Option<String>,
    /// Its password.
    pub pwd: Option<String>,
    /// Tags of the media sections that it names.
    pub mids: Vec<String>,
    /// Candidates, in their order.
    pub candidates: Vec<IceCandidate>,
    /// Whether no more follow.
    pub ends: bool,
}

/// Why a text is no fragment that can be used. Lines count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It says nothing of ICE.
    #[error("the fragment names neither candidates nor ICE credentials")]
    Empty,
    /// No line of a session description.
    #[error("line {0} of the fragment is no line of a session description")]
    Line(usize),
    /// A candidate that RFC 8839 does not know.
    #[error("line {0} of the fragment is no ICE candidate")]
    Candidate(usize),
    /// A user fragment or a password that RFC 8839 does not know.
    #[error("line {0} of the fragment has no valid ICE credential")]
    Credential(usize),
    /// Too many candidates.
    #[error("the fragment has more than {MAX_CANDIDATES} candidates: send them in several")]
    TooMany,
    /// Credentials that differ from section to section. The only one that is well-formed.
    #[error("the fragment speaks of several transports, and the session has one")]
    SeveralTransports,
}

impl Fragment {
    /// Reads a fragment. Attributes that are not about ICE, and lines of other types, mean nothing here.
    ///
    /// # Errors
    ///
    /// [`Error`] says what is wrong and where.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut fragment = Self::default();
        let mut mid: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let (kind, value) = match line.trim_end().split_once('=') {
                // Neither ends a line here, and neither is a part of one (RFC 8866 section 9, `byte-string`).
                Some((kind, value)) if kind.len() == 1 && !value.contains(['\r', '\0']) => (kind, value),
                None if line.trim().is_empty() => continue,
                _ => return Err(Error::Line(number)),
            };
            if kind == "m" {
                mid = None;
            }
            if kind != "a" {
                continue;
            }
            let (name, value) = value.split_once(':').unwrap_or((value, ""));
            match name {
                "mid" => {
                    mid = Some(value.to_owned());
                    if !fragment.mids.iter().any(|known| known == value) {
                        if fragment.mids.len() == MAX_MIDS {
                            return Err(Error::TooMany);
                        }
                        fragment.mids.push(value.to_owned());
                    }
                }
                "ice-ufrag" => fragment.ufrag = Some(once(fragment.ufrag.take(), value, &UFRAG, number)?),
                "ice-pwd" => fragment.pwd = Some(once(fragment.pwd.take(), value, &PWD, number)?),
                "candidate" if !is_candidate(value) => return Err(Error::Candidate(number)),
                "candidate" if fragment.candidates.len() == MAX_CANDIDATES => return Err(Error::TooMany),
                "candidate" => fragment.candidates.push(IceCandidate {
                    candidate: format!("candidate:{value}"),
                    sdp_mid: mid.clone(),
                    sdp_m_line_index: None,
                    username_fragment: extension(value, "ufrag").map(str::to_owned),
                }),
                "end-of-candidates" => fragment.ends = true,
                _ => {}
            }
        }
        let says = fragment.ends || fragment.ufrag.is_some() || !fragment.candidates.is_empty();
        if says { Ok(fragment) } else { Err(Error::Empty) }
    }

    /// The candidates of the ICE session that the fragment speaks of, `ufrag` unless it says otherwise. Those that name
    /// another one themselves are late, and left out.
    pub fn into_candidates(self, ufrag: &str) -> impl Iterator<Item = IceCandidate> {
        let of = self.ufrag.unwrap_or_else(|| ufrag.to_owned());
        self.candidates
            .into_iter()
            .filter(move |candidate| candidate.username_fragment.as_ref().is_none_or(|named| *named == of))
    }
}

/// ICE credentials of a session description.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// User fragment.
    pub ufrag: &'a str,
    /// Password.
    pub pwd: &'a str,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

impl<'a> Credentials<'a> {
    /// The first that a description names: a bundle has one transport.
    #[must_use]
    pub fn of(description: &'a str) -> Option<Self> {
        Some(Self { ufrag: attribute(description, "a=ice-ufrag:")?, pwd: attribute(description, "a=ice-pwd:")? })
    }

    /// The same offer with these credentials in place of its own, and without candidates: a restart of ICE.
    #[must_use]
    pub fn restart(&self, offer: &str) -> String {
        let mut out = String::with_capacity(offer.len() + self.ufrag.len() + self.pwd.len());
        for line in offer.lines() {
            match line.split(':').next().unwrap_or_default() {
                "a=ice-ufrag" => push(&mut out, &["a=ice-ufrag:", self.ufrag]),
                "a=ice-pwd" => push(&mut out, &["a=ice-pwd:", self.pwd]),
                "a=candidate" | "a=end-of-candidates" => {}
                _ => push(&mut out, &[line]),
            }
        }
        out
    }
}

/// The tags of a description's media sections.
pub fn mids(description: &str) -> impl Iterator<Item = &str> {
    description.lines().filter_map(|line| line.strip_prefix("a=mid:"))
}

/// The fragment that tells of a description's ICE: what its session says of it, and its first section with a transport.
#[must_use]
pub fn describe(description: &str) -> String {
    const OF_SESSION: [&str; 3] = ["a=ice-lite", "a=ice-options:", "a=group:BUNDLE"];
    const OF_SECTION: [&str; 6] =
        ["a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=ice-options:", "a=candidate:", "a=end-of-candidates"];
    let has = |line: &str, known: &[&str]| known.iter().any(|prefix| line.starts_with(prefix));
    let mut out = String::new();
    let mut sections = description.split_inclusive('\n').peekable();
    while let Some(line) = sections.next_if(|line| !line.starts_with("m=")) {
        // Credentials that stand here are those of every section.
        if has(line, &OF_SESSION) || has(line, &OF_SECTION[1..3]) {
            push(&mut out, &[line.trim_end()]);
        }
    }
    let mut section = Vec::new();
    while let Some(first) = sections.next() {
        section.clear();
        section.push(first);
        while let Some(line) = sections.next_if(|line| !line.starts_with("m=")) {
            section.push(line);
        }
        let declined = first.split(' ').nth(1) == Some("0");
        if !declined {
            break;
        }
    }
    for line in section.iter().filter(|line| line.starts_with("m=") || has(line, &OF_SECTION)) {
        push(&mut out, &[line.trim_end()]);
    }
    out
}

fn push(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push_str("\r\n");
}

fn attribute<'a>(description: &'a str, prefix: &str) -> Option<&'a str> {
    description.lines().find_map(|line| line.strip_prefix(prefix)).map(str::trim_end)
}

/// A credential that is the same in every section that names it.
fn once(
    before: Option<String>,
    value: &str,
    length: &std::ops::RangeInclusive<usize>,
    line: usize,
) -> Result<String, Error> {
    if !length.contains(&value.len()) || !value.chars().all(is_ice_char) {
        return Err(Error::Credential(line));
    }
    if before.is_some_and(|before| before != value) {
        return Err(Error::SeveralTransports);
    }
    Ok(value.to_owned())
}

/// Whether the value of a candidate attribute has all that RFC 8839 section 5.1 wants of it.
fn is_candidate(value: &str) -> bool {
    let mut words = value.split(' ');
    let mut word = || words.next().filter(|word| !word.is_empty());
    let (Some(foundation), Some(component), Some(_transport), Some(priority)) = (word(), word(), word(), word()) else {
        return false;
    };
    let (Some(_address), Some(port), Some("typ"), Some(_kind)) = (word(), word(), word(), word()) else { return false };
    value.len() <= MAX_CANDIDATE_BYTES
        && foundation.len() <= 32
        && foundation.chars().all(is_ice_char)
        && component.parse::<u8>().is_ok_and(|component| component > 0)
        && priority.parse::<u32>().is_ok()
        && port.parse::<u16>().is_ok()
}

fn extension<'a>(candidate: &'a str, name: &str) -> Option<&'a str> {
    let mut words = candidate.split(' ').skip(8);
    loop {
        let (key, value) = (words.next()?, words.next()?);
        if key == name {
            return Some(value);
        }
    }
}

const fn is_ice_char(one: char) -> bool {
    one.is_ascii_alphanumeric() || one == '+' || one == '/'
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw";
    const CREDENTIALS: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";

    #[test]
    fn a_fragment_names_candidates_of_one_ice_session() {
        let text = format!(
            "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{CREDENTIALS}{HOST}\r\n\
             a=candidate:2 1 udp 1 192.0.2.9 9 typ srflx raddr 0.0.0.0 rport 0 ufrag olde\r\na=end-of-candidates\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n{CREDENTIALS}"
        );
        let fragment = Fragment::parse(&text).unwrap();
        assert_eq!((fragment.ufrag.as_deref(), fragment.ends), (Some("EsAw"), true));
        assert_eq!(fragment.pwd.as_deref(), Some("P2uYro0UCOQ4zxjKXaWCBui1"));
        assert_eq!(fragment.mids, ["0", "1"]);
        assert_eq!(fragment.candidates.len(), 2);
        // One of an ICE session that is over comes late.
        let current: Vec<_> = fragment.into_candidates("else").collect();
        let expected = IceCandidate {
            candidate: HOST[2..].to_owned(),
            sdp_mid: Some("0".to_owned()),
            sdp_m_line_index: None,
            username_fragment: Some("EsAw".to_owned()),
        };
        assert_eq!(current, [expected]);
    }

    #[test]
    fn the_shortest_fragments_are_one_line() {
        let bare = Fragment::parse("a=candidate:1 1 UDP 1 192.0.2.1 9 typ host").unwrap();
        assert_eq!(bare.candidates[0].sdp_mid, None);
        assert!(Fragment::parse("a=end-of-candidates\n").unwrap().ends);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let cases = [
            ("", Error::Empty),
            ("a=group:BUNDLE 0\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n", Error::Empty),
            ("hello", Error::Line(1)),
            ("a=mid:0\r\naa=1", Error::Line(2)),
            ("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\ra=mid:1", Error::Line(1)),
            ("a=candidate:", Error::Candidate(1)),
            ("a=candidate:1 1 udp x 192.0.2.1 9 typ host", Error::Candidate(1)),
            ("a=candidate:1 1 udp 1 192.0.2.1 65536 typ host", Error::Candidate(1)),
            ("a=candidate:1 0 udp 1 192.0.2.1 9 typ host", Error::Candidate(1)),
            ("a=candidate:1 1 udp 1 192.0.2.1 9 host", Error::Candidate(1)),
            ("a=ice-ufrag:abc", Error::Credential(1)),
            ("a=ice-ufrag:ab cd", Error::Credential(1)),
            ("a=ice-ufrag:abcd\na=ice-pwd:short", Error::Credential(2)),
            ("a=ice-ufrag:abcd\na=ice-ufrag:abce", Error::SeveralTransports),
        ];
        for (text, expected) in cases {
            assert_eq!(Fragment::parse(text), Err(expected), "{text}");
        }
        assert_eq!(Fragment::parse(&format!("{HOST}\r\n").repeat(MAX_CANDIDATES + 1)), Err(Error::TooMany));
        let long = format!("a=candidate:1 1 udp 1 192.0.2.1 9 typ host {}", "x".repeat(MAX_CANDIDATE_BYTES));
        assert_eq!(Fragment::parse(&long), Err(Error::Candidate(1)));
    }

    #[test]
    fn an_offer_with_other_credentials_restarts_ice() {
        let offer = "v=0\r\na=ice-options:trickle\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
                     a=ice-pwd:0123456789012345678901\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                     a=end-of-candidates\r\na=rtcp-mux\r\n";
        assert_eq!(Credentials::of(offer).unwrap(), Credentials { ufrag: "abcd", pwd: "0123456789012345678901" });
        let next = Credentials { ufrag: "efgh", pwd: "abcdefghijklmnopqrstuv" };
        let restarted = next.restart(offer);
        assert_eq!(
            restarted,
            "v=0\r\na=ice-options:trickle\r\nm=video 9 X 96\r\na=mid:0\r\na=ice-ufrag:efgh\r\n\
             a=ice-pwd:abcdefghijklmnopqrstuv\r\na=rtcp-mux\r\n"
        );
        assert_eq!(Credentials::of("v=0\r\n"), None);
        assert_eq!(mids(offer).collect::<Vec<_>>(), ["0"]);
    }

    #[test]
    fn an_answer_is_told_as_the_fragment_of_its_first_live_section() {
        let answer = "v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\na=ice-lite\r\na=group:BUNDLE 1 2\r\nm=audio 0 X 0\r\na=mid:0\r\n\
                      m=video 9 X 96\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=ice-ufrag:EsAw\r\n\
                      a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=rtcp-mux\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
                      a=end-of-candidates\r\nm=application 9 Y z\r\na=mid:2\r\n";
        let told = describe(answer);
        assert_eq!(
            told,
            "a=ice-lite\r\na=group:BUNDLE 1 2\r\nm=video 9 X 96\r\na=mid:1\r\na=ice-ufrag:EsAw\r\n\
             a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n"
        );
        let read = Fragment::parse(&told).unwrap();
        assert_eq!((read.ufrag.as_deref(), read.candidates.len(), read.ends), (Some("EsAw"), 1, true));
    }

    proptest! {
        /// Whatever the text: an answer, bounded, and what was taken is told again as it is.
        #[test]
        fn every_text_is_read_or_refused(lines in prop::collection::vec(any_line(), 0..100), end in "\r?\n") {
            let text = lines.join(&end);
            if let Ok(fragment) = Fragment::parse(&text) {
                prop_assert!(fragment.candidates.len() <= MAX_CANDIDATES);
                prop_assert!(fragment.candidates.iter().all(|it| text.contains(&it.candidate)));
            }
            let _ = (describe(&text), Credentials::of(&text), mids(&text).count());
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (Fragment::parse(&text), describe(&text), Credentials::of(&text));
        }
    }

    fn any_line() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(HOST.to_owned()),
            Just("a=end-of-candidates".to_owned()),
            "m=(video|audio) (0|9) X 96",
            "a=mid:[0-9]{0,2}",
            "a=ice-ufrag:[a-zA-Z+/ ]{0,8}",
            "a=ice-pwd:[a-z]{20,26}",
            "a=candidate:[0-9]{1,3} [0-3] (udp|tcp) [0-9]{1,11} [a-z0-9.:]{1,12} [0-9]{1,6} typ (host|relay)( ufrag)?( [a-z]{4})?",
            "[a-z]{0,2}=?.{0,40}",
        ]
    }
}
