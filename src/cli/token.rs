use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use super::Settings;
use crate::config::{Auth, Config, Mistakes, Sources};
use crate::token::{self, Claims};

/// `saccade token`.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Whom the token speaks for
    #[arg(long, value_name = "NAME")]
    pub sub: Option<String>,
    /// How long it counts: seconds, or a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = span)]
    pub ttl: Duration,
    /// Allow opening sessions, and ending them
    #[arg(long)]
    pub can_publish: bool,
    /// Allow watching sessions and their results
    #[arg(long)]
    pub can_view: bool,
    /// Allow changing options while a session runs, and ending sessions of others
    #[arg(long)]
    pub can_configure: bool,
    /// Allow loading and unloading models
    #[arg(long)]
    pub can_manage_models: bool,
    /// How much of a model's time the bearer's sessions get when there is not enough for all [default: normal]
    #[arg(long, value_parser = ["low", "normal", "high"])]
    pub priority: Option<String>,
    /// For whom it is made [default: auth.audience]
    #[arg(long, value_name = "NAME")]
    pub audience: Option<String>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    /// There is nothing to sign with.
    #[error("there is no key to sign with: set auth.secret or auth.secret_file (at least 32 bytes)")]
    NoSecret,
    /// Signing failed.
    #[error(transparent)]
    Token(#[from] token::Error),
}

impl Token {
    /// See [`super::Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        Sources { insecure: true, ..self.settings.sources(variables) }
    }

    /// Makes the token.
    ///
    /// # Errors
    /// See [`Error`]; all of them are mistakes of configuration but [`Error::Token`].
    pub fn make(&self, sources: &Sources, now: SystemTime) -> Result<String, Error> {
        let auth = Config::load(sources)?.auth.ok_or(Error::NoSecret)?;
        Ok(self.claims(&auth, now).sign(&auth)?)
    }

    fn claims(&self, auth: &Auth, now: SystemTime) -> Claims {
        let mut claims = Claims {
            sub: self.sub.clone(),
            can_publish: self.can_publish,
            can_view: self.can_view,
            can_configure: self.can_configure,
            can_manage_models: self.can_manage_models,
            priority: self.priority.clone(),
            ..Claims::new(auth, now, self.ttl)
        };
        if self.audience.is_some() {
            claims.aud.clone_from(&self.audience);
        }
        claims
    }
}

/// `90`, `90s`, `15m`, `2h`, `7d`; at most ten years.
fn span(text: &str) -> Result<Duration, String> {
    const YEARS: u64 = 10 * 365 * 24 * 3600;
    let (number, unit) = match text.find(|one: char| !one.is_ascii_digit()) {
        Some(end) => text.split_at(end),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => 0,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds
        .filter(|seconds| (1..=YEARS).contains(seconds))
        .map(Duration::from_secs)
        .ok_or_else(|| "must be seconds, or a number with s, m, h or d, and at most ten years".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Args, Command};
    use crate::http::auth;

    const SECRET: &str = "SACCADE_AUTH__SECRET";

    fn make(words: &str, secret: &str, now: SystemTime) -> Result<String, Error> {
        let Ok(Args { command: Command::Token(token) }) = Args::try_parse_from(words.split_whitespace()) else {
            panic!("not a token command: {words}")
        };
        let mut sources = token.sources(std::iter::once((SECRET.into(), secret.into())));
        sources.file = crate::config::File::None;
        token.make(&sources, now)
    }

    #[test]
    fn what_is_made_is_taken_by_the_server_and_says_what_was_asked_for() {
        let now = crate::clock::wall();
        let secret = "0123456789012345678901234567890123456789";
        let words = "saccade token --sub cam --ttl 15m --can-publish --audience here --set auth.issuer=me";
        let made = make(words, secret, now).unwrap();
        let verifier = |audience: &str| {
            auth::Verifier::new(&auth::Settings {
                secret: secret.as_bytes().to_vec(),
                issuer: Some("me".to_owned()),
                audience: Some(audience.to_owned()),
            })
            .unwrap()
        };
        let claims = verifier("here").verify(&made).unwrap();
        assert_eq!(claims.sub.as_deref(), Some("cam"));
        assert!(claims.can_publish && !claims.can_view && !claims.can_configure && !claims.can_manage_models);
        assert_eq!(verifier("there").verify(&made), None);

        let old = make(words, secret, now - Duration::from_secs(16 * 60)).unwrap();
        assert_eq!(verifier("here").verify(&old), None);
    }

    #[test]
    fn without_a_good_secret_there_is_none() {
        let now = crate::clock::wall();
        assert!(matches!(make("saccade token", "short", now), Err(Error::Mistakes(_))));
        assert!(make("saccade token --set auth.secret_file=/no/such", &"s".repeat(32), now).is_err());
    }

    #[test]
    fn spans_are_read() {
        for (text, seconds) in [("90", Some(90)), ("90s", Some(90)), ("15m", Some(900)), ("2h", Some(7200))] {
            assert_eq!(span(text).ok().map(|span| span.as_secs()), seconds, "{text}");
        }
        for text in ["", "0", "h", "1w", "-1", "1.5h", "99999d", "99999999999999999999d"] {
            assert!(span(text).is_err(), "{text}");
        }
    }
}
