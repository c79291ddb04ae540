//! Runs targets. Built by `scripts/fuzz.sh`, it is libFuzzer with the target that `FUZZ_TARGET` names; otherwise it runs
//! files through a target, or writes the seeds of all.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzer {
    use std::sync::OnceLock;

    use libfuzzer_sys::fuzz_target;
    use saccade_fuzz::Target;

    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();

    #[allow(clippy::expect_used, reason = "nothing can be done without a target")]
    fn choose() -> &'static Target {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        saccade_fuzz::target(&name).expect("FUZZ_TARGET names a target")
    }

    fuzz_target!(|data: &[u8]| {
        (CHOSEN.get_or_init(choose).run)(data);
    });
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let mut words = std::env::args().skip(1);
    let first = words.next().unwrap_or_default();
    match (first.as_str(), saccade_fuzz::target(&first)) {
        ("--list", _) => saccade_fuzz::TARGETS.iter().for_each(|it| println!("{} {}", it.name, it.max_len)),
        ("--seeds", _) => {
            let folder = words.next().unwrap_or_else(|| "tests/fuzz/corpus".to_owned());
            if let Err(error) = saccade_fuzz::write_seeds(folder.as_ref()) {
                eprintln!("saccade-fuzz: {folder}: {error}");
                return ExitCode::FAILURE;
            }
        }
        (_, Some(target)) => {
            for file in words {
                match std::fs::read(&file) {
                    Ok(bytes) => (target.run)(&bytes),
                    Err(error) => {
                        eprintln!("saccade-fuzz: {file}: {error}");
                        return ExitCode::FAILURE;
                    }
                }
            }
        }
        _ => {
            eprintln!("usage: saccade-fuzz TARGET FILE… | --list | --seeds [FOLDER]");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
