use serde_json::{Map, Value};

use crate::{Fault, ModelError};

/// How the probabilities of tokens are bent before one is drawn, beyond temperature and `top_p`.
///
/// The order is that of transformers: on the logits first the repetition penalty, then the frequency and presence
/// penalties, then the biases; then the temperature; then `top_k`, `top_p` of what that leaves, and `min_p`.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Only so many of the likeliest tokens may be drawn (Fan et al. 2018); 0 for all.
    pub top_k: u32,
    /// Only tokens that have at least this share of the likeliest one's probability may be drawn (Nguyen et al. 2024); 0 for
    /// all.
    pub min_p: f32,
    /// The logit of every token of the prompt and of the completion so far is divided by this where it is positive and
    /// multiplied where it is not (Keskar et al. 2019); 1 for none.
    pub repetition_penalty: f32,
    /// Taken from the logit of a token for each time that the completion has it so far (OpenAI); 0 for none.
    pub frequency_penalty: f32,
    /// Taken from the logit of a token that the completion has so far (OpenAI); 0 for none.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens (OpenAI), in the order of the tokens.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
        }
    }
}

/// Largest penalty for repetition; beyond it a model says nothing that it can say.
const LARGEST_PENALTY: f64 = 10.0;

/// Most biases of one request, as OpenAI has it.
const BIASES: usize = 1024;

impl Shape {
    /// Does it leave everything as it is?
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Takes its fields out of those of a request in the OpenAI dialect.
    ///
    /// # Errors
    /// A field has a value that makes no sense; the code names it.
    pub fn take(fields: &mut Map<String, Value>) -> Result<Self, ModelError> {
        let mut shape = Self::default();
        if let Some(value) = fields.remove("top_k") {
            // Some clients write -1 for all.
            let top_k = value.as_i64().filter(|k| *k >= -1).and_then(|k| u32::try_from(k.max(0)).ok());
            shape.top_k = top_k.ok_or_else(|| wrong("top_k_invalid", "`top_k` is a whole number; 0 or -1 for all"))?;
        }
        let mut number = |name, code, least, most, message| match fields.remove(name) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|value| (least..=most).contains(value)) {
                Some(value) => Ok(Some(value as f32)),
                None => Err(wrong(code, message)),
            },
        };
        let penalty = "`repetition_penalty` lies above 0 and is at most 10";
        shape.min_p = number("min_p", "min_p_invalid", 0.0, 1.0, "`min_p` lies between 0 and 1")?.unwrap_or(0.0);
        shape.repetition_penalty =
            number("repetition_penalty", "repetition_penalty_invalid", 1e-3, LARGEST_PENALTY, penalty)?.unwrap_or(1.0);
        let message = "`frequency_penalty` is between -2 and 2";
        shape.frequency_penalty =
            number("frequency_penalty", "frequency_penalty_invalid", -2.0, 2.0, message)?.unwrap_or(0.0);
        let message = "`presence_penalty` is between -2 and 2";
        shape.presence_penalty =
            number("presence_penalty", "presence_penalty_invalid", -2.0, 2.0, message)?.unwrap_or(0.0);
        if let Some(value) = fields.remove("logit_bias") {
            shape.logit_bias = biases(&value).ok_or_else(|| {
                let message =
                    "`logit_bias` is an object of at most 1024 numbers between -100 and 100, by the numbers of tokens";
                wrong("logit_bias_invalid", message)
            })?;
        }
        Ok(shape)
    }
}

fn biases(value: &Value) -> Option<Vec<(u32, f32)>> {
    let object = value.as_object().filter(|object| object.len() <= BIASES)?;
    let bias = |(token, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((token.parse().ok()?, bias as f32))
    };
    let mut biases = object.iter().map(bias).collect::<Option<Vec<(u32, f32)>>>()?;
    biases.sort_unstable_by_key(|(token, _)| *token);
    Some(biases)
}

fn wrong(code: &'static str, message: &str) -> ModelError {
    ModelError::new(Fault::Request, code, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(fields: &Value) -> Result<Shape, &'static str> {
        let mut fields = fields.as_object().cloned().unwrap_or_default();
        let shape = Shape::take(&mut fields).map_err(|error| error.code)?;
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["tools"]);
        Ok(shape)
    }

    #[test]
    fn fields_of_the_dialect_are_read() {
        assert!(taken(&json!({ "tools": [] })).unwrap().is_plain());
        let all = json!({
            "tools": [], "top_k": 5, "min_p": 0.25, "repetition_penalty": 1.5, "frequency_penalty": -0.5,
            "presence_penalty": 2, "logit_bias": { "11": -100, "7": 0.5 },
        });
        let shape = taken(&all).unwrap();
        assert_eq!((shape.top_k, shape.min_p, shape.repetition_penalty), (5, 0.25, 1.5));
        assert_eq!((shape.frequency_penalty, shape.presence_penalty), (-0.5, 2.0));
        assert_eq!(shape.logit_bias, [(7, 0.5), (11, -100.0)]);
        assert_eq!(taken(&json!({ "tools": [], "top_k": -1 })).unwrap().top_k, 0);
        for (name, value) in [
            ("top_k", json!(-2)),
            ("top_k", json!(1.5)),
            ("min_p", json!(1.1)),
            ("min_p", json!("0.1")),
            ("repetition_penalty", json!(0)),
            ("repetition_penalty", json!(11)),
            ("frequency_penalty", json!(2.1)),
            ("presence_penalty", json!(-2.1)),
            ("logit_bias", json!([1])),
            ("logit_bias", json!({ "a": 1 })),
            ("logit_bias", json!({ "-1": 1 })),
            ("logit_bias", json!({ "1": 101 })),
        ] {
            assert_eq!(taken(&json!({ name: value })).unwrap_err(), format!("{name}_invalid"), "{name} {value}");
        }
    }
}
