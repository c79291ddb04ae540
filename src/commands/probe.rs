use std::process::Command;
#[cfg(feature = "cuda")]
use std::sync::Arc;
use std::sync::OnceLock;

use crate::config::Config;
#[cfg(feature = "cuda")]
use crate::decode::nvdec;
#[cfg(feature = "cuda")]
use crate::device::{Device, Stream, driver::Driver, kernels};
#[cfg(feature = "cuda")]
use crate::encode::nvenc;
use crate::hardware::probe::{self, LIMIT};
use crate::hardware::{Piece, Table};
#[cfg(feature = "cuda")]
use crate::infer::{self, Recorded};
#[cfg(feature = "cuda")]
use crate::media::I420;
#[cfg(feature = "cuda")]
use crate::scene::Scene;

/// The name of the command that looks, as clap has it.
const COMMAND: &str = "probe-hardware";

/// Has another process of this program look for a GPU, once; what it finds holds for as long as this one runs.
pub(super) fn find(config: &Config) -> Table {
    static FOUND: OnceLock<Table> = OnceLock::new();
    if !config.hw.is_wanted() {
        return Table::nothing("switched off by the configuration");
    }
    FOUND.get_or_init(ask).clone()
}

fn ask() -> Table {
    match std::env::current_exe() {
        Ok(program) => {
            let mut command = Command::new(program);
            command.arg(COMMAND);
            probe::run(command, LIMIT)
        }
        Err(error) => Table::nothing(&format!("the program that looks for it is not found: {error}")),
    }
}

/// Looks, and writes what it finds to standard output.
pub(super) fn look() {
    let mut teller = probe::Teller::new(std::io::stdout());
    look_at_device(&mut teller);
    teller.done();
}

#[cfg(not(feature = "cuda"))]
fn look_at_device(teller: &mut probe::Teller<std::io::Stdout>) {
    let reason = "this program was built without the feature `cuda`".to_owned();
    teller.look(Piece::Driver, || Err::<((), String), _>(reason));
}

/// One piece after the other, as far as they build on each other.
#[cfg(feature = "cuda")]
fn look_at_device(teller: &mut probe::Teller<std::io::Stdout>) {
    let driver = teller.look(Piece::Driver, || {
        let driver = Driver::open().map_err(|missing| missing.to_string())?;
        let version = driver.start().map_err(|missing| missing.to_string())?;
        Ok((driver, format!("CUDA {version}")))
    });
    let device = driver.and_then(|driver| {
        teller.look(Piece::Device, || {
            let device = Device::open(driver, 0).map_err(|missing| missing.to_string())?;
            let free = device.free_memory().map_err(|error| error.to_string())?;
            let found = format!("{}, {} of {} MiB free", device.name(), free >> 20, device.memory() >> 20);
            Ok((device, found))
        })
    });
    let Some(device) = device else { return };
    let program = teller.look(Piece::Kernels, || {
        let program = tested_kernels(&device).map_err(|unfit| unfit.to_string())?;
        Ok((program, format!("{} give what they give on the CPU", kernels::ENTRIES.len())))
    });
    let api = nvdec::Api::open().map_err(|missing| missing.to_string());
    let hardware = api.map(|api| nvdec::Hardware::new(&device, api, nvdec::Bounds::default()));
    for (piece, codec) in [
        (Piece::DecodeH264, nvdec::Codec::H264),
        (Piece::DecodeHevc, nvdec::Codec::Hevc),
        (Piece::DecodeVp8, nvdec::Codec::Vp8),
        (Piece::DecodeVp9, nvdec::Codec::Vp9),
        (Piece::DecodeAv1, nvdec::Codec::Av1),
    ] {
        teller.look(piece, || {
            let hardware = hardware.as_ref().map_err(Clone::clone)?;
            let nvdec::Capability { max: [width, height], engines, .. } =
                hardware.capability(codec).map_err(|error| error.to_string())?;
            Ok(((), format!("up to {width}x{height} on {engines} engines")))
        });
    }
    look_at_encoder(teller, &device);
    if let Some(program) = program {
        look_at_provider(teller, program);
    }
}

/// Encodes two pictures.
#[cfg(feature = "cuda")]
fn look_at_encoder(teller: &mut probe::Teller<std::io::Stdout>, device: &Arc<Device>) {
    teller.look(Piece::EncodeH264, || {
        let api = nvenc::Api::open().map_err(|missing| missing.to_string())?;
        let hardware = nvenc::Hardware::new(device, api, nvenc::Bounds::default());
        let found = nvenc::check(&hardware).map_err(|mistake| mistake.to_string())?;
        Ok(((), found))
    });
}

/// The kernels, after the GPU has computed what is known.
#[cfg(feature = "cuda")]
fn tested_kernels(device: &Arc<Device>) -> Result<kernels::Program, kernels::Unfit> {
    let (program, stream) = (kernels::Program::load(device)?, Stream::new(device)?);
    let on = program.on(&stream);
    kernels::SelfTest::new().run(&on)?;
    kernels::overlay::SelfTest::new().run(&on)?;
    infer::device::self_test(&on)?;
    Ok(program)
}

/// Runs the embedded model where its pictures are, with what is faster where it works: TensorRT, and recorded runs.
#[cfg(feature = "cuda")]
fn look_at_provider(teller: &mut probe::Teller<std::io::Stdout>, program: kernels::Program) {
    let name = program.device().name().to_owned();
    let gpu = infer::device::Gpu::new(Arc::new(program), infer::device::Tensors::Device);
    let engine = |gpu: infer::device::Gpu| {
        let options = infer::Options {
            precision: Some(infer::manifest::Precision::Fp32),
            backend: Some(infer::manifest::BackendChoice::Cuda),
            cuda: Ok(infer::Cuda { name: name.clone(), tensorrt: Err("not looked for".to_owned()), gpu: Some(gpu) }),
            ..infer::Options::default()
        };
        infer::Engine::new(options).map_err(|error| error.to_string())
    };
    let spec = infer::ModelSpec::embedded().map_err(|error| error.to_string());
    let ran = teller.look(Piece::Cuda, || {
        let (engine, spec) = (engine(gpu.clone())?, spec.as_ref().map_err(Clone::clone)?);
        engine.try_out(spec).map_err(|error| error.to_string())?;
        // The same at each start: what is measured is kept under this name.
        Ok(((), format!("{} runs on {name}; {}", spec.manifest.id(), engine.library().build_info())))
    });
    if ran.is_none() {
        return;
    }
    teller.look(Piece::CudaGraphs, || {
        let (engine, spec) = (engine(gpu.recording())?, spec.as_ref().map_err(Clone::clone)?);
        // One in which there are people, and one that is all the same.
        let pictures = [Arc::new(Scene::new(640, 480, 30, 1).frame(3)), Arc::new(I420::new(640, 480))];
        let Recorded { anew, repeated } = engine.try_recorded(spec, &pictures).map_err(|error| error.to_string())?;
        Ok(((), format!("{} finds the same in {repeated:.1?} instead of {anew:.1?}", spec.manifest.id())))
    });
    // The slowest, and the likeliest to crash, comes last.
    look_at_tensorrt(teller);
}

/// Builds and runs the smallest engine.
#[cfg(feature = "cuda")]
fn look_at_tensorrt(teller: &mut probe::Teller<std::io::Stdout>) {
    teller.look(Piece::TensorRt, || {
        let library = infer::backend::Library::load().map_err(|error| error.to_string())?;
        let found = infer::TensorRt::try_out(&library).map_err(|error| error.to_string())?;
        Ok(((), found))
    });
}
