use super::heads::{Kind, norm_backward};
use super::linear::into_input;
use super::sink::{Linear, Norm, Sink};
use super::{Pack, Tape, attention, room};
use crate::Network;
use crate::kernel::{add, rms_norm, rms_norm_backward, rotate_back, silu_gate_backward};

/// The way back from the picked rows, whose gradient lies on the tape, to every weight but the output head, as far as
/// `gradient` wants it.
pub(crate) fn backward(network: &Network, pack: &Pack, tape: &mut Tape, gradient: &mut dyn Sink) {
    let (config, weights) = (&network.config, &network.weights);
    let (rows, d, ffn) = (pack.rows(), config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.query_size(), config.kv_size());
    let (step, turned) = (queries + 2 * keys, config.heads + config.kv_heads);
    let epsilon = config.rms_norm_eps;

    unpick(network, pack, tape, gradient);
    let half = tape.rotary.half();
    let (cosines, sines) = tape.rotary.tables(0);
    // From here on the stream holds the gradient of what comes out of the layer.
    let stream = &mut tape.stream[..rows * d];
    let hidden = room(&mut tape.hidden, rows * d);
    let d_hidden = room(&mut tape.d_hidden, rows * d);
    let gated = room(&mut tape.gated, rows * ffn);
    let d_context = room(&mut tape.d_context, rows * queries);
    let d_qkv = room(&mut tape.d_qkv, rows * step);
    for index in (0..config.layers).rev() {
        let layer = weights.layer(index);
        let slot = &mut tape.layers[index];

        let gate_up = &mut slot.gate_up[..rows * 2 * ffn];
        into_input(gated, ffn, stream, d, layer.down);
        silu_gate_backward(gate_up, ffn, gated);
        gradient.linear(index, Linear::Down, stream, gated, rows);
        let (middle, inverse) = (&slot.middle[..rows * d], &mut slot.middle_inverse[..rows]);
        rms_norm(middle, layer.mlp_norm, epsilon, hidden, inverse);
        gradient.linear(index, Linear::GateUp, gate_up, hidden, rows);
        into_input(d_hidden, d, gate_up, 2 * ffn, weights.gate_up(index));
        let d_norm = gradient.scale(Norm::FeedForward(index), d);
        rms_norm_backward(middle, layer.mlp_norm, inverse, d_hidden, stream, d_norm);

        let context = &slot.context[..rows * queries];
        into_input(d_context, queries, stream, d, layer.o);
        gradient.linear(index, Linear::O, stream, context, rows);
        let from = attention::Remembered {
            qkv: &slot.qkv[..rows * step],
            context,
            logsums: &slot.logsums[..rows * config.heads],
            d_context,
        };
        let to = attention::Scratch {
            d_qkv,
            scores: &mut tape.scores,
            d_scores: &mut tape.d_scores,
            shared: &mut tape.shared,
        };
        attention::backward(config, config.window(index), &pack.spans, &from, to);
        if config.rotates(index) {
            rotate_back(d_qkv, step, turned, half, &pack.positions, cosines, sines);
        }
        if config.qk_norm() {
            let plain = (&slot.plain[..rows * (queries + keys)], &slot.plain_inverse[..rows * turned]);
            let (spare, d_q_norm) = (&mut tape.spare, gradient.scale(Norm::Queries(index), config.head_dim));
            norm_backward(config, Kind::Queries, layer.q_norm, plain, d_qkv, spare, d_q_norm);
            let d_k_norm = gradient.scale(Norm::Keys(index), config.head_dim);
            norm_backward(config, Kind::Keys, layer.k_norm, plain, d_qkv, spare, d_k_norm);
        }
        let (before, inverse) = (&slot.before[..rows * d], &mut slot.before_inverse[..rows]);
        rms_norm(before, layer.attn_norm, epsilon, hidden, inverse);
        gradient.linear(index, Linear::Qkv, d_qkv, hidden, rows);
        into_input(d_hidden, d, d_qkv, step, weights.qkv(index));
        let d_norm = gradient.scale(Norm::Attention(index), d);
        rms_norm_backward(before, layer.attn_norm, inverse, d_hidden, stream, d_norm);
    }
    let Some(d_embed) = gradient.embed() else { return };
    for (row, &token) in stream.chunks_exact(d).zip(&pack.tokens) {
        add(&mut d_embed[token as usize * d..][..d], row);
    }
}

/// The way back through the last norm; puts the gradient of the picked rows where they came from.
fn unpick(network: &Network, pack: &Pack, tape: &mut Tape, gradient: &mut dyn Sink) {
    let (d, count) = (network.config.hidden_size, pack.targets.len());
    let stream = room(&mut tape.stream, pack.rows() * d);
    stream.fill(0.0);
    // `hidden` is free at this point.
    let d_picked = room(&mut tape.hidden, count * d);
    d_picked.fill(0.0);
    let (picked, inverse) = (&tape.picked[..count * d], &tape.normed_inverse[..count]);
    let d_normed = &tape.d_normed[..count * d];
    rms_norm_backward(picked, network.weights.norm(), inverse, d_normed, d_picked, gradient.scale(Norm::Last, d));
    for (row, target) in d_picked.chunks_exact(d).zip(&pack.targets) {
        stream[target.row * d..][..d].copy_from_slice(row);
    }
}
