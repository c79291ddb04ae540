use std::error::Error;
use std::io;

/// Why a sink did not take messages. Neither addresses nor secrets show in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing answers at its address.
    #[error("nothing answers there; check `url`, and that it runs")]
    Unreachable,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// No secure connection came about.
    #[error("no secure connection came about; check its certificate and `ca_file`")]
    Tls,
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// It does not know the credentials, or they may not do this.
    #[error("it refuses the credentials, or what they may do")]
    Unauthorized,
    /// It answered with another status than 2xx.
    #[error("it answered with status {0}")]
    Status(u16),
    /// It wants no more messages (status 410).
    #[error("it wants no more messages (status 410); restart with another `url`, or without it")]
    Gone,
    /// It took a message and said that it keeps none of its subject.
    #[error("it does not keep messages of this subject; check its streams")]
    NotKept,
    /// It said what its protocol has no place for.
    #[error("it does not speak the protocol")]
    Protocol,
}

impl Failure {
    /// Its stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls_failed",
            Self::Closed => "closed",
            Self::Unauthorized => "unauthorized",
            Self::Status(_) => "status",
            Self::Gone => "gone",
            Self::NotKept => "not_kept",
            Self::Protocol => "protocol",
        }
    }
}

/// Whether an error comes from TLS, however deep it is wrapped: what an I/O error holds is none of its sources, but that
/// one's are.
pub(super) fn is_of_tls(error: &(dyn Error + 'static)) -> bool {
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || held.is_some_and(|held| is_of_tls(held)) || error.source().is_some_and(is_of_tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_tls_are_found_in_others() {
        let tls = || rustls::Error::DecryptError;
        assert!(is_of_tls(&tls()));
        assert!(is_of_tls(&io::Error::other(io::Error::other(tls()))));
        assert!(!is_of_tls(&io::Error::other("something else")));
    }
}
