//! A publisher of models on this machine, with whatever manners a test wants.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What a publisher was asked: its first line, and headers by their names in lower case.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) line: String,
    headers: HashMap<String, String>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The byte from which on the file is wanted.
    pub(super) fn start(&self) -> Option<usize> {
        self.header("range")
            .map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap())
    }
}

pub(super) struct Reply {
    head: String,
    body: Vec<u8>,
    /// Whether the connection stays open, although nothing more comes.
    stalls: bool,
}

impl Reply {
    pub(super) fn new(status: &str, headers: &[(&str, String)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect::<String>();
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
        Self { head, body: body.to_vec(), stalls: false }
    }

    /// The whole file.
    pub(super) fn whole(file: &[u8], tag: &str) -> Self {
        Self::new("200 OK", &[("Content-Length", file.len().to_string()), ("ETag", tag.to_owned())], file)
    }

    /// The file from `start` on.
    pub(super) fn rest(file: &[u8], start: usize, tag: &str) -> Self {
        let range = format!("bytes {start}-{}/{}", file.len() - 1, file.len());
        let length = (file.len() - start).to_string();
        let headers = [("Content-Length", length), ("Content-Range", range), ("ETag", tag.to_owned())];
        Self::new("206 Partial Content", &headers, &file[start..])
    }

    /// As a server answers that knows ranges and their conditions.
    pub(super) fn fitting(request: &Request, file: &[u8], tag: &str) -> Self {
        match request.start().filter(|_| request.header("if-range").is_none_or(|wanted| wanted == tag)) {
            Some(start) => Self::rest(file, start, tag),
            None => Self::whole(file, tag),
        }
    }

    pub(super) fn status(status: &str) -> Self {
        Self::new(status, &[("Content-Length", "0".to_owned())], &[])
    }

    /// Only so many bytes of the body come.
    pub(super) fn cut(mut self, at: usize) -> Self {
        self.body.truncate(at);
        self
    }

    pub(super) fn stalling(mut self) -> Self {
        self.stalls = true;
        self
    }
}

/// A connection, with TLS or without.
trait Wire: Read + Write + Send {}

impl<T: Read + Write + Send> Wire for T {}

/// A server on a free port that answers each connection's one request.
pub(super) struct Publisher {
    pub(super) address: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<Request>>>,
    /// Says so after each reply.
    pub(super) replied: Receiver<()>,
}

impl Publisher {
    /// `answer` is given each request and how many came before it.
    pub(super) fn start(answer: impl Fn(usize, &Request) -> Reply + Send + 'static) -> Self {
        Self::serve("http", |connection| Box::new(connection), answer)
    }

    /// The same behind TLS, with a certificate for this address that it has signed itself; writes that to `certificate`
    /// as PEM.
    pub(super) fn secure(certificate: &Path, answer: impl Fn(usize, &Request) -> Reply + Send + 'static) -> Self {
        let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        fs::write(certificate, own.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key).unwrap();
        let config = Arc::new(config);
        let wrap = move |connection| -> Box<dyn Wire> {
            Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), connection))
        };
        Self::serve("https", wrap, answer)
    }

    fn serve(
        scheme: &'static str,
        wrap: impl Fn(TcpStream) -> Box<dyn Wire> + Send + 'static,
        answer: impl Fn(usize, &Request) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (say, replied) = sync_channel(64);
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            let mut open = Vec::new();
            for connection in listener.incoming() {
                let mut connection = wrap(connection.unwrap());
                let Some(request) = read_request(&mut connection) else { continue };
                let number = seen.lock().unwrap().len();
                seen.lock().unwrap().push(request.clone());
                let reply = answer(number, &request);
                // Whoever does not like the head goes before the body.
                let _ = connection.write_all(reply.head.as_bytes());
                let _ = connection.write_all(&reply.body).and_then(|()| connection.flush());
                if reply.stalls {
                    open.push(connection);
                }
                if say.try_send(()).is_err() {
                    return;
                }
            }
        });
        Self { address, scheme, requests, replied }
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}/a/model.onnx", self.scheme, self.address)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(connection: &mut dyn Wire) -> Option<Request> {
    let mut lines = BufReader::new(connection).lines();
    let line = lines.next()?.ok()?;
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
    let headers = headers.filter_map(|line| {
        line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
    });
    Some(Request { line, headers: headers.collect() })
}
