#![allow(unsafe_code, reason = "kernels get addresses")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::convert::Infallible;
use std::ffi::c_void;
use std::ptr;

use proptest::prelude::*;

use super::emulator::{Emulator, Memory};
use super::*;
use crate::media::{I420, Rotation};

/// Runs kernels on the host. What their addresses point to has to be [`Memory`] that is large enough.
pub(crate) struct OnHost;

impl Launch for OnHost {
    type Error = Infallible;

    unsafe fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), Infallible> {
        let Geometry { grid, block } = kernel.geometry();
        // SAFETY: the structure is the kernel's; the addresses are the test's business, and guarded.
        let ran = unsafe { Emulator::get().launch(K::ENTRY.name, grid, block, ptr::from_ref(kernel).cast::<c_void>()) };
        assert!(ran, "{} is in the sources", K::ENTRY.name);
        Ok(())
    }
}

/// Runs one kernel on the host.
pub(crate) fn run<K: Kernel>(kernel: &K) {
    // SAFETY: as above.
    let Ok(()) = unsafe { OnHost.launch(kernel) };
}

/// A picture in NV12: luma and chroma apart, with `filler` between the rows, and none after the last one.
pub(crate) struct Uploaded {
    pub(crate) nv12: Nv12,
    pub(crate) planes: [Memory; 2],
}

impl Uploaded {
    pub(crate) fn new(picture: &I420, more: [u32; 2], filler: u8) -> Self {
        let ([luma, cb, cr], [width, chroma_width, _]) = (picture.planes(), picture.strides());
        let chroma = cb.iter().zip(cr).flat_map(|(cb, cr)| [*cb, *cr]).collect::<Vec<_>>();
        let rows = |samples: &[u8], width: usize, more: u32| {
            let padding = vec![filler; more as usize];
            Memory::new(&samples.chunks_exact(width).collect::<Vec<_>>().join(&padding[..]))
        };
        let planes = [rows(luma, width, more[0]), rows(&chroma, 2 * chroma_width, more[1])];
        let nv12 = Nv12 {
            luma: planes[0].address(),
            chroma: planes[1].address(),
            luma_pitch: picture.width() + more[0],
            chroma_pitch: 2 * picture.width().div_ceil(2) + more[1],
            width: picture.width(),
            height: picture.height(),
        };
        Self { nv12, planes }
    }
}

/// A picture of noise.
pub(crate) fn noise(width: u32, height: u32, seed: u32) -> I420 {
    let (mut picture, mut state) = (I420::new(width, height), seed);
    for code in picture.planes_mut().into_iter().flatten() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *code = state.to_be_bytes()[0];
    }
    picture
}

/// Bytes of the one argument of each kernel in PTX (PTX ISA, sections 5.4 and 11.1: `.visible .entry name(.param .align 8
/// .b8 name_param_0[size])`).
fn arguments(ptx: &str) -> Vec<(String, Vec<usize>)> {
    ptx.split(".visible .entry ")
        .skip(1)
        .map(|rest| {
            let (name, rest) = rest.split_once('(').unwrap();
            let (parameters, _) = rest.split_once(')').unwrap();
            let sizes = parameters.split(',').map(|parameter| {
                let (_, size) = parameter.trim().strip_suffix(']').unwrap().split_once('[').unwrap();
                size.parse().unwrap()
            });
            (name.to_owned(), sizes.collect())
        })
        .collect()
}

#[test]
fn sources_ptx_and_structures_agree_on_every_kernel() {
    let mut in_ptx = Vec::new();
    for module in MODULES {
        let own = arguments(module.ptx.to_str().unwrap());
        for (name, _) in &own {
            assert!(ENTRIES.iter().any(|entry| entry.name == name && entry.module == module), "{name} is listed");
        }
        in_ptx.extend(own);
    }
    let mut listed = ENTRIES.map(|entry| (entry.name.to_owned(), vec![entry.argument])).to_vec();
    in_ptx.sort();
    listed.sort();
    assert_eq!(in_ptx, listed, "PTX");
    let emulator = Emulator::get();
    let compiled = emulator.kernels().map(|(name, size)| (name.to_owned(), vec![size])).collect::<Vec<_>>();
    assert_eq!(compiled, listed, "sources");
}

#[test]
fn the_device_rounds_each_operation_as_the_host_does() {
    for Module { name, ptx } in MODULES {
        let mut arithmetic = 0;
        for line in ptx.to_str().unwrap().lines() {
            let operation = line.split_whitespace().find(|word| !word.starts_with('@')).unwrap_or_default();
            let parts = operation.trim_end_matches(';').split('.').collect::<Vec<_>>();
            let real = parts.iter().any(|part| matches!(*part, "f32" | "f64"));
            match parts[0] {
                // Without a word on rounding the driver may fuse them (PTX ISA, section 9.7.3).
                "add" | "sub" | "mul" | "div" if real => {
                    assert!(parts.contains(&"rn"), "{name}: {line}");
                    arithmetic += 1;
                }
                "fma" | "mad" => assert!(!real, "{name}: {line}"),
                _ => {}
            }
            assert!(!parts.contains(&"ftz") && !parts.contains(&"approx"), "{name}: {line}");
        }
        if name == OVERLAY.name {
            assert_eq!(arithmetic, 0, "{name} counts in whole numbers");
        } else {
            assert!(arithmetic > 10, "{name}: only {arithmetic} operations were looked at");
        }
    }
}

#[test]
fn the_self_test_passes_and_notices_a_wrong_byte() {
    let test = SelfTest::new();
    let space = test.space().map(|len| vec![0; len]);
    let result = |source: &[u8]| {
        let (source, memory) = (Memory::new(source), space.each_ref().map(|bytes| Memory::new(bytes)));
        let (turn, halve, split) = test.kernels(source.address(), memory.each_ref().map(Memory::address));
        run(&turn);
        run(&halve);
        run(&split);
        memory[2].bytes()
    };
    assert_eq!(result(test.source()), test.expected());
    let mut wrong = test.source().to_vec();
    wrong[5 * 96 + 7] ^= 0x80;
    assert_ne!(result(&wrong), test.expected());
}

#[test]
fn a_picture_is_the_same_after_interleaving_and_splitting() {
    for (width, height, pitch) in [(1, 1, 2), (5, 3, 6), (16, 9, 64), (33, 31, 34)] {
        let picture = noise(width, height, width);
        assert_eq!(Picture::interleave(&picture, pitch, 0x55).split(), picture, "{width}x{height}");
    }
    let picture = Picture::interleave(&noise(3, 3, 1), 8, 0x55);
    assert_eq!((picture.data().len(), picture.data()[3], picture.data()[28]), (40, 0x55, 0x55));
    assert_eq!(picture.at(100).chroma, 124);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn planes_are_those_of_the_picture(
        width in 1u32..80, height in 1u32..60, more in (0u32..9, 0u32..9), seed in any::<u32>(),
    ) {
        let picture = noise(width, height, seed);
        let uploaded = Uploaded::new(&picture, more.into(), !0);
        let to = Memory::new(&vec![0x33; I420::byte_len(width, height)]);
        run(&Planes { from: uploaded.nv12, to: to.address() });
        prop_assert_eq!(to.bytes(), picture.planes().concat());
    }

    #[test]
    fn half_a_picture_is_that_of_the_cpu(
        width in 1u32..80, height in 1u32..60, more in (0u32..9, 0u32..9), seed in any::<u32>(),
    ) {
        let picture = noise(width, height, seed);
        let mut half = I420::new(1, 1);
        picture.halve_into(&mut half);
        prop_assert_eq!([half.width(), half.height()], I420::half_size(width, height));
        let from = Uploaded::new(&picture, more.into(), !0);
        let mut blank = half.clone();
        blank.planes_mut().into_iter().for_each(|plane| plane.fill(0x33));
        let to = Uploaded::new(&blank, more.into(), 0x77);
        run(&Halve { from: from.nv12, to: to.nv12 });
        // What is between the rows stays as it was.
        let expected = Uploaded::new(&half, more.into(), 0x77);
        prop_assert_eq!(to.planes.map(|plane| plane.bytes()), expected.planes.map(|plane| plane.bytes()));
    }

    #[test]
    fn a_turned_picture_is_that_of_the_cpu(
        width in 1u32..70, height in 1u32..70, more in (0u32..9, 0u32..9), seed in any::<u32>(),
    ) {
        let picture = noise(width, height, seed);
        let from = Uploaded::new(&picture, more.into(), !0);
        let mut turned = picture;
        for rotation in [Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270] {
            turned = self_test::quarter_turn(&turned);
            prop_assert_eq!((turned.width(), turned.height()), rotation.apply(width, height));
            let mut blank = turned.clone();
            blank.planes_mut().into_iter().for_each(|plane| plane.fill(0x33));
            let to = Uploaded::new(&blank, more.into(), 0x77);
            run(&Turn::new(from.nv12, to.nv12, rotation).unwrap());
            let expected = Uploaded::new(&turned, more.into(), 0x77);
            prop_assert_eq!(to.planes.map(|plane| plane.bytes()), expected.planes.map(|plane| plane.bytes()));
        }
        prop_assert_eq!(Turn::new(from.nv12, from.nv12, Rotation::None), None);
    }
}
