/// Why a request of the inference protocol is not answered. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is not as the protocol has it.
    #[error("the request is not understood: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor of the request is none.
    #[error("tensor `{name}`: {problem}")]
    BadTensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor is not what the model takes.
    #[error("input `{name}`: the model takes {expected}, and {found} was sent")]
    WrongInput {
        /// Its name.
        name: String,
        /// Type and shape in the model.
        expected: String,
        /// Type and shape in the request.
        found: String,
    },
    /// An input is missing, comes twice, or is none of the model's.
    #[error("input `{name}` {problem}; the model takes {known}")]
    Inputs {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
        /// The model's inputs.
        known: String,
    },
    /// An output was asked for that the model does not have.
    #[error("the model has no output `{name}`; it has {known}")]
    NoOutput {
        /// Its name.
        name: String,
        /// The model's outputs.
        known: String,
    },
    /// More bytes than are taken.
    #[error("{what} has more than {limit} bytes, the most that is taken (`limits.tensor_bytes`)")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Bytes that are taken.
        limit: usize,
    },
    /// An extension of the protocol that is not offered.
    #[error("{what} is not offered here")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// There is no such model, or the caller may not know of it.
    #[error("there is no model `{model}`; POST /v2/repository/index lists those there are")]
    UnknownModel {
        /// As asked for.
        model: String,
    },
    /// The model is there, and cannot work now.
    #[error("model `{model}` is not ready: {reason}")]
    NotReady {
        /// `name@version`.
        model: String,
        /// Why not.
        reason: String,
    },
    /// As many requests wait as may.
    #[error("too many requests wait already; send it again in a moment")]
    Busy,
    /// There is hardly any memory left.
    #[error("the server has no memory for more; send it again later")]
    NoMemory,
    /// It could not be answered in time.
    #[error("the request could not be answered within its timeout; allow it more, or send fewer at a time")]
    Late,
    /// The model failed on it.
    #[error("model `{model}` failed: {reason}")]
    Failed {
        /// `name@version`.
        model: String,
        /// What it said.
        reason: String,
    },
    /// What is asked for is at odds with the present state.
    #[error("{problem}")]
    Conflict {
        /// What is in the way.
        problem: String,
    },
}

impl Error {
    pub(super) fn malformed(problem: impl Into<String>) -> Self {
        Self::Malformed { problem: problem.into() }
    }

    /// The name of its kind in metrics and logs, and whether the caller is to blame.
    #[must_use]
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Malformed { .. }
            | Self::BadTensor { .. }
            | Self::WrongInput { .. }
            | Self::Inputs { .. }
            | Self::NoOutput { .. }
            | Self::Unsupported { .. }
            | Self::Conflict { .. }
            | Self::UnknownModel { .. } => "refused",
            Self::TooLarge { .. } => "too_large",
            Self::NotReady { .. } => "not_ready",
            Self::Busy => "busy",
            Self::NoMemory => "no_memory",
            Self::Late => "late",
            Self::Failed { .. } => "failed",
        }
    }
}
