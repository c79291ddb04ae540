//! A server in this process, on free ports, with the test model that finds the drawn scene's heads exactly.

use std::net::SocketAddr;
use std::sync::OnceLock;

use saccade::app::{App, Devices, StartError};
use saccade::calibration::Calibration;
use saccade::config::{Config, File, Sources};
use saccade::telemetry;
use saccade::tuning::Tuning;

pub struct Server {
    pub app: App,
    pub http: SocketAddr,
}

impl Server {
    /// Starts with these further lines of TOML.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        if let Ok(filter) = std::env::var("SACCADE_TEST_LOG") {
            let _ = telemetry::init_logs(&filter, telemetry::LogFormat::Text);
        }
        Self::with(settings, Devices::none("tests have none")).await
    }

    /// [`Server::start`] with these devices.
    pub async fn with(settings: &[(&str, &str)], devices: Devices) -> Self {
        let config = config(settings);
        let tuning = Tuning::find(&config, &Calibration::Off);
        let app = App::start(&config, &tuning, devices, metrics()).await.unwrap();
        Self { http: app.http_address(), app }
    }

    /// Where media goes.
    pub fn media(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.app.media_port()).into()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }
}

/// [`start`], with what tells how much of the host's memory is in use.
pub async fn start_watching(config: &Config, host: Box<dyn saccade::memory::Source>) -> Result<App, StartError> {
    let tuning = Tuning::find(config, &Calibration::Off);
    App::start_watching(config, &tuning, Devices::none("tests have none"), metrics(), host).await
}

/// Starts with this configuration.
pub async fn start(config: &Config) -> Result<App, StartError> {
    let tuning = Tuning::find(config, &Calibration::Off);
    App::start(config, &tuning, Devices::none("tests have none"), metrics()).await
}

/// Free ports and the test model, and these further settings.
pub fn config(settings: &[(&str, &str)]) -> Config {
    let mut sources = Sources { file: File::None, ..Sources::default() };
    for (key, value) in [
        ("http.listen", "127.0.0.1:0"),
        ("ops.listen", "127.0.0.1:0"),
        ("media.listen", "127.0.0.1"),
        ("media.port", "0"),
        ("models.dir", concat!(env!("CARGO_MANIFEST_DIR"), "/models")),
        ("models.default", "scene-blobs"),
        ("models.calibration", "off"),
        ("models.check", "off"),
        ("models.watch", "off"),
        ("models.routes_file", "off"),
        ("store.url", "off"),
        ("session.budget_ms", "1000"),
        ("shutdown.grace_ms", "2000"),
        // No trial of others.
        ("threads.codec", "2"),
        // Where it is not what is tested, a slow machine must not change which frames the model sees.
        ("degradation.mode", "off"),
    ]
    .iter()
    .chain(settings)
    {
        sources.flag(key, "--set", *value);
    }
    Config::load(&sources).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The one recorder of this process.
pub fn metrics() -> telemetry::metrics::Handle {
    static METRICS: OnceLock<telemetry::metrics::Handle> = OnceLock::new();
    METRICS.get_or_init(|| telemetry::metrics::install().unwrap()).clone()
}
