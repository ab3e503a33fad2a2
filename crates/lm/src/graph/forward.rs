use super::linear::linear;
use super::{LayerTape, Model, Pack, Tape};
use crate::device::{Device, HeadNorms, Laid, Way};
use crate::kernel::Write;

/// Runs the pack through all layers; the residual stream is left on the tape. With `keep` the tape remembers what the
/// way back needs.
pub(crate) fn forward<D: Device>(device: &D, model: &Model<'_, D>, pack: &Pack, tape: &mut Tape<D>, keep: bool) {
    forward_seen(device, model, pack, tape, keep, |_, _| ());
}

/// As [`forward`]; `seen` is called with each layer, counted from 1, and the residual stream that comes out of it.
pub(super) fn forward_seen<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    keep: bool,
    mut seen: impl FnMut(usize, &D::Slice),
) {
    let config = model.config;
    let (rows, d, ffn) = (pack.rows(), config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.query_size(), config.kv_size());
    let (step, turned) = (queries + 2 * keys, config.heads + config.kv_heads);
    let slots = if keep { config.layers } else { 1 };
    if tape.layers.len() < slots {
        tape.layers.resize_with(slots, LayerTape::default);
    }
    device.lay(pack, &mut tape.laid);
    let laid = Laid { pack, there: &tape.laid };
    let longest = pack.spans.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let angles = tape.rotary.angles(device, longest);

    let stream = device.room(&mut tape.stream, rows * d);
    device.embed(laid, model.embed(), d, stream);
    let hidden = device.room(&mut tape.hidden, rows * d);
    let gated = device.room(&mut tape.gated, rows * ffn);
    for index in 0..config.layers {
        let layer = model.layer(index);
        let slot = &mut tape.layers[if keep { index } else { 0 }];

        let inverse = device.room(&mut slot.before_inverse, rows);
        device.rms_norm(stream, layer.attn_norm, config.rms_norm_eps, hidden, inverse);
        if keep {
            device.copy(stream, device.room(&mut slot.before, rows * d));
        }
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
            device.rotate(laid, qkv, step, turned, &angles, Way::There);
        }
        let context = device.room(&mut slot.context, rows * queries);
        let logsums = device.room(&mut slot.logsums, rows * config.heads);
        device.attend(config, config.window(index), laid, qkv, context, logsums, &mut tape.scratch);
        linear(device, stream, d, Write::Add, context, queries, layer.o);
        device.add_to_rows(stream, layer.o_bias);

        let inverse = device.room(&mut slot.middle_inverse, rows);
        device.rms_norm(stream, layer.mlp_norm, config.rms_norm_eps, hidden, inverse);
        if keep {
            device.copy(stream, device.room(&mut slot.middle, rows * d));
        }
        let gate_up = device.room(&mut slot.gate_up, rows * 2 * ffn);
        linear(device, gate_up, 2 * ffn, Write::Over, hidden, d, model.gate_up(index));
        device.add_to_rows(gate_up, model.gate_up_bias(index));
        device.silu_gate(gate_up, ffn, gated);
        linear(device, stream, d, Write::Add, gated, ffn, layer.down);
        device.add_to_rows(stream, layer.down_bias);
        seen(index + 1, stream);
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
