//! Stands where the server's media port will be, and answers to checks of this run as the server does to its peers'.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rtc::stun::message::TransactionId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failure::Failure;
use super::turn;

/// Largest datagram that is looked at.
const MAX_DATAGRAM: usize = 1500;
/// How long a connection may take to bring its check.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections that are served at a time; further ones wait for an end of these.
const MAX_CONNECTIONS: usize = 16;
/// Bytes of a transaction that are the same for all checks of a run.
const MARK: usize = 8;

/// The sockets of the media port, for as long as it is there.
pub(super) struct StandIn {
    mark: TransactionId,
    /// Where it took its place for UDP, or why it has none.
    pub(super) udp: io::Result<SocketAddr>,
    /// The same for TCP.
    pub(super) tcp: io::Result<SocketAddr>,
    _tasks: JoinSet<()>,
}

impl StandIn {
    /// Takes the place of the media port, if it is free.
    pub(super) async fn new(media: SocketAddr) -> Self {
        let mark = TransactionId::new();
        let mut tasks = JoinSet::new();
        let udp = UdpSocket::bind(media).await.and_then(|socket| {
            let address = socket.local_addr()?;
            tasks.spawn(datagrams(Arc::new(socket), mark));
            Ok(address)
        });
        // Any free port is one, for both.
        let media = udp.as_ref().map_or(media, |udp| *udp);
        let tcp = TcpListener::bind(media).await.and_then(|listener| {
            let address = listener.local_addr()?;
            tasks.spawn(connections(listener, mark));
            Ok(address)
        });
        Self { mark, udp, tcp, _tasks: tasks }
    }

    /// A transaction that it answers.
    pub(super) fn transaction(&self) -> TransactionId {
        let mut transaction = TransactionId::new();
        transaction.0[..MARK].copy_from_slice(&self.mark.0[..MARK]);
        transaction
    }

    /// Whether a check from `address` to the media port there is answered over UDP.
    ///
    /// # Errors
    /// Why not. The caller bounds the wait.
    pub(super) async fn check_udp(&self, address: IpAddr, port: u16) -> Result<(), Failure> {
        let transaction = self.transaction();
        let socket = UdpSocket::bind((address, 0)).await?;
        socket.connect((address, port)).await?;
        socket.send(&turn::check(transaction)?).await?;
        let mut answer = [0; MAX_DATAGRAM];
        let len = socket.recv(&mut answer).await?;
        expected(turn::is_answer(&answer[..len], transaction))
    }

    /// The same over TCP (RFC 4571 section 2).
    ///
    /// # Errors
    /// As for [`check_udp`](Self::check_udp).
    pub(super) async fn check_tcp(&self, address: IpAddr, port: u16) -> Result<(), Failure> {
        let transaction = self.transaction();
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind((address, 0).into())?;
        let mut stream = socket.connect((address, port).into()).await?;
        send_framed(&mut stream, &turn::check(transaction)?).await?;
        let answer = receive_framed(&mut stream).await?;
        expected(turn::is_answer(&answer, transaction))
    }
}

fn expected(is_answer: bool) -> Result<(), Failure> {
    if is_answer { Ok(()) } else { Err(Failure::Garbled("another program answered".to_owned())) }
}

/// The answer to a check of this run.
fn answer(datagram: &[u8], from: SocketAddr, mark: TransactionId) -> Option<Vec<u8>> {
    let (transaction, answer) = turn::answer_to(datagram, from)?;
    (transaction.0[..MARK] == mark.0[..MARK]).then_some(answer)
}

async fn datagrams(socket: Arc<UdpSocket>, mark: TransactionId) {
    let mut datagram = [0; MAX_DATAGRAM];
    loop {
        // An error is about one that was sent before.
        let Ok((len, from)) = socket.recv_from(&mut datagram).await else { continue };
        if let Some(answer) = answer(&datagram[..len], from, mark) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

async fn connections(listener: TcpListener, mark: TransactionId) {
    let mut served = JoinSet::new();
    while let Ok((stream, from)) = listener.accept().await {
        while served.try_join_next().is_some() {}
        if served.len() == MAX_CONNECTIONS {
            served.join_next().await;
        }
        served.spawn(connection(stream, from, mark));
    }
}

/// Answers to one check.
async fn connection(mut stream: TcpStream, from: SocketAddr, mark: TransactionId) {
    let _ = timeout(PATIENCE, async {
        let check = receive_framed(&mut stream).await?;
        match answer(&check, from, mark) {
            Some(answer) => send_framed(&mut stream, &answer).await,
            None => Ok(()),
        }
    })
    .await;
}

async fn send_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes()[..], message].concat()).await
}

async fn receive_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = usize::from(stream.read_u16().await?);
    let mut message = vec![0; len.min(MAX_DATAGRAM)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn silent_connections_hold_up_no_check() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let stand_in = StandIn::new(SocketAddr::new(here, 0)).await;
        let port = stand_in.tcp.as_ref().unwrap().port();
        let mut silent = Vec::new();
        for _ in 1..MAX_CONNECTIONS {
            silent.push(TcpStream::connect((here, port)).await.unwrap());
        }
        timeout(PATIENCE / 2, stand_in.check_tcp(here, port))
            .await
            .expect("an answer before the silent ones end")
            .unwrap();
    }
}
