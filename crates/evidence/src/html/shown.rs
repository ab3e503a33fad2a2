use maud::{Escaper, Render};
use std::fmt::Write as _;

/// A text from outside, shown as it is: escaped, in a direction of its own, and with nothing in it that acts on the eye.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl Render for Shown<'_> {
    fn render_to(&self, buffer: &mut String) {
        // A text in another direction must not reorder what stands around it.
        buffer.push_str("<bdi>");
        plain(self.0).render_to(buffer);
        buffer.push_str("</bdi>");
    }
}

/// Escaped for an SVG or an attribute, where no `bdi` can stand.
pub(super) fn escaped(text: &str) -> maud::PreEscaped<String> {
    let mut safe = String::new();
    // Writing to a string cannot fail.
    let _ = Escaper::new(&mut safe).write_str(&plain(text));
    maud::PreEscaped(safe)
}

/// The text with control characters and directional marks spelt out.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => plain.push(letter),
            '\u{0}'..='\u{1f}' => plain.push(picture(u32::from(letter))),
            '\u{7f}' => plain.push('\u{2421}'),
            '\u{80}'..='\u{9f}' | '\u{ad}' => spell(letter, &mut plain),
            // Marks, embeddings, overrides and isolates of direction; separators; what has no width; tags.
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => {
                spell(letter, &mut plain);
            }
            '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => spell(letter, &mut plain),
            _ => plain.push(letter),
        }
    }
    plain
}

/// The symbol of a control character (Unicode's Control Pictures).
fn picture(control: u32) -> char {
    char::from_u32(0x2400 + control).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn spell(letter: char, text: &mut String) {
    // Writing to a string cannot fail.
    let _ = write!(text, "[U+{:04X}]", u32::from(letter));
}
