use std::net::IpAddr;

/// Puts an advertised address in the place of a host candidate's own, for servers behind a 1:1 NAT.
///
/// Each advertised address takes the place of a bound address of its family; loopback addresses stay, since nobody
/// outside can mean them. One candidate becomes as many as there are advertised addresses of its family; it comes back
/// unchanged when there is none.
pub(super) fn candidate(line: &str, advertise: &[IpAddr]) -> Vec<String> {
    let mut fields: Vec<&str> = line.split(' ').collect();
    let bound = fields.get(4).and_then(|address| address.parse::<IpAddr>().ok());
    let (Some(bound), Some(&"host")) = (bound, fields.get(7)) else { return vec![line.to_owned()] };
    if bound.is_loopback() {
        return vec![line.to_owned()];
    }
    let same_family: Vec<String> =
        advertise.iter().filter(|ip| ip.is_ipv4() == bound.is_ipv4()).map(IpAddr::to_string).collect();
    if same_family.is_empty() {
        return vec![line.to_owned()];
    }
    same_family
        .iter()
        .map(|address| {
            fields[4] = address;
            fields.join(" ")
        })
        .collect()
}

/// Applies [`candidate`] to every candidate of a session description, without repeating any.
pub(super) fn description(sdp: &str, advertise: &[IpAddr]) -> String {
    if advertise.is_empty() {
        return sdp.to_owned();
    }
    let mut out = String::with_capacity(sdp.len());
    let mut seen = Vec::new();
    for line in sdp.lines() {
        match line.strip_prefix("a=candidate:") {
            None => {
                if line.starts_with("m=") {
                    seen.clear();
                }
                out.push_str(line);
                out.push_str("\r\n");
            }
            Some(rest) => {
                for rewritten in candidate(&format!("candidate:{rest}"), advertise) {
                    let target = rewritten.split(' ').skip(4).take(2).collect::<Vec<_>>().join(" ");
                    if !seen.contains(&target) {
                        out.push_str("a=");
                        out.push_str(&rewritten);
                        out.push_str("\r\n");
                        seen.push(target);
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "candidate:1 1 udp 2130706431 10.0.0.5 50000 typ host";

    #[test]
    fn the_address_is_replaced_and_all_else_stays() {
        let advertise = ["203.0.113.7".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        assert_eq!(candidate(HOST, &advertise), ["candidate:1 1 udp 2130706431 203.0.113.7 50000 typ host"]);
    }

    #[test]
    fn loopback_other_families_and_other_types_stay() {
        let advertise = ["203.0.113.7".parse().unwrap()];
        for line in [
            "candidate:1 1 udp 2130706431 127.0.0.1 50000 typ host",
            "candidate:1 1 udp 2130706431 fd00::2 50000 typ host",
            "candidate:1 1 udp 1694498815 198.51.100.1 50000 typ srflx raddr 10.0.0.5 rport 50000",
            "nonsense",
        ] {
            assert_eq!(candidate(line, &advertise), [line]);
        }
    }

    #[test]
    fn a_description_keeps_its_other_lines() {
        let sdp = format!("v=0\r\nm=video 9 X 96\r\na={HOST}\r\na={HOST}\r\na=end-of-candidates\r\n");
        let out = description(&sdp, &["203.0.113.7".parse().unwrap()]);
        assert_eq!(
            out,
            "v=0\r\nm=video 9 X 96\r\na=candidate:1 1 udp 2130706431 203.0.113.7 50000 typ host\r\n\
             a=end-of-candidates\r\n"
        );
    }
}
