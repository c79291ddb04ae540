//! The kernels compiled for the host, so that they run where there is no device: one thread after the other, in an order
//! unlike any device's. It knows kernels by name and stands without the rest of the crate, so that any test can have it.
#![allow(unsafe_code, reason = "the tests' backend: it calls what a C++ compiler made, and maps memory")]
#![allow(dead_code, unreachable_pub, reason = "not all tests need all of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs, ptr, slice};

use libloading::Library;

/// What stands before each source: CUDA's words in C++.
const PRELUDE: &str = "
#define __global__
#define __device__
struct Place { unsigned x, y, z; };
static thread_local Place threadIdx, blockIdx, blockDim, gridDim;
[[maybe_unused]] static inline unsigned atomicAdd(unsigned *place, unsigned more) {
    return __atomic_fetch_add(place, more, __ATOMIC_RELAXED);
}
";

/// What stands after each source: a prime step through all threads, which visits every one.
const LAUNCHER: &str = "
template <class P> static void emulate(void (*kernel)(P), const unsigned *grid, const unsigned *block, const void *argument) {
    const unsigned long long threads = 1ull * block[0] * block[1] * block[2];
    const unsigned long long total = threads * grid[0] * grid[1] * grid[2];
    const unsigned long long step = total % 1000003 == 0 ? 1 : 1000003;
    gridDim = Place{grid[0], grid[1], grid[2]};
    blockDim = Place{block[0], block[1], block[2]};
    for (unsigned long long n = 0; n < total; n++) {
        const unsigned long long at = n * step % total;
        const unsigned thread = at % threads, row = thread / block[0];
        const unsigned long long number = at / threads, line = number / grid[0];
        threadIdx = Place{thread % block[0], row % block[1], row / block[1]};
        blockIdx = Place{unsigned(number % grid[0]), unsigned(line % grid[1]), unsigned(line / grid[1])};
        kernel(*static_cast<const P *>(argument));
    }
}
template <class P> static constexpr unsigned long long size_of(void (*)(P)) { return sizeof(P); }
";

/// What a kernel's definition begins with.
const DEFINITION: &str = "extern \"C\" __global__ void ";

type Launch = unsafe extern "C" fn(*const u32, *const u32, *const c_void);
type Size = unsafe extern "C" fn() -> u64;

/// All kernels of the repository.
pub struct Emulator {
    kernels: BTreeMap<String, (Launch, usize)>,
    _library: Library,
}

impl Emulator {
    /// Compiles the sources, once a process. The compiler is `$CXX`, or `c++`. What C++ leaves undefined ends the process.
    pub fn get() -> &'static Self {
        static EMULATOR: LazyLock<Emulator> = LazyLock::new(Emulator::compile);
        &EMULATOR
    }

    fn compile() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("kernels.so");
        let mut compiler = Command::new(env::var_os("CXX").unwrap_or_else(|| "c++".into()));
        compiler.args(["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]);
        compiler.args(["-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]);
        let mut names = Vec::new();
        for source in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device/kernels")).unwrap() {
            let source = source.unwrap().path();
            if source.extension().is_none_or(|extension| extension != "cu") {
                continue;
            }
            let text = fs::read_to_string(&source).unwrap();
            let found = text.split(DEFINITION).skip(1).map(|rest| rest.split('(').next().unwrap().to_owned());
            let found = found.collect::<Vec<_>>();
            let doors = found.iter().map(|name| {
                format!(
                    "extern \"C\" void emulate_{name}(const unsigned *grid, const unsigned *block, const void *argument) {{\n\
                     emulate({name}, grid, block, argument); }}\n\
                     extern \"C\" unsigned long long size_{name}() {{ return size_of({name}); }}\n"
                )
            });
            let text = format!("{PRELUDE}\n#line 1 {source:?}\n{text}{LAUNCHER}{}", doors.collect::<String>());
            let file = folder.path().join(source.file_stem().unwrap()).with_extension("cpp");
            fs::write(&file, text).unwrap();
            compiler.arg(file);
            names.extend(found);
        }
        let made = compiler.arg("-o").arg(&library).output().expect("a C++ compiler");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // SAFETY: it was made above, and nothing in it runs when it is loaded.
        let library = unsafe { Library::new(library) }.unwrap();
        let kernels = names.into_iter().map(|name| {
            // SAFETY: the types are those of the definitions above.
            let kernel = unsafe {
                let launch = *library.get::<Launch>(format!("emulate_{name}")).unwrap();
                let size = *library.get::<Size>(format!("size_{name}")).unwrap();
                (launch, usize::try_from(size()).unwrap())
            };
            (name, kernel)
        });
        Self { kernels: kernels.collect(), _library: library }
    }

    /// Names of all kernels, and how many bytes their arguments have.
    pub fn kernels(&self) -> impl Iterator<Item = (&str, usize)> {
        self.kernels.iter().map(|(name, (_, size))| (name.as_str(), *size))
    }

    /// Runs all threads of a kernel, one after the other. `false`: there is no kernel of that name.
    ///
    /// # Safety
    /// `argument` points to what the kernel takes, and the addresses in it to memory of the host that it may use as it
    /// does.
    pub unsafe fn launch(&self, name: &str, grid: [u32; 3], block: [u32; 3], argument: *const c_void) -> bool {
        let Some((launch, _)) = self.kernels.get(name) else { return false };
        // SAFETY: the caller answers for the argument.
        unsafe { launch(grid.as_ptr(), block.as_ptr(), argument) };
        true
    }
}

/// Memory that ends where no memory is: whoever reads or writes beyond it is stopped. It is aligned as far as its length is.
pub struct Memory {
    start: *mut u8,
    len: usize,
    mapped: (*mut c_void, usize),
}

impl Memory {
    /// A copy of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        const PAGE: usize = 4096;
        let len = bytes.len().next_multiple_of(PAGE);
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, of which the last page is closed; the copy lies in the part that is open.
        unsafe {
            let first = libc::mmap(ptr::null_mut(), len + PAGE, rights, kind, -1, 0);
            assert_ne!(first, libc::MAP_FAILED);
            assert_eq!(libc::mprotect(first.add(len), PAGE, libc::PROT_NONE), 0);
            let start = first.cast::<u8>().add(len - bytes.len());
            ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
            Self { start, len: bytes.len(), mapped: (first, len + PAGE) }
        }
    }

    /// A copy of `words`.
    pub fn of_words(words: &[u32]) -> Self {
        Self::new(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>())
    }

    /// What stands for an address of the device.
    pub fn address(&self) -> u64 {
        self.start as u64
    }

    /// What is in it now.
    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: `len` bytes of the mapping, which no kernel writes to now: they run inside a call.
        unsafe { slice::from_raw_parts(self.start, self.len) }.to_vec()
    }

    /// The same as words.
    pub fn words(&self) -> Vec<u32> {
        self.bytes().chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: what was mapped.
        unsafe { libc::munmap(self.mapped.0, self.mapped.1) };
    }
}
