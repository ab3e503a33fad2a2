//! Linear layers, there and back.

use crate::kernel::{View, ViewMut, Write, multiply};

/// `out = x * matrix^T`, or added to it: a linear layer of `inputs` inputs and `outputs` outputs.
pub(super) fn linear(out: &mut [f32], outputs: usize, write: Write, x: &[f32], inputs: usize, matrix: &[f32]) {
    let rows = out.len() / outputs;
    let matrix = View::new(matrix, outputs, inputs).transposed();
    multiply(ViewMut::new(out, rows, outputs), write, 1.0, View::new(x, rows, inputs), matrix);
}

/// Gradient of a linear layer's input: `d_in = d_out * matrix`.
pub(super) fn into_input(d_in: &mut [f32], inputs: usize, d_out: &[f32], outputs: usize, matrix: &[f32]) {
    let rows = d_in.len() / inputs;
    let matrix = View::new(matrix, outputs, inputs);
    multiply(ViewMut::new(d_in, rows, inputs), Write::Over, 1.0, View::new(d_out, rows, outputs), matrix);
}

/// Gradient of a linear layer's matrix: adds `d_out^T * x`.
pub(super) fn into_weight(gradient: &mut [f32], d_out: &[f32], x: &[f32], rows: usize) {
    let (outputs, inputs) = (d_out.len() / rows, x.len() / rows);
    let d_out = View::new(d_out, rows, outputs).transposed();
    multiply(ViewMut::new(gradient, outputs, inputs), Write::Add, 1.0, d_out, View::new(x, rows, inputs));
}
