//! Products with a matrix that never changes: the weights of a network that generates.

#![expect(unsafe_code, reason = "vector instructions are called after they were detected, on arrays of their length")]

use super::matrix::Write;
use crate::precision::{Precision, integer, scale};

/// A matrix in the order in which products read it: strips of some outputs, in each one input after the other.
///
/// Every number of a product is one sum over the inputs in their order, from plain multiplications and additions. So it
/// depends on its own row of the other matrix alone, to the last bit, and is the same on every processor; a product
/// that is planned by the number of rows promises neither. Packing once instead of in every product is also what makes
/// few rows fast.
#[derive(Debug)]
pub(crate) struct Packed {
    strips: Strips,
    inputs: usize,
    outputs: usize,
    instructions: Instructions,
}

/// The numbers of a matrix.
#[derive(Debug)]
enum Strips {
    F32(Vec<f32>),
    /// With what the sum of each output is multiplied with at its end.
    Int8(Vec<i8>, Vec<f32>),
}

/// How a product is computed; the numbers are the same whichever it is.
#[derive(Debug, Clone, Copy)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Any,
}

impl Packed {
    /// Packs `matrix`, `[outputs, inputs]` row by row.
    pub(crate) fn new(matrix: &[f32], inputs: usize, precision: Precision) -> Self {
        Self::with(Instructions::best(), matrix, inputs, precision)
    }

    fn with(instructions: Instructions, matrix: &[f32], inputs: usize, precision: Precision) -> Self {
        let outputs = matrix.len() / inputs;
        let width = instructions.width();
        let strips = match precision {
            Precision::F32 => Strips::F32(cut(matrix, inputs, width, |number, _| number)),
            Precision::Int8 => {
                let scales: Vec<f32> = matrix.chunks_exact(inputs).map(scale).collect();
                Strips::Int8(cut(matrix, inputs, width, |number, output| integer(number, scales[output])), scales)
            }
        };
        Self { strips, inputs, outputs, instructions }
    }

    /// How many numbers a row of the product has.
    pub(crate) const fn outputs(&self) -> usize {
        self.outputs
    }

    /// Multiplies each row of `x`, `[rows, inputs]`, with the matrix: `out` is `[rows, outputs]`. `room` is kept from
    /// product to product.
    pub(crate) fn multiply(&self, x: &[f32], write: Write, out: &mut [f32], room: &mut Vec<f32>) {
        room.resize(x.len().max(room.len()), 0.0);
        let room = &mut room[..x.len()];
        let shape = Shape { inputs: self.inputs, outputs: self.outputs };
        match (self.instructions, &self.strips) {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `Instructions::best` has found the processor to have the feature.
            (Instructions::Avx512, Strips::F32(strips)) => unsafe {
                avx512::product(strips, None, shape, x, write, out, room);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Instructions::Avx512, Strips::Int8(strips, scales)) => unsafe {
                avx512_int8::product(strips, Some(scales), shape, x, write, out, room);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Instructions::Avx2, Strips::F32(strips)) => unsafe {
                avx2::product(strips, None, shape, x, write, out, room);
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Instructions::Avx2, Strips::Int8(strips, scales)) => unsafe {
                avx2_int8::product(strips, Some(scales), shape, x, write, out, room);
            },
            (Instructions::Any, Strips::F32(strips)) => any::product(strips, None, shape, x, write, out, room),
            (Instructions::Any, Strips::Int8(strips, scales)) => {
                any_int8::product(strips, Some(scales), shape, x, write, out, room);
            }
        }
    }
}

/// `matrix` in strips of `width` outputs, each number as `make` gives it for its output; a strip that is not full is filled
/// up with zeros.
fn cut<N: Copy + Default>(matrix: &[f32], inputs: usize, width: usize, make: impl Fn(f32, usize) -> N) -> Vec<N> {
    let outputs = matrix.len() / inputs;
    let mut strips = vec![N::default(); outputs.next_multiple_of(width) * inputs];
    for (index, (strip, rows)) in strips.chunks_exact_mut(width * inputs).zip(matrix.chunks(width * inputs)).enumerate()
    {
        for (place, row) in rows.chunks_exact(inputs).enumerate() {
            for (to, &number) in strip.chunks_exact_mut(width).zip(row) {
                to[place] = make(number, index * width + place);
            }
        }
    }
    strips
}

/// The shape of a matrix.
#[derive(Debug, Clone, Copy)]
struct Shape {
    inputs: usize,
    outputs: usize,
}

impl Instructions {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                return Self::Avx2;
            }
        }
        Self::Any
    }

    /// Outputs of a strip: two registers.
    const fn width(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::WIDTH,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::WIDTH,
            Self::Any => any::WIDTH,
        }
    }
}

/// One copy of the product for a kind of registers. `$rows` are the sizes of a tile: as many as leave registers for the
/// weights and a factor.
macro_rules! product {
    ($module:ident, $(feature $feature:literal,)? numbers $number:ty, $lanes:literal lanes, at most $most:literal of $($rows:literal)+,
     $zero:expr, $load:expr, $splat:expr, $add:expr, $multiply:expr, $store:expr) => {
        mod $module {
            #[cfg(target_arch = "x86_64")]
            #[allow(unused_imports)]
            use std::arch::x86_64::*;

            use super::{Shape, Write, interleave};

            /// Outputs of a strip.
            pub(super) const WIDTH: usize = 2 * $lanes;

            $(#[target_feature(enable = $feature)])?
            pub(super) fn product(
                strips: &[$number],
                scales: Option<&[f32]>,
                Shape { inputs, outputs }: Shape,
                x: &[f32],
                write: Write,
                out: &mut [f32],
                room: &mut [f32],
            ) {
                let groups = interleave(x, inputs, $most, room);
                for (index, strip) in strips.chunks_exact(WIDTH * inputs).enumerate() {
                    let scales = scales.map(|scales| &scales[index * WIDTH..]);
                    let mut place = index * WIDTH;
                    for (rows, x) in groups.parts(room, inputs) {
                        match rows {
                            $($rows => tile::<$rows>(strip, scales, x, write, place, outputs, out),)+
                            _ => {}
                        }
                        place += rows * outputs;
                    }
                }
            }

            /// `ROWS` rows of one strip's outputs, written from `place` on.
            $(#[target_feature(enable = $feature)])?
            fn tile<const ROWS: usize>(
                strip: &[$number],
                scales: Option<&[f32]>,
                x: &[f32],
                write: Write,
                place: usize,
                outputs: usize,
                out: &mut [f32],
            ) {
                let mut sums = [[$zero; 2]; ROWS];
                for (weights, factors) in strip.as_chunks::<$lanes>().0.as_chunks::<2>().0.iter().zip(x.as_chunks::<ROWS>().0) {
                    let (low, high) = ($load(&weights[0]), $load(&weights[1]));
                    for (sums, &factor) in sums.iter_mut().zip(factors) {
                        let factor = $splat(factor);
                        sums[0] = $add(sums[0], $multiply(factor, low));
                        sums[1] = $add(sums[1], $multiply(factor, high));
                    }
                }
                let count = WIDTH.min(outputs - place % outputs);
                for (row, sums) in sums.into_iter().enumerate() {
                    let mut results = [[0.0; $lanes]; 2];
                    for (results, sums) in results.iter_mut().zip(sums) {
                        $store(results, sums);
                    }
                    if let Some(scales) = scales {
                        for (result, scale) in results.as_flattened_mut().iter_mut().zip(scales) {
                            *result *= scale;
                        }
                    }
                    let out = &mut out[place + row * outputs..][..count];
                    for (out, &result) in out.iter_mut().zip(results.as_flattened()) {
                        *out = if write == Write::Add { *out + result } else { result };
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
product!(
    avx512, feature "avx512f", numbers f32, 16 lanes, at most 12 of 1 2 3 4 5 6 7 8 9 10 11 12,
    _mm512_setzero_ps(),
    // SAFETY, here and below: the array holds as many numbers as the register.
    |from: &[f32; 16]| unsafe { _mm512_loadu_ps(from.as_ptr()) },
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_mul_ps,
    |to: &mut [f32; 16], sums| unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) }
);

#[cfg(target_arch = "x86_64")]
product!(
    avx512_int8, feature "avx512f", numbers i8, 16 lanes, at most 12 of 1 2 3 4 5 6 7 8 9 10 11 12,
    _mm512_setzero_ps(),
    |from: &[i8; 16]| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.as_ptr().cast()) })),
    _mm512_set1_ps,
    _mm512_add_ps,
    _mm512_mul_ps,
    |to: &mut [f32; 16], sums| unsafe { _mm512_storeu_ps(to.as_mut_ptr(), sums) }
);

#[cfg(target_arch = "x86_64")]
product!(
    avx2, feature "avx2", numbers f32, 8 lanes, at most 6 of 1 2 3 4 5 6,
    _mm256_setzero_ps(),
    |from: &[f32; 8]| unsafe { _mm256_loadu_ps(from.as_ptr()) },
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_mul_ps,
    |to: &mut [f32; 8], sums| unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sums) }
);

#[cfg(target_arch = "x86_64")]
product!(
    avx2_int8, feature "avx2", numbers i8, 8 lanes, at most 6 of 1 2 3 4 5 6,
    _mm256_setzero_ps(),
    |from: &[i8; 8]| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(from.as_ptr().cast()) })),
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_mul_ps,
    |to: &mut [f32; 8], sums| unsafe { _mm256_storeu_ps(to.as_mut_ptr(), sums) }
);

product!(
    any, numbers f32, 4 lanes, at most 4 of 1 2 3 4,
    [0.0_f32; 4],
    |from: &[f32; 4]| *from,
    |factor: f32| [factor; 4],
    |a: [f32; 4], b: [f32; 4]| [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]],
    |a: [f32; 4], b: [f32; 4]| [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]],
    |to: &mut [f32; 4], sums: [f32; 4]| *to = sums
);

product!(
    any_int8, numbers i8, 4 lanes, at most 4 of 1 2 3 4,
    [0.0_f32; 4],
    |from: &[i8; 4]| from.map(f32::from),
    |factor: f32| [factor; 4],
    |a: [f32; 4], b: [f32; 4]| [a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]],
    |a: [f32; 4], b: [f32; 4]| [a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]],
    |to: &mut [f32; 4], sums: [f32; 4]| *to = sums
);

/// Rows cut into groups of nearly equal size: the first `larger` ones have one row more than `least`.
#[derive(Clone, Copy)]
struct Groups {
    count: usize,
    least: usize,
    larger: usize,
}

impl Groups {
    /// The number of rows and the numbers of each group.
    #[inline(always)]
    fn parts(self, mut room: &[f32], inputs: usize) -> impl Iterator<Item = (usize, &[f32])> {
        (0..self.count).map(move |group| {
            let rows = self.least + usize::from(group < self.larger);
            let (part, rest) = room.split_at(rows * inputs);
            room = rest;
            (rows, part)
        })
    }
}

/// Writes `x` to `room` so that in each group of at most `most` rows those that belong to one input lie together.
#[inline(always)]
fn interleave(x: &[f32], inputs: usize, most: usize, mut room: &mut [f32]) -> Groups {
    let rows = x.len() / inputs;
    let count = rows.div_ceil(most);
    let groups = Groups { count, least: rows / count.max(1), larger: rows % count.max(1) };
    for (rows, part) in groups.parts(x, inputs) {
        let (to, rest) = room.split_at_mut(rows * inputs);
        room = rest;
        for (place, row) in part.chunks_exact(inputs).enumerate() {
            for (to, &number) in to.chunks_exact_mut(rows).zip(row) {
                to[place] = number;
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use anbiq_domain::Seeded;

    use super::*;

    /// What this processor has.
    fn kinds() -> Vec<Instructions> {
        let mut kinds = vec![Instructions::Any, Instructions::best()];
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            kinds.push(Instructions::Avx2);
        }
        kinds
    }

    #[test]
    fn products_equal_the_definition_and_each_other() {
        let mut random = Seeded::new(8);
        for (rows, outputs, inputs) in [(1, 1, 1), (2, 33, 7), (13, 64, 300), (30, 15, 9), (25, 100, 40), (0, 3, 3)] {
            let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
            let (matrix, x, before) = (numbers(outputs * inputs), numbers(rows * inputs), numbers(rows * outputs));
            for write in [Write::Over, Write::Add] {
                let results: Vec<Vec<f32>> = kinds()
                    .into_iter()
                    .map(|instructions| {
                        let (mut out, mut room) = (before.clone(), Vec::new());
                        let packed = Packed::with(instructions, &matrix, inputs, Precision::F32);
                        packed.multiply(&x, write, &mut out, &mut room);
                        out
                    })
                    .collect();
                assert!(results.iter().all(|result| *result == results[0]));
                for (place, (&is, &was)) in results[0].iter().zip(&before).enumerate() {
                    let (row, output) = (place / outputs, place % outputs);
                    // The same operations in the same order: equal to the last bit.
                    let sum = (0..inputs).fold(0.0, |sum, i| sum + x[row * inputs + i] * matrix[output * inputs + i]);
                    assert_eq!(is, if write == Write::Add { was + sum } else { sum }, "{rows} {outputs} {inputs}");
                }
            }
        }
    }

    #[test]
    fn integers_with_a_scale_are_multiplied_as_the_numbers_that_they_stand_for() {
        let mut random = Seeded::new(9);
        for (rows, outputs, inputs) in [(1, 33, 7), (13, 64, 300), (5, 15, 9), (7, 40, 1)] {
            let mut numbers = |count: usize| -> Vec<f32> { (0..count).map(|_| random.normal() as f32).collect() };
            let (matrix, x, before) = (numbers(outputs * inputs), numbers(rows * inputs), numbers(rows * outputs));
            for write in [Write::Over, Write::Add] {
                let product = |instructions| {
                    let (mut out, mut room) = (before.clone(), Vec::new());
                    let packed = Packed::with(instructions, &matrix, inputs, Precision::Int8);
                    packed.multiply(&x, write, &mut out, &mut room);
                    out
                };
                let results: Vec<Vec<f32>> = kinds().into_iter().map(product).collect();
                assert!(results.iter().all(|result| *result == results[0]), "the same on every processor");
                for (place, (&is, &was)) in results[0].iter().zip(&before).enumerate() {
                    let (row, output) = (place / outputs, place % outputs);
                    let weights = &matrix[output * inputs..][..inputs];
                    let scale = scale(weights);
                    let sum = (0..inputs)
                        .fold(0.0, |sum, i| sum + x[row * inputs + i] * f32::from(integer(weights[i], scale)));
                    assert_eq!(is, if write == Write::Add { was + sum * scale } else { sum * scale });
                    let exact: f32 = (0..inputs).map(|i| x[row * inputs + i] * weights[i]).sum();
                    // Each weight is off by at most half a scale.
                    let off: f32 = (0..inputs).map(|i| x[row * inputs + i].abs() * scale * 0.51).sum();
                    assert!((sum * scale - exact).abs() <= off + 1e-4, "{rows} {outputs} {inputs}");
                }
            }
        }
    }
}
