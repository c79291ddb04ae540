//! Configuration and tokens.

use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use ring::hmac;
use saccade::clock;
use saccade::config::{Config, File, Sources};
use saccade::http::auth::{Claims, Settings, Verifier};
use serde_json::Value;

/// A secret that must not be shown, and the one that tokens are signed with.
const SECRET: &str = "a secret that nobody is shown, ever";
/// Clocks may differ by so much.
const LEEWAY: Duration = Duration::from_secs(10);

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let settings = Settings { secret: Some(SECRET.into()), leeway: LEEWAY, ..Settings::default() };
    Verifier::new(&settings).unwrap()
});

/// A configuration file, and behind a zero byte an environment, a line a variable: it is taken, or its mistakes are named,
/// and no secret is in them; nor is one when it is what keeps the file from being read.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Files that it names would be read.
    if text.to_ascii_lowercase().contains("_file") {
        return;
    }
    let (file, environment) = text.split_once('\0').unwrap_or((text, ""));
    let pairs = environment.lines().filter_map(|line| line.split_once('='));
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let secret = ("SACCADE_AUTH__SECRET".to_owned(), SECRET.to_owned());
    let environment: Vec<(String, String)> = pairs.chain([secret]).collect();
    let load = |file: String| {
        let file = File::Text("saccade.toml".to_owned(), file);
        Config::load(&Sources { file, environment: environment.clone(), ..Sources::default() })
    };
    // Bytes that have these words may have them in a value or a name that is no secret, and such are shown.
    let hides = |shown: &str| !shown.contains(SECRET) || text.contains(SECRET);
    match load(file.to_owned()) {
        Ok(config) => {
            assert!(!format!("{config:?}").contains(SECRET), "a secret is shown");
            let limits = config.limits;
            assert!((4096..=65_536).contains(&limits.sdp_bytes) && (4096..=65_536).contains(&limits.message_bytes));
            assert!((16..=8192).contains(&limits.width) && (1..=240).contains(&limits.fps));
        }
        Err(mistakes) => {
            assert!(!mistakes.all().is_empty());
            let shown = mistakes.to_string();
            assert!(hides(&shown), "a secret is shown: {shown}");
        }
    }
    let twice = format!("{file}\nsecret = \"{SECRET}\"\nsecret = \"{SECRET}\"\n");
    let shown = load(twice).expect_err("a key that is there twice").to_string();
    assert!(hides(&shown), "a secret is shown: {shown}");
}

/// A token, or, behind a byte that is not of ASCII, the claims of one that is signed here: who is let in has a token with
/// the right sum and an end in the future, and may do what it says and no more.
pub(crate) fn token(data: &[u8]) {
    match data.split_first() {
        Some((first, payload)) if *first >= 0x80 => {
            let head = if *first == 0x80 { r#"{"alg":"HS256","typ":"JWT"}"# } else { r#"{"alg":"HS256"}"# };
            let body = format!("{}.{}", encode(head.as_bytes()), encode(payload));
            let signed = format!("{body}.{}", encode(hmac::sign(&key(), body.as_bytes()).as_ref()));
            if let Some(claims) = VERIFIER.verify(&signed) {
                check(payload, &claims);
            }
        }
        _ => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            if let Some(claims) = VERIFIER.verify(text) {
                let (body, sum) = text.rsplit_once('.').expect("three parts");
                let payload = body.split_once('.').expect("three parts").1;
                assert!(hmac::verify(&key(), body.as_bytes(), &decode(sum).unwrap()).is_ok(), "a sum that is not ours");
                check(&decode(payload).unwrap(), &claims);
            }
        }
    }
}

fn check(payload: &[u8], claims: &Claims) {
    let payload: Value = serde_json::from_slice(payload).expect("claims are JSON");
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap();
    let end = payload["exp"].as_f64().expect("an end");
    assert!(end + LEEWAY.as_secs_f64() + 1.0 > now.as_secs_f64(), "it has ended");
    if let Some(begin) = payload["nbf"].as_f64() {
        assert!(begin <= now.as_secs_f64() + LEEWAY.as_secs_f64() + 1.0, "it has not begun");
    }
    for (name, may) in [
        ("can_publish", claims.can_publish),
        ("can_view", claims.can_view),
        ("can_configure", claims.can_configure),
        ("can_manage_models", claims.can_manage_models),
    ] {
        assert_eq!(may, payload[name] == Value::Bool(true), "{name}");
    }
    assert_eq!(claims.session.as_deref(), payload["session"].as_str());
    assert_eq!(claims.sub.as_deref(), payload["sub"].as_str());
}

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 for URLs, without padding (RFC 7515 section 2).
pub(crate) fn encode(bytes: &[u8]) -> String {
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |digit| char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]))
    });
    digits.collect()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for digit in chunk {
            bits = bits << 6 | u32::try_from(ALPHABET.iter().position(|known| known == digit)?).ok()?;
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

/// A token of these claims, as clients show it.
pub(crate) fn signed(claims: &str) -> String {
    let body = format!("{}.{}", encode(br#"{"alg":"HS256","typ":"JWT"}"#), encode(claims.as_bytes()));
    format!("{body}.{}", encode(hmac::sign(&key(), body.as_bytes()).as_ref()))
}
