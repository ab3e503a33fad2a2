use maud::{Markup, html};

/// `12,345,678`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `51.3 %`
pub(super) fn percent(share: f64) -> String {
    // Never round a certainty up to all or down to nothing.
    if share < 1.0 && share > 0.9995 {
        return "> 99.9 %".to_owned();
    }
    format!("{:.1} %", share * 100.0)
}

/// A p-value: three decimals while they say something, then `2.3 x 10^-12`.
pub(super) fn p_value(p: f64) -> Markup {
    if p >= 0.001 {
        return html! { span.n dir="ltr" { (format!("{p:.3}")) } };
    }
    if p.is_nan() || p <= 0.0 {
        return html! { span.n dir="ltr" { (if p.is_nan() { "–" } else { "0" }) } };
    }
    let scientific = format!("{p:.1e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    html! { span.n dir="ltr" { (mantissa) " × 10" sup { (exponent.replace('-', "\u{2212}")) } } }
}

/// `10^x`, as a plain number while that is short.
pub(super) fn power_of_ten(exponent: f64) -> Markup {
    if !exponent.is_finite() {
        return html! { span.n dir="ltr" { "–" } };
    }
    if (-3.0..4.0).contains(&exponent) {
        let number = 10_f64.powf(exponent);
        let decimals = if number < 0.1 {
            4
        } else if number < 10.0 {
            2
        } else {
            0
        };
        return html! { span.n dir="ltr" { (format!("{number:.decimals$}")) } };
    }
    html! { span.n dir="ltr" { "10" sup { (format!("{exponent:.1}").replace('-', "\u{2212}")) } } }
}

/// `1 h 02 min`, `3 min 20 s`, `4.1 s`
pub(super) fn duration(seconds: f64) -> String {
    if seconds.is_nan() || seconds < 0.0 {
        return "–".to_owned();
    }
    // Saturates far above any training.
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// About `count` round numbers from 0 to at least `top`.
pub(super) fn ticks(top: f64, count: usize) -> Vec<f64> {
    if top <= 0.0 || !top.is_finite() {
        return vec![0.0, 1.0];
    }
    let rough = top / count.max(1) as f64;
    let magnitude = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
    let step = step.into_iter().find(|step| *step >= rough * 0.999).unwrap_or(magnitude * 10.0);
    let mut ticks = vec![0.0];
    while ticks.last().is_some_and(|last| *last < top * 0.999) && ticks.len() < 100 {
        ticks.push(step * ticks.len() as f64);
    }
    ticks
}

/// A tick's number: whole where it is whole.
pub(super) fn tick(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let sign = if value < 0.0 { "\u{2212}" } else { "" };
        // Below 10^15 it fits.
        format!("{sign}{}", grouped(value.abs() as u64))
    } else {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').replace('-', "\u{2212}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(p_value(0.04321).into_string(), r#"<span class="n" dir="ltr">0.043</span>"#);
        assert_eq!(p_value(2.34e-12).into_string(), "<span class=\"n\" dir=\"ltr\">2.3 × 10<sup>−12</sup></span>");
        assert_eq!(power_of_ten(7.25).into_string(), r#"<span class="n" dir="ltr">10<sup>7.2</sup></span>"#);
        assert_eq!(power_of_ten(1.0).into_string(), r#"<span class="n" dir="ltr">10</span>"#);
        assert_eq!([0.9999, 1.0, 0.5].map(percent), ["> 99.9 %", "100.0 %", "50.0 %"]);
        assert_eq!([4.12, 200.0, 3720.0, f64::NAN].map(duration), ["4.1 s", "3 min 20 s", "1 h 02 min", "–"]);
        assert_eq!(ticks(93.0, 4), [0.0, 50.0, 100.0]);
        assert_eq!(ticks(0.3, 3), [0.0, 0.1, 0.2, 0.30000000000000004]);
        assert_eq!(ticks(f64::NAN, 3), [0.0, 1.0]);
    }
}
