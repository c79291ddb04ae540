use ffmpeg_next as ffmpeg;

use super::Check;
use crate::infer::{self, backend::Library};

/// What to do when no usable ONNX Runtime library is found.
const RUNTIME_HINT: &str = "run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime.so of version 1.24 or newer";

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
    let is_there = |name: &str| ffmpeg::encoder::find_by_name(name).is_some();
    // Either will do.
    let h264 = if !is_there("libx264") && is_there("libopenh264") { "libopenh264" } else { "libx264" };
    vec![
        Check::ok("ffmpeg", found),
        codecs("decoders", &["h264", "vp8", "vp9"], |name| ffmpeg::decoder::find_by_name(name).is_some()),
        codecs("encoders", &[h264, "libvpx"], is_there),
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

/// ONNX Runtime, and the execution providers that come with it.
pub(super) fn runtime() -> Vec<Check> {
    let library = match Library::load() {
        Ok(library) => library,
        Err(error) => return vec![Check::fail("onnxruntime", error.to_string(), RUNTIME_HINT)],
    };
    let mut found = library.path().display().to_string();
    if let Some(version) = library.build_info().split("git-branch=").nth(1).and_then(|rest| rest.split(',').next()) {
        found = format!("{found} ({version})");
    }
    vec![Check::ok("onnxruntime", found), providers(library.openvino())]
}

fn providers(openvino: Result<(), infer::Error>) -> Check {
    match openvino {
        Ok(()) => Check::ok("providers", "cpu, openvino"),
        Err(error) => {
            let advice =
                "models run slower on the plain CPU provider: run `make setup`, which fetches a library with it";
            Check::warn("providers", format!("cpu; {error}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn a_missing_provider_is_a_warning_that_says_why() {
        assert_eq!(providers(Ok(())).status, Status::Ok);
        let reason = "libonnxruntime_providers_openvino.so is not there".to_owned();
        let check = providers(Err(infer::Error::Unavailable { what: "OpenVINO".to_owned(), reason }));
        assert_eq!(check.status, Status::Warn);
        assert!(check.found.contains("OpenVINO is not available here: libonnxruntime_providers"), "{}", check.found);
    }

    #[test]
    fn one_missing_codec_warns_and_none_at_all_fails() {
        let check = |there: &[&str]| codecs("decoders", &["h264", "vp8"], |name| there.contains(&name)).status;
        assert_eq!(check(&["h264", "vp8"]), Status::Ok);
        assert_eq!(check(&["vp8"]), Status::Warn);
        assert_eq!(check(&[]), Status::Fail);
    }
}
