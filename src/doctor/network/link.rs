use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio_rustls::TlsConnector;

use super::failure::Failure;

/// Largest message that is taken: more than any answer of STUN.
const MAX_MESSAGE: usize = 2048;
/// The header of a STUN message (RFC 8489 section 5).
const HEADER: usize = 20;

/// How messages travel to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
    /// A secured connection.
    Tls,
}

impl Way {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }
}

/// A way to one server that is open.
pub(super) enum Link {
    /// A socket that hears that server only.
    Datagrams(UdpSocket),
    /// STUN messages one after the other (RFC 8489 section 6.2.2), and what has come of the next.
    Stream(Box<dyn Stream>, BytesMut),
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Link {
    /// Opens a way from `local`, or from where the system's routes begin. `host` is whom the certificate has to be for.
    pub(super) async fn open(way: Way, server: SocketAddr, local: Option<IpAddr>, host: &str) -> Result<Self, Failure> {
        let any = || if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = SocketAddr::new(local.unwrap_or_else(any), 0);
        if way == Way::Udp {
            let socket = UdpSocket::bind(from).await?;
            socket.connect(server).await?;
            return Ok(Self::Datagrams(socket));
        }
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(from)?;
        let stream = socket.connect(server).await?;
        if way == Way::Tcp {
            return Ok(Self::stream(stream));
        }
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned());
        let name = name.map_err(|_| Failure::Certificate(format!("can be for no such name as {host}")))?;
        Ok(Self::stream(TlsConnector::from(trusting_the_system()?).connect(name, stream).await?))
    }

    fn stream(stream: impl Stream + 'static) -> Self {
        Self::Stream(Box::new(stream), BytesMut::new())
    }

    /// Whether what is sent may be lost.
    pub(super) const fn loses(&self) -> bool {
        matches!(self, Self::Datagrams(_))
    }

    pub(super) async fn send(&mut self, message: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Datagrams(socket) => socket.send(message).await.map(drop)?,
            Self::Stream(stream, _) => {
                stream.write_all(message).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }

    /// The next message. May be given up at any time: nothing of it is lost.
    pub(super) async fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Datagrams(socket) => {
                let mut message = vec![0; MAX_MESSAGE];
                let len = socket.recv(&mut message).await?;
                message.truncate(len);
                Ok(message)
            }
            Self::Stream(stream, come) => loop {
                if let Some(len) = length(come)? {
                    return Ok(come.split_to(len).to_vec());
                }
                if stream.read_buf(come).await? == 0 {
                    return Err(Failure::Garbled("the server ended the connection".to_owned()));
                }
            },
        }
    }
}

/// Of the message that these bytes begin with, if all of it has come.
fn length(come: &[u8]) -> Result<Option<usize>, Failure> {
    let Some(header) = come.first_chunk::<HEADER>() else { return Ok(None) };
    let len = HEADER + usize::from(u16::from_be_bytes([header[2], header[3]]));
    // The first two bits are zero in all that is asked for (RFC 8489 section 5).
    if header[0] >= 0x40 || len > MAX_MESSAGE {
        return Err(Failure::Garbled("something else came".to_owned()));
    }
    Ok((come.len() >= len).then_some(len))
}

/// Certificates count as they do for every program of the operating system.
fn trusting_the_system() -> Result<Arc<ClientConfig>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| Failure::Tls(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_are_cut_out_of_a_stream_wherever_it_breaks() {
        let (mut far, near) = tokio::io::duplex(64);
        let mut link = Link::stream(near);
        let message: Vec<u8> = [&[1, 1, 0, 4][..], &[7; 20]].concat();
        far.write_all(&message[..10]).await.unwrap();
        let wait = std::time::Duration::from_millis(1);
        assert!(tokio::time::timeout(wait, link.receive()).await.is_err(), "half a message is none");
        far.write_all(&[&message[10..], &message[..]].concat()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(link.receive().await.unwrap(), message);
        }
        far.write_all(b"HTTP/1.1 400 Bad Request\r\n").await.unwrap();
        assert!(matches!(link.receive().await, Err(Failure::Garbled(_))));
    }
}
