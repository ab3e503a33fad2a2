//! Fields of a request, each with the bounds that `schema` documents.

use std::fmt::Display;
use std::str::FromStr;

use anbiq_domain::{Conditions, Money, PriceClass, Purpose, Timestamp, Window};
use anbiq_ledger::Holder;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Longest line, in characters.
pub(crate) const LINE: usize = 200;

/// Longest text of terms, in characters.
pub(crate) const TEXT: usize = 200_000;

/// The last moment of the year 9999.
pub(crate) const LAST_MOMENT: u64 = 253_402_300_799_999;

/// Largest count: every JSON reader holds it exactly.
pub(crate) const LARGEST_COUNT: u64 = 1 << 53;

/// Dollars below a milliard, never negative.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dollars(pub(crate) Money);

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let dollars = text.split('.').next().unwrap_or_default();
        if dollars.starts_with('-') || dollars.len() > 9 {
            return Err(D::Error::custom(format!("`{text}` is not an amount from 0 to 999999999 dollars")));
        }
        text.parse().map(Self).map_err(D::Error::custom)
    }
}

/// One line of 1 to [`LINE`] characters.
#[derive(Debug, Clone)]
pub(crate) struct Line(pub(crate) String);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let printed = text.chars().all(|character| !character.is_ascii_control());
        if printed && (1..=LINE).contains(&text.chars().count()) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("not a line of 1 to {LINE} characters without control characters")))
    }
}

/// A text of 1 to [`TEXT`] characters.
#[derive(Debug, Clone)]
pub(crate) struct Text(pub(crate) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // PostgreSQL holds no text with a zero in it.
        if !text.contains('\0') && (1..=TEXT).contains(&text.chars().count()) {
            return Ok(Self(text));
        }
        Err(D::Error::custom(format!("not a text of 1 to {TEXT} characters without U+0000")))
    }
}

/// The name of a model: it begins with a letter or a digit.
#[derive(Debug, Clone)]
pub(crate) struct ModelName(pub(crate) String);

impl FromStr for ModelName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if begins && text.len() <= LINE && text.bytes().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!("`{text}` cannot be the name of a model"))
    }
}

impl<'de> Deserialize<'de> for ModelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A moment between 1970 and 9999.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(pub(crate) Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let milliseconds: i64 = whole(deserializer, 0, LAST_MOMENT)?;
        Ok(Self(Timestamp::from_milliseconds(milliseconds)))
    }
}

/// A whole number that every JSON reader holds exactly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Count(pub(crate) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 0, LARGEST_COUNT).map(Self)
    }
}

/// A whole number of 32 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Small(pub(crate) u32);

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 0, u32::MAX.into()).map(Self)
    }
}

/// A whole number of 8 bits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Byte(pub(crate) u8);

impl<'de> Deserialize<'de> for Byte {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 0, u8::MAX.into()).map(Self)
    }
}

/// A whole number of 32 bits, from 1 on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Positive(pub(crate) u32);

impl FromStr for Positive {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        text.parse().ok().filter(|_| digits).map(Self).ok_or("not a whole number from 1 on")
    }
}

impl<'de> Deserialize<'de> for Positive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 1, u32::MAX.into()).map(Self)
    }
}

/// A whole number from `least` to `most`. To JSON Schema `3.0` is one: some languages write every number so.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D, least: u64, most: u64) -> Result<T, D::Error> {
    let wrong = |shown: &dyn Display| D::Error::custom(format!("{shown} is not a whole number from {least} to {most}"));
    let number = serde_json::Number::deserialize(deserializer)?;
    let whole = number.as_u64().or_else(|| {
        let float =
            number.as_f64().filter(|float| float.fract() == 0.0 && (0.0..=LARGEST_COUNT as f64).contains(float));
        float.map(|float| float as u64)
    });
    let whole = whole.filter(|whole| (least..=most).contains(whole)).ok_or_else(|| wrong(&number))?;
    T::try_from(whole).map_err(|_| wrong(&number))
}

/// How long a key that was rotated holds on, in milliseconds: at most 90 days.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace(pub(crate) i64);

/// The longest [`Grace`].
pub(crate) const LONGEST_GRACE: u64 = 90 * 24 * 3_600_000;

impl<'de> Deserialize<'de> for Grace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 0, LONGEST_GRACE).map(Self)
    }
}

/// A share in percent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(pub(crate) u8);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer, 0, 100).map(Self)
    }
}

/// The holder of a budget, such as `account:acme`.
#[derive(Debug, Clone)]
pub(crate) struct Whose(pub(crate) Holder);

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no holder of a budget: write `account:`, `key:` or `operator:` and a name");
        let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
        let holder = match kind {
            "account" => name.parse().ok().map(Holder::Account),
            "key" => name.parse().ok().map(Holder::Key),
            "operator" => name.parse().ok().map(Holder::Operator),
            _ => None,
        };
        holder.map(Self).ok_or_else(wrong)
    }
}

/// The window of a budget, in the one way in which it is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Period(pub(crate) Window);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let window = text.parse::<Window>().ok().filter(|window| text.len() <= 5 && window.to_string() == text);
        window.map(Self).ok_or_else(|| format!("`{text}` is no window of a budget"))
    }
}

/// The place of a budget in a list, such as `account:acme money month`.
#[derive(Debug)]
pub(crate) struct BudgetCursor;

impl FromStr for BudgetCursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parts: Vec<&str> = text.split(' ').collect();
        match parts.as_slice() {
            [holder, "money" | "tokens", window]
                if holder.parse::<Whose>().is_ok() && window.parse::<Period>().is_ok() =>
            {
                Ok(Self)
            }
            _ => Err("not a cursor: take the `next` of the page before"),
        }
    }
}

/// Conditions on a student; an absent one does not limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConditionsBody {
    max_student_parameters: Option<Count>,
    max_output_tokens: Option<Count>,
    #[serde(default)]
    competing_use: bool,
    max_student_percent: Option<Small>,
    teacher_parameters: Option<Count>,
    #[serde(default)]
    purposes: Vec<Purpose>,
    attribution: Option<Line>,
    name_prefix: Option<Line>,
    #[serde(default)]
    notices: Vec<Line>,
    licence: Option<Line>,
    price_class: Option<PriceClass>,
    output_price: Option<Dollars>,
    beyond_terms: Option<Line>,
}

impl From<ConditionsBody> for Conditions {
    fn from(body: ConditionsBody) -> Self {
        Self {
            max_student_parameters: body.max_student_parameters.map(|count| count.0),
            max_output_tokens: body.max_output_tokens.map(|count| count.0),
            max_student_percent: body.max_student_percent.map(|percent| percent.0),
            teacher_parameters: body.teacher_parameters.map(|count| count.0),
            competing_use: body.competing_use,
            purposes: body.purposes,
            attribution: body.attribution.map(|line| line.0),
            name_prefix: body.name_prefix.map(|line| line.0),
            notices: body.notices.into_iter().map(|line| line.0).collect(),
            licence: body.licence.map(|line| line.0),
            price_class: body.price_class,
            output_price: body.output_price.map(|dollars| dollars.0),
            beyond_terms: body.beyond_terms.map(|line| line.0),
        }
    }
}
