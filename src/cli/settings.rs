use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{BenchStages, Detect, Doctor, Eval, ModelsCheck, ModelsList, ModelsPull, ModelsQuantize, Serve};
use crate::config::Sources;

/// Flags that every command with a configuration takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// Configuration file [default: saccade.toml if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set any key of the configuration, such as session.budget_ms=100; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// error, warn, info, debug, trace, or directives such as info,saccade::rtc=debug
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
    /// text or json
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Flags for listeners.
#[derive(Debug, Clone, Default, Args)]
pub struct NetworkFlags {
    /// Address and port of the page, signaling and the API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// Address and port of health and metrics [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub ops_listen: Option<String>,
    /// The one port for media; not built yet, each session takes a free UDP port [default: 8189]
    #[arg(long, value_name = "PORT")]
    pub media_port: Option<String>,
    /// Addresses to offer to clients instead of the local ones, with commas between them
    #[arg(long, value_name = "ADDRESS,…")]
    pub advertise: Option<String>,
    /// Listen beyond loopback without authentication: anyone who reaches the server may use it
    #[arg(long)]
    pub insecure: bool,
}

/// Flags for models and the hardware they run on.
#[derive(Debug, Clone, Default, Args)]
pub struct ModelFlags {
    /// Folder of models [default: models]
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Model that is used where none is named [default: the embedded ppe-nano]
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// Special hardware for decode, encode and models
    #[arg(long, value_enum)]
    pub hw: Option<HardwareChoice>,
}

/// Values of `--hw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HardwareChoice {
    /// Use what is there and works
    Auto,
    /// Use none
    Off,
    /// Insist on it: exit with 69 where it is missing
    On,
}

impl Settings {
    /// The process's file and environment, with these flags.
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        let mut sources = Sources::of_process(self.config.clone(), variables);
        for (key, value) in &self.set {
            sources.flag(key, &format!("--set {key}"), value);
        }
        add(&mut sources, "telemetry.log", "--log", self.log.as_ref());
        add(&mut sources, "telemetry.log_format", "--log-format", self.log_format.as_ref());
        sources
    }
}

impl NetworkFlags {
    fn add_to(&self, sources: &mut Sources) {
        add(sources, "http.listen", "--listen", self.listen.as_ref());
        add(sources, "ops.listen", "--ops-listen", self.ops_listen.as_ref());
        add(sources, "media.port", "--media-port", self.media_port.as_ref());
        add(sources, "media.advertise", "--advertise", self.advertise.as_ref());
        sources.insecure = self.insecure;
    }
}

impl ModelFlags {
    fn add_to(&self, sources: &mut Sources) {
        add_folder(sources, self.models_dir.as_ref());
        add(sources, "models.default", "--model", self.model.as_ref());
        let hw = self.hw.and_then(|hw| hw.to_possible_value());
        for key in ["hw.decode", "hw.encode", "hw.infer"] {
            add(sources, key, "--hw", hw.as_ref().map(|hw| hw.get_name().to_owned()).as_ref());
        }
    }
}

impl Serve {
    /// All sources; `variables` are usually `std::env::vars_os()`.
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        let mut sources = self.settings.sources(variables);
        self.network.add_to(&mut sources);
        self.models.add_to(&mut sources);
        sources
    }
}

impl Doctor {
    /// See [`Serve::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        let mut sources = self.settings.sources(variables);
        self.network.add_to(&mut sources);
        self.models.add_to(&mut sources);
        sources
    }
}

impl Detect {
    /// See [`Serve::sources`]. Nothing is listened on, so that nothing can be insecure.
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        let mut sources = self.settings.sources(variables);
        self.models.add_to(&mut sources);
        sources.insecure = true;
        sources
    }
}

impl Eval {
    /// See [`Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        let mut sources = self.settings.sources(variables);
        self.models.add_to(&mut sources);
        sources.insecure = true;
        sources
    }
}

impl BenchStages {
    /// See [`Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        let mut sources = self.settings.sources(variables);
        self.models.add_to(&mut sources);
        sources.insecure = true;
        sources
    }
}

impl ModelsList {
    /// See [`Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        offline(&self.settings, self.models_dir.as_ref(), variables)
    }
}

impl ModelsCheck {
    /// See [`Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        offline(&self.settings, self.models_dir.as_ref(), variables)
    }
}

impl ModelsQuantize {
    /// See [`Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        offline(&self.settings, self.models_dir.as_ref(), variables)
    }
}

impl ModelsPull {
    /// See [`Detect::sources`]. The folder of `--models-dir` need not be there yet, so it is not among them.
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        offline(&self.settings, None, variables)
    }
}

fn offline(
    settings: &Settings,
    models_dir: Option<&PathBuf>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Sources {
    let mut sources = settings.sources(variables);
    add_folder(&mut sources, models_dir);
    sources.insecure = true;
    sources
}

fn add_folder(sources: &mut Sources, dir: Option<&PathBuf>) {
    add(sources, "models.dir", "--models-dir", dir.map(|dir| dir.display().to_string()).as_ref());
}

fn add(sources: &mut Sources, key: &str, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        sources.flag(key, name, value);
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE, such as session.budget_ms=100")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}
