//! What a device does, done by a card.

#![expect(unsafe_code, reason = "CUDA's libraries are called through their C interfaces; every call says why it holds")]

use std::ffi::{c_int, c_void};
use std::ptr;

use cudarc::cublas::result as cublas;
use cudarc::cublas::sys::{cublasComputeType_t, cublasGemmAlgo_t, cublasOperation_t, cudaDataType_t};
use cudarc::driver::result;

use super::{Columns, Cuda, Memory, NO_WINDOW, Numbers, OfPack, Scratch, double, float, number, tile};
use crate::Config;
use crate::device::{Aim, Angles, Attended, Device, HeadNorms, Kind, Laid, Loss, Question, Stretch, Way};
use crate::graph::Pack;
use crate::kernel::{View, ViewMut, Write};
use crate::score::Likeliest;
use crate::train::{Divergence, Hardware};

impl Device for Cuda {
    type Slice = Numbers;
    type Buffer = Memory;
    type Laid = OfPack;
    type Scratch = Scratch;

    fn pack_rows(&self) -> usize {
        8192
    }

    /// A quarter of a gigabyte of them.
    fn logit_rows(&self, vocab: usize) -> usize {
        ((1 << 26) / vocab.max(1)).clamp(64, self.pack_rows())
    }

    fn room<'b>(&self, buffer: &'b mut Memory, length: usize) -> &'b mut Numbers {
        buffer.reserve(&self.context, length);
        buffer.part_mut(0..length)
    }

    fn put(&self, numbers: &[f32], to: &mut Numbers) {
        self.upload(numbers, to);
    }

    fn visit(&self, numbers: &mut Numbers, visit: impl FnOnce(&mut [f32])) {
        visit(&mut self.download::<f32>(numbers, numbers.len()));
    }

    fn lay(&self, pack: &Pack, there: &mut OfPack) {
        let mut all: Vec<u32> = Vec::with_capacity(8 * pack.rows());
        let mut put = |part: &mut dyn Iterator<Item = u32>| {
            let begin = all.len();
            all.extend(part);
            begin
        };
        there.tokens = put(&mut pack.tokens.iter().copied());
        there.positions = put(&mut pack.positions.iter().copied());
        there.targets = put(&mut pack.targets.iter().map(|target| target.row as u32));
        let rows = tile(self.head_dim);
        let tiles: Vec<[u32; 4]> = pack
            .spans
            .iter()
            .flat_map(|span| {
                let tile = |begin: usize| [begin, span.end.min(begin + rows), span.start, span.end];
                span.clone().step_by(rows).map(move |begin| tile(begin).map(|at| at as u32))
            })
            .collect();
        there.tiles = (put(&mut tiles.iter().flatten().copied()), tiles.len());
        let mut order: Vec<u32> = (0..pack.rows() as u32).collect();
        order.sort_by_key(|&row| pack.tokens[row as usize]);
        let mut groups: Vec<u32> = Vec::new();
        for (at, &row) in order.iter().enumerate() {
            let token = pack.tokens[row as usize];
            if at == 0 || groups[groups.len() - 2] != token {
                groups.extend([token, at as u32]);
            }
        }
        let count = groups.len() / 2;
        groups.extend([0, order.len() as u32]);
        there.groups = (put(&mut groups.into_iter()), count);
        there.order = put(&mut order.into_iter());
        let to = self.room(&mut there.memory, all.len());
        self.upload(&all, to);
    }

    fn copy(&self, from: &Numbers, to: &mut Numbers) {
        let (source, target, bytes) = (from.address(), to.address(), 4 * from.len().min(to.len()));
        if bytes > 0 {
            // SAFETY: both are at least so long, and what is borrowed to be changed overlaps nothing.
            self.context
                .attempt("copying", || unsafe { result::memcpy_dtod_async(target, source, bytes, ptr::null_mut()) });
        }
    }

    fn clear(&self, to: &mut Numbers) {
        let (address, bytes) = (to.address(), 4 * to.len());
        if bytes > 0 {
            // SAFETY: it is so long.
            self.context.attempt("clearing", || unsafe { result::memset_d8_async(address, 0, bytes, ptr::null_mut()) });
        }
    }

    fn multiply(
        &self,
        out: ViewMut<'_, Numbers>,
        write: Write,
        scale: f32,
        left: View<'_, Numbers>,
        right: View<'_, Numbers>,
    ) {
        let (m, n, k) = (out.rows, out.cols, left.cols);
        debug_assert!(left.rows == m && right.rows == k && right.cols == n);
        if m == 0 || n == 0 {
            return;
        }
        let keep: f32 = if write == Write::Add { 1.0 } else { 0.0 };
        // cuBLAS goes by columns: rows of ours are its columns, so it is given the product of the transposed.
        let ((left_way, left_step), (right_way, right_step)) = (lies(&left), lies(&right));
        let compute = match self.context.hardware {
            Hardware::CudaTf32 => cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            Hardware::Cuda | Hardware::Cpu => cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (a, b, c) = (right.data.address(), left.data.address(), out.data.address());
        let kind = cudaDataType_t::CUDA_R_32F;
        self.context.attempt("a matrix product", || {
            // SAFETY: the addresses are the card's, and each matrix lies within its slice: the graph gives slices of the very
            // sizes of its matrices, for which the processor's product checks the same steps.
            unsafe {
                cublas::gemm_ex(
                    self.blas,
                    right_way,
                    left_way,
                    n as c_int,
                    m as c_int,
                    k as c_int,
                    ptr::from_ref(&scale).cast(),
                    a as *const c_void,
                    kind,
                    right_step as c_int,
                    b as *const c_void,
                    kind,
                    left_step as c_int,
                    ptr::from_ref(&keep).cast(),
                    c as *mut c_void,
                    kind,
                    out.row_step as c_int,
                    compute,
                    cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
                )
            }
        });
    }

    fn embed(&self, laid: Laid<'_, Self>, table: &Numbers, width: usize, out: &mut Numbers) {
        let mut arguments = [table.address(), laid.there.at(laid.there.tokens), number(width), out.address()];
        self.launch("embedding", self.kernels.gather, (laid.pack.rows(), 1), 0, &mut arguments);
    }

    fn embed_backward(&self, laid: Laid<'_, Self>, x: &Numbers, width: usize, d_table: &mut Numbers) {
        let (groups, count) = laid.there.groups;
        let (groups, order) = (laid.there.at(groups), laid.there.at(laid.there.order));
        let mut arguments = [x.address(), groups, order, number(width), d_table.address()];
        self.launch("embedding, back", self.kernels.add_groups, (count, 1), 0, &mut arguments);
    }

    fn pick(&self, laid: Laid<'_, Self>, x: &Numbers, width: usize, out: &mut Numbers) {
        let mut arguments = [x.address(), laid.there.at(laid.there.targets), number(width), out.address()];
        self.launch("picking", self.kernels.gather, (laid.pack.targets.len(), 1), 0, &mut arguments);
    }

    fn unpick(&self, laid: Laid<'_, Self>, picked: &Numbers, width: usize, out: &mut Numbers) {
        let mut arguments = [picked.address(), laid.there.at(laid.there.targets), number(width), out.address()];
        self.launch("picking, back", self.kernels.scatter, (laid.pack.targets.len(), 1), 0, &mut arguments);
    }

    fn rms_norm(&self, x: &Numbers, scale: &Numbers, epsilon: f32, out: &mut Numbers, inverse: &mut Numbers) {
        let (width, rows) = (scale.len(), inverse.len());
        let mut arguments =
            [x.address(), scale.address(), float(epsilon), number(width), out.address(), inverse.address()];
        self.launch("a norm", self.kernels.rms_norm, (rows, 1), 0, &mut arguments);
    }

    fn rms_norm_backward(
        &self,
        x: &Numbers,
        scale: &Numbers,
        inverse: &Numbers,
        dy: &Numbers,
        dx: &mut Numbers,
        d_scale: &mut Numbers,
        scratch: &mut Scratch,
    ) {
        let (width, rows) = (scale.len(), inverse.len());
        let y = Some((x, width, inverse, 1));
        self.add_columns(Columns { x: dy, x_step: width, y, items: rows, heads: 1, width }, d_scale, scratch);
        let mut arguments =
            [x.address(), scale.address(), inverse.address(), dy.address(), number(width), dx.address()];
        self.launch("a norm, back", self.kernels.rms_norm_backward, (rows, 1), 0, &mut arguments);
    }

    fn norm_heads(
        &self,
        config: &Config,
        scales: &HeadNorms<'_, Numbers>,
        qkv: &mut Numbers,
        plain: &mut Numbers,
        inverse: &mut Numbers,
    ) {
        let rows = inverse.len() / (config.heads + config.kv_heads);
        let mut arguments = [
            qkv.address(),
            scales.queries.address(),
            scales.keys.address(),
            float(config.rms_norm_eps),
            number(rows),
            number(config.heads),
            number(config.kv_heads),
            plain.address(),
            inverse.address(),
        ];
        self.launch("norms of heads", self.kernels.norm_heads, (inverse.len().div_ceil(8), 1), 0, &mut arguments);
    }

    fn norm_heads_backward(
        &self,
        config: &Config,
        kind: Kind,
        scale: &Numbers,
        (plain, inverse): (&Numbers, &Numbers),
        d_qkv: &mut Numbers,
        d_scale: &mut Numbers,
        scratch: &mut Scratch,
    ) {
        let (heads, kv_heads, width) = (config.heads, config.kv_heads, config.head_dim);
        let (turned, step) = (heads + kv_heads, (heads + 2 * kv_heads) * width);
        let rows = inverse.len() / turned;
        let (first, count) = match kind {
            Kind::Queries => (0, heads),
            Kind::Keys => (heads, kv_heads),
        };
        let y =
            Some((plain.part(first * width..plain.len()), turned * width, inverse.part(first..inverse.len()), turned));
        let x = d_qkv.part(first * width..d_qkv.len());
        let of = Columns { x, x_step: step, y, items: rows * count, heads: count, width };
        self.add_columns(of, d_scale, scratch);
        let mut arguments = [
            d_qkv.address(),
            plain.address(),
            inverse.address(),
            scale.address(),
            number(rows),
            number(first),
            number(count),
            number(heads),
            number(kv_heads),
        ];
        let grid = ((rows * count).div_ceil(8), 1);
        self.launch("norms of heads, back", self.kernels.norm_heads_backward, grid, 0, &mut arguments);
    }

    fn rotate(
        &self,
        laid: Laid<'_, Self>,
        x: &mut Numbers,
        row_step: usize,
        heads: usize,
        angles: &Angles<'_, Numbers>,
        way: Way,
    ) {
        let count = laid.pack.rows() * heads * angles.half;
        let mut arguments = [
            x.address(),
            laid.there.at(laid.there.positions),
            angles.cosines.address(),
            angles.sines.address(),
            count as u64,
            number(row_step),
            number(heads),
            float(if way == Way::There { 1.0 } else { -1.0 }),
        ];
        self.each("positions", self.kernels.rotate, count, &mut arguments);
    }

    fn attend(
        &self,
        config: &Config,
        window: usize,
        laid: Laid<'_, Self>,
        qkv: &Numbers,
        context: &mut Numbers,
        logsums: &mut Numbers,
        _: &mut Scratch,
    ) {
        let (tiles, count) = laid.there.tiles;
        let mut arguments = [
            qkv.address(),
            laid.there.at(tiles),
            number(laid.pack.rows()),
            number(config.heads),
            number(config.kv_heads),
            number(window.min(NO_WINDOW)),
            float(1.0 / (config.head_dim as f32).sqrt()),
            context.address(),
            logsums.address(),
        ];
        let grid = (count, config.heads);
        self.launch("attention", self.kernels.attend, grid, self.shared.forward, &mut arguments);
    }

    fn attend_backward(
        &self,
        config: &Config,
        window: usize,
        laid: Laid<'_, Self>,
        from: &Attended<'_, Numbers>,
        d_context: &Numbers,
        d_qkv: &mut Numbers,
        scratch: &mut Scratch,
    ) {
        let (rows, heads) = (laid.pack.rows(), config.heads);
        scratch.shared.reserve(&self.context, rows * heads);
        let shared = scratch.shared.address();
        let mut arguments = [from.context.address(), d_context.address(), number(rows), number(heads), shared];
        let grid = ((rows * heads).div_ceil(8), 1);
        self.launch("attention, back", self.kernels.attend_shared, grid, 0, &mut arguments);
        let (tiles, count) = laid.there.tiles;
        let mut arguments = [
            from.qkv.address(),
            laid.there.at(tiles),
            number(rows),
            number(heads),
            number(config.kv_heads),
            number(window.min(NO_WINDOW)),
            float(1.0 / (config.head_dim as f32).sqrt()),
            from.logsums.address(),
            shared,
            d_context.address(),
            d_qkv.address(),
        ];
        let bytes = self.shared.backward;
        self.launch("attention, back", self.kernels.attend_queries, (count, heads), bytes, &mut arguments);
        self.launch("attention, back", self.kernels.attend_keys, (count, config.kv_heads), bytes, &mut arguments);
    }

    fn silu_gate(&self, gate_up: &Numbers, width: usize, out: &mut Numbers) {
        let count = out.len();
        let mut arguments = [gate_up.address(), count as u64, number(width), out.address()];
        self.each("gates", self.kernels.silu_gate, count, &mut arguments);
    }

    fn silu_gate_backward(&self, gate_up: &mut Numbers, width: usize, d_out: &mut Numbers) {
        let count = d_out.len();
        let mut arguments = [gate_up.address(), count as u64, number(width), d_out.address()];
        self.each("gates, back", self.kernels.silu_gate_backward, count, &mut arguments);
    }

    fn add_to_rows(&self, x: &mut Numbers, row: &Numbers) {
        let (count, width) = (x.len(), row.len());
        if width > 0 {
            let mut arguments = [x.address(), row.address(), count as u64, number(width)];
            self.each("biases", self.kernels.add_to_rows, count, &mut arguments);
        }
    }

    fn sum_rows(&self, sum: &mut Numbers, x: &Numbers, scratch: &mut Scratch) {
        let width = sum.len();
        if width > 0 {
            let of = Columns { x, x_step: width, y: None, items: x.len() / width, heads: 1, width };
            self.add_columns(of, sum, scratch);
        }
    }

    fn begin_losses(&self, questions: usize, scratch: &mut Scratch) {
        scratch.verdicts.reserve(&self.context, 3 * questions);
        (scratch.answered, scratch.taught) = (0, 0);
    }

    fn losses(&self, logits: &mut Numbers, vocab: usize, questions: &[Question<'_>], aim: &Aim, scratch: &mut Scratch) {
        let said = || questions.iter().flat_map(|question| question.teacher.unwrap_or_default());
        let mut asked: Vec<u32> = Vec::new();
        let mut begin = 0;
        for question in questions {
            let known = question.teacher.unwrap_or_default().len();
            asked.extend([question.token, begin]);
            begin += known as u32;
            scratch.taught += u64::from(known > 0);
        }
        asked.extend([0, begin]);
        let weights = asked.len();
        asked.extend(questions.iter().map(|question| question.weight.to_bits()));
        let tokens = asked.len();
        asked.extend(said().map(|&(token, _)| token));
        let logprobs = asked.len();
        asked.extend(said().map(|&(_, logprob)| logprob.to_bits()));
        let (count, known) = (questions.len(), begin as usize);
        let to = self.room(&mut scratch.asked, asked.len());
        self.upload(&asked, to);
        scratch.taken.reserve(&self.context, known.max(1));
        // Two numbers of 64 bits for each class.
        scratch.classes.reserve(&self.context, 4 * (known + count));
        let at = |place: usize| scratch.asked.address() + 4 * place as u64;
        let (kind, figure) = match aim.divergence {
            Divergence::ForwardKl => (0, 0.0),
            Divergence::ReverseKl => (1, 0.0),
            Divergence::JensenShannon { beta } => (2, beta),
            Divergence::SkewKl { alpha } => (3, alpha),
            Divergence::SkewReverseKl { alpha } => (4, alpha),
            Divergence::TotalVariation => (5, 0.0),
        };
        let mut arguments = [
            logits.address(),
            number(vocab),
            at(0),
            at(weights),
            at(tokens),
            at(logprobs),
            float(aim.share),
            number(usize::from(aim.is_plain())),
            number(kind),
            double(figure),
            double(aim.temperature),
            scratch.taken.address(),
            scratch.classes.address(),
            scratch.verdicts.address() + 12 * scratch.answered as u64,
        ];
        self.launch("losses", self.kernels.losses, (count, 1), 0, &mut arguments);
        scratch.answered += count;
    }

    fn lost(&self, scratch: &mut Scratch) -> Loss {
        let targets = scratch.answered as u64;
        let mut loss = Loss { targets, taught: scratch.taught, ..Loss::default() };
        for verdict in self.download::<[f32; 3]>(&scratch.verdicts, scratch.answered) {
            let [mixed, cross_entropy, divergence] = verdict.map(f64::from);
            loss.mixed += mixed;
            loss.cross_entropy += cross_entropy;
            loss.divergence += divergence;
        }
        loss
    }

    fn logprobs(
        &self,
        logits: &mut Numbers,
        vocab: usize,
        tokens: &[u32],
        scratch: &mut Scratch,
        mut each: impl FnMut(f32, bool),
    ) {
        let to = self.room(&mut scratch.asked, tokens.len());
        self.upload(tokens, to);
        let out = self.room(&mut scratch.verdicts, 2 * tokens.len());
        let mut arguments = [logits.address(), number(vocab), scratch.asked.address(), out.address()];
        self.launch("log-probabilities", self.kernels.logprobs, (tokens.len(), 1), 0, &mut arguments);
        for [logprob, likeliest] in self.download::<[f32; 2]>(out, tokens.len()) {
            each(logprob, likeliest > 0.0);
        }
    }

    fn top(
        &self,
        logits: &mut Numbers,
        vocab: usize,
        k: usize,
        scratch: &mut Scratch,
        mut each: impl FnMut(Likeliest),
    ) {
        let (rows, k) = (logits.len() / vocab, k.min(vocab));
        if k == 0 {
            (0..rows).for_each(|_| each(Vec::new()));
            return;
        }
        let tokens = self.room(&mut scratch.asked, rows * k);
        let out = self.room(&mut scratch.verdicts, rows * k);
        let mut arguments = [logits.address(), number(vocab), number(k), tokens.address(), out.address()];
        self.launch("the likeliest tokens", self.kernels.top, (rows, 1), 0, &mut arguments);
        let (tokens, logprobs) = (self.download::<u32>(tokens, rows * k), self.download::<f32>(out, rows * k));
        for (tokens, logprobs) in tokens.chunks_exact(k).zip(logprobs.chunks_exact(k)) {
            each(tokens.iter().copied().zip(logprobs.iter().copied()).collect());
        }
    }
}

/// How cuBLAS finds a matrix of ours, which it takes for its transposed: as it lies or turned, and what lies between its
/// columns.
fn lies(view: &View<'_, Numbers>) -> (cublasOperation_t, usize) {
    if view.col_step == 1 && view.row_step >= view.cols {
        (cublasOperation_t::CUBLAS_OP_N, view.row_step)
    } else {
        (cublasOperation_t::CUBLAS_OP_T, view.col_step)
    }
}
