use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

use super::*;

pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Of a key of 2,048 bits whose private half is gone.
const RSA_MODULUS: &str = concat!(
    "7El1M2_uuq7IYqMSzKrhckXr6LHOkWybw5wwQqcjDGXN3Q0mLk6MqsD6Ztl3PXdGZsagtn5XDQnT92-Gm_3bJflQkA49yS8OV8m7",
    "1CI2vuND1xmwIuaUYl7Dgn-5pHuztdM0HqIjizC0bPU4XDL5zIpWUSD_inRxIrtKNyC_CKJjHyWWTqlUscS--kpgzg9UcHx109Ci",
    "ZnHJP_Tvz11wOoRefQdWf1plrgIyls6_sVZURfScepmgXMyhGSqgaWcGNCtIu6UyfTpnqzfODGapqCXlxMxa9vUM9gPX6O_3eM21",
    "PmkqJnoWJ7EZrblW1i8cYrkIFRZeaSogC826jMgLRw",
);
/// Signed with it: `kid` rsa, `can_view`, until 2100.
const RSA_TOKEN: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJleHAiOjQxMDI0NDQ4MDAsImNhbl92aWV3Ijp0cnVlfQ.i8MfxjJWu_5oDnYr",
    "neTCz6zRUhq8G4QT95BK2DbeopDZsRjDISb1qjW8p9zSCGGRRCaASXW7rNPEPDxhFAE_SYHHGy24EjWoJCB3HUxbCefSgKYXptcP",
    "E83_DOjjv-EsdazPe8SHt3Po6bSq83g9cJJIfIh3YjsoauP3asPyZDV-ROz4Ni19duUo3TEIAPXgAqAS-jr0S6S_LMD1R7WcRa5N",
    "GPF5R6bkrjubywZvJuERdMzc3RrPSPhAjYeUmiFZTP5076smT2h00uyFj-lF8D22slAoIIrKfn0XY0hGXBvlKatP0SKGYuUgnhKb",
    "9DJ_aHfzg4N7ZuisH8Xhd6-ekg",
);
/// Of 1,024 bits.
const SHORT_MODULUS: &str = concat!(
    "6-MHqenXORuIHntGI7qi2byBH0uHhekB_xzekpDLH7W3aAV3NwhLSwt0FTnXC27AaJiMwysBuJuvcmMeg5KAS5Kl9JI0iHnexS41",
    "f3eLSfYaNzpsklM3NEEN8sQU_rKVUtpf47jdSCn_9y3jizEvz489lNW8Vfa14GIWTVVR2dk",
);
/// Signed with it, with the same claims.
const SHORT_TOKEN: &str = concat!(
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJleHAiOjQxMDI0NDQ4MDAsImNhbl92aWV3Ijp0cnVlfQ.w-BIuC7eTQUK7NTk",
    "AjQDX3D5g4yJeF2p-IOTp13wKQTCN8gawiYQGEIrBeYSSq0OiO5Afx_ZjmxiPHjKZA6EhVMlP90jDmUOPDYw-HmAx_vGtVtoQj1A",
    "0EegmGSVvw83v0yIG8W-CF-lYKFr14jincdZnkGXRDVzHzQnEWC6nSA",
);

pub(crate) fn settings() -> Settings {
    Settings { secret: Some(SECRET.to_vec()), ..Settings::default() }
}

pub(crate) fn in_seconds(seconds: i64) -> i64 {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + seconds
}

pub(crate) fn token(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
}

fn check(settings: &Settings, claims: &Value) -> Option<Claims> {
    Verifier::new(settings).unwrap().verify(&token(Algorithm::HS256, SECRET, claims))
}

/// An issuer with a key pair.
struct Issuer {
    id: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Issuer {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::ES256 => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                EncodingKey::from_ec_der(&pair.serialize_der())
            }
            // PKCS #8 (RFC 8410 section 7) of a seed.
            Algorithm::EdDSA => {
                let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
                EncodingKey::from_ed_der(&[head.as_slice(), &Sha256::digest(id)].concat())
            }
            _ => panic!("no keys of this kind are made here"),
        };
        Self { id, algorithm, key }
    }

    /// Its public key.
    fn public(&self) -> Value {
        let mut jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.to_owned());
        serde_json::to_value(jwk).unwrap()
    }

    fn token(&self, id: Option<&str>) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, &json!({"exp": in_seconds(60), "can_view": true}), &self.key).unwrap()
    }
}

/// A file of keys, and who checks with it.
struct Published {
    _folder: tempfile::TempDir,
    path: PathBuf,
    keys: Arc<Reloaded<Keys>>,
}

impl Published {
    fn new(keys: &[Value]) -> Result<Self, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jwks.json");
        std::fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
        let keys = Arc::new(Keys::watch(path.clone())?);
        Ok(Self { _folder: folder, path, keys })
    }

    fn verifier(&self, secret: Option<&[u8]>) -> Verifier {
        let (keys, secret) = (Some(Arc::clone(&self.keys)), secret.map(<[u8]>::to_vec));
        Verifier::new(&Settings { keys, secret, ..Settings::default() }).unwrap()
    }
}

fn rsa(modulus: &str) -> Value {
    json!({"kty": "RSA", "kid": "rsa", "n": modulus, "e": "AQAB"})
}

#[test]
fn claims_default_to_false() {
    let claims = check(&settings(), &json!({"exp": in_seconds(60), "sub": "cam", "can_publish": true})).unwrap();
    let expected = Claims { sub: Some("cam".into()), can_publish: true, expires: claims.expires, ..Claims::default() };
    assert_eq!(claims, expected);
}

#[test]
fn a_token_expires_and_must_say_when() {
    assert_eq!(check(&settings(), &json!({"can_view": true})), None);
    assert_eq!(check(&settings(), &json!({"exp": in_seconds(-60)})), None);
    assert_eq!(check(&settings(), &json!({"exp": in_seconds(60), "nbf": in_seconds(30)})), None);
    assert_eq!(check(&settings(), &json!({"exp": "tomorrow"})), None);
}

#[test]
fn the_end_is_known_and_the_leeway_is_part_of_it() {
    let left = |leeway: u64, claims: &Value| {
        let settings = Settings { leeway: Duration::from_secs(leeway), ..settings() };
        let expires = check(&settings, claims)?.expires?;
        Some(expires.saturating_duration_since(clock::now()).as_secs_f64().round())
    };
    let about = |left: Option<f64>, seconds: f64| assert!((left.unwrap() - seconds).abs() <= 2.0, "{left:?}");
    about(left(0, &json!({"exp": in_seconds(60)})), 60.0);
    about(left(30, &json!({"exp": in_seconds(60)})), 90.0);
    about(left(30, &json!({"exp": in_seconds(-20)})), 10.0);
    assert_eq!(left(0, &json!({"exp": in_seconds(-20)})), None);
    assert_eq!(check(&settings(), &json!({"exp": 1.5e19})).unwrap().expires, None, "beyond all clocks");
}

#[test]
fn issuer_and_audience_are_needed_where_they_are_configured() {
    let strict = Settings { issuer: Some("us".into()), audience: Some("saccade".into()), ..settings() };
    let exp = in_seconds(60);
    assert!(check(&strict, &json!({"exp": exp, "iss": "us", "aud": "saccade"})).is_some());
    assert!(check(&strict, &json!({"exp": exp, "iss": "us"})).is_none());
    assert!(check(&strict, &json!({"exp": exp, "aud": "saccade"})).is_none());
    assert!(check(&strict, &json!({"exp": exp, "iss": "them", "aud": "saccade"})).is_none());
    assert!(check(&settings(), &json!({"exp": exp, "aud": "anything"})).is_some());
}

#[test]
fn other_secrets_and_algorithms_are_refused() {
    let verifier = Verifier::new(&settings()).unwrap();
    let claims = json!({"exp": in_seconds(60)});
    assert!(verifier.verify(&token(Algorithm::HS256, b"another secret of thirty-two bytes", &claims)).is_none());
    assert!(verifier.verify(&token(Algorithm::HS512, SECRET, &claims)).is_none());
    let unsigned =
        format!("eyJhbGciOiJub25lIn0.{}.", token(Algorithm::HS256, SECRET, &claims).split('.').nth(1).unwrap());
    assert!(verifier.verify(&unsigned).is_none());
    assert!(verifier.verify("nonsense").is_none());
    let short = Settings { secret: Some(SECRET[..31].to_vec()), ..Settings::default() };
    assert_eq!(Verifier::new(&short).err(), Some(Error::ShortSecret { bytes: 31 }));
}

#[test]
fn a_header_that_asks_for_extensions_is_refused() {
    let key = EncodingKey::from_secret(SECRET);
    let sign = |crit: Option<Vec<String>>| {
        let header = Header { crit, ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &json!({"exp": in_seconds(60)}), &key).unwrap()
    };
    let verifier = Verifier::new(&settings()).unwrap();
    assert!(verifier.verify(&sign(None)).is_some());
    assert!(verifier.verify(&sign(Some(vec!["exp".into()]))).is_none());
}

#[test]
fn public_keys_are_found_by_their_id() {
    let issuers = [Issuer::new("one", Algorithm::ES256), Issuer::new("two", Algorithm::EdDSA)];
    let published = Published::new(&[issuers[0].public(), issuers[1].public(), rsa(RSA_MODULUS)]).unwrap();
    let verifier = published.verifier(None);
    for issuer in &issuers {
        assert!(verifier.verify(&issuer.token(Some(issuer.id))).is_some(), "{}", issuer.id);
        for id in [None, Some("three"), Some(if issuer.id == "one" { "two" } else { "one" })] {
            assert_eq!(verifier.verify(&issuer.token(id)), None, "{} as {id:?}", issuer.id);
        }
    }
    assert!(verifier.verify(RSA_TOKEN).is_some_and(|claims| claims.can_view));
    assert!(verifier.verify(&RSA_TOKEN.replace("eyJ", "eyK")).is_none());
    assert!(check(&settings(), &json!({"exp": in_seconds(60)})).is_some());
    assert_eq!(verifier.verify(&token(Algorithm::HS256, SECRET, &json!({"exp": in_seconds(60)}))), None, "no secret");
    let only = Published::new(&[issuers[0].public()]).unwrap().verifier(None);
    assert!(only.verify(&issuers[0].token(None)).is_some(), "of one key there is no doubt");
}

#[test]
fn what_is_public_is_no_secret() {
    let issuer = Issuer::new("one", Algorithm::ES256);
    let public = issuer.public();
    let published = Published::new(std::slice::from_ref(&public)).unwrap();
    let claims = json!({"exp": in_seconds(60)});
    let file = std::fs::read(&published.path).unwrap();
    for known in [public["x"].as_str().unwrap().as_bytes(), public.to_string().as_bytes(), &file] {
        for id in [None, Some("one".to_owned())] {
            let header = Header { kid: id, ..Header::new(Algorithm::HS256) };
            let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(known)).unwrap();
            for secret in [None, Some(SECRET)] {
                assert_eq!(published.verifier(secret).verify(&forged), None);
            }
        }
    }
    let both = published.verifier(Some(SECRET));
    assert!(both.verify(&token(Algorithm::HS256, SECRET, &claims)).is_some());
    assert!(both.verify(&issuer.token(Some("one"))).is_some());
}

#[test]
fn keys_that_are_of_no_use_are_passed_over() {
    let good = Issuer::new("good", Algorithm::EdDSA).public();
    let with = |name: &str, value: &str| {
        let mut key = good.clone();
        key[name] = value.into();
        key
    };
    for useless in [
        json!({"kty": "oct", "kid": "shared", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}),
        json!({"kty": "new", "kid": "new"}),
        json!(7),
        with("use", "enc"),
        with("alg", "ES256"),
        rsa(SHORT_MODULUS),
        json!({"kty": "RSA", "kid": "r", "n": RSA_MODULUS, "e": "AQAB", "alg": "RS512"}),
    ] {
        assert!(matches!(Published::new(std::slice::from_ref(&useless)), Err(Error::BadKeys { .. })), "{useless}");
        let published = Published::new(&[useless.clone(), with("kid", "other")]);
        assert_eq!(published.unwrap().verifier(None).verify(SHORT_TOKEN), None, "{useless}");
    }
    let twice = Published::new(&[good.clone(), good]);
    assert!(twice.is_err_and(|error| error.to_string().contains("same `kid`")));
    assert!(matches!(Keys::watch("/no/such/file".into()), Err(Error::Unreadable { .. })));
}

#[test]
fn keys_are_exchanged_while_the_server_runs() {
    let [old, new] = ["old", "new"].map(|id| Issuer::new(id, Algorithm::EdDSA));
    let published = Published::new(&[old.public()]).unwrap();
    let verifier = published.verifier(None);
    let takes = |issuer: &Issuer| verifier.verify(&issuer.token(Some(issuer.id))).is_some();
    let publish = |text: &str| {
        std::fs::write(&published.path, text).unwrap();
        published.keys.look();
    };
    assert!(takes(&old) && !takes(&new));
    publish(&json!({"keys": [old.public(), new.public()]}).to_string());
    assert!(takes(&old) && takes(&new));
    publish(&json!({"keys": [new.public()]}).to_string());
    assert!(!takes(&old) && takes(&new));
    publish("half a fil");
    assert!(takes(&new), "what cannot be read changes nothing");
}

#[test]
fn an_api_key_is_known_by_its_hash() {
    let key = "sk_0123456789";
    let claims = Claims { sub: Some("door".into()), can_view: true, ..Claims::default() };
    let known = ApiKey { hash: Sha256::digest(key).into(), claims: claims.clone() };
    let api_keys = vec![ApiKey { hash: [7; 32], claims: Claims::everything() }, known];
    let verifier = Verifier::new(&Settings { api_keys, ..Settings::default() }).unwrap();
    assert_eq!(verifier.verify(key), Some(claims));
    for wrong in ["sk_", "sk_0123456788", "sk_01234567890", "0123456789"] {
        assert_eq!(verifier.verify(wrong), None, "{wrong}");
    }
}

#[test]
fn a_query_has_one_place_for_a_token() {
    let of = |uri: &'static str| query_token(&Uri::from_static(uri)).map(str::to_owned);
    assert_eq!(of("/a?x=1&access_token=t.o.k"), Some("t.o.k".into()));
    for none in ["/a", "/a?token=t", "/a?access_token", "/access_token=t?x=1"] {
        assert_eq!(of(none), None, "{none}");
    }
}

proptest! {
    /// Nothing but a signed token passes, and nothing brings the verifier down.
    #[test]
    fn no_text_passes_for_a_token(text in "[A-Za-z0-9_.=-]{0,200}", header in "\\PC{0,80}", at in 0..100usize) {
        let verifier = Verifier::new(&settings()).unwrap();
        let good = token(Algorithm::HS256, SECRET, &json!({"exp": in_seconds(60)}));
        let [_, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("no token: {good}") };
        let encoded: String = header.bytes().map(|byte| char::from(b'A' + byte % 26)).collect();
        for text in [text.clone(), format!("{text}.{claims}.{signature}"), format!("{encoded}.{claims}."), format!("sk_{text}")] {
            prop_assert_eq!(verifier.verify(&text), None);
        }
        // A single character that is another one is no longer what was signed.
        let mut forged = good.clone().into_bytes();
        let at = at % good.rfind('.').unwrap();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        prop_assert_eq!(verifier.verify(std::str::from_utf8(&forged).unwrap()), None);
    }
}
