use std::fs;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{StartError, bind};
use crate::cluster::{Cluster, Settings, is_name};
use crate::config::{self, Config};
use crate::session::{EndReason, Handle, Registry, SessionId, Witness};

/// Where Linux says what the host is called.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// Tells the other servers of this one's sessions.
struct Teller(Arc<Cluster>);

impl Witness for Teller {
    fn began(&self, handle: &Handle) {
        self.0.directory().began(handle.id().as_str());
    }

    fn ended(&self, id: &SessionId, _: EndReason) {
        self.0.directory().ended(id.as_str());
    }
}

/// This server among others, if it is one of several, with the listener for what they forward.
pub(super) async fn join(config: &Config) -> Result<Option<(Arc<Cluster>, TcpListener)>, StartError> {
    let Some(config) = &config.cluster else { return Ok(None) };
    let name = config.name.clone().or_else(host_name).ok_or(StartError::Name)?;
    let cluster = Cluster::new(&settings(config, name)).map_err(StartError::Cluster)?;
    let (listener, _) = bind("cluster.listen", config.listen).await?;
    Ok(Some((Arc::new(cluster), listener)))
}

/// Has the others know of every session that begins from now on; to be awaited until the server stops.
pub(super) fn tell(
    cluster: &Arc<Cluster>,
    registry: &Registry,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + Send + use<> {
    registry.tell(Arc::new(Teller(Arc::clone(cluster))));
    let cluster = Arc::clone(cluster);
    async move { cluster.directory().run(stopped).await }
}

fn settings(config: &config::Cluster, name: String) -> Settings {
    Settings {
        redis_url: config.redis_url.clone(),
        name,
        advertise: config.advertise.clone(),
        secret: config.secret.clone(),
        lease: config.lease,
        key_prefix: config.key_prefix.clone(),
    }
}

fn host_name() -> Option<String> {
    fs::read_to_string(HOST_NAME).ok().map(|name| name.trim().to_owned()).filter(|name| is_name(name))
}
