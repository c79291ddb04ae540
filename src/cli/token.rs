use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use super::Settings;
use crate::claims::{Claims, Priority};
use crate::config::{Config, Mistakes, Sources};
use crate::token;

/// How long a token counts that nothing else was said of.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);

/// `saccade token`.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Whom the token speaks for
    #[arg(long, value_name = "NAME")]
    pub sub: Option<String>,
    /// How long it counts: seconds, or a number with s, m, h or d [default: 1h]
    #[arg(long, value_name = "TIME", value_parser = span)]
    pub ttl: Option<Duration>,
    /// The one session that it is for, by its id
    #[arg(long, value_name = "ID")]
    pub session: Option<String>,
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
    /// Models and routes that it is for, with commas between them [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub models: Vec<String>,
    /// Sessions that its subject may have at a time [default: any number]
    #[arg(long, value_name = "NUMBER")]
    pub max_sessions: Option<u32>,
    /// How much of a model's time the bearer's sessions get when there is not enough for all [default: normal]
    #[arg(long, value_parser = ["low", "normal", "high"])]
    pub priority: Option<String>,
    /// For whom it is made [default: auth.audience]
    #[arg(long, value_name = "NAME")]
    pub audience: Option<String>,
    /// Make an API key instead, and print the table for saccade.toml that lets it in; it needs no secret
    #[arg(long)]
    pub api_key: bool,
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
    /// Something only tokens have.
    #[error("an API key has no end and no audience: leave out {0}")]
    TokensOnly(&'static str),
    /// Signing failed.
    #[error(transparent)]
    Token(#[from] token::Error),
}

impl Token {
    /// See [`super::Detect::sources`].
    pub fn sources(&self, variables: impl Iterator<Item = (OsString, OsString)>) -> Sources {
        Sources { insecure: true, ..self.settings.sources(variables) }
    }

    /// Makes the token, or the API key: on the first line the key, which is shown once and kept nowhere, and below it what
    /// belongs into the configuration.
    ///
    /// # Errors
    /// See [`Error`]; all of them are mistakes of configuration but [`Error::Token`].
    pub fn make(&self, sources: &Sources, now: SystemTime) -> Result<String, Error> {
        if self.api_key {
            return self.make_api_key();
        }
        let auth = Config::load(sources)?.auth.ok_or(Error::NoSecret)?;
        let secret = auth.secret.as_ref().ok_or(Error::NoSecret)?;
        let mut token = token::Token::new(&auth, self.claims(), now, self.ttl.unwrap_or(DEFAULT_TTL));
        if self.audience.is_some() {
            token.aud.clone_from(&self.audience);
        }
        Ok(token.sign(secret)?)
    }

    fn make_api_key(&self) -> Result<String, Error> {
        for (given, flag) in [(self.ttl.is_some(), "--ttl"), (self.audience.is_some(), "--audience")] {
            if given {
                return Err(Error::TokensOnly(flag));
            }
        }
        let key = token::api_key()?;
        let mut table = toml::Table::new();
        table.insert("name".to_owned(), self.sub.as_deref().unwrap_or("NAME").into());
        table.insert("sha256".to_owned(), token::hash(&key).into());
        let claims = Claims { sub: None, ..self.claims() };
        // Claims are a flat table, and nothing in it is too large for a number of TOML.
        if let Ok(claims) = toml::Table::try_from(claims) {
            table.extend(claims.into_iter().filter(|(_, value)| value.as_bool() != Some(false)));
        }
        Ok(format!("{key}\n\n[[auth.api_keys]]\n{}", table.to_string().trim_end()))
    }

    fn claims(&self) -> Claims {
        Claims {
            sub: self.sub.clone(),
            session: self.session.clone(),
            can_publish: self.can_publish,
            can_view: self.can_view,
            can_configure: self.can_configure,
            can_manage_models: self.can_manage_models,
            models: self.models.clone(),
            max_sessions: self.max_sessions,
            priority: match self.priority.as_deref() {
                Some("low") => Priority::Low,
                Some("high") => Priority::High,
                _ => Priority::Normal,
            },
            expires: None,
        }
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
                secret: Some(secret.as_bytes().to_vec()),
                issuer: Some("me".to_owned()),
                audience: Some(audience.to_owned()),
                ..auth::Settings::default()
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
    fn every_claim_has_its_flag() {
        let words = "saccade token --sub s --session i --can-publish --can-view --can-configure --can-manage-models \
                     --models a,b@1 --max-sessions 3 --priority high";
        let secret = "s".repeat(32);
        let made = make(words, &secret, crate::clock::wall()).unwrap();
        let settings = auth::Settings { secret: Some(secret.into_bytes()), ..auth::Settings::default() };
        let claims = auth::Verifier::new(&settings).unwrap().verify(&made).unwrap();
        assert!(claims.expires.is_some());
        let expected = Claims {
            sub: Some("s".into()),
            session: Some("i".into()),
            models: vec!["a".into(), "b@1".into()],
            max_sessions: Some(3),
            priority: Priority::High,
            expires: claims.expires,
            ..Claims::everything()
        };
        assert_eq!(claims, expected);
    }

    #[test]
    fn an_api_key_is_let_in_by_the_table_below_it() {
        let words = "saccade token --api-key --sub gate --can-view --models a,b --max-sessions 2";
        let made = make(words, "", crate::clock::wall()).unwrap();
        let (key, table) = made.split_once("\n\n").unwrap();
        let file = crate::config::File::Text("test.toml".to_owned(), table.to_owned());
        let auth = Config::load(&Sources { file, ..Sources::default() }).unwrap().auth.unwrap();
        let [known] = auth.api_keys.as_slice() else { panic!("{table}") };
        let api_keys = vec![auth::ApiKey { hash: known.hash, claims: known.claims.clone() }];
        let verifier = auth::Verifier::new(&auth::Settings { api_keys, ..auth::Settings::default() }).unwrap();
        let expected = Claims {
            sub: Some("gate".into()),
            can_view: true,
            models: vec!["a".into(), "b".into()],
            max_sessions: Some(2),
            ..Claims::default()
        };
        assert_eq!(verifier.verify(key), Some(expected));
        assert_eq!(verifier.verify(&format!("{key}0")), None);
        assert!(!table.contains(key));
        assert!(make("saccade token --api-key --ttl 1h", "", crate::clock::wall()).is_err());
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
