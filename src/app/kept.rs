//! Routes that were put over HTTP, in a file that the next start reads.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use metrics::counter;
use saccade_signaling::RoutePut;
use serde::{Deserialize, Serialize};

use crate::config::models::RoutesFile;
use crate::state;

/// Raised whenever the file's layout changes.
const FORMAT: u32 = 1;
/// Bytes of the file at most: more than all routes that there may be can take.
const MAX_BYTES: u64 = 8 << 20;

/// The file and what is in it.
#[derive(Debug)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    routes: Mutex<BTreeMap<String, RoutePut>>,
}

#[derive(Serialize, Deserialize)]
struct Layout {
    format: u32,
    routes: BTreeMap<String, RoutePut>,
}

impl Kept {
    /// Reads the file. One that can't be read is put aside, with a warning, and nothing is known then.
    pub(super) fn open(file: &RoutesFile) -> Self {
        let path = file.path();
        if path.is_none() && *file == RoutesFile::Standard {
            tracing::warn!("routes are not kept beyond the process: set HOME, XDG_STATE_HOME or models.routes_file");
        }
        let routes = path.as_deref().and_then(|path| match read(path) {
            Ok(routes) => routes,
            Err(error) => {
                let (file, aside) = (path.display(), state::put_aside(path));
                tracing::warn!(%file, %error, ?aside, "kept routes cannot be read; the server starts without");
                None
            }
        });
        Self { path, routes: Mutex::new(routes.unwrap_or_default()) }
    }

    /// What was read, or put since.
    pub(super) fn routes(&self) -> BTreeMap<String, RoutePut> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a route was put, or, without one, removed. Blocks until that is on the disk.
    pub(super) fn note(&self, name: &str, route: Option<RoutePut>) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = match route {
            Some(route) => routes.insert(name.to_owned(), route.clone()) == Some(route),
            None => routes.remove(name).is_none(),
        };
        let Some(path) = self.path.as_deref().filter(|_| !is_known) else { return };
        // Under the lock, so that the last one to change is the last one to write.
        if let Err(error) = state::write(path, &Layout { format: FORMAT, routes: routes.clone() }) {
            counter!("saccade_routes_unsaved_total").increment(1);
            tracing::error!(file = %path.display(), %error, "a route counts until the server ends, but can't be kept");
        }
    }
}

/// None if there is no file.
pub(super) fn read(path: &Path) -> io::Result<Option<BTreeMap<String, RoutePut>>> {
    let Some(Layout { format, routes }) = state::read(path, MAX_BYTES)? else { return Ok(None) };
    if format != FORMAT {
        return Err(io::Error::other(format!("its format is {format}, and {FORMAT} is known")));
    }
    Ok(Some(routes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use saccade_signaling::{EnsembleRoute, RouteFusion};

    use super::*;

    fn route(models: [&str; 2]) -> RoutePut {
        RoutePut::Ensemble(EnsembleRoute { ensemble: models.map(str::to_owned).to_vec(), fusion: RouteFusion::Wbf })
    }

    #[test]
    fn what_is_put_is_there_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state/saccade/routes.json");
        let file = RoutesFile::At(path.clone());
        let kept = Kept::open(&file);
        assert_eq!(kept.routes(), BTreeMap::new());
        kept.note("both", Some(route(["a", "b"])));
        kept.note("other", Some(route(["b", "c"])));
        kept.note("other", None);
        assert_eq!(Kept::open(&file).routes(), BTreeMap::from([("both".to_owned(), route(["a", "b"]))]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let beside: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
        let off = Kept::open(&RoutesFile::Off);
        off.note("both", Some(route(["a", "b"])));
        assert!(off.routes().contains_key("both"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("routes.json");
        for bad in ["{", "{\"format\":2,\"routes\":{}}", "{\"format\":1,\"routes\":{\"a\":{\"x\":1}}}", ""] {
            fs::write(&path, bad).unwrap();
            let kept = Kept::open(&RoutesFile::At(path.clone()));
            assert_eq!(kept.routes(), BTreeMap::new(), "{bad}");
            assert_eq!(fs::read_to_string(path.with_extension("bad")).unwrap(), bad);
            kept.note("both", Some(route(["a", "b"])));
            assert_eq!(Kept::open(&RoutesFile::At(path.clone())).routes().len(), 1);
        }
    }
}
