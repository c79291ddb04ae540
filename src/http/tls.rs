//! TLS of the public listener: certificate and key from files, read again when they change. Connections that are open
//! keep what they began with.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::reload::Reloaded;

/// What connections are secured with.
pub type Tls = Reloaded<ServerConfig>;

/// Certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{key}: {} cannot be read: {error}", path.display())]
    Unreadable {
        /// Key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: std::io::Error,
    },
    /// A file has nothing of what it should have.
    #[error("{key}: {} has no {wanted} in PEM", path.display())]
    Missing {
        /// Key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
    },
    /// They do not go together, or are of no kind that is spoken here.
    #[error("http.tls_cert and http.tls_key cannot be used together: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The certificate chain and private key of these PEM files.
///
/// # Errors
/// [`Error`] says which file is wrong.
pub fn watch(certificate: PathBuf, key: PathBuf) -> Result<Tls, Error> {
    Reloaded::new(vec![certificate.clone(), key.clone()], move || read(&certificate, &key))
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<ServerConfig, Error> {
    let bytes = |name: &'static str, path: &PathBuf| {
        std::fs::read(path).map_err(|error| Error::Unreadable { key: name, path: path.clone(), error })
    };
    let missing = |name, path: &PathBuf, wanted| Error::Missing { key: name, path: path.clone(), wanted };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes("http.tls_cert", certificate)?).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| missing("http.tls_cert", certificate, "certificate"))?;
    let secret = PrivateKeyDer::from_pem_slice(&bytes("http.tls_key", key)?);
    let secret = secret.map_err(|_| missing("http.tls_key", key, "private key"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let mut config =
        builder.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(chain, secret)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let [one, other] = [1, 2].map(|_| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        let (cert, key) = (put("cert", &one.cert.pem()), put("key", &one.signing_key.serialize_pem()));
        assert!(watch(cert.clone(), key.clone()).is_ok());
        let stranger = put("stranger", &other.signing_key.serialize_pem());
        let error = |cert: &PathBuf, key: &PathBuf| watch(cert.clone(), key.clone()).unwrap_err().to_string();
        assert!(error(&cert, &stranger).contains("together"));
        assert!(error(&put("empty", ""), &key).contains("tls_cert"));
        assert!(error(&cert, &cert).contains("tls_key"));
        assert!(error(&cert, &folder.path().join("none")).contains("cannot be read"));
    }
}
