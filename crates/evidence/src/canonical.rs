//! Canonical JSON (RFC 8785): one spelling for one value, so that two parties hash the same bytes.

use serde::Serialize;
use serde_json::{Number, Value};

/// A value that has no canonical form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonicalError {
    /// It has no JSON form at all.
    #[error("the value has no JSON form: {0}")]
    NotJson(String),
    /// A whole number that a double cannot hold: other readers would round it.
    #[error("{0} is too large for canonical JSON: beyond 2^53 write it as a string")]
    TooLarge(String),
}

/// The canonical JSON of `value`: members sorted by UTF-16 code units, no spaces, numbers as ECMAScript writes them.
pub fn to_string<T: Serialize + ?Sized>(value: &T) -> Result<String, CanonicalError> {
    let value = serde_json::to_value(value).map_err(|error| CanonicalError::NotJson(error.to_string()))?;
    let mut text = String::new();
    write_value(&value, &mut text)?;
    Ok(text)
}

fn write_value(value: &Value, text: &mut String) -> Result<(), CanonicalError> {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&number_text(number)?),
        Value::String(string) => write_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_value(item, text)?;
            }
            text.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            // Not the order of bytes: characters beyond U+FFFF come before U+E000 in UTF-16.
            members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            text.push('{');
            for (place, (name, member)) in members.into_iter().enumerate() {
                if place > 0 {
                    text.push(',');
                }
                write_string(name, text);
                text.push(':');
                write_value(member, text)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

/// serde_json escapes exactly what RFC 8785 (section 3.2.2.2) wants escaped, in the same way.
fn write_string(string: &str, text: &mut String) {
    text.push_str(&Value::from(string).to_string());
}

fn number_text(number: &Number) -> Result<String, CanonicalError> {
    /// Largest whole number below which every one is a double.
    const LARGEST: u64 = (1 << 53) - 1;
    let whole = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    match (whole, number.as_f64()) {
        (Some(whole), _) if whole > LARGEST => Err(CanonicalError::TooLarge(number.to_string())),
        (Some(_), _) => Ok(number.to_string()),
        (None, Some(double)) => Ok(double_text(double)),
        (None, None) => Err(CanonicalError::NotJson(number.to_string())),
    }
}

/// `Number::toString` of ECMA-262 (section 6.1.6.1.20) for a finite number.
fn double_text(double: f64) -> String {
    if double == 0.0 {
        return "0".to_owned();
    }
    // Rust's scientific notation has the shortest digits that read back as the same double.
    let shortest = format!("{:e}", double.abs());
    // Where two of that length are equally near, ECMAScript takes the even one: as rounding to that length does.
    let decimals = shortest.split('e').next().unwrap_or_default().len().saturating_sub(2);
    let even = format!("{:.decimals$e}", double.abs());
    let scientific = if even.parse() == Ok(double.abs()) { even } else { shortest };
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    // The decimal point stands after this many digits.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    let sign = if double < 0.0 { "-" } else { "" };
    let number = if count <= point && point <= 21 {
        format!("{digits}{}", zeros(point - count))
    } else if 0 < point && point <= 21 {
        let (before, after) = digits.split_at(usize::try_from(point).unwrap_or(0));
        format!("{before}.{after}")
    } else if -6 < point && point <= 0 {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{first}{dot}{rest}e{:+}", point - 1)
    };
    format!("{sign}{number}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_those_of_rfc_8785_appendix_b() {
        for (bits, text) in [
            (0x0000_0000_0000_0000, "0"),
            (0x8000_0000_0000_0000, "0"),
            (0x0000_0000_0000_0001, "5e-324"),
            (0x8000_0000_0000_0001, "-5e-324"),
            (0x7fef_ffff_ffff_ffff, "1.7976931348623157e+308"),
            (0xffef_ffff_ffff_ffff, "-1.7976931348623157e+308"),
            (0x4340_0000_0000_0000, "9007199254740992"),
            (0xc340_0000_0000_0000, "-9007199254740992"),
            (0x4430_0000_0000_0000, "295147905179352830000"),
            (0x44b5_2d02_c7e1_4af5, "9.999999999999997e+22"),
            (0x44b5_2d02_c7e1_4af6, "1e+23"),
            (0x44b5_2d02_c7e1_4af7, "1.0000000000000001e+23"),
            (0x444b_1ae4_d6e2_ef4e, "999999999999999700000"),
            (0x444b_1ae4_d6e2_ef4f, "999999999999999900000"),
            (0x444b_1ae4_d6e2_ef50, "1e+21"),
            (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
            (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
            (0x41b3_de43_5555_5553, "333333333.3333332"),
            (0x41b3_de43_5555_5554, "333333333.33333325"),
            (0x41b3_de43_5555_5555, "333333333.3333333"),
            (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
            (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
        ] {
            assert_eq!(double_text(f64::from_bits(bits)), text);
        }
    }

    #[test]
    fn values_are_those_of_rfc_8785_section_3_2() {
        let value = json!({
            "numbers": [333_333_333.333_333_3, 1e30, 4.50, 2e-3, 0.000_000_000_000_000_000_000_000_001],
            "string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/",
            "literals": [null, true, false]
        });
        assert_eq!(
            to_string(&value).unwrap(),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        let value = json!({"\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7});
        assert_eq!(
            to_string(&value).unwrap(),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn a_number_that_others_would_round_is_refused() {
        assert_eq!(to_string(&((1_u64 << 53) - 1)).unwrap(), "9007199254740991");
        assert_eq!(to_string(&-5).unwrap(), "-5");
        assert!(matches!(to_string(&(1_u64 << 53)), Err(CanonicalError::TooLarge(_))));
        assert!(matches!(to_string(&i64::MIN), Err(CanonicalError::TooLarge(_))));
    }

    proptest! {
        #[test]
        fn every_double_survives(bits in any::<u64>()) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            prop_assert_eq!(double_text(double).parse::<f64>().unwrap(), double);
        }

        #[test]
        fn every_string_survives(string in any::<String>()) {
            let text = to_string(&string).unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(&text).unwrap(), string);
        }
    }
}
