use std::io;

use crate::ice::Access;

/// Why a way does not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The name server knows no address of this family, or does not answer.
    #[error("the name {0} was not found")]
    Name(String),
    /// The name has addresses, none of them of the family that this machine has.
    #[error("{0} has no address of a family that this machine has")]
    Family(String),
    /// The system has no way there.
    #[error("there is no route")]
    NoRoute,
    /// Something there says that nobody listens.
    #[error("refused: nothing listens there")]
    Refused,
    /// A rule of this machine forbids it.
    #[error("this machine's own firewall forbids it")]
    Forbidden,
    /// Silence.
    #[error("no answer in {0} s")]
    Silence(u64),
    /// The certificate is good for nothing here.
    #[error("the certificate {0}")]
    Certificate(String),
    /// TLS failed otherwise.
    #[error("TLS fails: {0}")]
    Tls(String),
    /// A STUN error response.
    #[error("refused with {code}{}", Reason(reason))]
    Denied {
        /// RFC 8489 section 14.8, RFC 8656 section 19.
        code: u16,
        /// The server's words.
        reason: String,
    },
    /// What came is no answer to what was asked.
    #[error("the answer is none of STUN: {0}")]
    Garbled(String),
    /// Anything else.
    #[error("{0}")]
    Io(io::Error),
}

struct Reason<'a>(&'a str);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(out, " ({})", self.0) }
    }
}

impl Failure {
    /// Whether something is configured wrongly, here or there, and no other network would mend it.
    pub(super) const fn is_mistake(&self) -> bool {
        match self {
            Self::Name(_) | Self::Refused | Self::Certificate(_) | Self::Tls(_) | Self::Garbled(_) => true,
            // Full for now, or wrong for now.
            Self::Denied { code, .. } => !matches!(*code, 437 | 438 | 486 | 500 | 508),
            Self::Family(_) | Self::NoRoute | Self::Forbidden | Self::Silence(_) | Self::Io(_) => false,
        }
    }

    /// What an operator can do.
    pub(super) fn advice(&self, protocol: &str, place: &str, access: &Access) -> String {
        match self {
            Self::Name(host) => format!("correct {host} in ice_servers, or make its name known"),
            Self::Family(_) => "give the server an address of that family, or this machine one of its own".to_owned(),
            Self::NoRoute => format!("no interface leads to {place}: bring the network up, or add a route"),
            Self::Refused => format!("start the server, or correct its port: nothing takes {protocol} at {place}"),
            Self::Forbidden => format!("let {protocol} to {place} out in this machine's firewall"),
            Self::Silence(_) => {
                format!("a firewall on the way drops {protocol} to {place}, or the server is down; clients here need another way")
            }
            Self::Certificate(_) => {
                "browsers will refuse it, too: let the server show a certificate for this name, in force and signed by an \
                 authority that they know"
                    .to_owned()
            }
            Self::Tls(_) => format!("see that the server speaks TLS at {place}, and the port is that for TLS"),
            Self::Denied { code, .. } => denied(*code, access),
            Self::Garbled(_) => format!("see that a STUN or TURN server is what answers at {place}"),
            Self::Io(_) => format!("see that {place} can be reached over {protocol}"),
        }
    }
}

fn denied(code: u16, access: &Access) -> String {
    let advice = match (code, access) {
        (401 | 441, Access::Signed { .. }) => {
            "the shared secret is wrong, or the clocks are: secret is what coturn calls static-auth-secret, with \
             use-auth-secret beside it, and both clocks must agree to less than ttl_s"
        }
        (401 | 441, ..) => "username or credential is wrong: correct them in ice_servers",
        (403, ..) => "it does not let this machine in: allow it there",
        (300, ..) => "it sends its clients to another server: name that one in ice_servers",
        (420 | 400, ..) => "it does not understand what browsers ask for: see its version",
        (437, ..) => "it still holds another allocation of this address and port: try again in a minute",
        (438, ..) => {
            "it does not take the nonce that it gave: see that packets of one client reach one server, where there are several"
        }
        (442, ..) => "it relays no UDP: let it",
        (440 | 443, ..) => "it has no relay addresses of this family: give it one",
        (486, ..) => "this user has all the allocations that it may: raise its quota (coturn: user-quota, total-quota)",
        (508, ..) => "it has no relay ports or bandwidth left: raise their range (coturn: min-port, max-port)",
        _ => "see the TURN server's log",
    };
    advice.to_owned()
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            return Self::from(cause);
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => {
                Self::NoRoute
            }
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Io(error),
        }
    }
}

impl From<&rustls::Error> for Failure {
    fn from(error: &rustls::Error) -> Self {
        use rustls::CertificateError as Bad;
        let rustls::Error::InvalidCertificate(bad) = error else { return Self::Tls(error.to_string()) };
        Self::Certificate(match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => "is not in force any more".to_owned(),
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "is not in force yet".to_owned(),
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => "is for another name".to_owned(),
            Bad::UnknownIssuer => "is signed by nobody whom this machine trusts".to_owned(),
            Bad::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                "is an authority's own, which no server may show".to_owned()
            }
            other => format!("cannot be used: {other}"),
        })
    }
}

impl From<rtc::shared::error::Error> for Failure {
    fn from(error: rtc::shared::error::Error) -> Self {
        Self::Garbled(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_say_what_they_mean() {
        let of = |number| Failure::from(io::Error::from_raw_os_error(number)).to_string();
        assert_eq!(of(libc::ECONNREFUSED), "refused: nothing listens there");
        for number in [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EADDRNOTAVAIL] {
            assert_eq!(of(number), "there is no route");
        }
        assert_eq!(of(libc::EPERM), "this machine's own firewall forbids it");
        let other = Failure::from(io::Error::other(rustls::Error::HandshakeNotComplete));
        assert!(matches!(other, Failure::Tls(_)), "{other}");
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(
            matches!(Failure::from(io::Error::other(unknown)), Failure::Certificate(text) if text.contains("trusts"))
        );
    }

    #[test]
    fn a_refusal_of_credentials_names_the_keys_that_they_came_from() {
        let refused = |code| Failure::Denied { code, reason: "Unauthorized".into() };
        let signed = Access::Signed { secret: crate::secret::Secret::new("s".into()), ttl: std::time::Duration::MAX };
        assert_eq!(refused(401).to_string(), "refused with 401 (Unauthorized)");
        assert!(refused(401).advice("TCP", "a:1", &signed).contains("static-auth-secret"));
        assert!(refused(401).advice("TCP", "a:1", &Access::Open).contains("username or credential"));
        assert!(refused(401).is_mistake() && !refused(486).is_mistake());
        assert!(refused(486).advice("TCP", "a:1", &signed).contains("user-quota"));
    }
}
