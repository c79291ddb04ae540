use std::fmt;
use std::time::Duration;

/// What a function of NVIDIA's libraries returned.
///
/// A number, since a newer driver may return one that the bindings' enumeration lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// `CUDA_SUCCESS`.
    pub const SUCCESS: Self = Self(0);
    /// `CUDA_ERROR_INVALID_VALUE`.
    pub const INVALID_VALUE: Self = Self(1);
    /// `CUDA_ERROR_OUT_OF_MEMORY`.
    pub const OUT_OF_MEMORY: Self = Self(2);
    /// `CUDA_ERROR_NO_DEVICE`.
    pub const NO_DEVICE: Self = Self(100);
    /// `CUDA_ERROR_INVALID_CONTEXT`.
    pub const INVALID_CONTEXT: Self = Self(201);
    /// `CUDA_ERROR_ECC_UNCORRECTABLE`.
    pub const ECC_UNCORRECTABLE: Self = Self(214);
    /// `CUDA_ERROR_INVALID_HANDLE`.
    pub const INVALID_HANDLE: Self = Self(400);
    /// `CUDA_ERROR_NOT_READY`.
    pub const NOT_READY: Self = Self(600);
    /// `CUDA_ERROR_ILLEGAL_ADDRESS`.
    pub const ILLEGAL_ADDRESS: Self = Self(700);
    /// `CUDA_ERROR_LAUNCH_FAILED`.
    pub const LAUNCH_FAILED: Self = Self(719);
    /// `CUDA_ERROR_NOT_SUPPORTED`.
    pub const NOT_SUPPORTED: Self = Self(801);
    /// `CUDA_ERROR_STREAM_CAPTURE_INVALIDATED`.
    pub const RECORDING_SPOILT: Self = Self(901);
    /// `CUDA_ERROR_CAPTURED_EVENT`.
    pub const RECORDED_EVENT: Self = Self(907);
    /// `CUDA_ERROR_UNKNOWN`.
    pub const UNKNOWN: Self = Self(999);

    /// Whether the device's context is of no use any more: each later call on it gives the same error, and nothing but a
    /// new process helps. The driver's documentation says so of these: errors of memory (214, 220), of kernels (700, 702,
    /// 710, 714 to 719, 721), of other devices (911), and a driver or context that is gone (4, 709).
    #[must_use]
    pub const fn is_sticky(self) -> bool {
        matches!(self.0, 4 | 214 | 220 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 911)
    }

    /// Whether it says that a stream's work can't be recorded as it is, or that a recording was spoilt: the driver's
    /// `CUDA_ERROR_STREAM_CAPTURE_…` and `CUDA_ERROR_CAPTURED_EVENT`. They pass with the recording.
    #[must_use]
    pub const fn is_of_recording(self) -> bool {
        matches!(self.0, 900..=908)
    }
}

/// A call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The driver's function.
    pub call: &'static str,
    /// What it returned.
    pub status: Status,
    /// The driver's name of that.
    pub name: &'static str,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} returned {} ({})", self.call, self.name, self.status.0)
    }
}

/// What goes wrong on a device that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device is of no use any more, as [`Status::is_sticky`] has it, or it did not finish in time.
    #[error("the GPU is lost: {0}; restart the server")]
    Lost(Loss),
    /// There is no memory left on the device.
    #[error("the GPU is out of memory")]
    OutOfMemory,
    /// A bounded pool has nothing left to hand out.
    #[error("all {0} are in use")]
    Exhausted(&'static str),
    /// A size that no memory can be got for.
    #[error("no memory of {0} bytes can be got")]
    Size(usize),
    /// Two ends of a copy do not have the same size, or one lies outside of its memory.
    #[error("a copy goes beyond its memory")]
    Bounds,
    /// A call failed, and others may succeed.
    #[error("{0}")]
    Failed(Failure),
}

impl Error {
    /// Whether the device is lost for good.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }
}

/// Why a device is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A call returned an error that stays.
    Failed(Failure),
    /// Work was not done within this time.
    Hung(Duration),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Hung(time) => write!(f, "its work was not done within {time:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_stay_are_told_from_those_that_pass() {
        for status in [Status::ILLEGAL_ADDRESS, Status::LAUNCH_FAILED, Status::ECC_UNCORRECTABLE, Status(721)] {
            assert!(status.is_sticky(), "{status:?}");
        }
        for status in [Status::SUCCESS, Status::OUT_OF_MEMORY, Status::NOT_READY, Status::NO_DEVICE, Status::UNKNOWN] {
            assert!(!status.is_sticky() && !status.is_of_recording(), "{status:?}");
        }
        for status in [Status(900), Status::RECORDING_SPOILT, Status::RECORDED_EVENT] {
            assert!(!status.is_sticky() && status.is_of_recording(), "{status:?}");
        }
    }

    #[test]
    fn an_error_says_what_failed_and_what_to_do() {
        let failure = Failure { call: "cuLaunchKernel", status: Status(700), name: "CUDA_ERROR_ILLEGAL_ADDRESS" };
        let lost = Error::Lost(Loss::Failed(failure)).to_string();
        assert_eq!(
            lost,
            "the GPU is lost: cuLaunchKernel returned CUDA_ERROR_ILLEGAL_ADDRESS (700); restart the server"
        );
    }
}
