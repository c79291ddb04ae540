//! Connections to other servers.

use std::sync::Arc;

use ureq::Agent;
use ureq::config::ConfigBuilder;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::typestate::AgentScope;

/// An agent to be: it believes whom the operating system believes, says who it is, and leaves statuses to whoever asks. The proxy
/// is the environment's (`HTTPS_PROXY`, `NO_PROXY`).
pub(super) fn agent() -> ConfigBuilder<AgentScope> {
    // Without any, the first connection says so.
    let certificates = rustls_native_certs::load_native_certs().certs;
    let certificates = certificates.iter().map(|certificate| Certificate::from_der(certificate).to_owned());
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::from(certificates))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .user_agent(concat!("saccade/", env!("CARGO_PKG_VERSION")))
}
