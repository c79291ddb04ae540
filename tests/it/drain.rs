//! The end of the server, as clients see it.

use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;

use saccade::media::Codec;
use saccade_signaling::{OptionsPatch, ServerMessage, close_code};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{LIMIT, connect};
use crate::server::Server;

/// A client that says no more than it must, so that no answer of its own ends a connection early.
struct Mute {
    stream: TcpStream,
    said: Vec<u8>,
}

impl Mute {
    async fn connect(server: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(server).await.unwrap();
        let request = format!(
            "GET /v1/signal HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Sec-WebSocket-Protocol: saccade.v1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut mute = Self { stream, said: Vec::new() };
        mute.hears(b"\"welcome\"").await;
        mute
    }

    async fn hears(&mut self, words: &[u8]) {
        let heard = async {
            while !self.said.windows(words.len()).any(|window| window == words) {
                assert!(self.stream.read_buf(&mut self.said).await.unwrap() > 0, "it ended too early");
            }
        };
        timeout(LIMIT, heard).await.expect("words in time");
    }

    /// What has come by now, to the end, without waiting; fails where there is no end yet.
    fn has_ended(self) -> Vec<u8> {
        let (mut stream, mut said) = (self.stream.into_std().unwrap(), self.said);
        match stream.read_to_end(&mut said) {
            Ok(_) => said,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("the connection is still open"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_ends_after_every_socket_was_told() {
    // Shorter than the server waits for the answer to a close frame.
    let server = Server::start(&[("shutdown.grace_ms", "300")]).await;
    let (mut socket, peer, ..) = connect(server.http, Codec::Vp8, OptionsPatch::default()).await;
    let mute = Mute::connect(server.http).await;
    let ending = tokio::spawn(server.app.shut_down());

    assert!(matches!(socket.next().await, ServerMessage::Draining { .. }));
    let reason = socket.find(|message| match message {
        ServerMessage::Closed { reason } => Some(reason),
        _ => None,
    });
    assert_eq!(reason.await, "draining");
    assert_eq!(socket.close_code().await, close_code::DRAINING);
    drop((socket, peer));
    timeout(LIMIT, ending).await.expect("an end in time").unwrap();

    // This one never answered the close frame, and the server did not end before it had given up on it.
    let said = mute.has_ended();
    let draining = said.windows(10).position(|window| window == b"\"draining\"").expect("a warning");
    let code = close_code::DRAINING.to_be_bytes();
    assert!(said[draining..].windows(4).any(|window| window[0] == 0x88 && window[2..] == code), "no close frame");
}
