//! `saccade doctor --network`: by which ways peers can reach this server, and why not by the others.
//!
//! All ways are tried at once, each with a deadline: the media port from this machine's own addresses, STUN servers for the
//! address that others see, TURN servers for a place of their own and whether what they relay arrives at the media port.
//! It is this machine's network that is tried: run on a client's machine, it tells of the client's.

mod failure;
mod link;
mod stand_in;
mod turn;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::{Check, Status, addresses};
use crate::clock;
use crate::config::Config;
use crate::ice::{Access, Server, Transport, Url};
use failure::Failure;
use link::{Link, Way};
use stand_in::StandIn;
use turn::Allocation;

/// How long one way may take.
const LIMIT: Duration = Duration::from_secs(6);
/// How long a name may take to be found.
const NAME_LIMIT: Duration = Duration::from_secs(3);
/// How long this machine may take to answer itself.
const OWN_LIMIT: Duration = Duration::from_secs(2);
/// How long what is relayed may take to come back.
const RELAY_LIMIT: Duration = Duration::from_secs(2);
/// How long everything may take, which is more than one way with all that its relay may take and its farewell; all ways are
/// tried at once.
const TOTAL: Duration = Duration::from_secs(11);
/// Local addresses that are tried.
const MAX_ADDRESSES: usize = 8;
/// URLs of servers that are tried.
const MAX_URLS: usize = 16;

/// What one way came to.
struct Tried {
    name: String,
    kind: Kind,
    outcome: Result<Check, Failure>,
    /// Where it was tried, and how: for advice.
    place: String,
    way: Way,
    access: Access,
}

/// The kinds of candidates (RFC 8445 section 5.1.1), which a server that is no ICE agent of its own helps to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Host,
    Reflexive,
    Relay,
}

type Trial<'a> = Pin<Box<dyn Future<Output = Tried> + Send + 'a>>;

/// Tries everything; takes a few seconds.
pub(super) fn checks(config: &Config) -> Vec<Check> {
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Check::fail("network", error.to_string(), "see what this machine lacks: threads, files")];
        }
    };
    let checks = runtime.block_on(try_all(config));
    // A name that is still being looked up must not hold up the end.
    runtime.shutdown_background();
    checks
}

async fn try_all(config: &Config) -> Vec<Check> {
    let media = SocketAddr::new(config.media.listen, config.media.port);
    let stand_in = Arc::new(StandIn::new(media).await);
    let mut checks = vec![
        port(media, Way::Udp, stand_in.udp.as_ref()),
        port(media, Way::Tcp, stand_in.tcp.as_ref()),
        addresses::usable(config),
    ];
    let mut local = addresses::listened(config);
    let mut left_out = local.len().saturating_sub(MAX_ADDRESSES);
    local.truncate(MAX_ADDRESSES);
    let peers = if config.media.advertise.is_empty() { &local } else { &config.media.advertise };

    let mut trials: Vec<Trial> = Vec::new();
    for address in &local {
        trials.extend(host(&stand_in, *address));
    }
    let urls = config.ice_servers.iter().flat_map(|server| server.urls.iter().map(move |url| (server, url)));
    let urls: Vec<(&Server, &Url)> = urls.collect();
    left_out += urls.len().saturating_sub(MAX_URLS);
    for (server, url) in urls.into_iter().take(MAX_URLS) {
        if url.scheme().relays() {
            trials.push(Box::pin(relay(server, url, &stand_in, peers)));
        } else {
            let from = local.iter().filter(|address| !address.is_loopback());
            trials.extend(from.map(|from| -> Trial { Box::pin(reflexive(config, url, *from)) }));
        }
    }
    let tried = join_all(trials).await;
    let gets_out = |it: &Tried| it.kind != Kind::Host && it.outcome.as_ref().is_ok_and(|it| it.status != Status::Fail);
    let any = tried.iter().any(gets_out);
    checks.extend(tried.into_iter().map(|it| it.into_check(any)));
    if config.ice_servers.is_empty() {
        let found = format!(
            "none configured: clients reach the server on UDP and TCP port {} of its addresses, or not at all",
            config.media.port
        );
        checks.push(Check::ok("ICE servers", found));
    }
    if left_out > 0 {
        let advice = "name fewer, or set media.listen to one address";
        checks.push(Check::warn("left out", format!("{left_out} addresses and servers"), advice));
    }
    checks
}

impl Tried {
    /// `any`: whether any server can be made use of, so that a way that is merely closed is no harm. Nor is a STUN server that
    /// is: media needs none, and without open ways from this machine their own checks fail.
    fn into_check(self, any: bool) -> Check {
        let Self { name, kind, outcome, place, way, access } = self;
        match outcome {
            Ok(check) => Check { name, ..check },
            Err(failure) => {
                let advice = failure.advice(way.name(), &place, &access);
                let found = format!("does not work: {failure}");
                let harmless = (any || kind == Kind::Reflexive) && !failure.is_mistake();
                if harmless { Check::warn(&name, found, advice) } else { Check::fail(&name, found, advice) }
            }
        }
    }
}

fn port(media: SocketAddr, way: Way, bound: Result<&SocketAddr, &std::io::Error>) -> Check {
    const NAME: &str = "media.port";
    let protocol = way.name();
    match bound {
        Ok(address) => Check::ok(NAME, format!("{protocol} {address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::warn(
            NAME,
            format!("{protocol} {media} is in use, so that it could not be tried itself"),
            "if that is the server, all is well; end it to have the port tried, too",
        ),
        Err(error) => Check::fail(
            NAME,
            format!("{protocol} {media}: {error}"),
            "set media.listen to an address of this machine, and media.port to a port that it may take",
        ),
    }
}

/// A check of this machine's to its own media port, by each protocol that has it.
fn host(stand_in: &Arc<StandIn>, address: IpAddr) -> Vec<Trial<'static>> {
    let mut trials: Vec<Trial> = Vec::new();
    for (way, bound) in [(Way::Udp, &stand_in.udp), (Way::Tcp, &stand_in.tcp)] {
        let Ok(port) = bound.as_ref().map(SocketAddr::port) else { continue };
        let stand_in = Arc::clone(stand_in);
        trials.push(Box::pin(async move {
            let work = async {
                match way {
                    Way::Udp => stand_in.check_udp(address, port).await,
                    Way::Tcp | Way::Tls => stand_in.check_tcp(address, port).await,
                }
            };
            let outcome = within(OWN_LIMIT, work).await;
            let place = SocketAddr::new(address, port).to_string();
            let found = format!("{place} answers to checks over {}", way.name());
            Tried {
                name: format!("host {} {address}", way.name()),
                kind: Kind::Host,
                outcome: outcome.map(|()| Check::ok("", found)),
                place,
                way,
                access: Access::Open,
            }
        }));
    }
    trials
}

/// The address under which others see `from`.
async fn reflexive(config: &Config, url: &Url, from: IpAddr) -> Tried {
    let way = way(url);
    let work = async {
        let server = resolve(url, Some(from.is_ipv4())).await?;
        let mut link = Link::open(way, server, Some(from), url.host()).await?;
        turn::reflexive(&mut link).await
    };
    let outcome = within(LIMIT, work).await.map(|seen| as_seen(config, from, seen.ip()));
    let name = format!("reflexive {} {from} {url}", way.name());
    Tried { name, kind: Kind::Reflexive, outcome, place: place(url), way, access: Access::Open }
}

fn as_seen(config: &Config, from: IpAddr, seen: IpAddr) -> Check {
    let advertised = &config.media.advertise;
    let port = config.media.port;
    if advertised.contains(&seen) {
        return Check::ok("", format!("{from} is seen as {seen}, which media.advertise tells"));
    }
    if seen == from && !advertised.iter().any(|ip| ip.is_ipv4() == from.is_ipv4()) {
        return Check::ok("", format!("{from} is seen as itself: no address translation on this way"));
    }
    let told = advertised.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    let found = if advertised.is_empty() {
        format!("{from} is seen as {seen}, and clients are told of {from}")
    } else {
        format!("{from} is seen as {seen}, and clients are told of {told}")
    };
    let advice = if seen == from {
        format!("leave media.advertise out, or see that {told} leads here")
    } else {
        format!("set media.advertise = [\"{seen}\"], and let UDP and TCP port {port} of {seen} lead to this machine")
    };
    Check::warn("", found, advice)
}

/// A place at a TURN server, and whether what it relays arrives at the media port.
async fn relay(server: &Server, url: &Url, stand_in: &StandIn, peers: &[IpAddr]) -> Tried {
    let way = way(url);
    let work = async {
        if url.scheme().is_secure() && url.transport() == Transport::Udp {
            return Ok(Check::warn(
                "",
                "not tried: DTLS",
                "browsers use turns: over TCP only: leave ?transport=udp out",
            ));
        }
        let credentials = server.credentials(clock::wall(), Some("doctor"));
        let allocate = async {
            let address = resolve(url, None).await?;
            let link = Link::open(way, address, None, url.host()).await?;
            Allocation::new(link, credentials).await
        };
        let mut allocation = within(LIMIT, allocate).await?;
        let check = relayed(&mut allocation, stand_in, peers).await;
        allocation.release().await;
        Ok(check)
    };
    let outcome = within(TOTAL, work).await;
    let name = format!("relay {} {url}", way.name());
    Tried { name, kind: Kind::Relay, outcome, place: place(url), way, access: server.access.clone() }
}

async fn relayed(allocation: &mut Allocation, stand_in: &StandIn, peers: &[IpAddr]) -> Check {
    let relayed = allocation.relayed;
    let Some(peer) = peers.iter().find(|ip| ip.is_ipv4() == relayed.is_ipv4() && !ip.is_loopback()) else {
        let found = format!("works, as {relayed}; this machine has no address that it could relay to");
        return Check::warn("", found, "bring a network up, or set media.advertise");
    };
    let port = stand_in.udp.as_ref().map(SocketAddr::port);
    let peer = SocketAddr::new(*peer, *port.as_ref().unwrap_or(&1));
    if let Err(failure) = within(RELAY_LIMIT, allocation.permit(peer)).await {
        let found = format!("works, as {relayed}, but does not relay to {}: {failure}", peer.ip());
        let advice =
            format!("where the server runs on this machine, allow {0} there (coturn: allowed-peer-ip={0})", peer.ip());
        return Check::warn("", found, advice);
    }
    if port.is_err() {
        let found =
            format!("works, as {relayed}, and may relay to {}; the media port is in use and was not tried", peer.ip());
        return Check::ok("", found);
    }
    if within(RELAY_LIMIT, allocation.check(peer, stand_in.transaction())).await.is_ok() {
        return Check::ok("", format!("works, as {relayed}, and reaches {peer}"));
    }
    let found = format!("works, as {relayed}; what it relays to {peer} does not come back");
    Check::warn("", found, format!("let UDP between {} and {peer} through, both ways", relayed.ip()))
}

/// One address of the server's, of the family asked for; else what this machine has, IPv4 first.
async fn resolve(url: &Url, ipv4: Option<bool>) -> Result<SocketAddr, Failure> {
    let unknown = || Failure::Name(url.host().to_owned());
    let found = timeout(NAME_LIMIT, lookup_host((url.host(), url.port()))).await;
    let found: Vec<SocketAddr> = found.map_err(|_| unknown())?.map_err(|_| unknown())?.collect();
    if found.is_empty() {
        return Err(unknown());
    }
    let wanted = |address: &&SocketAddr| ipv4.is_none_or(|ipv4| address.is_ipv4() == ipv4);
    let first = found.iter().filter(wanted).min_by_key(|address| address.is_ipv6());
    first.copied().ok_or_else(|| Failure::Family(url.host().to_owned()))
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(limit, work).await.unwrap_or(Err(Failure::Silence(limit.as_secs())))
}

fn way(url: &Url) -> Way {
    match (url.scheme().is_secure(), url.transport()) {
        (true, _) => Way::Tls,
        (false, Transport::Tcp) => Way::Tcp,
        (false, Transport::Udp) => Way::Udp,
    }
}

/// Host and port, as people write them.
fn place(url: &Url) -> String {
    let (host, port) = (url.host(), url.port());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_stun_server_alone_is_no_failure() {
        for (kind, any, failure, status) in [
            (Kind::Reflexive, false, Failure::Silence(6), Status::Warn),
            (Kind::Reflexive, false, Failure::Refused, Status::Fail),
            (Kind::Relay, false, Failure::Silence(6), Status::Fail),
            (Kind::Relay, true, Failure::Silence(6), Status::Warn),
            (Kind::Host, false, Failure::Silence(2), Status::Fail),
        ] {
            let tried = Tried {
                name: "a way".to_owned(),
                kind,
                outcome: Err(failure),
                place: "192.0.2.1:3478".to_owned(),
                way: Way::Udp,
                access: Access::Open,
            };
            let check = tried.into_check(any);
            assert!(check.status == status, "{}: {}", check.name, check.found);
        }
    }
}
