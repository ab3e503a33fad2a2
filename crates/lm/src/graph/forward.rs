use super::linear::linear;
use super::{LayerTape, Pack, Tape, attention, norm_heads, room};
use crate::Network;
use crate::kernel::{Write, add_to_rows, rms_norm, rotate, silu_gate};

/// Runs the pack through all layers; the residual stream is left on the tape. With `keep` the tape remembers what the
/// way back needs.
pub(crate) fn forward(network: &Network, pack: &Pack, tape: &mut Tape, keep: bool) {
    let (config, weights) = (&network.config, &network.weights);
    let (rows, d, ffn) = (pack.rows(), config.hidden_size, config.intermediate_size);
    let (queries, keys) = (config.query_size(), config.kv_size());
    let (step, turned) = (queries + 2 * keys, config.heads + config.kv_heads);
    let slots = if keep { config.layers } else { 1 };
    if tape.layers.len() < slots {
        tape.layers.resize_with(slots, LayerTape::default);
    }
    let longest = pack.spans.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    let half = tape.rotary.half();
    let (cosines, sines) = tape.rotary.tables(longest);

    let stream = room(&mut tape.stream, rows * d);
    for (row, &token) in stream.chunks_exact_mut(d).zip(&pack.tokens) {
        row.copy_from_slice(&weights.embed()[token as usize * d..][..d]);
    }
    let hidden = room(&mut tape.hidden, rows * d);
    let gated = room(&mut tape.gated, rows * ffn);
    for index in 0..config.layers {
        let layer = weights.layer(index);
        let slot = &mut tape.layers[if keep { index } else { 0 }];

        rms_norm(stream, layer.attn_norm, config.rms_norm_eps, hidden, room(&mut slot.before_inverse, rows));
        if keep {
            room(&mut slot.before, rows * d).copy_from_slice(stream);
        }
        let qkv = room(&mut slot.qkv, rows * step);
        linear(qkv, step, Write::Over, hidden, d, weights.qkv(index));
        add_to_rows(qkv, weights.qkv_bias(index));
        if config.qk_norm() {
            let plain = room(&mut slot.plain, rows * (queries + keys));
            let inverse = room(&mut slot.plain_inverse, rows * turned);
            norm_heads(config, &layer, qkv, plain, inverse);
        }
        if config.rotates(index) {
            rotate(qkv, step, turned, half, &pack.positions, cosines, sines);
        }
        let context = room(&mut slot.context, rows * queries);
        let logsums = room(&mut slot.logsums, rows * config.heads);
        attention::forward(config, config.window(index), &pack.spans, qkv, context, logsums, &mut tape.scores);
        linear(stream, d, Write::Add, context, queries, layer.o);
        add_to_rows(stream, layer.o_bias);

        rms_norm(stream, layer.mlp_norm, config.rms_norm_eps, hidden, room(&mut slot.middle_inverse, rows));
        if keep {
            room(&mut slot.middle, rows * d).copy_from_slice(stream);
        }
        let gate_up = room(&mut slot.gate_up, rows * 2 * ffn);
        linear(gate_up, 2 * ffn, Write::Over, hidden, d, weights.gate_up(index));
        add_to_rows(gate_up, weights.gate_up_bias(index));
        silu_gate(gate_up, ffn, gated);
        linear(stream, d, Write::Add, gated, ffn, layer.down);
        add_to_rows(stream, layer.down_bias);
    }
}

/// Collects the rows that predict targets and normalises them: the input of the output head.
pub(crate) fn pick(network: &Network, pack: &Pack, tape: &mut Tape) {
    let (d, count) = (network.config.hidden_size, pack.targets.len());
    let picked = room(&mut tape.picked, count * d);
    for (row, target) in picked.chunks_exact_mut(d).zip(&pack.targets) {
        row.copy_from_slice(&tape.stream[target.row * d..][..d]);
    }
    let (normed, inverse) = (room(&mut tape.normed, count * d), room(&mut tape.normed_inverse, count));
    rms_norm(picked, network.weights.norm(), network.config.rms_norm_eps, normed, inverse);
}
