//! The processor's arithmetic: everything there that touches many numbers goes through here.
//!
//! Each function works on plain slices in one thread and allocates nothing; who calls it decides about threads and
//! memory. The graph calls them by way of [`Device`](crate::device::Device).
//!
//! The element-wise kernels are ordinary loops that the compiler vectorises. They are compiled several times, for
//! several generations of processors, and the best one is taken at run time. None of them uses a fused multiply-add
//! and all sums have a fixed order, so that every generation gives the same bits.

mod attend;
mod dispatch;
mod matrix;
mod packed;
mod pointwise;
mod softmax;
#[cfg(target_arch = "x86_64")]
mod tile;
mod update;

pub(crate) use attend::{KEY_BLOCK, attend};
pub(crate) use matrix::{View, ViewMut, Write, multiply};
pub(crate) use packed::Packed;
pub(crate) use pointwise::{
    add, add_to_rows, dot_rows, rms_norm, rms_norm_backward, rotate, rotate_back, scale, silu_gate, silu_gate_backward,
    sum_rows,
};
pub(crate) use softmax::{causal_softmax, causal_softmax_again, exponentials, score_gradient, sum};
pub(crate) use update::{AdamStep, adam, merge};
