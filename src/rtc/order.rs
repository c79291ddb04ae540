//! The order of candidates in an answer. It means nothing to ICE (RFC 8839 section 5.1), but FFmpeg's WHIP muxer takes the
//! first host candidate for the only one, and gives up if that is not UDP.

/// The same description with the candidates of each section in this order: UDP ahead of TCP, and those that only this
/// machine reaches behind the others.
pub(super) fn most_reachable_first(description: &str) -> String {
    let mut out = String::with_capacity(description.len());
    let mut candidates = Vec::new();
    for line in description.split_inclusive('\n') {
        if line.starts_with("a=candidate:") {
            candidates.push(line);
            continue;
        }
        flush(&mut candidates, &mut out);
        out.push_str(line);
    }
    flush(&mut candidates, &mut out);
    out
}

fn flush(candidates: &mut Vec<&str>, out: &mut String) {
    candidates.sort_by_key(|line| rank(line));
    candidates.drain(..).for_each(|line| out.push_str(line));
}

fn rank(candidate: &str) -> (bool, bool) {
    let word = |index| candidate.split(' ').nth(index).unwrap_or_default();
    let is_loopback = word(4).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    (!word(2).eq_ignore_ascii_case("udp"), is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_tcp_come_last() {
        let candidate = |number: u8, transport: &str, address: &str| {
            format!("a=candidate:{number} 1 {transport} 2130706431 {address} 8189 typ host\r\n")
        };
        let [a, b, c, d, e] = [
            candidate(1, "tcp", "192.0.2.1"),
            candidate(2, "udp", "127.0.0.1"),
            candidate(3, "udp", "::1"),
            candidate(4, "UDP", "192.0.2.1"),
            candidate(5, "udp", "2001:db8::1"),
        ];
        let whole = |candidates: &[&str]| {
            let candidates = candidates.concat();
            format!("v=0\r\nm=video 9 X 96\r\na=mid:0\r\n{candidates}a=end-of-candidates\r\nm=audio 9 Y 0\r\n{b}")
        };
        assert_eq!(most_reachable_first(&whole(&[&a, &b, &c, &d, &e])), whole(&[&d, &e, &b, &c, &a]));
    }
}
