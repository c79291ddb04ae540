use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ffmpeg_next as ffmpeg;

use super::Check;

/// What to do when no ONNX Runtime library is found.
pub const RUNTIME_HINT: &str =
    "run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime.so of version 1.24 or newer";

/// FFmpeg's version, and the codecs that sessions may need.
pub(super) fn video() -> Vec<Check> {
    if let Err(error) = ffmpeg::init() {
        let found = format!("FFmpeg does not start: {error}");
        return vec![Check::fail("ffmpeg", found, "install Debian's libavcodec and build again")];
    }
    let version = |number: u32| format!("{}.{}.{}", number >> 16, (number >> 8) & 0xff, number & 0xff);
    let found = format!(
        "libavcodec {}, libavformat {}, libswscale {}",
        version(ffmpeg::codec::version()),
        version(ffmpeg::format::version()),
        version(ffmpeg::software::scaling::version())
    );
    vec![
        Check::ok("ffmpeg", found),
        codecs("decoders", &["h264", "vp8", "vp9"], |name| ffmpeg::decoder::find_by_name(name).is_some()),
        codecs("encoders", &["libx264", "libvpx"], |name| ffmpeg::encoder::find_by_name(name).is_some()),
    ]
}

/// Fails when none is there: no session could be had.
fn codecs(kind: &str, wanted: &[&str], is_there: impl Fn(&str) -> bool) -> Check {
    let (there, missing): (Vec<&str>, Vec<&str>) = wanted.iter().partition(|name| is_there(name));
    let advice = "install an FFmpeg that was built with them (Debian's and Ubuntu's are)";
    if there.is_empty() {
        Check::fail(kind, format!("none of {}", missing.join(", ")), advice)
    } else if missing.is_empty() {
        Check::ok(kind, there.join(", "))
    } else {
        Check::warn(kind, format!("{}; not {}", there.join(", "), missing.join(", ")), advice)
    }
}

pub(super) fn runtime() -> Check {
    match find_runtime(|name| std::env::var_os(name)) {
        Some(path) if path.is_file() => Check::ok("onnxruntime", path.display().to_string()),
        Some(path) => Check::fail("onnxruntime", format!("{} is not there", path.display()), RUNTIME_HINT),
        None => Check::fail("onnxruntime", "no library found", RUNTIME_HINT),
    }
}

/// The ONNX Runtime library to load: `ORT_DYLIB_PATH` if set, else the newest that `make setup` fetched into
/// `${XDG_CACHE_HOME:-~/.cache}/saccade/`. `var` looks up environment variables.
pub fn find_runtime(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let filled = |name: &str| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = filled("ORT_DYLIB_PATH") {
        return Some(path);
    }
    let cache = filled("XDG_CACHE_HOME").or_else(|| Some(filled("HOME")?.join(".cache")))?.join("saccade");
    let folders = entries(&cache).filter(|path| starts_with(path, "onnxruntime"));
    let libraries = folders.filter_map(|folder| {
        let files = entries(&folder).filter(|path| starts_with(path, "libonnxruntime.so"));
        files.max_by_key(|path| version_of(path))
    });
    libraries.max_by_key(|path| path.parent().map(version_of))
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path())
}

fn starts_with(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// The numbers in a file's name, for ordering: `onnxruntime-1.24.1` → 1, 24, 1.
fn version_of(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split(|one: char| !one.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::doctor::Status;

    #[test]
    fn the_newest_library_in_the_cache_is_found_unless_one_is_named() {
        let cache = tempfile::tempdir().unwrap();
        let var = |named: Option<&str>| {
            let (cache, named) = (cache.path().as_os_str().to_owned(), named.map(OsString::from));
            move |name: &str| match name {
                "XDG_CACHE_HOME" => Some(cache.clone()),
                "ORT_DYLIB_PATH" => named.clone(),
                _ => None,
            }
        };
        assert_eq!(find_runtime(var(None)), None);
        for folder in
            ["onnxruntime-openvino-1.9.0", "onnxruntime-openvino-1.24.1", "onnxruntime-2.0.0.empty", "other-9"]
        {
            let folder = cache.path().join("saccade").join(folder);
            fs::create_dir_all(&folder).unwrap();
            if !folder.ends_with("onnxruntime-2.0.0.empty") {
                fs::write(folder.join("libonnxruntime.so.1"), "").unwrap();
            }
        }
        let newest = cache.path().join("saccade/onnxruntime-openvino-1.24.1/libonnxruntime.so.1");
        assert_eq!(find_runtime(var(None)), Some(newest.clone()));
        assert_eq!(find_runtime(var(Some(""))), Some(newest));
        assert_eq!(find_runtime(var(Some("/opt/ort.so"))), Some(PathBuf::from("/opt/ort.so")));
    }

    #[test]
    fn one_missing_codec_warns_and_none_at_all_fails() {
        let check = |there: &[&str]| codecs("decoders", &["h264", "vp8"], |name| there.contains(&name)).status;
        assert_eq!(check(&["h264", "vp8"]), Status::Ok);
        assert_eq!(check(&["vp8"]), Status::Warn);
        assert_eq!(check(&[]), Status::Fail);
    }
}
