use super::Check;
use crate::config::{Hardware, Hw};
use crate::hardware::{Piece, Stage, Table};

/// What to do about a piece that is missing beside others that are there.
const HINT: &str = "see what is missing; the driver's libraries have to be visible to the process (in containers: \
                    NVIDIA_DRIVER_CAPABILITIES=compute,video,utility)";

/// The GPU, and what of it sessions can use.
pub(super) fn checks(hw: Hw, hardware: &Table) -> Vec<Check> {
    let mut checks = vec![gpu(hardware)];
    let stages = [(hw.decode, Stage::Decode), (hw.encode, Stage::Encode), (hw.infer, Stage::Infer)];
    for (_, stage) in stages.into_iter().filter(|(wanted, _)| *wanted == Hardware::On) {
        if let Err(reason) = hardware.offers(stage) {
            let advice = format!("set {} = \"auto\" to go on without", stage.key());
            checks.push(Check::fail(stage.key(), format!("insisted on, and missing: {reason}"), advice));
        }
    }
    checks
}

/// A machine without one is as it should be; one whose GPU cannot be used whole is not.
fn gpu(hardware: &Table) -> Check {
    match hardware.works(Piece::Driver) {
        Err(reason) => Check::ok("gpu", format!("none is used: {reason}")),
        Ok(_) if hardware.findings().iter().all(|finding| finding.works || finding.piece.is_extra()) => {
            Check::ok("gpu", hardware.to_string())
        }
        Ok(_) => Check::warn("gpu", hardware.to_string(), HINT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;
    use crate::hardware::Finding;

    const AUTO: Hw = Hw { decode: Hardware::Auto, encode: Hardware::Auto, infer: Hardware::Auto };

    #[test]
    fn no_gpu_is_a_fault_only_where_one_is_insisted_on() {
        let none = Table::nothing("libcuda.so.1 is not there");
        let checks = checks(AUTO, &none);
        assert_eq!(checks.iter().map(|check| check.status).collect::<Vec<_>>(), [Status::Ok]);
        assert_eq!(checks[0].found, "none is used: NVIDIA driver: libcuda.so.1 is not there");
        let insisted = super::checks(Hw { encode: Hardware::On, ..AUTO }, &none);
        assert_eq!((insisted[1].name.as_str(), insisted[1].status), ("hw.encode", Status::Fail));
    }

    #[test]
    fn a_gpu_that_lacks_something_is_a_warning_that_says_what() {
        let finding = |piece, works| Finding { piece, works, found: "so it is".to_owned() };
        let table = |encodes| Table::new(vec![finding(Piece::Driver, true), finding(Piece::EncodeH264, encodes)]);
        assert_eq!(gpu(&table(true)).status, Status::Ok);
        let check = gpu(&table(false));
        assert_eq!((check.status, check.found.lines().last()), (Status::Warn, Some("NVENC H.264: no: so it is")));
    }
}
