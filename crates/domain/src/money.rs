use std::borrow::Cow;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{PriceClass, Usage};

/// An amount of money in whole nano-dollars (10^-9 US$). Never a float: sums of many small prices must be exact.
///
/// Written as a decimal string such as `"12.5"`. Arithmetic saturates at ±9.2 billion dollars.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Money(i64);

/// A text that is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount of money: write dollars such as `12.50`, with at most nine decimals")]
pub struct MoneyError(String);

const NANO: i64 = 1_000_000_000;

impl Money {
    /// No money.
    pub const ZERO: Self = Self(0);
    /// More than anybody has.
    pub const MAX: Self = Self(i64::MAX);

    /// From nano-dollars.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From whole dollars.
    pub const fn from_dollars(dollars: i64) -> Self {
        Self(dollars.saturating_mul(NANO))
    }

    /// Is it no money at all?
    pub const fn is_zero(&self) -> bool {
        self.0 == 0
    }

    /// In nano-dollars.
    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// What `tokens` cost at this price per million tokens, rounded up to a whole nano-dollar.
    pub fn per_million(self, tokens: u64) -> Self {
        let exact = i128::from(self.0) * i128::from(tokens);
        let rounded_up = exact.div_euclid(1_000_000) + i128::from(exact.rem_euclid(1_000_000) != 0);
        Self(i64::try_from(rounded_up).unwrap_or(i64::MAX))
    }

    /// So much of a hundred parts of it, rounded up to a whole nano-dollar.
    #[must_use]
    pub fn percent(self, percent: u8) -> Self {
        let exact = i128::from(self.0) * i128::from(percent);
        let rounded_up = exact.div_euclid(100) + i128::from(exact.rem_euclid(100) != 0);
        Self(i64::try_from(rounded_up).unwrap_or(i64::MAX))
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Money {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (dollars, rest) = (nanos / NANO.unsigned_abs(), nanos % NANO.unsigned_abs());
        let decimals = format!("{rest:09}");
        // Cents are always shown; further decimals only where they say something.
        let shown = decimals.trim_end_matches('0').len().max(2);
        write!(f, "{sign}{dollars}.{}", &decimals[..shown])
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Money({self})")
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let wrong = || MoneyError(text.to_owned());
        let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (dollars, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
        let only_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !only_digits(dollars) || !only_digits(decimals) || decimals.len() > 9 {
            return Err(wrong());
        }
        let nanos: i64 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
        let dollars: i64 = dollars.parse().map_err(|_| wrong())?;
        let amount = dollars.checked_mul(NANO).and_then(|whole| whole.checked_add(nanos)).ok_or_else(wrong)?;
        Ok(Self(if negative { -amount } else { amount }))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Money {
    fn schema_name() -> Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "an amount of US dollars, such as \"12.50\"",
            "type": "string",
            "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?$",
        })
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a model costs, per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Prompt tokens of ordinary use.
    pub input: Money,
    /// Prompt tokens that the model had read before; the price of `input` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<Money>,
    /// Completion tokens of ordinary use.
    pub output: Money,
    /// Completion tokens under a distillation grant; ordinary output price where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation_output: Option<Money>,
    /// What requests cost that need not be answered at once, in percent of ordinary use; all of it where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_percent: Option<u8>,
}

impl PriceList {
    /// What `usage` costs in `class`, rounded up to a whole nano-dollar for each kind of token. Twins are drawn at the
    /// provider's own cost and never charged.
    pub fn cost(&self, usage: Usage, class: PriceClass) -> Money {
        let output = match class {
            PriceClass::Standard | PriceClass::Batch => self.output,
            PriceClass::Distillation => self.distillation_output.unwrap_or(self.output),
        };
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let whole = self.input.per_million(usage.prompt_tokens - cached)
            + self.cached_input.unwrap_or(self.input).per_million(cached)
            + output.per_million(usage.completion_tokens);
        match self.batch_percent {
            Some(percent) if class == PriceClass::Batch => whole.percent(percent),
            _ => whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_read_and_write() {
        for (text, nanos) in [("0.00", 0), ("12.50", 12_500_000_000), ("-0.000000001", -1), ("3.00", 3 * NANO)] {
            assert_eq!(text.parse::<Money>().unwrap(), Money(nanos));
            assert_eq!(Money(nanos).to_string(), text);
        }
        for wrong in ["", "x", "1.", ".5", "1.0000000001", "99999999999", "1e3", "+1"] {
            assert!(wrong.parse::<Money>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_price_rounds_up() {
        assert_eq!(Money::from_dollars(2).per_million(1), Money(2_000));
        assert_eq!(Money(1).per_million(1), Money(1));
        assert_eq!(Money(1).per_million(0), Money::ZERO);
    }

    #[test]
    fn each_kind_of_token_has_its_price() {
        let list = PriceList {
            input: Money::from_dollars(10),
            cached_input: Some(Money::from_dollars(1)),
            output: Money::from_dollars(100),
            distillation_output: Some(Money::from_dollars(200)),
            batch_percent: Some(50),
        };
        let usage = Usage { prompt_tokens: 30, cached_tokens: 10, completion_tokens: 3, twin_tokens: 99 };
        let micro = |class| list.cost(usage, class).nanos() / 1_000;
        assert_eq!(micro(PriceClass::Standard), 20 * 10 + 10 + 3 * 100);
        assert_eq!(micro(PriceClass::Distillation), 20 * 10 + 10 + 3 * 200);
        assert_eq!(micro(PriceClass::Batch), (20 * 10 + 10 + 3 * 100) / 2);
        let plain = PriceList { cached_input: None, distillation_output: None, batch_percent: None, ..list };
        for class in [PriceClass::Standard, PriceClass::Distillation, PriceClass::Batch] {
            assert_eq!(plain.cost(usage, class).nanos() / 1_000, 30 * 10 + 3 * 100, "{class:?}");
        }
        // A model that counts more cached tokens than the prompt has does not make the rest cheaper.
        let odd = Usage { cached_tokens: 50, ..usage };
        assert_eq!(list.cost(odd, PriceClass::Standard).nanos() / 1_000, 30 + 3 * 100);
    }

    proptest! {
        #[test]
        fn every_amount_survives_its_text(nanos in any::<i64>().prop_filter("abs", |n| *n != i64::MIN)) {
            prop_assert_eq!(Money(nanos).to_string().parse::<Money>().unwrap(), Money(nanos));
        }
    }
}
