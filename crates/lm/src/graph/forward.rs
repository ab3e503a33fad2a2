use super::linear::linear;
use super::{LayerTape, Model, Pack, Tape};
use crate::device::{Angles, Device, HeadNorms, Laid, Stretch, Way};
use crate::kernel::Write;

/// What a pass leaves on the tape for the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Keep {
    /// Nothing: there is none.
    #[default]
    Nothing,
    /// What goes into each layer; all else is computed again on the way back (Chen et al. 2016).
    Inputs,
    /// All that is needed.
    Everything,
}

/// Runs the pack through all layers; the residual stream is left on the tape, and what the way back needs.
pub(crate) fn forward<D: Device>(device: &D, model: &Model<'_, D>, pack: &Pack, tape: &mut Tape<D>, keep: Keep) {
    forward_seen(device, model, pack, tape, keep, |_, _| ());
}

/// As [`forward`]; `seen` is called with each layer, counted from 1, and the residual stream that comes out of it.
pub(super) fn forward_seen<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    keep: Keep,
    mut seen: impl FnMut(usize, &D::Slice),
) {
    let config = model.config;
    let (rows, d, ffn) = (pack.rows(), config.hidden_size, config.intermediate_size);
    tape.begin(config, keep);
    device.lay(pack, &mut tape.laid);
    let longest = pack.spans.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let angles = tape.rotary.angles(device, longest);
    let pass = Pass { device, model, laid: Laid { pack, there: &tape.laid }, angles };

    let stream = device.room(&mut tape.stream, rows * d);
    device.embed(pass.laid, model.embed(), d, stream);
    let hidden = device.room(&mut tape.hidden, rows * d);
    let gated = device.room(&mut tape.gated, rows * ffn);
    for index in 0..config.layers {
        let layer = model.layer(index);
        let slot = &mut tape.layers[keep.slot(index)];
        if keep != Keep::Nothing {
            device.copy(stream, device.room(&mut tape.inputs[index], rows * d));
        }
        pass.attention(index, slot, stream, hidden, &mut tape.scratch);
        if keep == Keep::Everything {
            device.copy(stream, device.room(&mut slot.middle, rows * d));
        }
        let gate_up = pass.gates(index, slot, stream, hidden);
        device.silu_gate(gate_up, ffn, gated);
        linear(device, stream, d, Write::Add, gated, ffn, layer.down);
        device.add_to_rows(stream, layer.down_bias);
        seen(index + 1, stream);
    }
}

impl Keep {
    /// Which of the tape's layers a pass writes layer `index` to.
    pub(super) fn slot(self, index: usize) -> usize {
        if self == Self::Everything { index } else { 0 }
    }
}

/// What is the same for all layers of a pass.
pub(super) struct Pass<'a, D: Device> {
    pub(super) device: &'a D,
    pub(super) model: &'a Model<'a, D>,
    pub(super) laid: Laid<'a, D>,
    pub(super) angles: Angles<'a, D::Slice>,
}

impl<D: Device> Pass<'_, D> {
    /// Adds to `stream` what attention of layer `index` makes of it.
    pub(super) fn attention(
        &self,
        index: usize,
        slot: &mut LayerTape<D::Buffer>,
        stream: &mut D::Slice,
        hidden: &mut D::Slice,
        scratch: &mut D::Scratch,
    ) {
        let Self { device, model, laid, ref angles } = *self;
        let (config, layer, rows) = (model.config, model.layer(index), laid.pack.rows());
        let (d, queries, keys) = (config.hidden_size, config.query_size(), config.kv_size());
        let (step, turned) = (queries + 2 * keys, config.heads + config.kv_heads);

        let inverse = device.room(&mut slot.before_inverse, rows);
        device.rms_norm(stream, layer.attn_norm, config.rms_norm_eps, hidden, inverse);
        let qkv = device.room(&mut slot.qkv, rows * step);
        linear(device, qkv, step, Write::Over, hidden, d, model.qkv(index));
        device.add_to_rows(qkv, model.qkv_bias(index));
        if config.qk_norm() {
            let plain = device.room(&mut slot.plain, rows * (queries + keys));
            let inverse = device.room(&mut slot.plain_inverse, rows * turned);
            let scales = HeadNorms { queries: layer.q_norm, keys: layer.k_norm };
            device.norm_heads(config, &scales, qkv, plain, inverse);
        }
        if config.rotates(index) {
            device.rotate(laid, qkv, step, turned, angles, Way::There);
        }
        let context = device.room(&mut slot.context, rows * queries);
        let logsums = device.room(&mut slot.logsums, rows * config.heads);
        device.attend(config, config.window(index), laid, qkv, context, logsums, scratch);
        linear(device, stream, d, Write::Add, context, queries, layer.o);
        device.add_to_rows(stream, layer.o_bias);
    }

    /// Gates and values that layer `index` makes of `stream`, which is between its two parts.
    pub(super) fn gates<'slot>(
        &self,
        index: usize,
        slot: &'slot mut LayerTape<D::Buffer>,
        stream: &D::Slice,
        hidden: &mut D::Slice,
    ) -> &'slot mut D::Slice {
        let Self { device, model, laid, .. } = *self;
        let (config, layer, rows) = (model.config, model.layer(index), laid.pack.rows());
        let (d, ffn) = (config.hidden_size, config.intermediate_size);

        let inverse = device.room(&mut slot.middle_inverse, rows);
        device.rms_norm(stream, layer.mlp_norm, config.rms_norm_eps, hidden, inverse);
        let gate_up = device.room(&mut slot.gate_up, rows * 2 * ffn);
        linear(device, gate_up, 2 * ffn, Write::Over, hidden, d, model.gate_up(index));
        device.add_to_rows(gate_up, model.gate_up_bias(index));
        gate_up
    }

    /// All that the way back through layer `index` needs, from what went into it.
    pub(super) fn again(
        &self,
        index: usize,
        input: &D::Slice,
        slot: &mut LayerTape<D::Buffer>,
        hidden: &mut D::Slice,
        scratch: &mut D::Scratch,
    ) {
        let mut middle = std::mem::take(&mut slot.middle);
        let stream = self.device.room(&mut middle, input.len());
        self.device.copy(input, stream);
        self.attention(index, slot, stream, hidden, scratch);
        self.gates(index, slot, stream, hidden);
        slot.middle = middle;
    }
}

/// Collects the rows that predict targets and normalises them: the input of the output head.
pub(crate) fn pick<D: Device>(device: &D, model: &Model<'_, D>, pack: &Pack, tape: &mut Tape<D>) {
    let (d, count) = (model.config.hidden_size, pack.targets.len());
    let picked = device.room(&mut tape.picked, count * d);
    device.pick(Laid { pack, there: &tape.laid }, &tape.stream, d, picked);
    let (normed, inverse) = (device.room(&mut tape.normed, count * d), device.room(&mut tape.normed_inverse, count));
    device.rms_norm(picked, model.norm(), model.config.rms_norm_eps, normed, inverse);
}
