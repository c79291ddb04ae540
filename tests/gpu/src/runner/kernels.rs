//! Each kernel against its twin on the processors, and the self-tests of the probe.

use saccade::device::Stream;
use saccade::device::kernels::{Launcher, SelfTest, Unfit, overlay};
use saccade::infer;

use super::comparisons::{Place, What};
use super::gpu::{Machine, OnGpu};
use super::numbers::Numbers;
use super::{Report, Stop};

/// Compares all of them on `rounds` inputs each.
///
/// # Errors
/// [`Stop`], where the GPU gives no stream.
pub fn run(report: &Report, machine: &Machine, seed: u64, rounds: usize) -> Result<(), Stop> {
    report.row("GPU", format!("{}, CUDA {}", machine.device.name(), machine.device.version()));
    report.row("seed", format!("{seed}, {rounds} inputs each"));
    let stream = Stream::new(&machine.device).map_err(Stop::failed)?;
    let on = machine.program.on(&stream);
    report.judge("self-test", self_tests(&on).map(|()| "as on the CPU".to_owned()).map_err(|unfit| unfit.to_string()));
    compare(report, &OnGpu(on), seed, rounds);
    Ok(())
}

fn self_tests(on: &Launcher<'_>) -> Result<(), Unfit> {
    SelfTest::new().run(on)?;
    overlay::SelfTest::new().run(on)?;
    infer::device::self_test(on)
}

/// One row for each; the first difference ends that one.
pub fn compare(report: &Report, place: &impl Place, seed: u64, rounds: usize) {
    for what in What::ALL {
        let mut bytes = 0;
        let round = |round: usize| {
            // So that one round can be had alone.
            let seed = seed.wrapping_add(round as u64);
            bytes +=
                what.compare(place, &mut Numbers::new(seed)).map_err(|problem| format!("seed {seed}: {problem}"))?;
            Ok::<_, String>(())
        };
        let done = (0..rounds).try_for_each(round);
        report.judge(what.name(), done.map(|()| format!("{bytes} bytes as on the CPU")));
    }
}
