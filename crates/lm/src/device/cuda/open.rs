//! Opening a card: its libraries are looked for, and the kernels compiled for it.

#![expect(unsafe_code, reason = "CUDA's libraries are called through their C interfaces; every call says why it holds")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::cublas::result as cublas;
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUdevice_attribute, CUfunction, CUfunction_attribute, CUmodule};
use cudarc::{cublas as blas, driver, nvrtc};

use super::memory::{Context, HINT_FAILED};
use super::{Cuda, THREADS};
use crate::train::Hardware;
use crate::{Config, LmError};

/// The kernels, in the order in which they are compiled.
const SOURCES: [&str; 3] = [include_str!("kernels.cu"), include_str!("attention.cu"), include_str!("losses.cu")];

/// Names every kernel once.
macro_rules! kernels {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug)]
        pub(super) struct Kernels {
            $(pub(super) $name: CUfunction,)*
        }

        impl Kernels {
            fn of(module: CUmodule) -> Result<Self, DriverError> {
                let find = |name: &CStr| {
                    // SAFETY: the module is loaded.
                    unsafe { result::module::get_function(module, name.to_owned()) }
                };
                $(
                    let name = CString::new(stringify!($name)).unwrap_or_default();
                    let $name = find(&name)?;
                )*
                Ok(Self { $($name,)* })
            }
        }
    };
}

kernels!(
    gather,
    scatter,
    add_groups,
    rms_norm,
    rms_norm_backward,
    column_parts,
    column_sums,
    norm_heads,
    norm_heads_backward,
    rotate,
    silu_gate,
    silu_gate_backward,
    add_to_rows,
    squares,
    adam,
    attend,
    attend_shared,
    attend_queries,
    attend_keys,
    losses,
    logprobs,
    top,
);

/// The widest head that attention has been written for.
const WIDEST: usize = 256;

const HINT_DRIVER: &str = "install NVIDIA's driver, or train with device = \"cpu\"";
const HINT_LIBRARIES: &str = "install the CUDA toolkit (12 or 13), or name the folders of `libcublas` and `libnvrtc` in \
                              `LD_LIBRARY_PATH`";
const HINT_CPU: &str = "train it with device = \"cpu\"";

impl Cuda {
    /// Opens the first card that the driver shows (`CUDA_VISIBLE_DEVICES` chooses) for networks of the shape `config`.
    pub(crate) fn open(hardware: Hardware, config: &Config) -> Result<Self, LmError> {
        let device = hardware.word();
        let wrong = |problem: String, hint| LmError::Device { device, problem, hint };
        let failed = |what: &str, error: &dyn std::fmt::Debug| wrong(format!("{what}: {error:?}"), HINT_FAILED);
        if config.head_dim > WIDEST {
            let problem = format!("heads of {} numbers are wider than {WIDEST}", config.head_dim);
            return Err(wrong(problem, HINT_CPU));
        }
        // SAFETY, three times: libraries are loaded by their names, which runs their own code and nothing else.
        if !unsafe { driver::sys::is_culib_present() } {
            return Err(wrong("there is no driver (`libcuda`)".into(), HINT_DRIVER));
        }
        if !unsafe { nvrtc::sys::is_culib_present() } {
            return Err(wrong("`libnvrtc` is not found".into(), HINT_LIBRARIES));
        }
        if !unsafe { blas::sys::is_culib_present() } {
            return Err(wrong("`libcublas` is not found".into(), HINT_LIBRARIES));
        }
        result::init().map_err(|error| wrong(format!("the driver does not start: {error:?}"), HINT_DRIVER))?;
        let count = result::device::get_count().map_err(|error| failed("cards cannot be counted", &error))?;
        if count == 0 {
            return Err(wrong("the driver shows no card".into(), "look at `nvidia-smi` and `CUDA_VISIBLE_DEVICES`"));
        }
        let card = result::device::get(0).map_err(|error| failed("the card cannot be opened", &error))?;
        let name = result::device::get_name(card).map_err(|error| failed("the card has no name", &error))?;
        let context = Context::retain(hardware, card).map_err(|error| failed("the card cannot be opened", &error))?;
        // SAFETY: the device was given by the driver.
        let attribute = |which| unsafe { result::device::get_attribute(card, which) };
        let about = || {
            use CUdevice_attribute as Of;
            let major = attribute(Of::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = attribute(Of::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            Ok::<_, DriverError>((
                10 * major + minor,
                attribute(Of::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            ))
        };
        let (generation, most_shared) = about().map_err(|error| failed("the card says nothing of itself", &error))?;
        let shared = Shared::of(config.head_dim);
        if shared.backward.max(shared.forward) as i64 > i64::from(most_shared) {
            let problem = format!("`{name}` has too little shared memory for heads of {} numbers", config.head_dim);
            return Err(wrong(problem, HINT_CPU));
        }

        let image = compiled(generation, config.head_dim).map_err(|problem| wrong(problem, HINT_LIBRARIES))?;
        // SAFETY: the image is whole and is read during the call alone.
        let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
        let module = module.map_err(|error| failed("the kernels cannot be loaded", &error))?;
        let kernels = Kernels::of(module).map_err(|error| failed("a kernel is missing", &error))?;
        for (kernel, bytes) in [
            (kernels.attend, shared.forward),
            (kernels.attend_queries, shared.backward),
            (kernels.attend_keys, shared.backward),
        ] {
            let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the kernel belongs to the loaded module.
            unsafe { result::function::set_function_attribute(kernel, most, bytes as i32) }
                .map_err(|error| failed("attention gets no shared memory", &error))?;
        }
        let blas = cublas::create_handle().map_err(|error| failed("cuBLAS does not start", &error))?;
        Ok(Self { context: Arc::new(context), module, kernels, blas, name, shared, head_dim: config.head_dim })
    }
}

/// Bytes of shared memory that attention takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    pub(super) forward: usize,
    pub(super) backward: usize,
}

impl Shared {
    /// As `attention.cu` cuts it up.
    fn of(head_dim: usize) -> Self {
        let (tile, pad, width) = (super::tile(head_dim), 64, head_dim.next_multiple_of(4));
        let pitch = if width % 8 == 4 { width } else { width + 4 };
        let scores = tile * (tile + 4);
        Self { forward: 4 * (2 * tile * pitch + pad + scores), backward: 4 * (4 * tile * pitch + 2 * pad + 2 * scores) }
    }
}

/// Machine code by a card's generation and the width of a head.
type Images = BTreeMap<(i32, usize), Arc<[u8]>>;

/// As [`compile`], whose result depends on its arguments alone and takes seconds: so it is remembered.
fn compiled(generation: i32, head_dim: usize) -> Result<Arc<[u8]>, String> {
    static KNOWN: Mutex<Images> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(image) = known.get(&(generation, head_dim)) {
        return Ok(Arc::clone(image));
    }
    let image: Arc<[u8]> = compile(generation, head_dim)?.into();
    known.insert((generation, head_dim), Arc::clone(&image));
    Ok(image)
}

/// Machine code for cards of a generation, such as 90.
fn compile(generation: i32, head_dim: usize) -> Result<Vec<u8>, String> {
    let source = CString::new(SOURCES.join("\n")).map_err(|error| error.to_string())?;
    let program = nvrtc::result::create_program(&source, None).map_err(|error| format!("NVRTC: {error:?}"))?;
    let options = [
        format!("--gpu-architecture=sm_{generation}"),
        format!("-DHEAD_DIM={head_dim}"),
        "--std=c++17".to_owned(),
        format!("--maxrregcount={}", 65_536 / THREADS / 2),
    ];
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    let said = || {
        // SAFETY: the program was made above and is not destroyed yet.
        let log = unsafe { nvrtc::result::get_program_log(program) }.unwrap_or_default();
        let log: Vec<u8> = log.into_iter().map(|letter| letter as u8).collect();
        String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_owned()
    };
    let code = || {
        // SAFETY, three times: the program is there; the second function writes as many bytes as the first one says.
        unsafe { nvrtc::result::compile_program(program, &words) }
            .map_err(|error| format!("the kernels do not compile ({error:?}): {}", said()))?;
        let mut size = 0;
        unsafe { nvrtc::sys::nvrtcGetCUBINSize(program, &raw mut size) }
            .result()
            .map_err(|error| format!("NVRTC: {error:?}"))?;
        let mut code = vec![0_u8; size];
        unsafe { nvrtc::sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast()) }
            .result()
            .map_err(|error| format!("NVRTC: {error:?}"))?;
        Ok(code)
    };
    let code = code();
    // SAFETY: it is destroyed once.
    let _ = unsafe { nvrtc::result::destroy_program(program) };
    code
}
