//! Where a network is computed: the seam between the graph, which is written once, and the arithmetic of a processor or of a
//! graphics card.
//!
//! A device has memory of its own kind and the operations below. Matrix products, norms and gates work on stretches of that
//! memory; attention and the loss of a place are whole operations, since how they are cut up is what devices differ in: a
//! processor walks through tiles that stay in its cache, a card wants all rows and heads in one go.
//!
//! No operation gives a result that can fail. The processor's cannot; a card works behind the program's back and says
//! what went wrong when it is asked for numbers, so it remembers its first fault, does nothing more, and whoever asks
//! for the result of a pass asks for the fault too.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::fmt::Debug;
use std::ops::{DerefMut, Range};

pub(crate) use cpu::{Aim, Cpu, norm_heads};
#[cfg(feature = "cuda")]
pub(crate) use cuda::{Cuda, Memory, Moments};

use crate::Config;
use crate::graph::Pack;
use crate::kernel::{View, ViewMut, Write};
use crate::score::Likeliest;

/// Numbers that lie in a row in a device's memory.
pub(crate) trait Stretch {
    /// How many.
    fn len(&self) -> usize;

    /// Some of them.
    fn part(&self, range: Range<usize>) -> &Self;

    /// Some of them, to change.
    fn part_mut(&mut self, range: Range<usize>) -> &mut Self;
}

/// A pack, and what the device has of it.
pub(crate) struct Laid<'a, D: Device> {
    pub(crate) pack: &'a Pack,
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "the processor has nothing of its own of a pack"))]
    pub(crate) there: &'a D::Laid,
}

impl<D: Device> Clone for Laid<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for Laid<'_, D> {}

/// The norm of the heads of one kind: their numbers before it, and what the way back needs.
pub(crate) struct HeadNorms<'a, S: ?Sized> {
    /// Scale of the queries' norm, `[head_dim]`.
    pub(crate) queries: &'a S,
    /// Scale of the keys' norm, `[head_dim]`.
    pub(crate) keys: &'a S,
}

/// Rotary tables, `[positions, half]` each.
pub(crate) struct Angles<'a, S: ?Sized> {
    pub(crate) cosines: &'a S,
    pub(crate) sines: &'a S,
    pub(crate) half: usize,
}

/// What attention leaves for the way back.
pub(crate) struct Attended<'a, S: ?Sized> {
    /// Queries, keys and values, `[rows, (heads + 2 kv_heads) * head_dim]`.
    pub(crate) qkv: &'a S,
    /// Its result, `[rows, heads * head_dim]`.
    pub(crate) context: &'a S,
    /// Logarithms of the softmax sums, `[heads, rows]`.
    pub(crate) logsums: &'a S,
}

/// A teacher's likeliest tokens at one place with their log-probabilities; the rest of its mass is one class.
pub(crate) type Teacher<'data> = &'data [(u32, f32)];

/// What is asked at a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'data> {
    /// The token that is to be predicted.
    pub(crate) token: u32,
    /// What the gradient weighs; it may be below 0.
    pub(crate) weight: f32,
    /// What a teacher says, where one says something.
    pub(crate) teacher: Option<Teacher<'data>>,
}

/// Sums over targets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Loss {
    /// What is minimised.
    pub(crate) mixed: f64,
    /// Cross-entropy with the targets.
    pub(crate) cross_entropy: f64,
    /// Divergence from the teacher, over the targets that have one.
    pub(crate) divergence: f64,
    /// Targets.
    pub(crate) targets: u64,
    /// Targets with a teacher.
    pub(crate) taught: u64,
}

impl Loss {
    pub(crate) fn add(&mut self, other: &Self) {
        self.mixed += other.mixed;
        self.cross_entropy += other.cross_entropy;
        self.divergence += other.divergence;
        self.targets += other.targets;
        self.taught += other.taught;
    }
}

/// Something that computes. Rows follow each other without a gap wherever nothing else is said.
pub(crate) trait Device: Debug + Sync + Sized {
    /// Numbers in its memory.
    type Slice: Stretch + Sync + ?Sized;
    /// A piece of its memory that only ever grows.
    type Buffer: DerefMut<Target = Self::Slice> + Default + Debug;
    /// What it has of a pack beside the pack itself.
    type Laid: Default + Debug;
    /// Room of its own, and the sums of the losses.
    type Scratch: Default + Debug;

    /// Rows that pass through the network together where sequences are that short.
    fn pack_rows(&self) -> usize;

    /// Rows whose logits, `vocab` each, are held at once.
    fn logit_rows(&self, vocab: usize) -> usize;

    /// The first `length` numbers of a buffer; what stands in them is left over from before.
    fn room<'b>(&self, buffer: &'b mut Self::Buffer, length: usize) -> &'b mut Self::Slice;

    /// Takes numbers in.
    fn put(&self, numbers: &[f32], to: &mut Self::Slice);

    /// Calls `visit` with numbers of the device in the memory of the program, where they may be changed; the changes are lost.
    fn visit(&self, numbers: &mut Self::Slice, visit: impl FnOnce(&mut [f32]));

    /// Takes in what it needs of a pack.
    fn lay(&self, pack: &Pack, there: &mut Self::Laid);

    /// `to = from`, both of one length.
    fn copy(&self, from: &Self::Slice, to: &mut Self::Slice);

    /// `to = 0`.
    fn clear(&self, to: &mut Self::Slice);

    /// Writes `scale * left * right`.
    fn multiply(
        &self,
        out: ViewMut<'_, Self::Slice>,
        write: Write,
        scale: f32,
        left: View<'_, Self::Slice>,
        right: View<'_, Self::Slice>,
    );

    /// Writes for each row of a pack the row of its token in `table`, `width` wide.
    fn embed(&self, laid: Laid<'_, Self>, table: &Self::Slice, width: usize, out: &mut Self::Slice);

    /// The way back: adds each row of `x` to the row of its token in `d_table`.
    fn embed_backward(&self, laid: Laid<'_, Self>, x: &Self::Slice, width: usize, d_table: &mut Self::Slice);

    /// Writes the rows of `x` that predict targets.
    fn pick(&self, laid: Laid<'_, Self>, x: &Self::Slice, width: usize, out: &mut Self::Slice);

    /// The way back: writes each row of `picked` to where [`Device::pick`] had it from.
    fn unpick(&self, laid: Laid<'_, Self>, picked: &Self::Slice, width: usize, out: &mut Self::Slice);

    /// Root-mean-square norm of each row of `x`, as wide as `scale`; `inverse`, one number a row, is for the way back.
    fn rms_norm(
        &self,
        x: &Self::Slice,
        scale: &Self::Slice,
        epsilon: f32,
        out: &mut Self::Slice,
        inverse: &mut Self::Slice,
    );

    /// The way back: adds to `dx` and `d_scale`.
    #[expect(clippy::too_many_arguments, reason = "what goes in, and what comes out")]
    fn rms_norm_backward(
        &self,
        x: &Self::Slice,
        scale: &Self::Slice,
        inverse: &Self::Slice,
        dy: &Self::Slice,
        dx: &mut Self::Slice,
        d_scale: &mut Self::Slice,
        scratch: &mut Self::Scratch,
    );

    /// Norms every head of the queries and keys in the rows of `qkv`. `plain`, `[rows, (heads + kv_heads) * head_dim]`, takes
    /// what they were before, and `inverse`, `[rows, heads + kv_heads]`, what the way back needs.
    fn norm_heads(
        &self,
        config: &Config,
        scales: &HeadNorms<'_, Self::Slice>,
        qkv: &mut Self::Slice,
        plain: &mut Self::Slice,
        inverse: &mut Self::Slice,
    );

    /// The way back for one kind of heads: turns their part of `d_qkv` into its gradient before the norm and adds to the
    /// gradient of the norm's `scale`.
    #[expect(clippy::too_many_arguments, reason = "what goes in, and what comes out")]
    fn norm_heads_backward(
        &self,
        config: &Config,
        kind: Kind,
        scale: &Self::Slice,
        before: (&Self::Slice, &Self::Slice),
        d_qkv: &mut Self::Slice,
        d_scale: &mut Self::Slice,
        scratch: &mut Self::Scratch,
    );

    /// Turns the first `heads` heads of each row of `x`, `row_step` wide, by the angles of its position; or back.
    fn rotate(
        &self,
        laid: Laid<'_, Self>,
        x: &mut Self::Slice,
        row_step: usize,
        heads: usize,
        angles: &Angles<'_, Self::Slice>,
        way: Way,
    );

    /// Attends: `context` becomes, for each row and head, the mean of the values under the softmax of the scores. A row sees
    /// the last `window` rows of its sequence up to itself.
    #[expect(clippy::too_many_arguments, reason = "what goes in, and what comes out")]
    fn attend(
        &self,
        config: &Config,
        window: usize,
        laid: Laid<'_, Self>,
        qkv: &Self::Slice,
        context: &mut Self::Slice,
        logsums: &mut Self::Slice,
        scratch: &mut Self::Scratch,
    );

    /// The way back: `d_qkv` becomes the gradient of queries, keys and values.
    #[expect(clippy::too_many_arguments, reason = "what goes in, and what comes out")]
    fn attend_backward(
        &self,
        config: &Config,
        window: usize,
        laid: Laid<'_, Self>,
        from: &Attended<'_, Self::Slice>,
        d_context: &Self::Slice,
        d_qkv: &mut Self::Slice,
        scratch: &mut Self::Scratch,
    );

    /// The gated unit: rows of `gate_up` hold `width` gates, then `width` values.
    fn silu_gate(&self, gate_up: &Self::Slice, width: usize, out: &mut Self::Slice);

    /// The way back: turns `gate_up` into its gradient and `d_out` back into the unit's output.
    fn silu_gate_backward(&self, gate_up: &mut Self::Slice, width: usize, d_out: &mut Self::Slice);

    /// Adds `row` to each row of `x`; an empty one stands for none.
    fn add_to_rows(&self, x: &mut Self::Slice, row: &Self::Slice);

    /// Adds the rows of `x` to `sum`; an empty one stands for none.
    fn sum_rows(&self, sum: &mut Self::Slice, x: &Self::Slice, scratch: &mut Self::Scratch);

    /// Begins the sums of the losses of a pack, which will be of `questions` places.
    fn begin_losses(&self, questions: usize, scratch: &mut Self::Scratch);

    /// Answers questions, one for each row of `logits`, which become their gradient; where a target has a teacher, `aim` says
    /// what of it goes to which divergence. The sums of the [`Loss`] are not weighed.
    fn losses(
        &self,
        logits: &mut Self::Slice,
        vocab: usize,
        questions: &[Question<'_>],
        aim: &Aim,
        scratch: &mut Self::Scratch,
    );

    /// The sums since they were begun.
    fn lost(&self, scratch: &mut Self::Scratch) -> Loss;

    /// Gives for each row of `logits`, which are used up, the log-probability of its token, and whether that is the likeliest.
    fn logprobs(
        &self,
        logits: &mut Self::Slice,
        vocab: usize,
        tokens: &[u32],
        scratch: &mut Self::Scratch,
        each: impl FnMut(f32, bool),
    );

    /// Gives for each row of `logits`, which are used up, the `k` likeliest tokens with their log-probabilities.
    fn top(
        &self,
        logits: &mut Self::Slice,
        vocab: usize,
        k: usize,
        scratch: &mut Self::Scratch,
        each: impl FnMut(Likeliest),
    );
}

/// The heads of one kind: those of the queries, or those of the keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// The queries.
    Queries,
    /// The keys.
    Keys,
}

/// There or back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// There.
    There,
    /// Back.
    Back,
}
