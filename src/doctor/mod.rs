//! `saccade doctor`: what works on this machine, and what to do about the rest.
//!
//! Looks and changes nothing, except that what it measures of models and codecs is kept for the next start of the server;
//! ports are bound for a moment to see whether they are free. A [`Report`] is a list of [`Check`]s, so that whoever knows
//! a device better may add its own.

mod addresses;
mod hardware;
mod machine;
mod models;
mod network;
mod software;
mod tuned;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use serde::Serialize;

use crate::calibration::{Calibration, Disturbance};
use crate::cli::Exit;
use crate::config::{Config, Mistakes};
use crate::hardware::Table;
use crate::infer::Cuda;
use crate::route::Route;
use crate::tuning::Tuning;

/// Routes that were put over HTTP, which the next start of the server has again, or why they can't be read.
pub type KeptRoutes = Result<BTreeMap<String, Route>, String>;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// The server runs, but something is slower or missing.
    Warn,
    /// The server cannot run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about, in a word or two.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it, where something can be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In the order in which they were made.
    pub checks: Vec<Check>,
    /// Whether it is about the ways to the server alone.
    #[serde(skip)]
    pub of_network: bool,
}

impl Report {
    /// Looks at the machine, its libraries, its network and the configuration; `cuda` is the GPU that models may run on, and
    /// `routes` are those that the server keeps. With `measure`, what was measured at an earlier start is measured again.
    #[must_use]
    pub fn new(
        config: &Result<Config, Mistakes>,
        hardware: &Table,
        cuda: Result<Cuda, String>,
        routes: &KeptRoutes,
        measure: bool,
    ) -> Self {
        let mut checks = vec![machine::processor(), machine::memory(), machine::socket_buffers()];
        checks.extend(software::video());
        checks.extend(software::runtime());
        checks.push(configuration(config));
        if let Ok(config) = config {
            checks.extend(hardware::checks(config.hw, hardware));
            checks.extend(ports(config));
            checks.push(addresses::usable(config));
            let calibration = Calibration::standard(config.models.calibration);
            let calibration = if measure { calibration.renewed() } else { calibration };
            let tuning = Tuning::find(config, &calibration);
            checks.extend(tuned::all(config, &tuning, calibration.keeps()));
            checks.extend(models::all(config, cuda, &tuning, calibration, routes));
        }
        Self { checks, of_network: false }
    }

    /// Tries the ways to the media port and through the ICE servers of the configuration, and looks at nothing else. Takes
    /// a few seconds, ten at most.
    #[must_use]
    pub fn of_network(config: &Result<Config, Mistakes>) -> Self {
        let mut checks = vec![configuration(config)];
        if let Ok(config) = config {
            checks.extend(network::checks(config));
        }
        Self { checks, of_network: true }
    }

    /// The worst that was found.
    #[must_use]
    pub fn status(&self) -> Status {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Status::Ok)
    }

    /// Clean if the server can run.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.status() == Status::Fail { Exit::Unavailable } else { Exit::Clean }
    }

    /// The report for machines: `{"status", "checks": [{"name", "status", "found", "advice"?}]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({"status": self.status(), "checks": self.checks})
    }
}

/// The report for people.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for Check { name, status, found, advice } in &self.checks {
            writeln!(out, "{status:4}  {name:width$}  {}", found.replace('\n', "\n      "))?;
            if let Some(advice) = advice {
                writeln!(out, "      {:width$}  → {advice}", "")?;
            }
        }
        let verdict = match self.status() {
            Status::Ok if self.of_network => "All ways that were tried work.",
            Status::Warn if self.of_network => "The server can be reached; see the warnings.",
            Status::Fail if self.of_network => "Peers will not reach the server as configured; see what failed.",
            Status::Ok => "Everything is there.",
            Status::Warn => "The server can run; see the warnings.",
            Status::Fail => "The server cannot run like this; see what failed.",
        };
        write!(out, "{verdict}")
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        })
    }
}

impl Check {
    /// All is well.
    #[must_use]
    pub fn ok(name: &str, found: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, found: found.into(), advice: None }
    }

    /// The server runs, but worse.
    #[must_use]
    pub fn warn(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Warn, found: found.into(), advice: Some(advice.into()) }
    }

    /// The server does not run.
    #[must_use]
    pub fn fail(name: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.to_owned(), status: Status::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// A check of what was measured, with a warning where other programs slowed that and it is kept all the same.
fn measured(name: &str, found: String, disturbance: Disturbance, kept: bool) -> Check {
    let Some(processors) = disturbance.processors().filter(|_| kept) else { return Check::ok(name, found) };
    let found = format!("{found}, while others kept {processors:.1} processors busy");
    Check::warn(name, found, "run `saccade doctor --measure` while nothing else runs")
}

fn configuration(config: &Result<Config, Mistakes>) -> Check {
    match config {
        Ok(_) => Check::ok("configuration", "valid"),
        Err(mistakes) => {
            Check::fail("configuration", mistakes.to_string(), "correct these; saccade.example.toml shows every key")
        }
    }
}

fn ports(config: &Config) -> Vec<Check> {
    let tcp = |key, address: SocketAddr| port(key, address, "TCP", TcpListener::bind(address).map(drop));
    let media = SocketAddr::new(config.media.listen, config.media.port);
    vec![
        tcp("http.listen", config.http.listen),
        tcp("ops.listen", config.ops.listen),
        port("media.port", media, "UDP", UdpSocket::bind(media).map(drop)),
        tcp("media.port", media),
    ]
}

fn port(key: &str, address: SocketAddr, protocol: &str, bound: std::io::Result<()>) -> Check {
    match bound {
        Ok(()) if address.port() == 0 => Check::ok(key, format!("any free {protocol} port on {}", address.ip())),
        Ok(()) => Check::ok(key, format!("{protocol} {address} is free")),
        Err(error) => Check::fail(
            key,
            format!("{protocol} {address}: {error}"),
            format!("end what uses it (a server that runs already?), or set {key}"),
        ),
    }
}

/// Whether a peer on another machine may reach this address.
fn is_reachable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local() && !address.is_unspecified(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(settings: &[(&str, String)]) -> Result<Config, Mistakes> {
        let mut sources = Sources::default();
        for (key, value) in
            [("http.listen", "127.0.0.1:0"), ("ops.listen", "127.0.0.1:0"), ("models.calibration", "off")]
        {
            sources.flag(key, "--set", value);
        }
        for (key, value) in settings {
            sources.flag(key, "--set", value);
        }
        Config::load(&sources)
    }

    fn check<'a>(report: &'a Report, name: &str) -> &'a Check {
        report.checks.iter().find(|check| check.name == name).unwrap()
    }

    #[test]
    fn a_taken_port_fails_and_names_the_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let checks = ports(
            &config(&[
                ("http.listen", taken.local_addr().unwrap().to_string()),
                // Documentation addresses (RFC 5737) belong to no machine.
                ("media.listen", "198.51.100.7".to_owned()),
                ("media.port", "0".to_owned()),
            ])
            .unwrap(),
        );
        let statuses: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.status)).collect();
        let (ok, fail) = (Status::Ok, Status::Fail);
        let expected = [("http.listen", fail), ("ops.listen", ok), ("media.port", fail), ("media.port", fail)];
        assert_eq!(statuses, expected);
        assert!(checks[0].advice.as_ref().unwrap().contains("http.listen"));
    }

    /// No GPU for models.
    fn none() -> Result<Cuda, String> {
        Err("not looked for".to_owned())
    }

    fn no_routes() -> KeptRoutes {
        Ok(BTreeMap::new())
    }

    #[test]
    fn mistakes_of_the_configuration_are_shown_and_fail_with_69() {
        let report =
            Report::new(&config(&[("limits.fps", "0".to_owned())]), &Table::default(), none(), &no_routes(), false);
        let configuration = check(&report, "configuration");
        assert_eq!(configuration.status, Status::Fail);
        assert!(configuration.found.contains("limits.fps = \"0\""));
        assert_eq!(report.exit(), Exit::Unavailable);
        assert!(report.to_string().ends_with("The server cannot run like this; see what failed."));
    }

    #[test]
    fn the_worst_check_decides() {
        let mut report = Report { checks: vec![Check::ok("a", "fine")], ..Report::default() };
        assert_eq!((report.status(), report.exit()), (Status::Ok, Exit::Clean));
        report.checks.push(Check::warn("b", "slow", "buy a faster one"));
        assert_eq!((report.status(), report.exit()), (Status::Warn, Exit::Clean));
        report.checks.push(Check::fail("c", "gone", "find it"));
        assert_eq!((report.status(), report.exit()), (Status::Fail, Exit::Unavailable));
        let shown = report.to_string();
        assert!(
            shown.starts_with("ok    a  fine\nwarn  b  slow\n         → buy a faster one\nFAIL  c  gone\n"),
            "{shown}"
        );
        assert_eq!(report.to_json()["checks"][2]["status"], "fail");
    }

    #[test]
    fn this_machine_has_what_the_build_needed() {
        let report = Report::new(&config(&[]), &Table::default(), none(), &no_routes(), false);
        for name in ["processor", "memory", "decoders", "encoders", "http.listen", "configuration"] {
            assert_ne!(check(&report, name).status, Status::Fail, "{report}");
        }
    }
}
