//! What leaves a session: results as JSON for the data channel and its other readers.
//!
//! What enters: processed frames. What leaves: texts. Pure functions that run on the session's own threads; nothing
//! here sends, waits or keeps anything.

pub mod results;
