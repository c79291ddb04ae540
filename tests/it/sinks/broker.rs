use std::env;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::client::LIMIT;

/// A broker in a process of its own, with a folder of its own. Dropped, it is killed.
pub struct Broker {
    pub port: u16,
    kind: Kind,
    child: Option<Child>,
    folder: TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Mosquitto,
    Nats,
    /// With streams.
    JetStream,
}

impl Kind {
    const fn program(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats | Self::JetStream => "nats-server",
        }
    }
}

impl Broker {
    /// Starts one that keeps nothing over a restart and asks nobody for a password, except where `more` says so; nothing
    /// where it is not installed.
    pub async fn start(kind: Kind, more: &str) -> Option<Self> {
        is_there(kind.program())?;
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let text = match kind {
            Kind::Mosquitto if more.is_empty() => format!("listener {port} 127.0.0.1\nallow_anonymous true\n"),
            Kind::Mosquitto => format!("listener {port} 127.0.0.1\n{more}\n"),
            Kind::Nats => format!("listen: 127.0.0.1:{port}\n{more}\n"),
            Kind::JetStream => {
                format!("listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?} }}\n{more}\n", folder.path())
            }
        };
        std::fs::write(folder.path().join("broker.conf"), text).unwrap();
        let mut broker = Self { port, kind, child: None, folder };
        broker.up().await;
        Some(broker)
    }

    /// Starts it again, on the same port.
    pub async fn up(&mut self) {
        let program = is_there(self.kind.program()).unwrap();
        let child = Command::new(program)
            .arg("-c")
            .arg(self.folder.path().join("broker.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        let mut look = tokio::time::interval(Duration::from_millis(20));
        let answers = async {
            while TcpStream::connect(self.address()).await.is_err() {
                look.tick().await;
            }
        };
        timeout(LIMIT, answers).await.expect("a broker in time");
    }

    /// Kills it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.down();
    }
}

/// What `mosquitto_sub` prints, which nobody here wrote: `(retained, topic, payload)`.
pub struct Subscriber {
    lines: mpsc::Receiver<String>,
    child: Child,
}

impl Subscriber {
    /// Subscribes; nothing where it is not installed.
    pub fn new(broker: &Broker, topics: &[&str]) -> Option<Self> {
        let program = is_there("mosquitto_sub")?;
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-q", "1", "-F", "%r\t%t\t%p"]);
        for topic in topics {
            command.args(["-t", topic]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel(4096);
        // It ends with the process.
        std::thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                let _ = tell.blocking_send(line);
            }
        });
        Some(Self { lines, child })
    }

    /// The next message.
    pub async fn next(&mut self) -> (bool, String, String) {
        let line = timeout(LIMIT, self.lines.recv()).await.expect("a message in time");
        let line = line.expect("a subscription that lasts");
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        let mut part = || parts.next().unwrap();
        (part() == "1", part(), part())
    }

    /// Reads on until there is such a message.
    pub async fn until(&mut self, topic: &str, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let (_, found, payload) = self.next().await;
            if found == topic && wanted(&payload) {
                return payload;
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the program is. Without it a test is skipped, except where `CI` is set: there it fails.
fn is_there(program: &str) -> Option<String> {
    let folders = env::var("PATH").unwrap_or_default();
    let folders = folders.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = folders.map(|folder| format!("{folder}/{program}")).find(|path| std::path::Path::new(path).is_file());
    if found.is_none() {
        assert!(env::var("CI").as_deref() != Ok("true"), "{program} is not there");
        println!("skipped: {program} is not there");
    }
    found
}

/// A port that nothing listens on. It is none of those that the system gives to whoever asks for any, so that nobody else
/// gets it while a broker is down.
fn free_port() -> u16 {
    const FIRST: u16 = 1024;
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u16 = given.split_whitespace().next().unwrap().parse().unwrap();
    let count = usize::from(end.saturating_sub(FIRST));
    // Tests in other processes, and other tests of this one, begin elsewhere.
    let begin = usize::try_from(getrandom::u32().unwrap()).unwrap() % count.max(1);
    let mut ports = (FIRST..end).cycle().skip(begin).take(count);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}
