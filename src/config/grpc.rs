use std::net::SocketAddr;

use super::parse_socket;
use super::reader::{Raw, Reader};

/// `[grpc]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    /// Address and port of the inference protocol over gRPC; none by default: it is not offered. Beyond loopback, others
    /// reach it, so that `[auth]` or `--insecure` is asked for. It has the certificate of `http.tls_cert`, if there is one.
    pub listen: Option<SocketAddr>,
}

impl Grpc {
    /// `anyone`: whether it may be reached from elsewhere.
    pub(super) fn read(from: &mut Reader, anyone: bool) -> Self {
        let legal = "an IP address and a port, such as \"127.0.0.1:8081\", or \"\"";
        let parse = |raw: &Raw| if raw.is_nothing() { Some(None) } else { parse_socket(raw).map(Some) };
        let Some((listen, given)) = from.traced("grpc.listen", legal, false, parse) else {
            return Self { listen: None };
        };
        if listen.is_some_and(|listen| !listen.ip().is_loopback()) && !anyone {
            from.mistake(
                &given,
                "must be a loopback address while there is no authentication: set auth.secret, \
                 auth.secret_file, auth.jwks_file or auth.api_keys, or give --insecure to serve anyone",
            );
        }
        Self { listen }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use crate::config::{Config, File, Sources};

    fn load(listen: &str, insecure: bool) -> Result<Option<String>, String> {
        let mut sources = Sources { file: File::None, insecure, ..Sources::default() };
        sources.flag("grpc.listen", "--set", listen);
        let config = Config::load(&sources).map_err(|mistakes| mistakes.to_string())?;
        Ok(config.grpc.listen.map(|listen| listen.to_string()))
    }

    #[test]
    fn it_listens_where_it_is_told_to_and_on_loopback_alone_without_authentication() {
        assert_eq!(load("", false), Ok(None));
        assert_eq!(load("127.0.0.1:8081", false), Ok(Some("127.0.0.1:8081".to_owned())));
        assert_eq!(load("0.0.0.0:8081", true), Ok(Some("0.0.0.0:8081".to_owned())));
        assert!(load("0.0.0.0:8081", false).unwrap_err().contains("loopback"));
        assert!(load("8081", false).unwrap_err().contains("grpc.listen"));
    }
}
