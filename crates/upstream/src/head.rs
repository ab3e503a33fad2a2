//! What the head of an answer tells about limits.

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};
use jiff::fmt::rfc2822;

/// What the head of an answer tells besides its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Requests that are still allowed (`x-ratelimit-remaining-requests` and its `reset`).
    pub requests: Option<Quota>,
    /// Tokens that are still allowed (`x-ratelimit-remaining-tokens` and its `reset`).
    pub tokens: Option<Quota>,
    /// The answer was given before, to the same request under the same `Idempotency-Key`, and is not charged again.
    pub replayed: bool,
}

/// What is left of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// So much.
    pub left: u64,
    /// After so many milliseconds it is whole again.
    pub reset_ms: u64,
}

impl Told {
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
        let quota =
            |left: &str, reset: &str| Some(Quota { left: text(left)?.parse().ok()?, reset_ms: span_ms(text(reset)?)? });
        Self {
            requests: quota("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
            tokens: quota("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
            replayed: ["idempotent-replayed", "x-anbiq-replayed"].iter().any(|name| text(name) == Some("true")),
        }
    }

    /// How long to wait after a refusal that does not say so itself: until what is used up is there again.
    pub(crate) fn wait_ms(self) -> Option<u64> {
        let used_up = [self.requests, self.tokens].into_iter().flatten().filter(|quota| quota.left == 0);
        used_up.map(|quota| quota.reset_ms).max()
    }
}

/// A span of time in milliseconds: `350ms`, `1.5s`, `6m0s`, `1h2m3.4s`, or a bare number of seconds.
fn span_ms(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        return whole_ms(seconds * 1000.0);
    }
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let units = rest[digits..].find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len() - digits);
        let factor = match &rest[digits..digits + units] {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[digits + units..];
    }
    if text.is_empty() { None } else { whole_ms(total) }
}

fn whole_ms(milliseconds: f64) -> Option<u64> {
    // The conversion saturates.
    (milliseconds >= 0.0).then_some(milliseconds.ceil() as u64)
}

/// The time to wait that `retry-after-ms` or `retry-after` gives, as a number or as a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = |name: &HeaderName| Some(headers.get(name)?.to_str().ok()?.trim());
    let number = |name: &HeaderName| text(name)?.parse::<f64>().ok();
    let date = |name: &HeaderName| Some(rfc2822::parse(text(name)?).ok()?.timestamp());
    let until = || {
        // Clocks differ, so the server's date is compared with what the server says is now.
        let now = date(&DATE).unwrap_or_else(jiff::Timestamp::now);
        Some((date(&RETRY_AFTER)?.as_millisecond() - now.as_millisecond()).max(0) as f64)
    };
    let milliseconds = number(&HeaderName::from_static("retry-after-ms"))
        .or_else(|| number(&RETRY_AFTER).map(|seconds| seconds * 1000.0))
        .or_else(until)?;
    // Saturates; NaN becomes 0.
    (milliseconds >= 0.0).then_some(milliseconds.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_servers_write_them() {
        for (text, milliseconds) in [
            ("350ms", Some(350)),
            ("1s", Some(1_000)),
            ("1.5s", Some(1_500)),
            ("6m0s", Some(360_000)),
            ("1h2m3.4s", Some(3_723_400)),
            ("2d", Some(172_800_000)),
            ("30", Some(30_000)),
            ("0.25", Some(250)),
            ("", None),
            ("soon", None),
            ("5 s", None),
            ("5y", None),
            ("-1s", None),
            ("-1", None),
            ("NaN", None),
        ] {
            assert_eq!(span_ms(text), milliseconds, "{text}");
        }
    }

    #[test]
    fn a_head_tells_what_is_left() {
        let head = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            Told::read(&pairs.collect())
        };
        let told = head(&[
            ("x-ratelimit-remaining-requests", "59"),
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "20s"),
            ("idempotent-replayed", "true"),
        ]);
        assert_eq!(told.requests, Some(Quota { left: 59, reset_ms: 1_000 }));
        assert_eq!((told.wait_ms(), told.replayed), (Some(20_000), true));
        let half = head(&[("x-ratelimit-remaining-requests", "0"), ("x-anbiq-replayed", "yes")]);
        assert_eq!(half, Told::default());
    }
}
