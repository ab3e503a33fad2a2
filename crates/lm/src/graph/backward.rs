use super::forward::{Keep, Pass};
use super::linear::into_input;
use super::sink::{Linear, Norm, Sink};
use super::{Model, Pack, Tape};
use crate::device::{Attended, Device, Kind, Laid, Stretch, Way};

/// The way back from the picked rows, whose gradient lies on the tape, to every weight but the output head, as far as
/// `gradient` wants it. `pull` may add to the gradient of what came out of a layer, counted from 1.
pub(crate) fn backward<D: Device>(
    device: &D,
    model: &Model<'_, D>,
    pack: &Pack,
    tape: &mut Tape<D>,
    gradient: &mut dyn Sink<D>,
    pull: impl Fn(usize, &mut D::Slice),
) {
    let config = model.config;
    let (rows, d, ffn) = (pack.rows(), config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.query_size(), config.kv_size());
    let (step, turned) = (queries + 2 * keys, config.heads + config.kv_heads);
    let epsilon = config.rms_norm_eps;

    unpick(device, model, pack, tape, gradient);
    let pass = Pass { device, model, laid: Laid { pack, there: &tape.laid }, angles: tape.rotary.angles(device, 0) };
    let (laid, kept) = (pass.laid, tape.kept);
    let scratch = &mut tape.scratch;
    // From here on the stream holds the gradient of what comes out of the layer.
    let stream = device.room(&mut tape.stream, rows * d);
    let hidden = device.room(&mut tape.hidden, rows * d);
    let d_hidden = device.room(&mut tape.d_hidden, rows * d);
    let gated = device.room(&mut tape.gated, rows * ffn);
    let d_context = device.room(&mut tape.d_context, rows * queries);
    let d_qkv = device.room(&mut tape.d_qkv, rows * step);
    for index in (0..config.layers).rev() {
        let layer = model.layer(index);
        let slot = &mut tape.layers[kept.slot(index)];
        let before = tape.inputs[index].part(0..rows * d);
        if kept == Keep::Inputs {
            pass.again(index, before, slot, hidden, scratch);
        }
        pull(index + 1, stream);

        let gate_up = slot.gate_up.part_mut(0..rows * 2 * ffn);
        into_input(device, gated, ffn, stream, d, layer.down);
        device.silu_gate_backward(gate_up, ffn, gated);
        gradient.linear(index, Linear::Down, stream, gated, rows, scratch);
        let (middle, inverse) = (slot.middle.part(0..rows * d), slot.middle_inverse.part_mut(0..rows));
        device.rms_norm(middle, layer.mlp_norm, epsilon, hidden, inverse);
        gradient.linear(index, Linear::GateUp, gate_up, hidden, rows, scratch);
        into_input(device, d_hidden, d, gate_up, 2 * ffn, model.gate_up(index));
        let d_norm = gradient.scale(Norm::FeedForward(index), d);
        device.rms_norm_backward(middle, layer.mlp_norm, inverse, d_hidden, stream, d_norm, scratch);

        let context = slot.context.part(0..rows * queries);
        into_input(device, d_context, queries, stream, d, layer.o);
        gradient.linear(index, Linear::O, stream, context, rows, scratch);
        let qkv = slot.qkv.part(0..rows * step);
        let from = Attended { qkv, context, logsums: slot.logsums.part(0..rows * config.heads) };
        device.attend_backward(config, config.window(index), laid, &from, d_context, d_qkv, scratch);
        if config.rotates(index) {
            device.rotate(laid, d_qkv, step, turned, &pass.angles, Way::Back);
        }
        if config.qk_norm() {
            let plain = (slot.plain.part(0..rows * (queries + keys)), slot.plain_inverse.part(0..rows * turned));
            let d_q_norm = gradient.scale(Norm::Queries(index), config.head_dim);
            device.norm_heads_backward(config, Kind::Queries, layer.q_norm, plain, d_qkv, d_q_norm, scratch);
            let d_k_norm = gradient.scale(Norm::Keys(index), config.head_dim);
            device.norm_heads_backward(config, Kind::Keys, layer.k_norm, plain, d_qkv, d_k_norm, scratch);
        }
        let inverse = slot.before_inverse.part_mut(0..rows);
        device.rms_norm(before, layer.attn_norm, epsilon, hidden, inverse);
        gradient.linear(index, Linear::Qkv, d_qkv, hidden, rows, scratch);
        into_input(device, d_hidden, d, d_qkv, step, model.qkv(index));
        let d_norm = gradient.scale(Norm::Attention(index), d);
        device.rms_norm_backward(before, layer.attn_norm, inverse, d_hidden, stream, d_norm, scratch);
    }
    if let Some(d_embed) = gradient.embed() {
        device.embed_backward(laid, stream, d, d_embed);
    }
}

/// The way back through the last norm; puts the gradient of the picked rows where they came from.
fn unpick<D: Device>(device: &D, model: &Model<'_, D>, pack: &Pack, tape: &mut Tape<D>, gradient: &mut dyn Sink<D>) {
    let (d, count) = (model.config.hidden_size, pack.targets.len());
    let stream = device.room(&mut tape.stream, pack.rows() * d);
    device.clear(stream);
    // `hidden` is free at this point.
    let d_picked = device.room(&mut tape.hidden, count * d);
    device.clear(d_picked);
    let (picked, inverse) = (tape.picked.part(0..count * d), tape.normed_inverse.part(0..count));
    let (d_normed, d_norm) = (tape.d_normed.part(0..count * d), gradient.scale(Norm::Last, d));
    device.rms_norm_backward(picked, model.norm(), inverse, d_normed, d_picked, d_norm, &mut tape.scratch);
    device.unpick(Laid { pack, there: &tape.laid }, d_picked, d, stream);
}
