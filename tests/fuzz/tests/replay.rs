//! Runs what was kept of each target's inputs through it again, and what is broken of them here and there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use saccade_fuzz::{TARGETS, Target};

/// Bytes of one kept input at most, and of all of a target's.
const MAX_FILE: usize = 9 * 1024;
const MAX_FOLDER: usize = 512 * 1024;

fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

fn kept(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// Each file, its beginnings, and with a few bytes changed; the file's name is printed first, so that it is the last line
/// of what fails.
fn replay(name: &str) {
    let target = saccade_fuzz::target(name).unwrap();
    for (path, bytes) in kept(target) {
        eprintln!("{}", path.display());
        (target.run)(&bytes);
        for part in 1..4 {
            (target.run)(&bytes[..bytes.len() * part / 4]);
        }
        for at in (0..bytes.len()).step_by((bytes.len() / 4).max(1)) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            (target.run)(&changed);
        }
    }
}

macro_rules! replayed {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })+

        #[test]
        fn every_target_is_replayed() {
            let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(names, BTreeSet::from([$(stringify!($name)),+]));
        }
    };
}

replayed![
    signaling_json,
    sdp_offer,
    sdp_fragment,
    ice_candidate,
    stun_demux,
    tcp_framing,
    depacketize_h264,
    depacketize_vp8,
    depacketize_vp9,
    picture_header,
    stills,
    postprocess,
    manifest,
    onnx,
    config,
    tensor_request,
    token,
    metrics_page,
    trace_context,
    session_life,
];

#[test]
fn every_target_has_a_corpus_that_is_small_and_no_folder_is_without_a_target() {
    for target in &TARGETS {
        let kept = kept(target);
        assert!(kept.len() >= 3, "{} has {} inputs", target.name, kept.len());
        assert!(kept.iter().all(|(_, bytes)| bytes.len() <= MAX_FILE), "{}", target.name);
        let all: usize = kept.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(all <= MAX_FOLDER, "{}: {all} bytes", target.name);
    }
    let folders = fs::read_dir(folder(&TARGETS[0]).parent().unwrap()).unwrap();
    for folder in folders.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(saccade_fuzz::target(&folder).is_some(), "corpus/{folder} belongs to no target");
    }
}

#[test]
fn the_program_runs_files_and_names_its_targets() {
    let run =
        |words: &[&str]| std::process::Command::new(env!("CARGO_BIN_EXE_saccade-fuzz")).args(words).output().unwrap();
    let listed = String::from_utf8(run(&["--list"]).stdout).unwrap();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names, TARGETS.iter().map(|target| target.name).collect::<Vec<_>>());
    let (path, _) = kept(&TARGETS[0]).remove(0);
    assert!(run(&[TARGETS[0].name, path.to_str().unwrap()]).status.success());
    assert!(!run(&["no_such_target"]).status.success());
}
