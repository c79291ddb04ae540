use super::{Check, measured};
use crate::calibration::Origin;
use crate::config::Config;
use crate::tuning::Tuning;

const MEGABIT: u64 = 1_000_000;

/// What codecs do on this machine, the threads that follow from it, and what the network carries.
pub(super) fn all(config: &Config, tuning: &Tuning, kept: bool) -> [Check; 3] {
    [codecs(tuning, kept), threads(config, tuning), bandwidth(config, tuning)]
}

/// `a thread decodes 310 and encodes 95 megapixels/s of H.264, measured now`.
fn codecs(tuning: &Tuning, kept: bool) -> Check {
    const NAME: &str = "codec speed";
    let Tuning { codecs, origin, .. } = tuning;
    let origin = match origin {
        Ok(origin) => origin.name(),
        Err(reason) => {
            let advice = "sessions with H.264 will fail likewise: see the line about FFmpeg";
            return Check::warn(NAME, format!("cannot be measured: {reason}"), advice);
        }
    };
    let (decode, encode) = (codecs.decode_rate(), codecs.encode_rate());
    let found = format!("a thread decodes {decode:.0} and encodes {encode:.0} megapixels/s of H.264, {origin}");
    measured(NAME, found, codecs.disturbance(), kept)
}

/// `2 for codecs (frames/s of 640x480 by threads: 1: 210, 2: 400), 1 for the network (pinned)`.
fn threads(config: &Config, tuning: &Tuning) -> Check {
    let tried: Vec<_> = tuning.codecs.tried().iter().map(|(count, per_s)| format!("{count}: {per_s}")).collect();
    let codec = if config.threads.codec.is_some() {
        "pinned".to_owned()
    } else if matches!(tuning.origin, Ok(Origin::Measured | Origin::Kept)) {
        format!("frames/s of 640x480 by threads: {}", tried.join(", "))
    } else {
        "one a core".to_owned()
    };
    let network = if config.threads.network.is_some() { "pinned" } else { "by what transport costs beside codecs" };
    let Tuning { codec_threads, network_threads, .. } = tuning;
    Check::ok("threads", format!("{codec_threads} for codecs ({codec}), {network_threads} for the network ({network})"))
}

/// `1000 Mbit/s each way, as the fastest interface says`.
fn bandwidth(config: &Config, tuning: &Tuning) -> Check {
    let found = match (tuning.network_bps, config.admission.bandwidth_mbps) {
        (Some(bps), Some(_)) => format!("{} Mbit/s each way (pinned)", bps / MEGABIT),
        (Some(bps), None) => format!("{} Mbit/s each way, as the fastest interface says", bps / MEGABIT),
        (None, _) if config.media.listen.is_loopback() => "not looked at: media stays on this machine".to_owned(),
        (None, _) => "not looked at: no interface tells; admission.bandwidth_mbps says it".to_owned(),
    };
    Check::ok("bandwidth", found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::calibration::{Calibration, Disturbance};
    use crate::config::Sources;
    use crate::doctor::Status;
    use crate::pipeline::Codecs;

    fn checks(settings: &[(&str, &str)], change: impl FnOnce(&mut Tuning)) -> [Check; 3] {
        let mut sources = Sources::default();
        settings.iter().for_each(|(key, value)| sources.flag(key, "--set", *value));
        let config = Config::load(&sources).unwrap();
        let mut tuning = Tuning::find(&config, &Calibration::Off);
        change(&mut tuning);
        all(&config, &tuning, false)
    }

    #[test]
    fn what_was_measured_is_told_with_the_reason_for_each_number() {
        let pins = [("threads.codec", "3"), ("threads.network", "4"), ("admission.bandwidth_mbps", "250")];
        let [codecs, threads, bandwidth] = checks(&pins, |_| {});
        assert!(codecs.found.ends_with("megapixels/s of H.264, measured now"), "{}", codecs.found);
        assert_eq!(threads.found, "3 for codecs (pinned), 4 for the network (pinned)");
        assert_eq!(bandwidth.found, "250 Mbit/s each way (pinned)");
        let [_, threads, bandwidth] = checks(&[("media.listen", "127.0.0.1")], |_| {});
        assert!(threads.found.contains(" for codecs (frames/s of 640x480 by threads: 1: "), "{}", threads.found);
        assert!(bandwidth.found.starts_with("not looked at: media stays"), "{}", bandwidth.found);
    }

    #[test]
    fn without_an_encoder_or_in_bad_company_there_is_a_warning() {
        let pins = [("threads.codec", "3")];
        let [codecs, threads, _] = checks(&pins, |tuning| {
            tuning.origin = Err("no libx264".to_owned());
            tuning.codecs = Codecs::unknown(3);
        });
        assert_eq!((codecs.status, codecs.found.as_str()), (Status::Warn, "cannot be measured: no libx264"));
        assert!(threads.found.starts_with("3 for codecs"), "{}", threads.found);
        let busy = measured("codec speed", "slow".to_owned(), Disturbance::of(150), true);
        assert_eq!((busy.status, busy.found.as_str()), (Status::Warn, "slow, while others kept 1.5 processors busy"));
        assert_eq!(measured("codec speed", "slow".to_owned(), Disturbance::of(150), false).status, Status::Ok);
    }
}
