use std::sync::{Mutex as Lock, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError};
use metrics::{counter, gauge};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::cache::{Breaker, Policy};
use crate::clock;
use crate::secret::Secret;
use crate::telemetry::EverySecond;

/// What Redis refused to do.
static REFUSED: EverySecond = EverySecond::new();

/// How long anything that is asked of Redis may take, its connection included.
const LIMIT: Duration = Duration::from_secs(1);
/// When Redis is left alone: its answers are waited for by clients, and a lease has to be written again soon after it is back.
const POLICY: Policy = Policy {
    failures: 3,
    pause: Duration::from_millis(500),
    longest: Duration::from_secs(2),
    trial: Duration::from_secs(2),
};

/// Redis could not be asked. Why not is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the registry of sessions does not answer")]
pub struct Unavailable;

/// One connection to Redis for many requests at a time, made when it is needed and left alone while it fails.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    slot: Mutex<Option<MultiplexedConnection>>,
    breaker: Lock<Breaker>,
}

impl Link {
    /// Connects when it is first asked.
    pub(super) fn new(url: &Secret) -> Result<Self, String> {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |error: RedisError| error.category().to_owned();
        let info = url.expose().into_connection_info().map_err(wrong)?;
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(LIMIT)).set_response_timeout(Some(LIMIT));
        gauge!("saccade_cluster_registry_breaker_open").set(0.0);
        Ok(Self {
            client: Client::open(info).map_err(wrong)?,
            config,
            slot: Mutex::default(),
            breaker: Lock::new(Breaker::new(POLICY)),
        })
    }

    /// Asks something of Redis, within the limit. That it refuses what it was asked costs no time and is no reason to leave it
    /// alone: it may have no memory for entries, and still know those that it has.
    pub(super) async fn ask<T, F>(
        &self,
        operation: &'static str,
        work: impl FnOnce(MultiplexedConnection) -> F,
    ) -> Result<T, Unavailable>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let count = |outcome: &'static str| {
            counter!("saccade_cluster_registry_total", "operation" => operation, "outcome" => outcome).increment(1);
        };
        if !self.breaker().allow(clock::now()) {
            count("open");
            return Err(Unavailable);
        }
        let asked = timeout(LIMIT, async { Ok(work(self.connection().await?).await) }).await;
        let (outcome, is_refusal) = match asked {
            Ok(Ok(Ok(answer))) => {
                self.told(true);
                count("ok");
                return Ok(answer);
            }
            Ok(Ok(Err(error))) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                if let Some(suppressed) = REFUSED.pass(clock::now()) {
                    let code = code(error);
                    tracing::warn!(code, operation, suppressed, "the registry of sessions refuses what it is asked");
                }
                ("refused", true)
            }
            Ok(Ok(Err(error)) | Err(error)) => {
                tracing::debug!(error = error.category(), operation, "the registry of sessions failed");
                ("error", false)
            }
            Err(_) => ("timeout", false),
        };
        count(outcome);
        self.told(is_refusal);
        // What refuses to write may have become a replica: the next connection leads elsewhere. Whoever is making another one
        // is left alone.
        let is_kept = is_refusal && operation == "find";
        if !is_kept && let Ok(mut slot) = self.slot.try_lock() {
            *slot = None;
        }
        Err(Unavailable)
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let mut slot = self.slot.lock().await;
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        let connection = self.client.get_multiplexed_async_connection_with_config(&self.config).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    fn told(&self, well: bool) {
        let mut breaker = self.breaker();
        let was_open = breaker.is_open();
        if well {
            breaker.succeeded()
        } else {
            breaker.failed(clock::now())
        }
        match (was_open, breaker.is_open()) {
            (false, true) => tracing::warn!("the registry of sessions fails; sessions of this server go on without it"),
            (true, false) => tracing::info!("the registry of sessions answers again"),
            _ => {}
        }
        gauge!("saccade_cluster_registry_breaker_open").set(f64::from(u8::from(breaker.is_open())));
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Redis calls its refusal, such as `OOM`; of several in a row, the first.
fn code(error: RedisError) -> String {
    let said = error.into_server_errors();
    said.as_deref().and_then(|said| said.first()).map_or_else(String::new, |(_, error)| error.code().to_owned())
}

#[cfg(test)]
mod tests {
    use ::redis::{cmd, pipe};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    /// Knows everything, and has no memory for more; is asked by one client at a time.
    async fn full(listener: UnixListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (read, mut write) = stream.split();
            let mut lines = BufReader::new(read).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let answer: &[u8] = match line.as_str() {
                    "GET" => b"$1\r\nx\r\n",
                    "SET" => b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
                    "LRANGE" => b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
                    "CLIENT" => b"+OK\r\n",
                    _ => continue,
                };
                if write.write_all(answer).await.is_err() {
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_redis_that_refuses_to_write_is_still_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("redis.sock");
        let serving = tokio::spawn(full(UnixListener::bind(&socket).expect("a socket")));
        let link = Link::new(&Secret::new(format!("redis+unix://{}", socket.display()))).expect("a URL of Redis");
        for _ in 0..2 * POLICY.failures {
            let set = async |mut to: MultiplexedConnection| cmd("SET").arg("a").exec_async(&mut to).await;
            assert_eq!(link.ask("write", set).await, Err(Unavailable));
            let list = async |mut to: MultiplexedConnection| cmd("LRANGE").arg("a").exec_async(&mut to).await;
            assert_eq!(link.ask("find", list).await, Err(Unavailable));
        }
        assert!(!link.breaker().is_open(), "it answers");
        let mut sets = pipe();
        sets.cmd("SET").arg("a").ignore().cmd("SET").arg("b").ignore();
        let sets = async |mut to: MultiplexedConnection| Ok(sets.exec_async(&mut to).await.map_err(code));
        assert_eq!(link.ask("find", sets).await, Ok(Err("OOM".to_owned())));
        let get = async |mut to: MultiplexedConnection| cmd("GET").arg("a").query_async::<String>(&mut to).await;
        assert_eq!(link.ask("find", get).await, Ok("x".to_owned()));
        serving.abort();
    }
}
