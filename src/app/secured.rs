use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::StartError;
use crate::config::{self, Config};
use crate::http::{auth, tls};

/// How often files with keys are looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// What the public listener checks callers and secures connections with. Its files are read again when they change.
#[derive(Debug, Clone)]
pub(super) struct Secured {
    pub(super) auth: Option<auth::Settings>,
    pub(super) tls: Option<Arc<tls::Tls>>,
}

impl Secured {
    /// Reads every file.
    pub(super) fn read(config: &Config) -> Result<Self, StartError> {
        let auth = config.auth.as_ref().map(settings).transpose()?;
        // So that what is wrong with the settings is found where only the configuration is checked, too.
        auth.as_ref().map(auth::Verifier::new).transpose()?;
        let tls = config.http.tls.clone().map(|files| tls::watch(files.certificate, files.key)).transpose()?;
        Ok(Self { auth, tls: tls.map(Arc::new) })
    }

    /// Looks at the files again and again until the server stops.
    pub(super) async fn watch(self, mut stopped: watch::Receiver<bool>) {
        if self.tls.is_none() && self.auth.as_ref().is_none_or(|auth| auth.keys.is_none()) {
            return;
        }
        let mut timer = tokio::time::interval(LOOK_PERIOD);
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            let files = self.clone();
            // A file system may take its time.
            tokio::task::spawn_blocking(move || files.look()).await.ok();
        }
    }

    fn look(&self) {
        if let Some(keys) = self.auth.as_ref().and_then(|auth| auth.keys.as_ref()) {
            keys.look();
        }
        if let Some(tls) = &self.tls {
            tls.look();
        }
    }
}

fn settings(auth: &config::Auth) -> Result<auth::Settings, auth::Error> {
    let keys = auth.jwks_file.clone().map(auth::Keys::watch).transpose()?;
    let api_keys = auth.api_keys.iter().map(|key| auth::ApiKey { hash: key.hash, claims: key.claims.clone() });
    Ok(auth::Settings {
        secret: auth.secret.as_ref().map(|secret| secret.expose().as_bytes().to_vec()),
        keys: keys.map(Arc::new),
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        leeway: auth.leeway,
        api_keys: api_keys.collect(),
    })
}
