//! NVIDIA GPUs, as far as several stages need them: the driver's functions, memory, streams and kernels.
//!
//! Every library of NVIDIA's is opened at run time, and its functions are called by a table of addresses, so that tests
//! drive what is above the tables with functions of their own. Nothing here knows of sessions or models. No function of it
//! may be called on a Tokio worker: most wait for the device.

pub mod again;
pub mod driver;
pub mod kernels;
pub mod memory;
pub mod stream;
pub mod surface;
pub mod watch;

mod context;
mod error;
mod quota;

pub use context::{Current, Device};
pub use error::{Error, Failure, Loss, Status};
pub use memory::{Buffer, Pinned, PinnedPool};
pub use stream::{Event, Stream};
pub use surface::{PitchedNv12, Share, Surface, SurfacePool};
