const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// `number` in words: `forty-two`; 0 to 100.
pub(super) fn words(number: u32) -> String {
    let at = |table: &[&str], index: u32| table.get(index as usize).copied().unwrap_or("many").to_owned();
    match number {
        0..20 => at(&SMALL, number),
        100 => "one hundred".to_owned(),
        _ if number.is_multiple_of(10) => at(&TENS, number / 10),
        _ => format!("{}-{}", at(&TENS, number / 10), at(&SMALL, number % 10)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_names() {
        let cases = [(0, "zero"), (13, "thirteen"), (20, "twenty"), (42, "forty-two"), (99, "ninety-nine")];
        for (number, name) in cases.into_iter().chain([(100, "one hundred")]) {
            assert_eq!(words(number), name);
        }
    }
}
