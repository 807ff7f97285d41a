//! The one way in which a text gets into the page.

use std::fmt::{self, Write as _};

/// Longest text of a buyer's or seller's that is shown, in characters.
const MAX_SHOWN: usize = 4000;

/// Writes a text as HTML, wherever a text or a quoted attribute may stand: the
/// five characters that HTML reads are entities, and what cannot be shown, or
/// would turn the text around it (controls, bidirectional marks), is the
/// replacement character. Longer texts are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Escaped<T>(pub(super) T);

impl<T: AsRef<str>> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.as_ref().chars();
        chars.by_ref().take(MAX_SHOWN).try_for_each(|c| write(f, c))?;
        if chars.next().is_some() { f.write_char('…') } else { Ok(()) }
    }
}

/// As [`Escaped`], of any length: what the browser sends back has to be whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<T>(pub(super) T);

impl<T: AsRef<str>> fmt::Display for Whole<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().chars().try_for_each(|c| write(f, c))
    }
}

fn write(f: &mut fmt::Formatter<'_>, c: char) -> fmt::Result {
    match c {
        '&' => f.write_str("&amp;"),
        '<' => f.write_str("&lt;"),
        '>' => f.write_str("&gt;"),
        '"' => f.write_str("&quot;"),
        '\'' => f.write_str("&#39;"),
        '\n' | '\t' => f.write_char(c),
        _ if c.is_control() || turns(c) => f.write_char(char::REPLACEMENT_CHARACTER),
        _ => f.write_char(c),
    }
}

/// Marks of the bidirectional algorithm, and what ends a line of script.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_html_reads_is_an_entity() {
        for (text, html) in [
            ("a forecast", "a forecast"),
            ("</script><script>", "&lt;/script&gt;&lt;script&gt;"),
            ("\" onload='x' &amp;", "&quot; onload=&#39;x&#39; &amp;amp;"),
            (
                "a\0b\u{7}c\u{202e}d\u{2066}e\u{2028}f\u{7f}",
                "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f\u{fffd}",
            ),
            ("two\nlines\tand", "two\nlines\tand"),
            ("Ωμέγα 天気", "Ωμέγα 天気"),
        ] {
            assert_eq!(Escaped(text).to_string(), html, "{text:?}");
            assert_eq!(Whole(text).to_string(), html, "{text:?}");
        }
    }

    #[test]
    fn a_text_without_end_is_cut_where_it_is_only_shown() {
        let long = "<".repeat(100_000);
        assert_eq!(Escaped(&long).to_string().len(), 4 * MAX_SHOWN + '…'.len_utf8());
        assert_eq!(Whole(&long).to_string().len(), 400_000);
    }

    proptest! {
        #[test]
        fn nothing_that_html_reads_is_left(text in any::<String>()) {
            let html = Escaped(&text).to_string();
            prop_assert!(!html.contains(['<', '>', '"', '\'', '\0']), "{html}");
            let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
            prop_assert!(html.match_indices('&').all(|(at, _)| entities.iter().any(|entity| html[at..].starts_with(entity))));
        }
    }
}
