//! A client's text message → [`ClientMessage`], and what to answer when it is none. The same for the signaling socket
//! and the `control` data channel.

use saccade_signaling::{ClientMessage, ErrorCode};
use serde_json::Value;

use super::{Refusal, options};

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    /// What to tell the client.
    pub refusal: Refusal,
    /// Whether the text is no message of this protocol at all; bad options are a smaller mistake.
    pub fatal: bool,
}

/// Reads one message.
///
/// # Errors
///
/// [`Bad`] with `bad_request` for what is no message, with `bad_options` for one whose options are wrong.
pub fn parse(text: &str) -> Result<ClientMessage, Bad> {
    serde_json::from_str(text).map_err(|error| {
        let options = serde_json::from_str::<Value>(text).ok().and_then(|mut value| {
            matches!(value["type"].as_str(), Some("offer" | "configure")).then(|| value["options"].take())
        });
        match options.filter(|options| !options.is_null()).map(options::parse) {
            Some(Err(refusal)) => Bad { refusal, fatal: false },
            _ => Bad { refusal: Refusal::new(ErrorCode::BadRequest, sentence(&error)), fatal: true },
        }
    })
}

/// serde_json's message, which repeats names that the client sent, made short.
fn sentence(error: &serde_json::Error) -> String {
    let detail: String = error.to_string().chars().take(200).collect();
    format!("The message is not of the protocol: {detail}.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(text: &str) -> (ErrorCode, bool) {
        let bad = parse(text).unwrap_err();
        (bad.refusal.code, bad.fatal)
    }

    #[test]
    fn mistakes_are_told_apart() {
        assert_eq!(code("{"), (ErrorCode::BadRequest, true));
        assert_eq!(code("[]"), (ErrorCode::BadRequest, true));
        assert_eq!(code(r#"{"type":"hello"}"#), (ErrorCode::BadRequest, true));
        assert_eq!(code(r#"{"type":"offer"}"#), (ErrorCode::BadRequest, true));
        assert_eq!(code(r#"{"type":"offer","options":{}}"#), (ErrorCode::BadRequest, true));
        assert_eq!(code(r#"{"type":"offer","sdp":"v=0","options":{"modle":"a"}}"#), (ErrorCode::BadOptions, false));
        assert_eq!(code(r#"{"type":"configure","options":7}"#), (ErrorCode::BadOptions, false));
        assert_eq!(code(r#"{"type":"configure","options":[]}"#), (ErrorCode::BadOptions, false));
        assert_eq!(code(r#"{"type":"offer","sdp":"v=0","options":[]}"#), (ErrorCode::BadOptions, false));
        assert_eq!(code(r#"{"type":"configure"}"#), (ErrorCode::BadRequest, true));
        assert_eq!(parse(r#"{"type":"bye"}"#), Ok(ClientMessage::Bye));
    }

    proptest! {
        #[test]
        fn any_text_gets_a_short_answer(text in ".{0,400}", key in "[a-z\"\\\\]{0,40}") {
            for text in [text.clone(), format!(r#"{{"type":"{text}"}}"#), format!(r#"{{"type":"offer","{key}":1}}"#)] {
                if let Err(bad) = parse(&text) {
                    prop_assert!(bad.refusal.message.len() < 1_000);
                }
            }
        }
    }
}
