use std::sync::Arc;

use saccade_signaling::{CameraReason, CameraView, OptionsPatch};
use tokio::sync::broadcast;
use tokio::task::JoinSet;

use super::StartError;
use crate::camera::{self, Camera, Credentials, State, Status, Transport};
use crate::clock;
use crate::config::{self, Config};
use crate::http;
use crate::pipeline::Sessions;
use crate::session::{Registry, options};

/// The cameras of the configuration, each with the options of its session.
pub(super) struct Cameras {
    cameras: Vec<(Arc<Camera>, OptionsPatch)>,
    registry: Arc<Registry>,
}

impl Cameras {
    /// Those of the configuration, none of which is asked for anything yet.
    ///
    /// # Errors
    /// [`StartError::Cameras`] where the models that were loaded do not do for their options.
    pub(super) fn new(config: &Config, sessions: &Sessions, registry: &Arc<Registry>) -> Result<Self, StartError> {
        let (mut cameras, mut wrong) = (Vec::new(), Vec::new());
        for camera in &config.cameras {
            let options = options::parse(camera.options.clone()).map_err(|refusal| refusal.message);
            let options = options.and_then(|options| {
                sessions.check_camera(&options).map_err(|refusal| refusal.message)?;
                let camera = from_config(camera).ok_or("its url cannot be read")?;
                Ok((Arc::new(Camera::new(camera)), options))
            });
            match options {
                Ok(camera) => cameras.push(camera),
                Err(error) => wrong.push((camera.name.clone(), error)),
            }
        }
        if wrong.is_empty() {
            Ok(Self { cameras, registry: Arc::clone(registry) })
        } else {
            Err(StartError::Cameras { wrong })
        }
    }

    /// What the API shows of them.
    pub(super) fn view(&self) -> Arc<dyn http::Cameras> {
        let cameras = self.cameras.iter().map(|(camera, _)| Arc::clone(camera)).collect();
        Arc::new(View { cameras, registry: Arc::clone(&self.registry) })
    }

    /// The name of each, and what changes with it.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&str, broadcast::Receiver<camera::Change>)> {
        self.cameras.iter().map(|(camera, _)| (&**camera.name(), camera.changes()))
    }

    /// Keeps a session of each open, until the server drains.
    pub(super) fn run(self, tasks: &mut JoinSet<()>, sessions: &Arc<Sessions>) {
        for (camera, options) in self.cameras {
            let sessions = Arc::clone(sessions);
            tasks.spawn(async move { sessions.run_camera(&camera, &options).await });
        }
    }
}

/// None for an URL that is none.
fn from_config(camera: &config::Camera) -> Option<camera::Config> {
    let config::Camera { name, url, credentials, is_over_udp, timeout, shortest_wait, longest_wait, .. } = camera;
    Some(camera::Config {
        name: name.as_str().into(),
        url: url.expose().parse().ok()?,
        credentials: credentials.as_ref().map(|(username, password)| Credentials {
            username: username.clone(),
            password: password.expose().to_owned(),
        }),
        transport: if *is_over_udp { Transport::Udp } else { Transport::Tcp },
        timeout: *timeout,
        shortest_wait: *shortest_wait,
        longest_wait: *longest_wait,
    })
}

struct View {
    cameras: Vec<Arc<Camera>>,
    registry: Arc<Registry>,
}

impl View {
    fn of(&self, camera: &Camera) -> CameraView {
        let Status { state, connects, failures } = camera.status();
        let now = clock::now();
        let (reason, retry_after_ms) = match &state {
            State::Waiting { until, reason, .. } => {
                let wait = until.saturating_duration_since(now).as_millis();
                let reason = CameraReason { code: reason.code().to_owned(), message: reason.to_string() };
                (Some(reason), Some(u64::try_from(wait).unwrap_or(u64::MAX)))
            }
            State::Connecting { .. } | State::Live { .. } => (None, None),
        };
        CameraView {
            name: camera.name().to_string(),
            state: state.name().to_owned(),
            state_age_s: now.saturating_duration_since(state.since()).as_secs_f64(),
            reason,
            retry_after_ms,
            connects,
            failures,
            session_id: self.registry.get(camera.name()).map(|handle| handle.id().to_string()),
        }
    }
}

impl http::Cameras for View {
    fn list(&self) -> Vec<CameraView> {
        self.cameras.iter().map(|camera| self.of(camera)).collect()
    }

    fn get(&self, name: &str) -> Option<CameraView> {
        self.cameras.iter().find(|camera| **camera.name() == *name).map(|camera| self.of(camera))
    }
}
