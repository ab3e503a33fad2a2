//! A card of NVIDIA's, by CUDA.
//!
//! The driver, cuBLAS and NVRTC are loaded when a card is opened, so nothing of CUDA is needed to build this. cuBLAS does the
//! matrix products; the rest is in three files of kernels that NVRTC compiles for the card at hand. All work goes into one
//! stream, in its order. Weights, moments and activations stay on the card; what comes and goes is tokens, what teachers
//! say, and a few numbers a target.

#![expect(unsafe_code, reason = "CUDA's libraries are called through their C interfaces; every call says why it holds")]

mod memory;
mod open;
mod operations;
mod optimizer;

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::cublas::result as cublas;
use cudarc::cublas::sys::cublasHandle_t;
use cudarc::driver::result;
use cudarc::driver::sys::{CUfunction, CUmodule};

use memory::Context;
pub(crate) use memory::{Memory, Numbers};
use open::{Kernels, Shared};
pub(crate) use optimizer::Moments;

use super::Stretch;
use crate::LmError;

/// Threads of a block.
const THREADS: usize = 256;
/// Rows over which columns are summed at first.
const STRETCH: usize = 256;
/// A window that is no limit, small enough to be added to.
const NO_WINDOW: usize = 1 << 30;

/// Rows of a tile of attention.
const fn tile(head_dim: usize) -> usize {
    if head_dim <= 64 { 64 } else { 32 }
}

/// An open card.
#[derive(Debug)]
pub(crate) struct Cuda {
    context: Arc<Context>,
    module: CUmodule,
    kernels: Kernels,
    blas: cublasHandle_t,
    name: String,
    shared: Shared,
    head_dim: usize,
}

// SAFETY: kernels are addresses of the driver's, which any thread may use in their context; cuBLAS allows one handle to
// several threads, and each use enters the context first.
unsafe impl Send for Cuda {}
// SAFETY: as above.
unsafe impl Sync for Cuda {}

impl Drop for Cuda {
    fn drop(&mut self) {
        if self.context.enter().is_ok() {
            // SAFETY: both were made by `open` and end once, after all work on the card.
            let _ = unsafe {
                result::ctx::synchronize().and_then(|()| result::module::unload(self.module)).ok();
                cublas::destroy_handle(self.blas)
            };
        }
    }
}

/// What the card has of a pack, one part after the other in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct OfPack {
    memory: Memory,
    tokens: usize,
    positions: usize,
    targets: usize,
    tiles: (usize, usize),
    /// Each token that is there, and where its rows begin in `order`.
    groups: (usize, usize),
    order: usize,
}

/// Room on the way, and what losses have come to.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    parts: Memory,
    shared: Memory,
    asked: Memory,
    taken: Memory,
    classes: Memory,
    verdicts: Memory,
    answered: usize,
    taught: u64,
}

/// What a kernel takes: an address or a number, in the low bytes of a word.
fn number(value: usize) -> u64 {
    value as u32 as u64
}

fn float(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn double(value: f64) -> u64 {
    value.to_bits()
}

impl Cuda {
    /// What went wrong since this was asked last.
    pub(crate) fn fault(&self) -> Result<(), LmError> {
        self.context.fault()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Bytes that are free, and all there are.
    pub(crate) fn memory(&self) -> Result<(usize, usize), LmError> {
        let device = self.context.hardware.word();
        let wrong = |error| LmError::Device {
            device,
            problem: format!("its memory cannot be asked for: {error:?}"),
            hint: memory::HINT_FAILED,
        };
        self.context.enter().and_then(|()| result::mem_get_info()).map_err(wrong)
    }

    /// The most bytes that were taken at a time.
    pub(crate) fn peak(&self) -> usize {
        self.context.bytes().1
    }

    /// Starts a kernel with blocks of [`THREADS`] threads.
    fn launch(&self, what: &str, kernel: CUfunction, grid: (usize, usize), shared: usize, arguments: &mut [u64]) {
        if grid.0 == 0 || grid.1 == 0 {
            return;
        }
        let mut addresses: Vec<*mut c_void> =
            arguments.iter_mut().map(|argument| ptr::from_mut(argument).cast()).collect();
        let (grid, block) = ((grid.0 as u32, grid.1 as u32, 1), (THREADS as u32, 1, 1));
        self.context.attempt(what, || {
            // SAFETY: the kernel belongs to a loaded module; the arguments are those of its declaration, and each has the
            // address of a word that begins with it. What they point to is memory of the card that lives at least until
            // the stream has come past this: it is freed by a call that waits for it.
            unsafe { result::launch_kernel(kernel, grid, block, shared as u32, ptr::null_mut(), &mut addresses) }
        });
    }

    /// Over `count` numbers, a thread each.
    fn each(&self, what: &str, kernel: CUfunction, count: usize, arguments: &mut [u64]) {
        self.launch(what, kernel, (count.div_ceil(THREADS), 1), 0, arguments);
    }

    fn upload<T: bytemuck::NoUninit>(&self, values: &[T], to: &mut Numbers) {
        if values.is_empty() {
            return;
        }
        debug_assert!(size_of_val(values) <= 4 * to.len());
        let address = to.address();
        // SAFETY: there is room, as its maker reserved it; the call returns when the values were read.
        self.context.attempt("sending numbers", || unsafe { result::memcpy_htod_sync(address, values) });
    }

    /// Zeros where something went wrong, which is remembered.
    fn download<T: bytemuck::Zeroable + Clone>(&self, from: &Numbers, count: usize) -> Vec<T> {
        let mut values = vec![T::zeroed(); count];
        debug_assert!(size_of_val(values.as_slice()) <= 4 * from.len());
        if count > 0 {
            let address = from.address();
            // SAFETY: so many are there; the call returns when all are here.
            self.context.attempt("fetching numbers", || unsafe { result::memcpy_dtoh_sync(&mut values, address) });
        }
        values
    }

    /// All numbers of `from`, or the first fault.
    pub(crate) fn fetch(&self, from: &Numbers, to: &mut [f32]) -> Result<(), LmError> {
        to.copy_from_slice(&self.download::<f32>(from, to.len()));
        self.fault()
    }

    /// Adds the columns of x, or of x * y * inverse, to `sums`.
    fn add_columns(&self, of: Columns<'_>, sums: &mut Numbers, scratch: &mut Scratch) {
        let Columns { x, x_step, y, items, heads, width } = of;
        let stretches = items.div_ceil(STRETCH);
        scratch.parts.reserve(&self.context, stretches * width);
        let (y, y_step, inverse, inverse_step) =
            y.map_or((0, 0, 0, 0), |(y, y_step, inverse, step)| (y.address(), y_step, inverse.address(), step));
        let parts = scratch.parts.address();
        let mut arguments = [
            x.address(),
            y,
            inverse,
            number(items),
            number(width),
            number(STRETCH),
            number(heads),
            number(x_step),
            number(y_step),
            number(inverse_step),
            parts,
        ];
        let grid = (width.div_ceil(32), stretches);
        self.launch("summing columns", self.kernels.column_parts, grid, 0, &mut arguments);
        let mut arguments = [parts, number(stretches), number(width), sums.address()];
        self.each("summing columns", self.kernels.column_sums, width, &mut arguments);
    }
}

/// What is summed: rows of `width` numbers, or of several heads of that.
#[derive(Clone, Copy)]
struct Columns<'a> {
    x: &'a Numbers,
    x_step: usize,
    /// What else goes into the product: numbers, what lies between their rows, inverses, and between theirs.
    y: Option<(&'a Numbers, usize, &'a Numbers, usize)>,
    items: usize,
    heads: usize,
    width: usize,
}

impl OfPack {
    /// The address of a part.
    fn at(&self, place: usize) -> u64 {
        self.memory.address() + 4 * place as u64
    }
}
