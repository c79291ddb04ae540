use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::claims::{Claims, Priority};
use crate::ice::Access;
use crate::route::{Fusion, Share};

const EXAMPLE: &str = include_str!("../../saccade.example.toml");

fn file(text: &str) -> Sources {
    Sources { file: File::Text("test.toml".to_owned(), text.to_owned()), ..Sources::default() }
}

fn with_environment(mut sources: Sources, variables: &[(&str, &str)]) -> Sources {
    sources.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    sources
}

fn mistakes(sources: &Sources) -> Vec<Mistake> {
    Config::load(sources).expect_err("there is a mistake").all().to_vec()
}

#[track_caller]
fn only_mistake(sources: &Sources) -> Mistake {
    let all = mistakes(sources);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

#[test]
fn defaults_are_valid_and_loopback_only() {
    let config = Config::load(&Sources::default()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.ops.listen.to_string(), "127.0.0.1:9180");
    assert_eq!((config.media.listen.to_string().as_str(), config.media.port), ("0.0.0.0", 8189));
    assert_eq!(config.session.budget, Duration::from_millis(200));
    assert_eq!(config.shutdown.grace, Duration::from_secs(30));
    assert_eq!(config.auth, None);
}

#[test]
fn a_file_overrides_defaults() {
    let config = Config::load(&file("[session]\nbudget_ms = 120\n[hw]\ninfer = \"off\"\n")).unwrap();
    assert_eq!(config.session.budget, Duration::from_millis(120));
    assert_eq!(config.hw, Hw { decode: Hardware::Auto, encode: Hardware::Auto, infer: Hardware::Off });
    assert_eq!(config.session.resume, Config::default().session.resume);
}

#[test]
fn the_environment_overrides_the_file() {
    let sources = file("[session]\nbudget_ms = 120\nresume_ms = 1\n[media]\nport = 1\n");
    let sources = with_environment(
        sources,
        &[
            ("SACCADE_SESSION__BUDGET_MS", "130"),
            ("SACCADE_MEDIA__ICE_LITE", "true"),
            ("SACCADE_MEDIA__ADVERTISE", "192.0.2.1, 2001:db8::1"),
            ("SACCADE_HTTP__ALLOWED_ORIGINS", ""),
            ("SACCADE_TEST_ASSETS", "somebody else's"),
            ("PATH", "/bin"),
        ],
    );
    let config = Config::load(&sources).unwrap();
    assert_eq!(config.session.budget, Duration::from_millis(130));
    assert_eq!(config.session.resume, Duration::from_millis(1));
    assert_eq!(config.media.port, 1);
    assert!(config.media.ice_lite);
    assert_eq!(config.media.advertise, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert!(config.http.allowed_origins.is_empty());
}

#[test]
fn flags_override_the_environment() {
    let mut sources = with_environment(
        file("[media]\nport = 1\n"),
        &[("SACCADE_MEDIA__PORT", "2"), ("SACCADE_HTTP__LISTEN", "127.0.0.1:2")],
    );
    sources.flag("media.port", "--media-port", "3");
    let config = Config::load(&sources).unwrap();
    assert_eq!((config.media.port, config.http.listen.port()), (3, 2));
}

#[test]
fn a_missing_file_matters_only_when_it_was_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let sources = |file| Sources { file, ..Sources::default() };
    assert_eq!(Config::load(&sources(File::IfThere(path.clone()))), Ok(Config::default()));
    assert!(only_mistake(&sources(File::Named(path.clone()))).key.ends_with("none.toml"));
    std::fs::write(&path, "[media]\nport = 5\n").unwrap();
    assert_eq!(Config::load(&sources(File::IfThere(path))).unwrap().media.port, 5);
}

#[test]
fn all_mistakes_come_at_once_each_with_value_range_and_origin() {
    let mut sources = with_environment(
        file(concat!(
            "colour = \"red\"\n",
            "[http]\nlisten = \"here\"\nlissten = \"127.0.0.1:80\"\n",
            "[session]\nbudget_ms = 9\nice_timeout_ms = \"10000\"\n",
            "[lmits]\nwidth = 1\n",
        )),
        &[("SACCADE_MEDIA__PORT", "65536"), ("SACCADE_LIMITS__WIDHT", "5")],
    );
    sources.flag("hw.infer", "--hw", "gpu");
    let shown = Config::load(&sources).unwrap_err().to_string();
    for expected in [
        "9 mistakes in the configuration:",
        "\n  http.listen = \"here\" (from test.toml): must be an IP address and a port",
        "\n  media.port = \"65536\" (from SACCADE_MEDIA__PORT): must be a whole number from 0 to 65535",
        "\n  session.budget_ms = 9 (from test.toml): must be a whole number from 10 to 5000 (milliseconds)",
        "\n  session.ice_timeout_ms = \"10000\" (from test.toml): must be a whole number from 1000 to 120000",
        "\n  hw.infer = \"gpu\" (from --hw): must be \"auto\", \"on\" or \"off\"",
        "\n  colour (from test.toml): unknown key; there are",
        "\n  http.lissten (from test.toml): unknown key; [http] has listen, public_url",
        "\n  lmits (from test.toml): unknown key; there are",
        "\n  limits.widht (from SACCADE_LIMITS__WIDHT): unknown key; [limits] has",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in:\n{shown}");
    }
}

#[test]
fn broken_toml_is_one_mistake_and_other_sources_are_still_checked() {
    let sources = with_environment(file("[http\n"), &[("SACCADE_MEDIA__PORT", "x")]);
    let keys: Vec<_> = mistakes(&sources).into_iter().map(|mistake| mistake.key).collect();
    assert_eq!(keys, ["test.toml", "media.port"]);
}

#[test]
fn a_section_that_is_no_table_is_a_mistake() {
    assert_eq!(only_mistake(&file("http = 8080\n")).legal, "is a section: [http]");
}

#[test]
fn both_ends_of_each_range_are_legal_and_one_beyond_is_not() {
    for (key, low, high) in [
        ("media.port", 0, 65_535),
        ("admission.max_sessions", 1, 100_000),
        ("limits.sdp_bytes", 4096, 65_536),
        ("limits.message_bytes", 4096, 65_536),
        ("limits.width", 16, 8192),
        ("limits.height", 16, 8192),
        ("limits.fps", 1, 240),
        ("limits.bitrate_kbps", 100, 1_000_000),
        ("limits.channel_buffer_bytes", 16_384, 64 << 20),
        ("rate.messages_per_s", 1, 10_000),
        ("rate.message_burst", 1, 10_000),
        ("session.budget_ms", 10, 5000),
        ("session.resume_ms", 0, 600_000),
        ("session.ice_timeout_ms", 1000, 120_000),
        ("session.idle_timeout_ms", 1000, 3_600_000),
        ("session.max_duration_s", 1, 31_536_000),
        ("shutdown.grace_ms", 0, 3_600_000),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        let with = |value: i64| file(&format!("[{section}]\n{name} = {value}\n"));
        for legal in [low, high] {
            assert!(Config::load(&with(legal)).is_ok(), "{key} = {legal}");
        }
        for illegal in [low - 1, high + 1] {
            let mistake = only_mistake(&with(illegal));
            assert_eq!((mistake.key.as_str(), mistake.value), (key, Some(illegal.to_string())));
            assert!(mistake.legal.contains(&format!("{low} to {high}")), "{}", mistake.legal);
        }
    }
}

#[test]
fn others_are_served_only_with_authentication_or_on_demand() {
    let open = file("[http]\nlisten = \"0.0.0.0:8080\"\n");
    assert!(only_mistake(&open).legal.contains("--insecure"));
    assert!(Config::load(&Sources { insecure: true, ..open.clone() }).is_ok());
    let secret = [("SACCADE_AUTH__SECRET", "0123456789012345678901234567890123456789")];
    assert!(Config::load(&with_environment(open.clone(), &secret)).is_ok());
    // A secret that is refused is no authentication.
    let keys: Vec<_> = mistakes(&with_environment(open, &[("SACCADE_AUTH__SECRET", "12345")])).into_iter().collect();
    assert_eq!(keys.iter().map(|mistake| mistake.key.as_str()).collect::<Vec<_>>(), ["auth.secret", "http.listen"]);
}

#[test]
fn a_secret_of_digits_stays_the_text_it_was_and_never_shows() {
    let digits = "0012345678901234567890123456789012345678";
    let sources = with_environment(Sources::default(), &[("SACCADE_AUTH__SECRET", digits)]);
    let auth = Config::load(&sources).unwrap().auth.unwrap();
    assert_eq!(auth.secret.as_ref().unwrap().expose(), digits);
    assert!(!format!("{auth:?}").contains(digits));

    let short = only_mistake(&with_environment(Sources::default(), &[("SACCADE_AUTH__SECRET", "hunter2")]));
    assert_eq!(short.value.as_deref(), Some("(hidden)"));
    assert!(only_mistake(&file("[auth]\nsecret = 12345\n")).legal.contains("a text"));
}

#[test]
fn a_secret_file_is_read_and_its_newline_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    let sources = file(&format!("[auth]\nsecret_file = {path:?}\naudience = \"here\"\n"));
    assert!(only_mistake(&sources).legal.contains("can be read"));
    std::fs::write(&path, "short\n").unwrap();
    assert!(only_mistake(&sources).legal.contains("at least 32 bytes"));
    std::fs::write(&path, format!("{}\n", "s".repeat(32))).unwrap();
    let auth = Config::load(&sources).unwrap().auth.unwrap();
    assert_eq!((auth.secret.unwrap().expose(), auth.audience.as_deref()), ("s".repeat(32).as_str(), Some("here")));

    let both = with_environment(sources, &[("SACCADE_AUTH__SECRET", "0123456789012345678901234567890123456789")]);
    assert_eq!(only_mistake(&both).key, "auth.secret_file");
    assert_eq!(only_mistake(&file("[auth]\nissuer = \"me\"\n")).key, "auth.issuer");
}

#[test]
fn public_keys_or_api_keys_are_authentication_without_a_secret() {
    let open = "[http]\nlisten = \"0.0.0.0:8080\"\n[auth]\n";
    let auth = Config::load(&file(&format!("{open}jwks_file = \"keys.json\"\nissuer = \"me\"\nleeway_s = 0\n")));
    let auth = auth.unwrap().auth.unwrap();
    assert_eq!((auth.secret, auth.leeway), (None, Duration::ZERO));
    assert_eq!((auth.jwks_file, auth.issuer.as_deref()), (Some("keys.json".into()), Some("me")));

    let key = |claims: &str| {
        let table = "[[auth.api_keys]]\nname = \"gate\"\n";
        file(&format!("{open}{table}sha256 = \"{}\"\n{claims}", "0F".repeat(32)))
    };
    let auth = Config::load(&key("can_view = true\nmodels = [\"a\"]\npriority = \"low\"\n")).unwrap().auth.unwrap();
    let claims = Claims {
        sub: Some("gate".into()),
        can_view: true,
        models: vec!["a".into()],
        priority: Priority::Low,
        ..Claims::default()
    };
    assert_eq!(auth.api_keys, [ApiKey { hash: [15; 32], claims }]);
    let other = Config::load(&key("sub = \"else\"\n")).unwrap().auth.unwrap();
    assert_eq!(other.api_keys[0].claims.sub.as_deref(), Some("else"));
    for (claims, part) in [
        ("can_vew = true\n", "unknown key can_vew"),
        ("can_view = 1\n", "its claims"),
        ("max_sessions = -1\n", "its claims"),
        ("exp = 5\n", "unknown key exp"),
    ] {
        let all = mistakes(&key(claims));
        assert_eq!(all[0].key, "auth.api_keys");
        assert!(all[0].legal.contains(part) && all[0].legal.starts_with("number 1"), "{}", all[0]);
        assert_eq!(all[0].value.as_deref(), Some("(hidden)"));
    }
    for (name, hash, part) in [("", "00", "name"), ("a", "00", "64"), ("a", &"xy".repeat(32), "64")] {
        let table = format!("[[auth.api_keys]]\nname = {name:?}\nsha256 = {hash:?}\n");
        assert!(only_mistake(&file(&table)).legal.contains(part));
    }
    let json = format!("[{{\"name\": \"a\", \"sha256\": \"{}\"}}]", "ab".repeat(32));
    let twice = format!("[{0}, {0}]", json.trim_matches(['[', ']']));
    let from = |text: &str| with_environment(Sources::default(), &[("SACCADE_AUTH__API_KEYS", text)]);
    assert!(Config::load(&from(&json)).is_ok());
    assert!(only_mistake(&from(&twice)).legal.contains("number 2"));
}

#[test]
fn a_certificate_goes_with_its_key_and_proxies_are_networks() {
    let config = Config::load(&file(concat!(
        "[http]\ntls_cert = \"c\"\ntls_key = \"k\"\ntrusted_proxies = [\"10.0.0.0/8\", \"192.0.2.1\", \"::1\"]\n",
        "[limits]\nsessions_per_subject = 2\n[rate]\nrequests_per_s = 0\n",
    )));
    let config = config.unwrap();
    assert_eq!(config.http.tls, Some(TlsFiles { certificate: "c".into(), key: "k".into() }));
    let networks: Vec<_> = config.http.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.0.2.1/32", "::1/128"]);
    assert_eq!((config.limits.sessions_per_subject, config.limits.sessions_per_address), (Some(2), None));
    assert_eq!((config.rate.requests_per_s, config.rate.loopback), (None, false));
    assert_eq!(only_mistake(&file("[http]\ntls_cert = \"c\"\n")).key, "http.tls_cert");
    assert_eq!(only_mistake(&file("[http]\ntls_key = \"k\"\n")).key, "http.tls_key");
    assert_eq!(only_mistake(&file("[http]\ntrusted_proxies = [\"10.0.0.0/33\"]\n")).key, "http.trusted_proxies");
}

#[test]
fn ice_servers_are_tables_in_a_file_and_json_in_the_environment() {
    let toml = "[[ice_servers]]\nurls = [\"turn:t.example\"]\nusername = \"u\"\ncredential = \"c\"\n";
    let from_file = Config::load(&file(toml)).unwrap().ice_servers;
    let json = r#"[{"urls": "turn:t.example", "username": "u", "credential": "c"}]"#;
    let sources = with_environment(Sources::default(), &[("SACCADE_ICE_SERVERS", json)]);
    assert_eq!(Config::load(&sources).unwrap().ice_servers, from_file);
    assert_eq!(from_file[0].access, Access::Fixed { username: "u".into(), credential: Secret::new("c".into()) });

    for (lines, part) in [
        ("urls = [\"http://t.example\"]", "\"http://t.example\" is not: it must begin with stun:"),
        ("urls = [\"stun:t.example\", \"turn:me:pass@t.example\"]", "\"…@t.example\" is not: a port is a number"),
        ("urls = [\"stun:t.example\", 3]", "urls must be"),
        ("", "urls must be"),
        ("urls = [\"turn:t.example\"]", "needs username and credential, secret, or secret_file"),
        ("urls = [\"turn:t.example\"]\nusername = \"me\"", "username and credential go together"),
        ("urls = [\"stun:t.example\"]\nport = 3", "unknown key port"),
        ("urls = [\"stun:t.example\"]\nsecret = \"s\"", "a shared secret is for TURN servers"),
        ("urls = [\"turn:t.example\"]\nsecret = \"s\"\nusername = \"me\"", "leave out either username"),
        ("urls = [\"turn:t.example\"]\nsecret = \"s\"\nsecret_file = \"f\"", "leave out either secret or"),
        ("urls = [\"turn:t.example\"]\nsecret = \"\"", "secret must be a text that is not empty"),
        ("urls = [\"turn:t.example\"]\nsecret = \"s\"\nttl_s = 59", "from 60 to 86400"),
        ("urls = [\"turn:t.example\"]\nsecret = \"s\"\nttl_s = \"1h\"", "from 60 to 86400"),
        ("urls = [\"stun:t.example\"]\nttl_s = 60", "ttl_s is for credentials that are made"),
        ("urls = [\"turn:t.example\"]\nsecret_file = \"/nowhere\"", "\"/nowhere\" cannot be read"),
    ] {
        let all = mistakes(&file(&format!("[[ice_servers]]\n{lines}\n")));
        assert!(all.iter().any(|one| one.legal.contains(part)), "{lines}: {all:?}");
        assert!(all.iter().all(|one| one.key == "ice_servers" && !one.to_string().contains("pass@")), "{all:?}");
    }
    assert!(only_mistake(&file("ice_servers = [\"stun:t.example\"]\n")).legal.contains("a list of tables"));
}

#[test]
fn a_shared_secret_of_turn_is_given_inline_or_in_a_file_and_its_mistakes_come_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("turn");
    std::fs::write(&path, "north\n").unwrap();
    let toml = format!(
        "[[ice_servers]]\nurls = \"turn:t.example\"\nsecret_file = {path:?}\n\
         [[ice_servers]]\nurls = \"turns:t.example\"\nsecret = \"south\"\nttl_s = 600\n"
    );
    let servers = Config::load(&file(&toml)).unwrap().ice_servers;
    let signed =
        |secret: &str, ttl| Access::Signed { secret: Secret::new(secret.to_owned()), ttl: Duration::from_secs(ttl) };
    assert_eq!((&servers[0].access, &servers[1].access), (&signed("north", 3600), &signed("south", 600)));

    let json = r#"[{"urls": "turns:t.example", "secret": "south", "ttl_s": 600}]"#;
    let sources = with_environment(Sources::default(), &[("SACCADE_ICE_SERVERS", json)]);
    assert_eq!(Config::load(&sources).unwrap().ice_servers, servers[1..]);

    std::fs::write(&path, " \n").unwrap();
    let toml = format!(
        "[[ice_servers]]\nurls = [\"stun:a\", \"turn:b?x\"]\nsecret_file = {path:?}\nttl_s = 1\nsize = 2\n\
         [[ice_servers]]\nurls = \"turn:\"\nsecret = \"hush\"\nusername = \"me\"\n"
    );
    let all = mistakes(&file(&toml));
    let of = |number: &str| all.iter().filter(|one| one.legal.starts_with(number)).count();
    assert_eq!((of("number 1:"), of("number 2:"), all.len()), (5, 2, 7), "{all:?}");
    assert!(all.iter().all(|one| !one.to_string().contains("hush")), "{all:?}");
}

#[test]
fn what_is_no_toml_is_told_by_its_line_without_what_stands_there() {
    for (text, line, part) in [
        ("[auth]\nsecret = \"hush\"\nsecret = \"hush\"\n", "line 3, column 1", "duplicate key `secret`"),
        ("# a comment\n\n\n\n\n\n\n\n\n[auth]\nsecret = \"hush\n", "line 11, column 15", "string"),
        ("[auth]\r\nsecret = \"hush\" | \"hush\"\r\n", "line 2, column 17", "expected"),
    ] {
        let shown = only_mistake(&file(text)).to_string();
        assert!(shown.starts_with("test.toml: TOML parse error at ") && shown.lines().count() == 1, "{shown}");
        assert!(shown.contains(line) && shown.contains(part) && !shown.contains("hush"), "{shown}");
    }
}

#[test]
fn routes_are_tables_in_a_file_and_json_elsewhere() {
    let share = |model: &str, weight| Share { model: model.to_owned(), weight };
    let split = Route::Split { shares: vec![share("a@1", 90), share("a@2", 10)], shadow: Some("a@3".to_owned()) };
    let ensemble = Route::Ensemble { models: vec!["a".to_owned(), "b".to_owned()], fusion: Fusion::Wbf };
    let toml = concat!(
        "[routes.canary]\nsplit = [{ model = \"a@1\", weight = 90 }, { model = \"a@2\", weight = 10 }]\n",
        "shadow = \"a@3\"\n[routes.both]\nensemble = [\"a\", \"b\"]\nfusion = \"wbf\"\n",
    );
    let expected = BTreeMap::from([("both".to_owned(), ensemble.clone()), ("canary".to_owned(), split.clone())]);
    assert_eq!(Config::load(&file(toml)).unwrap().routes, expected);

    let variable = ("SACCADE_ROUTES__BOTH", r#"{"ensemble": ["a", "b"]}"#);
    let mut sources = with_environment(Sources::default(), &[variable]);
    let json = r#"{"split":[{"model":"a@1","weight":90},{"model":"a@2","weight":10}],"shadow":"a@3"}"#;
    sources.flag("routes.canary", "--set", json);
    assert_eq!(Config::load(&sources).unwrap().routes, expected);
    assert_eq!(Config::load(&file("routes = {}\n")).unwrap().routes, BTreeMap::new());
}

#[test]
fn all_mistakes_of_all_routes_come_at_once() {
    let sources = with_environment(
        file(concat!(
            "[routes.one]\nsplit = [{ model = \"a\", weight = 1001 }, { model = \"../b\", weight = 1 }]\nshadwo = \"a\"\n",
            "[routes.two]\nsplit = [{ model = \"a\", weight = 2000 }, { model = \"../b\", weight = 1 }]\n",
            "[routes.three]\nsplit = [{ model = \"a\", weight = -1 }, { model = \"a\" }]\nshadow = 7\n",
            "[routes.four]\nensemble = [\"a\"]\n",
            "[routes.five]\nensemble = [\"a\", 5]\nfusion = \"nms\"\n",
            "[routes.six]\nshadow = \"a\"\n",
            "[routes.seven]\nsplit = [{ model = \"a\", weight = 1 }]\nensemble = [\"a\", \"b\"]\n",
            "[routes.Eight]\nensemble = [\"a\", \"b\"]\n",
            "[routes.nine]\nensemble = \"a\"\n",
        )),
        &[("SACCADE_ROUTES__TEN", "a:90,b:10"), ("SACCADE_ROUTES__ELEVEN", r#"{"ensemble": [1, 2]}"#)],
    );
    let shown = Config::load(&sources).unwrap_err().to_string();
    for expected in [
        "16 mistakes",
        "routes.one.shadwo = \"a\" (from test.toml): unknown key; a route has split",
        "routes.two.split[0].weight = 2000 (from test.toml): must be a whole number from 0 to 1000",
        "routes.two.split[1].model = \"../b\" (from test.toml): must be a model as NAME or NAME@VERSION",
        "routes.three.split[0].weight = -1 (from test.toml): must be a whole number from 0 to 1000",
        "routes.three.split[1] = {model = \"a\"} (from test.toml): must be a table with model and weight",
        "routes.three.shadow = 7 (from test.toml): must be a text",
        "routes.four.ensemble = 1 models (from test.toml): must name 2 to 4 models",
        "routes.five.ensemble[1] = 5 (from test.toml): must be a text",
        "routes.five.fusion = \"nms\" (from test.toml): must be \"wbf\"",
        "routes.six = {shadow = \"a\"} (from test.toml): must have either split or ensemble",
        "routes.seven = {ensemble = [\"a\", \"b\"], split =",
        "routes.Eight = {ensemble = [\"a\", \"b\"]} (from test.toml): must have as its name up to 64 of a-z",
        "routes.nine.ensemble = \"a\" (from test.toml): must be a list",
        "routes.ten = \"a:90,b:10\" (from SACCADE_ROUTES__TEN): must be a table",
        "routes.eleven.ensemble[1] = 2 (from SACCADE_ROUTES__ELEVEN): must be a text",
    ] {
        assert!(shown.contains(expected), "{expected:?} is not in:\n{shown}");
    }
    assert!(only_mistake(&file("routes = 5\n")).legal.contains("is a section: [routes]"));
    assert!(only_mistake(&file("[routes]\nsplit = 5\n")).legal.contains("must be a table"));
}

#[test]
fn names_and_urls_are_checked() {
    for (key, wrong) in [
        ("http.public_url", "\"vision.example\""),
        ("http.public_url", "\"https://vision.example/\""),
        ("http.allowed_origins", "[\"https://app.example/page\"]"),
        ("http.allowed_origins", "\"https://app.example\""),
        ("media.advertise", "[\"0.0.0.0\"]"),
        ("media.listen", "\"any\""),
        ("models.dir", "\"/no/such/folder\""),
        ("models.default", "\"../escape\""),
        ("models.calibration", "\"on\""),
        ("telemetry.log", "\"loud=shout\""),
        ("telemetry.log_format", "\"xml\""),
        ("admission.mode", "\"guess\""),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        assert_eq!(only_mistake(&file(&format!("[{section}]\n{name} = {wrong}\n"))).key, key);
    }
    let config = Config::load(&file(concat!(
        "[http]\npublic_url = \"https://vision.example:8443\"\nallowed_origins = [\"https://app.example:99\", \"*\"]\n",
        "[models]\ndefault = \"yolox-nano@1\"\n[telemetry]\nlog = \"warn,saccade=trace\"\n",
    )));
    assert_eq!(config.unwrap().models.default, "yolox-nano@1");
}

#[test]
fn traces_go_where_a_collector_is_named_and_what_is_wrong_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "authorization: Bearer s3cret\n").unwrap();
    assert_eq!(Config::default().telemetry.traces, None);
    assert!(Config::load(&file("[telemetry]\notlp_endpoint = \"\"\n")).unwrap().telemetry.traces.is_none());
    let config = Config::load(&file(&format!(
        "[telemetry]\notlp_endpoint = \"https://otel.example\"\notlp_headers_file = {headers:?}\ntrace_sample_ratio = 0.25\n"
    )));
    let traces = config.unwrap().telemetry.traces.unwrap();
    assert_eq!(traces.url, "https://otel.example/v1/traces");
    assert_eq!((traces.sampling.ratio, traces.sampling.frames_per_s), (0.25, 1));
    assert_eq!(traces.headers[0].1.expose(), "Bearer s3cret");
    assert!(!format!("{traces:?}").contains("s3cret"));

    let wrong = "[telemetry]\notlp_endpoint = \"https://me:pa55@otel.example\"\notlp_headers_file = \"/nowhere/headers\"\n\
                 trace_sample_ratio = 1.5\nframe_traces_per_s = 101\n";
    let mistakes = Config::load(&file(wrong)).unwrap_err();
    let keys: Vec<_> = mistakes.all().iter().map(|mistake| mistake.key.as_str()).collect();
    let names = ["otlp_endpoint", "trace_sample_ratio", "frame_traces_per_s", "otlp_headers_file"];
    assert_eq!(keys, names.map(|name| format!("telemetry.{name}")));
    assert!(!mistakes.to_string().contains("pa55"), "{mistakes}");
    let alone = only_mistake(&file(&format!("[telemetry]\notlp_headers_file = {headers:?}\n")));
    assert!(alone.legal.contains("needs telemetry.otlp_endpoint"), "{alone}");
}

#[test]
fn tiers_of_results_are_read_and_their_secrets_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "fromF1le\n").unwrap();
    let config = Config::load(&file(&format!(
        "[cache]\nredis_url = \"rediss://u@redis.example/1\"\nredis_password_file = {password:?}\ndisk_dir = \"/var/cache/s\"\n\
         s3_bucket = \"results\"\ns3_endpoint = \"http://127.0.0.1:9000\"\ns3_access_key_id = \"AKID\"\n\
         s3_secret_access_key = \"s3cretKey\"\n[session]\nstill_gate = true\n"
    )))
    .unwrap();
    let (redis, wait) = config.cache.redis.as_ref().unwrap();
    assert_eq!((redis.password.as_ref().unwrap().expose(), wait.as_millis()), ("fromF1le", 20));
    assert_eq!(config.cache.disk.as_ref().unwrap().max_bytes, 1 << 30);
    assert_eq!(config.cache.s3.as_ref().unwrap().0.credentials.as_ref().unwrap().1.expose(), "s3cretKey");
    assert_eq!(config.session.still.unwrap().check_every, 30);
    let shown = format!("{config:?}");
    assert!(!shown.contains("fromF1le") && !shown.contains("s3cretKey"), "{shown}");

    for (key, wrong) in [
        ("redis_url", "\"http://u:hUsh@h\""),
        ("redis_url", "\"redis://u:hUsh@:::\""),
        ("redis_password_file", "\"/nowhere/at/all\""),
        ("s3_bucket", "\"a/b\""),
        ("s3_endpoint", "\"ftp://x\""),
        ("s3_prefix", "\"a//b\""),
        ("s3_access_key_id", "\"hUsh\""),
        ("ttl_s", "0"),
        ("max_bytes", "1"),
        ("warm", "[\"\"]"),
    ] {
        let mistake = only_mistake(&file(&format!("[cache]\n{key} = {wrong}\n")));
        assert_eq!(mistake.key, format!("cache.{key}"));
        assert!(!mistake.to_string().contains("hUsh"), "{mistake}");
    }
}

#[test]
fn the_example_equals_the_defaults_and_names_every_key() {
    assert_eq!(Config::load(&file(EXAMPLE)), Ok(Config::default()));

    let mut section = String::new();
    let mut named = BTreeSet::new();
    for line in EXAMPLE.lines() {
        let line = line.trim_start_matches('#').trim();
        if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = header.trim_matches(['[', ']']).to_owned();
            named.insert(section.clone());
        } else if let Some((name, _)) = line.split_once(" = ") {
            named.insert(format!("{section}.{name}"));
        }
    }
    let missing: Vec<_> = read(&Sources::default()).1.into_iter().filter(|key| !named.contains(*key)).collect();
    assert!(missing.is_empty(), "not in saccade.example.toml: {missing:?}");
}
