use std::env;
use std::path::PathBuf;

/// A file of the shared test assets: below `SACCADE_TEST_ASSETS`, by default `../shared` beside the checkout. Without
/// the assets a test is skipped, except where `CI` is set: there it fails.
pub(crate) fn asset(test: &str, path: &str) -> Option<PathBuf> {
    let root = env::var_os("SACCADE_TEST_ASSETS").map(PathBuf::from);
    let root = root.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")));
    let file = root.join(path);
    if file.exists() {
        return Some(file);
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "{test}: {} is not there", file.display());
    println!("skipped {test}: {} is not there", file.display());
    None
}
