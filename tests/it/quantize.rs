//! `saccade models quantize` on a real model and photos.

use std::fs;
use std::path::{Path, PathBuf};

use saccade::infer::ModelSpec;

use crate::assets::asset;
use crate::models;
use crate::program::{MODELS, run, saccade};

/// Copies photos of heads and helmets, spread over the whole data set, and gives their folder.
fn photos(test: &str, root: &Path, count: usize) -> Option<PathBuf> {
    let source = asset(test, "datasets/helmet/images")?;
    let folder = root.join("photos");
    fs::create_dir(&folder).unwrap();
    let mut paths: Vec<_> = fs::read_dir(source).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().step_by(paths.len() / count).take(count) {
        fs::copy(path, folder.join(path.file_name().unwrap())).unwrap();
    }
    Some(folder)
}

/// The default model under another name, which has no variant.
fn plain(root: &Path) -> PathBuf {
    models::copy(root, "plain", |text| {
        let text = models::without_variants(&text).replace("int8 = 0.0019\n", "").replace("fp16 = 0.0007\n", "");
        format!("# of the site\n{text}")
    });
    let folder = root.join("plain/1");
    for variant in ["model.int8.onnx", "model.fp16.onnx"] {
        fs::remove_file(folder.join(variant)).unwrap();
    }
    folder
}

fn quantize(root: &Path, model: &str, images: &Path, more: &[&str]) -> (i32, String, String) {
    let mut program = saccade("models");
    program.args(["quantize", model, "--quiet", "--models-dir"]).arg(root).arg("--images").arg(images).args(more);
    run(&mut program)
}

#[test]
fn a_model_gets_an_int8_variant_that_loses_little_and_a_manifest_that_says_so() {
    let root = tempfile::tempdir().unwrap();
    let Some(images) = photos("a_model_gets_an_int8_variant", root.path(), 32) else { return };
    let models = root.path().join("models");
    fs::create_dir(&models).unwrap();
    let folder = plain(&models);
    let before = fs::read(folder.join("model.onnx")).unwrap();

    // Whatever it would take, nothing loses less than nothing.
    let (code, _, stderr) = quantize(&models, "plain", &images, &["--max-loss=-1"]);
    assert_eq!(code, 70, "{stderr}");
    assert!(stderr.contains("nothing was kept: int8 loses") && stderr.contains("--max-loss"), "{stderr}");
    assert!(!folder.join("model.int8.onnx").exists());

    let (code, stdout, stderr) = quantize(&models, "plain", &images, &["--max-loss", "0.1"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("plain@1: 16 pictures looked at, 16 compared"), "{stdout}");
    let manifest = fs::read_to_string(folder.join("manifest.toml")).unwrap();
    assert!(manifest.starts_with("# of the site\n"), "{manifest}");
    let spec = ModelSpec::open(&folder).unwrap();
    let loss = spec.manifest.accuracy.int8.unwrap();
    assert!((0.0..0.1).contains(&loss), "{loss}");
    assert!(spec.manifest.int8.unwrap().sha256.is_some());
    assert_eq!(fs::read(folder.join("model.onnx")).unwrap(), before);
    let size = fs::metadata(folder.join("model.int8.onnx")).unwrap().len();
    assert!(size * 2 < before.len() as u64, "{size} bytes");

    // What it finds there is what the model finds: the variant runs, and says the same of the same photo.
    let photo = fs::read_dir(&images).unwrap().next().unwrap().unwrap().path();
    let heads = |model: &str, precision: &str| {
        let manifest = folder.join("manifest.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let changed = ["auto", "int8", "fp32"].iter().fold(text, |text, old| {
            text.replace(&format!("precision = \"{old}\""), &format!("precision = \"{precision}\""))
        });
        fs::write(&manifest, changed).unwrap();
        let mut program = saccade("detect");
        let (code, stdout, stderr) = run(program.arg(&photo).arg("--models-dir").arg(&models).args(["--model", model]));
        assert_eq!(code, 0, "{stderr}");
        let result: serde_json::Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
        result["detections"].as_array().unwrap().len()
    };
    let (whole, int8) = (heads("plain", "fp32"), heads("plain", "int8"));
    assert!(whole > 0 && whole.abs_diff(int8) <= 1 + whole / 5, "{whole} and {int8}");
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let empty = root.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let (code, _, stderr) = quantize(Path::new(MODELS), "scene-blobs", &empty, &[]);
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("has 0 pictures; 8 are needed"), "{stderr}");
    let (code, _, stderr) = quantize(&empty, "ppe-nano", &empty, &[]);
    assert_eq!(code, 64, "{stderr}");
    assert!(stderr.contains("part of the program") && stderr.contains("--out"), "{stderr}");
    let (code, _, stderr) = quantize(&empty, "nobody", &empty, &[]);
    assert_eq!(code, 64, "{stderr}");
}
