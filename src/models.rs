//! What the configuration says of models: where they are, how they are run, and what sessions may ask for.
//!
//! A validated configuration enters; what `infer` is to do leaves. It is here once, so that the server, the commands that
//! run models without one, and `doctor`, which foretells what the server will do, agree. Nothing is loaded here.

use crate::calibration::Calibration;
use crate::child::Stop;
use crate::config::{Config, Hardware};
use crate::hardware::{Piece, Stage, Table};
use crate::infer::check::Checker;
use crate::infer::manifest::BackendChoice;
use crate::infer::{Cuda, Error, Options, Repository, RouteError, Routes, TensorRt};
use crate::media::Task;
use crate::pipeline::Gpu;
use crate::route::Route;

/// The command of this program that builds an engine of TensorRT.
pub const BUILD_COMMAND: &str = "build-engine";
/// The command of this program that tries a model.
pub const CHECK_COMMAND: &str = "check-model";

/// Why sessions would not get what the configuration promises them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongNames {
    /// The default model is not among those loaded.
    #[error(
        "models.default: no model {name} could be loaded, and no route has this name; `saccade models check` says why"
    )]
    Default {
        /// Its name.
        name: String,
    },
    /// Routes cannot be used with the models that were loaded.
    #[error("{}", wrong.iter().map(|(name, error)| format!("routes.{name}: {error}")).collect::<Vec<_>>().join("\n"))]
    Routes {
        /// Each with its name and the reason.
        wrong: Vec<(String, RouteError)>,
    },
}

/// The GPU that models may run on, as far as it was found to work, or why there is none. `gpu` is the one that is open, if
/// one is.
///
/// # Errors
/// The first reason against it.
pub fn cuda(hardware: &Table, gpu: Option<&Gpu>) -> Result<Cuda, String> {
    #[cfg(not(feature = "cuda"))]
    let _ = gpu;
    hardware.offers(Stage::Infer).and_then(|()| hardware.works(Piece::Cuda)).map(|found| Cuda {
        name: found.to_owned(),
        tensorrt: hardware.works(Piece::TensorRt).and_then(|version| tensorrt(found, version)),
        #[cfg(feature = "cuda")]
        gpu: gpu.and_then(Gpu::models),
    })
}

/// TensorRT of this version on a GPU that is called this.
fn tensorrt(gpu: &str, version: &str) -> Result<TensorRt, String> {
    let program = std::env::current_exe().map_err(|error| format!("the program is not found: {error}"))?;
    let folder = TensorRt::standard_folder().ok_or("there is no folder for its engines: set HOME or XDG_CACHE_HOME")?;
    let command = vec![program.into_os_string(), BUILD_COMMAND.into()];
    Ok(TensorRt { name: format!("{gpu}; {version}"), command, folder })
}

/// How models are run, where it is not left to their manifests and to measurement.
#[must_use]
pub fn options(config: &Config, calibration: Calibration, cuda: Result<Cuda, String>) -> Options {
    Options { backend: backend(config), calibration, cuda, ..Options::default() }
}

/// What tries models before they are opened, unless the configuration trusts them.
///
/// # Errors
/// The system's, where this program can't be found.
pub fn checker(config: &Config) -> std::io::Result<Option<Checker>> {
    let Some(check) = &config.models.check else { return Ok(None) };
    let program = check.program.clone().map_or_else(std::env::current_exe, Ok)?;
    let command = vec![program.into_os_string(), CHECK_COMMAND.into()];
    let (limit, memory) = (check.limit, check.memory_mb << 20);
    Ok(Some(Checker { command, limit, memory, stop: Stop::default() }))
}

/// The models that the configuration names, each as `NAME` or `NAME@VERSION`: of its default, its routes and its cameras.
/// Some may be routes.
pub fn named(config: &Config) -> impl Iterator<Item = &str> {
    let routes = config.routes.values().flat_map(|route| route.models().chain(route.shadow()));
    let cameras = config.cameras.iter().filter_map(|camera| camera.options.get("model")?.as_str());
    std::iter::once(config.models.default.as_str()).chain(routes).chain(cameras)
}

/// The backend that the operator wants for all models.
#[must_use]
pub const fn backend(config: &Config) -> Option<BackendChoice> {
    match config.hw.infer {
        Hardware::Auto => None,
        Hardware::Off => Some(BackendChoice::Cpu),
        Hardware::On => Some(BackendChoice::Gpu),
    }
}

/// The models of the configured folder, where it is there, and the embedded one.
///
/// # Errors
/// [`Error::Read`] if the folder can't be listed.
pub fn repository(config: &Config) -> Result<Repository, Error> {
    Repository::scan(Some(config.models.dir.as_path()).filter(|folder| folder.is_dir()))
}

/// Adds the configured routes, then others (`more` of them, which count less), and makes sure of the default. `task` tells
/// the task of the model of a name, with or without its version, if there is one.
///
/// # Errors
/// [`WrongNames`]: the server does not start like this.
pub fn name(
    config: &Config,
    routes: &Routes,
    task: impl Fn(&str) -> Option<Task>,
    more: impl FnOnce(),
) -> Result<(), WrongNames> {
    let put = |(name, route): (&String, &Route)| {
        let error = routes.put(name, route.clone(), &task).err()?;
        Some((name.clone(), error))
    };
    let wrong: Vec<_> = config.routes.iter().filter_map(put).collect();
    if !wrong.is_empty() {
        return Err(WrongNames::Routes { wrong });
    }
    more();
    let default = &config.models.default;
    if task(default).is_some() || routes.get(default).is_some() {
        return Ok(());
    }
    Err(WrongNames::Default { name: default.clone() })
}
