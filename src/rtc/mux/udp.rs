use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ::webrtc::runtime::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Shared;
use super::flow::Link;
use crate::queue::SOCKET_BYTES;

/// Bytes that one read may bring, which is many datagrams of one source where the system joins them (UDP GRO).
const READ: usize = 64 << 10;

/// A UDP socket that all sessions share.
pub(super) struct Socket {
    io: UdpSocket,
    /// What the system can do beyond a datagram a call.
    state: UdpSocketState,
    ipv4: bool,
}

impl Socket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Less is fine.
        let _ = socket.set_recv_buffer_size(SOCKET_BYTES);
        let _ = socket.set_send_buffer_size(SOCKET_BYTES);
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let io = UdpSocket::from_std(socket.into())?;
        let (state, address) = (UdpSocketState::new(UdpSockRef::from(&io))?, io.local_addr()?);
        Ok((Self { io, state, ipv4: address.is_ipv4() }, address))
    }

    pub(super) const fn is_ipv4(&self) -> bool {
        self.ipv4
    }

    /// Sends from `local`, if it matters which of this machine's addresses it is, unless the system has no room.
    pub(super) fn try_send(&self, transmit: &Transmit<'_>, local: Option<IpAddr>) -> io::Result<()> {
        let transmit = Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn,
            contents: transmit.contents,
            segment_size: transmit.segment_size,
            src_ip: local,
        };
        // Not through Tokio: nobody waits for room, so it need not know when there is none.
        self.state.try_send(UdpSockRef::from(&self.io), &transmit)
    }
}

/// Reads a socket for as long as it lives.
pub(super) async fn read(shared: Arc<Shared>, index: usize) {
    let Some(socket) = shared.sockets.get(index) else { return };
    let mut memory = vec![0; BATCH_SIZE * READ];
    let mut metas = [RecvMeta::default(); BATCH_SIZE];
    loop {
        let received = socket
            .io
            .async_io(Interest::READABLE, || {
                let mut buffers: Vec<IoSliceMut<'_>> = memory.chunks_mut(READ).map(IoSliceMut::new).collect();
                match socket.state.recv(UdpSockRef::from(&socket.io), &mut buffers, &mut metas)? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    count => Ok(count),
                }
            })
            .await;
        match received {
            Ok(count) => {
                for (buffer, meta) in memory.chunks(READ).zip(&metas[..count]) {
                    for datagram in buffer[..meta.len.min(READ)].chunks(meta.stride.max(1)) {
                        let link = Link::Udp { socket: index, local: meta.dst_ip };
                        if let Err(dropped) = shared.table.handle_udp(datagram, meta.addr, link) {
                            shared.losses.count(dropped);
                        }
                    }
                }
            }
            // Such as what ICMP says of somebody who has gone; it says nothing about the socket.
            Err(error) => {
                tracing::debug!(%error, "reading the media socket");
                tokio::task::yield_now().await;
            }
        }
    }
}
