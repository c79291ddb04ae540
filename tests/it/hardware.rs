//! Special hardware as an operator sees it, on machines with and without.

use serde_json::Value;

use crate::program::{run, saccade};

#[test]
fn what_is_switched_off_is_not_looked_for() {
    let (code, out, error) = run(saccade("doctor").args(["--json", "--hw", "off", "--set", "media.port=0"]));
    assert_eq!(code, 0, "{out}{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let gpu = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == "gpu").unwrap();
    assert_eq!(gpu["found"], "none is used: NVIDIA driver: switched off by the configuration");
}

#[test]
fn what_is_insisted_on_is_there_or_ends_the_start_with_the_reason() {
    let (code, out, error) = run(saccade("doctor").args(["--json", "--hw", "on", "--set", "media.port=0"]));
    let report: Value = serde_json::from_str(&out).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let missing: Vec<&str> = ["hw.decode", "hw.encode", "hw.infer"]
        .into_iter()
        .filter(|key| checks.iter().any(|check| check["name"] == *key && check["status"] == "fail"))
        .collect();
    if missing.is_empty() {
        assert_eq!(code, 0, "{out}{error}");
        return;
    }
    assert_eq!(code, 69, "{out}{error}");
    let listen = ["http.listen", "ops.listen"].map(|key| format!("--set={key}=127.0.0.1:0"));
    let (code, _, error) = run(saccade("serve").args(["--hw", "on", "--set", "media.port=0"]).args(listen));
    assert_eq!(code, 69, "{error}");
    for key in missing {
        assert!(error.contains(&format!("{key} = \"on\": ")), "{error}");
    }
}
