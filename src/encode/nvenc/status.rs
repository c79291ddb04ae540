use std::fmt;

/// What a function of NVIDIA's encoder returned: an `NVENCSTATUS`, whose numbers are none of the CUDA driver's.
///
/// A number, since a newer driver may return one that the bindings' enumeration lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Status(pub u32);

impl Status {
    /// `NV_ENC_SUCCESS`.
    pub const SUCCESS: Self = Self(0);
    /// `NV_ENC_ERR_NO_ENCODE_DEVICE`.
    pub const NO_ENCODE_DEVICE: Self = Self(1);
    /// `NV_ENC_ERR_UNSUPPORTED_DEVICE`.
    pub const UNSUPPORTED_DEVICE: Self = Self(2);
    /// `NV_ENC_ERR_INVALID_ENCODERDEVICE`.
    pub const INVALID_ENCODERDEVICE: Self = Self(3);
    /// `NV_ENC_ERR_INVALID_PTR`.
    pub const INVALID_PTR: Self = Self(6);
    /// `NV_ENC_ERR_INVALID_PARAM`.
    pub const INVALID_PARAM: Self = Self(8);
    /// `NV_ENC_ERR_INVALID_CALL`.
    pub const INVALID_CALL: Self = Self(9);
    /// `NV_ENC_ERR_OUT_OF_MEMORY`.
    pub const OUT_OF_MEMORY: Self = Self(10);
    /// `NV_ENC_ERR_UNSUPPORTED_PARAM`.
    pub const UNSUPPORTED_PARAM: Self = Self(12);
    /// `NV_ENC_ERR_INVALID_VERSION`.
    pub const INVALID_VERSION: Self = Self(15);
    /// `NV_ENC_ERR_NEED_MORE_INPUT`.
    pub const NEED_MORE_INPUT: Self = Self(17);
    /// `NV_ENC_ERR_ENCODER_BUSY`.
    pub const ENCODER_BUSY: Self = Self(18);
    /// `NV_ENC_ERR_GENERIC`.
    pub const GENERIC: Self = Self(20);
    /// `NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY`.
    pub const INCOMPATIBLE_CLIENT_KEY: Self = Self(21);

    /// The header's name of it, less `NV_ENC_ERR_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        const NAMES: [&str; 27] = [
            "SUCCESS",
            "NO_ENCODE_DEVICE",
            "UNSUPPORTED_DEVICE",
            "INVALID_ENCODERDEVICE",
            "INVALID_DEVICE",
            "DEVICE_NOT_EXIST",
            "INVALID_PTR",
            "INVALID_EVENT",
            "INVALID_PARAM",
            "INVALID_CALL",
            "OUT_OF_MEMORY",
            "ENCODER_NOT_INITIALIZED",
            "UNSUPPORTED_PARAM",
            "LOCK_BUSY",
            "NOT_ENOUGH_BUFFER",
            "INVALID_VERSION",
            "MAP_FAILED",
            "NEED_MORE_INPUT",
            "ENCODER_BUSY",
            "EVENT_NOT_REGISTERD",
            "GENERIC",
            "INCOMPATIBLE_CLIENT_KEY",
            "UNIMPLEMENTED",
            "RESOURCE_REGISTER_FAILED",
            "RESOURCE_NOT_REGISTERED",
            "RESOURCE_NOT_MAPPED",
            "NEED_MORE_OUTPUT",
        ];
        if (self.0 as usize) < NAMES.len() { NAMES[self.0 as usize] } else { "an unknown error" }
    }

    /// Whether a session that was not opened was one too many: drivers for consumers' GPUs open only so many on a machine,
    /// and tell it as a lack of memory or, newer ones, of a client key.
    pub(super) const fn is_full(self) -> bool {
        matches!(self, Self::OUT_OF_MEMORY | Self::INCOMPATIBLE_CLIENT_KEY)
    }

    /// Whether a session was not opened because the chip has no encoder.
    pub(super) const fn is_no_encoder(self) -> bool {
        matches!(self, Self::NO_ENCODE_DEVICE | Self::UNSUPPORTED_DEVICE)
    }
}

/// A call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The function.
    pub call: &'static str,
    /// What it returned.
    pub status: Status,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} returned {} ({})", self.call, self.status.name(), self.status.0)
    }
}

#[cfg(test)]
mod tests {
    use moq_nvenc::sys::nvEncodeAPI::NVENCSTATUS;

    use super::*;

    #[test]
    fn numbers_and_names_are_the_headers() {
        for (status, number) in [
            (Status::SUCCESS, NVENCSTATUS::NV_ENC_SUCCESS),
            (Status::NO_ENCODE_DEVICE, NVENCSTATUS::NV_ENC_ERR_NO_ENCODE_DEVICE),
            (Status::UNSUPPORTED_DEVICE, NVENCSTATUS::NV_ENC_ERR_UNSUPPORTED_DEVICE),
            (Status::INVALID_ENCODERDEVICE, NVENCSTATUS::NV_ENC_ERR_INVALID_ENCODERDEVICE),
            (Status::INVALID_PTR, NVENCSTATUS::NV_ENC_ERR_INVALID_PTR),
            (Status::INVALID_PARAM, NVENCSTATUS::NV_ENC_ERR_INVALID_PARAM),
            (Status::INVALID_CALL, NVENCSTATUS::NV_ENC_ERR_INVALID_CALL),
            (Status::OUT_OF_MEMORY, NVENCSTATUS::NV_ENC_ERR_OUT_OF_MEMORY),
            (Status::UNSUPPORTED_PARAM, NVENCSTATUS::NV_ENC_ERR_UNSUPPORTED_PARAM),
            (Status::INVALID_VERSION, NVENCSTATUS::NV_ENC_ERR_INVALID_VERSION),
            (Status::NEED_MORE_INPUT, NVENCSTATUS::NV_ENC_ERR_NEED_MORE_INPUT),
            (Status::ENCODER_BUSY, NVENCSTATUS::NV_ENC_ERR_ENCODER_BUSY),
            (Status::GENERIC, NVENCSTATUS::NV_ENC_ERR_GENERIC),
            (Status::INCOMPATIBLE_CLIENT_KEY, NVENCSTATUS::NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY),
            (Status(26), NVENCSTATUS::NV_ENC_ERR_NEED_MORE_OUTPUT),
        ] {
            assert_eq!(status.0, number as u32, "{number:?}");
            assert!(format!("{number:?}").ends_with(status.name()), "{number:?} {}", status.name());
        }
        assert_eq!(Status(27).name(), "an unknown error");
    }
}
