//! Answers that more clients take: some want the transport's attributes in declined media sections, too, although
//! nothing is sent there (aiortc, for one, whenever a microphone is offered beside the camera).

/// Attributes of the transport, which are the same in every section of a bundle (RFC 9143 section 7.1.3).
const TRANSPORT: [&str; 5] = ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=rtcp-mux"];

/// Repeats the attributes of the first accepted section in declined ones that lack them.
pub(super) fn complete(answer: &str) -> String {
    let start = answer.find("m=").unwrap_or(answer.len());
    let (session, sections) = answer.split_at(start);
    let sections: Vec<&str> = split_sections(sections);
    let accepted = sections.iter().find(|section| !is_declined(section)).copied().unwrap_or_default();
    let find = |prefix: &str| {
        let mut lines = accepted.lines().chain(session.lines());
        lines.find(|line| line.starts_with(prefix))
    };
    let mut out = session.to_owned();
    for section in sections {
        out.push_str(section);
        if is_declined(section) {
            for prefix in TRANSPORT {
                if let Some(line) = find(prefix).filter(|_| !section.lines().any(|line| line.starts_with(prefix))) {
                    out.push_str(line);
                    out.push_str("\r\n");
                }
            }
        }
    }
    out
}

/// Each section from its `m=` line to the next.
fn split_sections(sections: &str) -> Vec<&str> {
    let mut starts: Vec<usize> = sections.match_indices("\nm=").map(|(at, _)| at + 1).collect();
    if !sections.is_empty() {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([sections.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &sections[start..end]).collect()
}

/// Port zero declines a section (RFC 3264 section 6).
fn is_declined(section: &str) -> bool {
    section.lines().next().and_then(|line| line.split(' ').nth(1)) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

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
