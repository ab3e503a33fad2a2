//! Memory of a card, and what went wrong there first.

#![expect(unsafe_code, reason = "the driver is called through its C interface; every call says why it holds")]

use std::fmt::{self, Debug, Formatter};
use std::ops::{Deref, DerefMut, Range};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{CUcontext, CUdevice};

use crate::LmError;
use crate::device::Stretch;
use crate::train::Hardware;

/// A card that was opened.
pub(super) struct Context {
    pub(super) hardware: Hardware,
    device: CUdevice,
    raw: CUcontext,
    used: AtomicUsize,
    peak: AtomicUsize,
    fault: Mutex<Option<LmError>>,
}

// SAFETY: a context may be used by any thread that makes it its current one, which every use here does first; the rest of
// the struct is made for threads.
unsafe impl Send for Context {}
// SAFETY: as above; the driver's functions may be called by several threads at a time.
unsafe impl Sync for Context {}

impl Debug for Context {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("device", &self.device).finish_non_exhaustive()
    }
}

impl Context {
    pub(super) fn retain(hardware: Hardware, device: CUdevice) -> Result<Self, DriverError> {
        // SAFETY: the device was given by the driver; what is retained is released once, on drop.
        let raw = unsafe { result::primary_ctx::retain(device)? };
        let (used, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let context = Self { hardware, device, raw, used, peak, fault: Mutex::new(None) };
        context.enter()?;
        Ok(context)
    }

    /// Makes it the calling thread's.
    pub(super) fn enter(&self) -> Result<(), DriverError> {
        // SAFETY: the context is retained as long as `self` lives.
        unsafe { result::ctx::set_current(self.raw) }
    }

    /// Bytes that are taken now, and the most that were.
    pub(super) fn bytes(&self) -> (usize, usize) {
        (self.used.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed))
    }

    pub(super) fn sound(&self) -> bool {
        self.lock().is_none()
    }

    /// Remembers a fault, unless there was one before.
    pub(super) fn fail(&self, problem: String, hint: &'static str) {
        let device = self.hardware.word();
        self.lock().get_or_insert(LmError::Device { device, problem, hint });
    }

    /// The first fault; afterwards there is none, but what was computed is not to be used.
    pub(super) fn fault(&self) -> Result<(), LmError> {
        self.lock().take().map_or(Ok(()), Err)
    }

    fn lock(&self) -> MutexGuard<'_, Option<LmError>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `job` where nothing failed before, and remembers what fails.
    pub(super) fn attempt<E: Debug>(&self, what: &str, job: impl FnOnce() -> Result<(), E>) {
        if !self.sound() {
            return;
        }
        if let Err(error) = self.enter() {
            self.fail(format!("the card cannot be reached: {error:?}"), HINT_FAILED);
        } else if let Err(error) = job() {
            self.fail(format!("{what} failed: {error:?}"), HINT_FAILED);
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once; what it allocated holds an `Arc` of it and is gone.
        let _ = unsafe { result::primary_ctx::release(self.device) };
    }
}

pub(super) const HINT_FAILED: &str = "run it again; if it fails again, look at `nvidia-smi` and the system's log";
const HINT_MEMORY: &str = "take a smaller `batch_tokens`, a card with more memory, or device = \"cpu\"";

/// 32-bit numbers of a card: their address and how many there are.
///
/// What is borrowed has no size, so that the program cannot look at it; its address is the card's. The borrow checker watches
/// over it as over any slice.
#[repr(transparent)]
pub(crate) struct Numbers([Cell]);

struct Cell;

impl Debug for Numbers {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers of a card", self.0.len())
    }
}

impl Numbers {
    fn at<'a>(address: u64, length: usize) -> &'a Self {
        let cells = ptr::slice_from_raw_parts(ptr::without_provenance::<Cell>(nowhere(address)), length);
        // SAFETY: cells have no size, so any address but 0 is good for any number of them, and nothing is read; `Numbers`
        // has the layout of a slice of them.
        unsafe { &*(cells as *const Self) }
    }

    fn at_mut<'a>(address: u64, length: usize) -> &'a mut Self {
        let cells = ptr::slice_from_raw_parts_mut(ptr::without_provenance_mut::<Cell>(nowhere(address)), length);
        // SAFETY: as above; references to nothing cannot overlap.
        unsafe { &mut *(cells as *mut Self) }
    }

    pub(super) fn address(&self) -> u64 {
        self.0.as_ptr().addr() as u64
    }
}

/// Memory that is not there has some address, at which nothing is done.
const fn nowhere(address: u64) -> usize {
    if address == 0 { 1 } else { address as usize }
}

impl Stretch for Numbers {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn part(&self, range: Range<usize>) -> &Self {
        let length = self.0[range.clone()].len();
        Self::at(self.address() + 4 * range.start as u64, length)
    }

    fn part_mut(&mut self, range: Range<usize>) -> &mut Self {
        let length = self.0[range.clone()].len();
        Self::at_mut(self.address() + 4 * range.start as u64, length)
    }
}

/// Numbers of a card that are given back when they are dropped.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    address: u64,
    /// In numbers.
    capacity: usize,
    context: Option<Arc<Context>>,
}

impl Memory {
    /// Makes room for `length` numbers; those that were there are lost if there was too little.
    pub(super) fn reserve(&mut self, context: &Arc<Context>, length: usize) {
        if length <= self.capacity {
            return;
        }
        *self = Self::default();
        let bytes = 4 * length;
        // Where memory is short the length is there all the same: nothing will be done with it.
        self.capacity = length;
        if !context.sound() {
            return;
        }
        // SAFETY: what is given is freed once, on drop.
        match context.enter().and_then(|()| unsafe { result::malloc_sync(bytes) }) {
            Ok(address) => {
                (self.address, self.context) = (address, Some(Arc::clone(context)));
                let used = context.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
                context.peak.fetch_max(used, Ordering::Relaxed);
            }
            Err(error) => {
                let (used, _) = context.bytes();
                let (used, more) = (used as f64 / 1e9, bytes as f64 / 1e9);
                context.fail(format!("it has no room for {more:.2} GB beside {used:.2} GB: {error:?}"), HINT_MEMORY);
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(context) = self.context.take() else { return };
        if context.enter().is_ok() {
            // SAFETY: it was allocated in this context and is freed once; the driver waits for whoever works on it.
            let _ = unsafe { result::free_sync(self.address) };
        }
        context.used.fetch_sub(4 * self.capacity, Ordering::Relaxed);
    }
}

impl Deref for Memory {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        Numbers::at(self.address, self.capacity)
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut Numbers {
        Numbers::at_mut(self.address, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_address_of_its_first_number() {
        let all = Numbers::at(4096, 100);
        assert_eq!((all.part(10..30).address(), all.part(10..30).len()), (4096 + 40, 20));
        assert_eq!(all.part(10..30).part(5..6).address(), 4096 + 60);
        assert_eq!(Memory::default().len(), 0);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_part_does_not_reach_beyond() {
        Numbers::at(4096, 100).part(90..101);
    }
}
