//! Sinks over TLS: those whose certificate the file names are trusted, and no others.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use saccade::secret::Secret;
use saccade::sinks::{Config, Nats, Running, Sinks, State, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::broker::{self, Broker};
use super::delivery::{event, mqtt, nats, soon, target, until, webhook};

/// A certificate for this machine and its key, in files.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    fn new(folder: &Path, name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let made = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let files = [format!("{name}.pem"), format!("{name}.key")].map(|file| folder.join(file));
        let [certificate, key_file] = files;
        std::fs::write(&certificate, made.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        // The broker may run as somebody else.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&key_file, all).unwrap();
        Self { certificate, key: key_file }
    }
}

fn start(way: Way, trusted: &Certificate) -> (Arc<Sinks>, Running) {
    let ca_file = Some(trusted.certificate.clone());
    Sinks::start(vec![Config { target: target(), ca_file, way }]).unwrap()
}

/// Delivers where the certificate is trusted, and nothing where another one is.
async fn only_whom_the_file_names(way: impl Fn() -> Way, right: &Certificate, wrong: &Certificate) {
    let (sinks, running) = start(way(), right);
    sinks.publish(&event(0));
    until(&sinks, |status| status.delivered == 1).await;
    running.close(soon()).await;
    let (sinks, running) = start(way(), wrong);
    sinks.publish(&event(1));
    let status = until(&sinks, |status| status.failure.is_some()).await;
    assert_eq!((status.failure.unwrap().0.code(), status.state, status.delivered), ("tls_failed", State::Waiting, 0));
    running.close(soon()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_go_to_whom_they_trust() {
    let folder = tempfile::tempdir().unwrap();
    let [right, wrong] = ["right", "wrong"].map(|name| Certificate::new(folder.path(), name));
    let chain = vec![CertificateDer::from_pem_file(&right.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&right.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            // The body is an object, and nothing before it ends with its brace.
            while !request.ends_with(b"}") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await.ok();
            stream.shutdown().await.ok();
        }
    });
    only_whom_the_file_names(|| Way::Webhook(webhook(&url)), &right, &wrong).await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_get_what_is_for_them_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let [right, wrong] = ["right", "wrong"].map(|name| Certificate::new(folder.path(), name));
    let (certificate, key) = (right.certificate.display(), right.key.display());
    let files = format!("certfile {certificate}\nkeyfile {key}\nallow_anonymous true");
    let Some(broker) = Broker::start(broker::Kind::Mosquitto, &files).await else { return };
    let url = format!("mqtts://{}", broker.address()).parse().unwrap();
    let secured = || Way::Mqtt(saccade::sinks::Mqtt { url: Clone::clone(&url), ..mqtt(&broker) });
    only_whom_the_file_names(secured, &right, &wrong).await;

    let files = format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\" }}");
    let Some(broker) = Broker::start(broker::Kind::Nats, &files).await else { return };
    let url = format!("tls://{}", broker.address());
    let secured = || Way::Nats(Nats { url: Secret::new(url.clone()), ..nats(&broker) });
    only_whom_the_file_names(secured, &right, &wrong).await;
}
