//! Matrix products for x86-64 processors with AVX-512, or with AVX2 and FMA.
//!
//! The classical scheme (Goto and van de Geijn 2008): blocks of both operands are copied into the order in which the
//! innermost loop reads them, and that loop keeps a tile of the result in registers. It exists because the `gemm` crate
//! reached a third of the processor on the machine it was measured on (AMD Zen 5, one thread, 32-bit floats,
//! 512 x 1376 x 256: 90 GFLOP/s against 270 here).

#![expect(unsafe_code, reason = "raw pointers and vector instructions; `multiply` checks every reach beforehand")]

use std::arch::x86_64::{
    __m256, __m512, _MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_storeu_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::cell::RefCell;

/// Inner dimension of a block: a block of the right operand as wide as a tile stays in the first cache.
const DEPTH: usize = 256;
/// Columns of a block of the right operand: with [`DEPTH`] rows, half of a second cache of one megabyte.
const WIDE: usize = 512;
/// Rows of a block of the left operand, a multiple of every tile's height.
const HIGH: usize = 120;

/// A product `out = scale * left * right`, or added to `out`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) inner: usize,
    pub(super) out: *mut f32,
    pub(super) out_step: usize,
    pub(super) left: Operand,
    pub(super) right: Operand,
    pub(super) scale: f32,
    pub(super) add: bool,
}

/// An operand: element `(row, col)` lies at `row * row_step + col * col_step`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand {
    pub(super) data: *const f32,
    pub(super) row_step: usize,
    pub(super) col_step: usize,
}

/// Computes the product, if this processor has the instructions for it.
///
/// # Safety
///
/// Every element of the three matrices must lie inside an allocation, those of `out` must be writable, and `out` must not
/// overlap an operand.
pub(super) unsafe fn product(product: &Product) -> bool {
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has the feature; the rest is the caller's promise.
        unsafe { avx512::product(product) };
        true
    } else if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
        // SAFETY: as above.
        unsafe { avx2::product(product) };
        true
    } else {
        false
    }
}

thread_local! {
    /// The copied blocks of the left and the right operand.
    static BLOCKS: RefCell<(Vec<f32>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

macro_rules! instructions {
    ($module:ident, $features:literal, $lanes:literal lanes, $height:literal rows of $($rows:literal)+, $vector:ty,
     $zero:ident, $load:ident, $store:ident, $splat:ident, $multiply_add:ident) => {
        mod $module {
            use super::*;

            /// Columns of a tile: two registers.
            const WIDTH: usize = 2 * $lanes;
            /// Rows of a tile.
            const HEIGHT: usize = $height;

            /// # Safety
            ///
            /// As [`super::product`]; the processor must have the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn product(product: &Product) {
                let Product { rows, cols, inner, out, out_step, left, right, scale, add } = *product;
                BLOCKS.with_borrow_mut(|(left_block, right_block)| {
                    left_block.resize(HIGH * DEPTH, 0.0);
                    right_block.resize(WIDE * DEPTH, 0.0);
                    for col in (0..cols).step_by(WIDE) {
                        let wide = WIDE.min(cols - col);
                        for deep in (0..inner.max(1)).step_by(DEPTH) {
                            let depth = DEPTH.min(inner - deep);
                            for strip in (0..wide).step_by(WIDTH) {
                                let to = &mut right_block[strip * depth..][..WIDTH * depth];
                                let count = WIDTH.min(wide - strip);
                                // SAFETY: rows from `deep` and columns from `col + strip` on lie inside the matrix.
                                unsafe {
                                    let from = right.data.add(deep * right.row_step + (col + strip) * right.col_step);
                                    copy::<WIDTH>(to, from, right.row_step, right.col_step, depth, count);
                                }
                            }
                            for row in (0..rows).step_by(HIGH) {
                                let high = HIGH.min(rows - row);
                                for strip in (0..high).step_by(HEIGHT) {
                                    let to = &mut left_block[strip * depth..][..HEIGHT * depth];
                                    let count = HEIGHT.min(high - strip);
                                    // SAFETY: rows from `row + strip` and columns from `deep` on lie inside the matrix.
                                    unsafe {
                                        let from = left.data.add((row + strip) * left.row_step + deep * left.col_step);
                                        copy::<HEIGHT>(to, from, left.col_step, left.row_step, depth, count);
                                    }
                                }
                                for across in (0..wide).step_by(WIDTH) {
                                    let right = &right_block[across * depth..][..WIDTH * depth];
                                    let right = right.as_chunks().0.as_chunks().0;
                                    for down in (0..high).step_by(HEIGHT) {
                                        let left = left_block[down * depth..][..HEIGHT * depth].as_chunks().0;
                                        let count = WIDTH.min(wide - across);
                                        let add = add || deep > 0;
                                        // SAFETY: the tile lies inside the result.
                                        unsafe {
                                            let out = out.add((row + down) * out_step + col + across);
                                            match HEIGHT.min(high - down) {
                                                $($rows => tile::<$rows>(left, right, out, out_step, count, scale, add),)+
                                                _ => {}
                                            }
                                        }
                                    }
                                }
                            }
                        }
                    }
                });
            }

            /// A tile of `ROWS` rows and `cols` columns of the result, from a strip of each operand.
            ///
            /// # Safety
            ///
            /// `out` may be written at `ROWS` rows of `cols` columns; the processor must have the features.
            #[target_feature(enable = $features)]
            unsafe fn tile<const ROWS: usize>(
                left: &[[f32; HEIGHT]],
                right: &[[[f32; $lanes]; 2]],
                out: *mut f32,
                out_step: usize,
                cols: usize,
                scale: f32,
                add: bool,
            ) {
                let mut sums = [[$zero(); 2]; ROWS];
                // References to arrays, because in a build with debug assertions a load through a pointer is checked,
                // and the checks push the sums out of the registers: three times slower.
                for (factors, numbers) in left.iter().zip(right) {
                    // SAFETY: both types are the same bits.
                    let [low, high]: [$vector; 2] = unsafe { std::mem::transmute(*numbers) };
                    // Counted, not iterated, for the same reason.
                    for row in 0..ROWS {
                        let factor = $splat(factors[row]);
                        sums[row][0] = $multiply_add(factor, low, sums[row][0]);
                        sums[row][1] = $multiply_add(factor, high, sums[row][1]);
                    }
                }
                // SAFETY: the caller's promise; `edge` is as wide as a tile.
                unsafe {
                    let scale = $splat(scale);
                    for row in 0..ROWS {
                        let out = out.add(row * out_step);
                        if cols == WIDTH {
                            for half in 0..2 {
                                let out = out.add(half * $lanes);
                                let before = if add { $load(out) } else { $zero() };
                                $store(out, $multiply_add(sums[row][half], scale, before));
                            }
                            continue;
                        }
                        let mut edge = [0.0; WIDTH];
                        if add {
                            out.copy_to_nonoverlapping(edge.as_mut_ptr(), cols);
                        }
                        for half in 0..2 {
                            let edge = edge.as_mut_ptr().add(half * $lanes);
                            $store(edge, $multiply_add(sums[row][half], scale, $load(edge)));
                        }
                        edge.as_ptr().copy_to_nonoverlapping(out, cols);
                    }
                }
            }
        }
    };
}

// As many rows as leave registers for two columns of the right operand and one factor.
instructions!(
    avx512, "avx512f", 16 lanes, 12 rows of 1 2 3 4 5 6 7 8 9 10 11 12, __m512,
    _mm512_setzero_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps
);
instructions!(
    avx2, "avx2,fma", 8 lanes, 6 rows of 1 2 3 4 5 6, __m256,
    _mm256_setzero_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps
);

/// Copies a strip into reading order, `to[i * SIDE + j] = from[i * step + j * side_step]` for `i` below `depth` and `j`
/// below `count`; beyond `count` zeros are written.
///
/// # Safety
///
/// `from` may be read at all these places; `to` is `depth * SIDE` long.
#[inline(always)]
unsafe fn copy<const SIDE: usize>(
    to: &mut [f32],
    from: *const f32,
    step: usize,
    side_step: usize,
    depth: usize,
    count: usize,
) {
    // SAFETY: the caller's promise.
    let at = |i: usize, j: usize| unsafe { *from.add(i * step + j * side_step) };
    let groups = to.as_chunks_mut::<SIDE>().0;
    if count == SIDE && side_step == 1 {
        for (i, group) in groups.iter_mut().enumerate() {
            // SAFETY: the caller's promise: `SIDE` numbers follow each other there.
            unsafe { from.add(i * step).copy_to_nonoverlapping(group.as_mut_ptr(), SIDE) };
        }
        return;
    }
    // Where the source runs along `i`, four by four through registers: read along, written along.
    let (fours, pairs) = if step == 1 { (depth - depth % 4, count - count % 4) } else { (0, 0) };
    for j in (0..pairs).step_by(4) {
        for i in (0..fours).step_by(4) {
            let line = |j: usize| {
                // SAFETY: the caller's promise: with a step of 1 the four numbers from `(i, j)` on follow each other.
                unsafe { _mm_loadu_ps(from.add(i + j * side_step)) }
            };
            let (mut a, mut b, mut c, mut d) = (line(j), line(j + 1), line(j + 2), line(j + 3));
            // SAFETY: every x86-64 processor has SSE; each group holds `SIDE >= j + 4` numbers.
            unsafe {
                _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
                for (k, line) in [a, b, c, d].into_iter().enumerate() {
                    _mm_storeu_ps(groups[i + k][j..j + 4].as_mut_ptr(), line);
                }
            }
        }
    }
    for (i, group) in groups.iter_mut().enumerate() {
        let first = if i < fours { pairs } else { 0 };
        for (j, number) in group.iter_mut().enumerate().skip(first) {
            *number = if j < count { at(i, j) } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    #[test]
    fn narrow_and_wide_instructions_equal_the_definition() {
        let mut random = Seeded::new(5);
        for (rows, cols, inner) in [(1, 1, 1), (6, 16, 3), (13, 33, 5), (125, 530, 261), (64, 32, 70), (7, 520, 9)] {
            let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
            let (left, right, before) = (numbers(rows * inner), numbers(cols * inner), numbers(rows * (cols + 3)));
            // Each operand as it is and transposed: every way of copying is used.
            for (turned, add) in [(0, false), (1, true), (2, true), (3, false)] {
                let (left_row, left_col) = if turned & 1 == 0 { (inner, 1) } else { (1, rows) };
                let (right_row, right_col) = if turned & 2 == 0 { (cols, 1) } else { (1, inner) };
                for wide in [false, true] {
                    let mut out = before.clone();
                    let product = Product {
                        rows,
                        cols,
                        inner,
                        out: out.as_mut_ptr(),
                        out_step: cols + 3,
                        left: Operand { data: left.as_ptr(), row_step: left_row, col_step: left_col },
                        right: Operand { data: right.as_ptr(), row_step: right_row, col_step: right_col },
                        scale: 0.5,
                        add,
                    };
                    // SAFETY: the matrices are as large as the product says, and `out` is apart.
                    let done = unsafe { if wide { super::product(&product) } else { narrow(&product) } };
                    if !done {
                        eprintln!("skipped: this processor lacks the instructions");
                        continue;
                    }
                    for (place, (&was, &is)) in before.iter().zip(&out).enumerate() {
                        let (row, col) = (place / (cols + 3), place % (cols + 3));
                        let term =
                            |i: usize| left[row * left_row + i * left_col] * right[i * right_row + col * right_col];
                        let product = if col < cols { 0.5 * (0..inner).map(term).sum::<f32>() } else { 0.0 };
                        let kept = if add || col >= cols { was } else { 0.0 };
                        assert!((is - kept - product).abs() < 1e-3, "{rows} {cols} {inner} {turned} at {row},{col}");
                    }
                }
            }
        }
    }

    /// The narrower instructions, which a machine with the wider ones would otherwise never run.
    unsafe fn narrow(product: &Product) -> bool {
        let able = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        if able {
            // SAFETY: the processor has the features; the rest is the caller's promise.
            unsafe { avx2::product(product) };
        }
        able
    }
}
