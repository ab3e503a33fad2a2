//! Matrix products.

use gemm::Parallelism;

#[cfg(target_arch = "x86_64")]
use super::tile::{self, Operand, Product};

/// Below so many rows the right operand is not read often enough to be worth copying.
#[cfg(target_arch = "x86_64")]
const FEW_ROWS: usize = 6;

/// A matrix to read: `rows` x `cols` numbers somewhere in a slice of a device's memory.
#[derive(Debug)]
pub(crate) struct View<'data, S: ?Sized = [f32]> {
    pub(crate) data: &'data S,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_step: usize,
    pub(crate) col_step: usize,
}

impl<S: ?Sized> Clone for View<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for View<'_, S> {}

/// A matrix to write, row by row, with `row_step` numbers from one row to the next.
#[derive(Debug)]
pub(crate) struct ViewMut<'data, S: ?Sized = [f32]> {
    pub(crate) data: &'data mut S,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) row_step: usize,
}

/// What happens to what stood in the result before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    /// It is forgotten.
    Over,
    /// The product is added to it.
    Add,
}

impl<'data, S: ?Sized> View<'data, S> {
    /// Rows that follow each other without a gap.
    pub(crate) const fn new(data: &'data S, rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_step: cols, col_step: 1 }
    }

    /// Rows that begin every `row_step` numbers.
    pub(crate) const fn strided(data: &'data S, rows: usize, cols: usize, row_step: usize) -> Self {
        Self { data, rows, cols, row_step, col_step: 1 }
    }

    /// Rows and columns exchanged; nothing moves.
    pub(crate) const fn transposed(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_step: self.col_step, col_step: self.row_step, ..self }
    }
}

impl<'data, S: ?Sized> ViewMut<'data, S> {
    /// Rows that follow each other without a gap.
    pub(crate) const fn new(data: &'data mut S, rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_step: cols }
    }

    /// Rows that begin every `row_step` numbers.
    pub(crate) const fn strided(data: &'data mut S, rows: usize, cols: usize, row_step: usize) -> Self {
        Self { data, rows, cols, row_step }
    }
}

/// Writes `scale * left * right` to `out`, in the calling thread.
///
/// # Panics
///
/// The shapes do not fit, or a view reaches beyond its slice: mistakes of the caller.
#[expect(clippy::needless_pass_by_value, reason = "a view is a borrow; taking it says that the product writes it")]
#[expect(unsafe_code, reason = "the product takes raw pointers; every reach is checked against its slice first")]
pub(crate) fn multiply(out: ViewMut<'_>, write: Write, scale: f32, left: View<'_>, right: View<'_>) {
    let (m, n, k) = (out.rows, out.cols, left.cols);
    assert!(left.rows == m && right.rows == k && right.cols == n, "shapes of a product do not fit");
    if m == 0 || n == 0 {
        return;
    }
    assert!(reach(m, out.row_step, n, 1) <= out.data.len(), "result reaches beyond its slice");
    assert!(out.row_step >= n, "rows of the result overlap");
    assert!(k == 0 || reach(m, left.row_step, k, left.col_step) <= left.data.len(), "left reaches beyond its slice");
    assert!(
        k == 0 || reach(k, right.row_step, n, right.col_step) <= right.data.len(),
        "right reaches beyond its slice"
    );
    // SAFETY, twice below: the product reads and writes exactly the elements `row * row_step + col * col_step` of each
    // view, which the assertions above keep inside its slice. The result's slice is borrowed mutably, so it overlaps
    // neither operand. A slice's length in bytes fits `isize`, and so does every step of a view inside it.
    #[cfg(target_arch = "x86_64")]
    if m >= FEW_ROWS && k > 0 {
        let operand =
            |view: View<'_>| Operand { data: view.data.as_ptr(), row_step: view.row_step, col_step: view.col_step };
        let product = Product {
            rows: m,
            cols: n,
            inner: k,
            out: out.data.as_mut_ptr(),
            out_step: out.row_step,
            left: operand(left),
            right: operand(right),
            scale,
            add: write == Write::Add,
        };
        if unsafe { tile::product(&product) } {
            return;
        }
    }
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.row_step as isize,
            write == Write::Add,
            left.data.as_ptr(),
            left.col_step as isize,
            left.row_step as isize,
            right.data.as_ptr(),
            right.col_step as isize,
            right.row_step as isize,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// One more than the index of the last element; saturates rather than wraps.
const fn reach(rows: usize, row_step: usize, cols: usize, col_step: usize) -> usize {
    (rows - 1).saturating_mul(row_step).saturating_add((cols - 1).saturating_mul(col_step)).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn products_equal_the_definition() {
        let mut random = Seeded::new(5);
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (64, 33, 32), (17, 1, 40), (1, 40, 17), (70, 70, 3), (2, 3, 0)] {
            let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
            let (left, right, before) = (numbers(m * (k + 2)), numbers(n * k), numbers(m * (n + 3)));
            for write in [Write::Over, Write::Add] {
                let mut out = before.clone();
                let a = View::strided(left.as_slice(), m, k, k + 2);
                let b = View::new(right.as_slice(), n, k).transposed();
                multiply(ViewMut::strided(out.as_mut_slice(), m, n, n + 3), write, 0.5, a, b);
                for (place, (&was, &is)) in before.iter().zip(&out).enumerate() {
                    let (row, col) = (place / (n + 3), place % (n + 3));
                    let product: f32 = if col < n {
                        0.5 * (0..k).map(|i| left[row * (k + 2) + i] * right[col * k + i]).sum::<f32>()
                    } else {
                        0.0
                    };
                    let kept = if write == Write::Add || col >= n { was } else { 0.0 };
                    assert!((is - kept - product).abs() < 1e-4, "{m} {n} {k} {write:?} at {row},{col}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "beyond its slice")]
    fn a_view_cannot_reach_beyond_its_slice() {
        let mut out = [0.0; 4];
        multiply(
            ViewMut::new(out.as_mut_slice(), 2, 2),
            Write::Over,
            1.0,
            View::new([1.0; 3].as_slice(), 2, 2),
            View::new([1.0; 4].as_slice(), 2, 2),
        );
    }
}
