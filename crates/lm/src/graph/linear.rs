//! Linear layers, there and back.

use crate::device::{Device, Stretch};
use crate::kernel::{View, ViewMut, Write};

/// `out = x * matrix^T`, or added to it: a linear layer of `inputs` inputs and `outputs` outputs.
pub(super) fn linear<D: Device>(
    device: &D,
    out: &mut D::Slice,
    outputs: usize,
    write: Write,
    x: &D::Slice,
    inputs: usize,
    matrix: &D::Slice,
) {
    let rows = out.len() / outputs;
    let matrix = View::new(matrix, outputs, inputs).transposed();
    device.multiply(ViewMut::new(out, rows, outputs), write, 1.0, View::new(x, rows, inputs), matrix);
}

/// Gradient of a linear layer's input: `d_in = d_out * matrix`.
pub(super) fn into_input<D: Device>(
    device: &D,
    d_in: &mut D::Slice,
    inputs: usize,
    d_out: &D::Slice,
    outputs: usize,
    matrix: &D::Slice,
) {
    let rows = d_in.len() / inputs;
    let matrix = View::new(matrix, outputs, inputs);
    device.multiply(ViewMut::new(d_in, rows, inputs), Write::Over, 1.0, View::new(d_out, rows, outputs), matrix);
}

/// Gradient of a linear layer's matrix: adds `d_out^T * x`.
pub(super) fn into_weight<D: Device>(device: &D, gradient: &mut D::Slice, d_out: &D::Slice, x: &D::Slice, rows: usize) {
    let (outputs, inputs) = (d_out.len() / rows, x.len() / rows);
    let d_out = View::new(d_out, rows, outputs).transposed();
    device.multiply(ViewMut::new(gradient, outputs, inputs), Write::Add, 1.0, d_out, View::new(x, rows, inputs));
}
