//! Whether a client would rather read HTML than JSON (RFC 9110, section 12.5.1).

use http::HeaderMap;
use http::header::ACCEPT;

/// What the gate can answer with besides HTML. A client that names either is a
/// program.
const JSON: [&str; 2] = ["application/problem+json", "application/json"];

/// Whether `Accept` gives HTML a higher quality than JSON. Without the header,
/// and wherever both are as welcome (`*/*`), it does not: programs get what
/// they always got.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let lines = || headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let quality = |of: &str| {
        let ranges = lines().flat_map(members).filter_map(Range::parse);
        // The most specific range counts; of equals, the one that likes it most.
        let best = ranges.filter_map(|range| Some((range.specificity(of)?, range.quality))).max();
        best.map_or(0, |(_, quality)| quality)
    };
    let json = JSON.iter().map(|json| quality(json)).max().unwrap_or_default();
    quality("text/html") > json
}

/// `type/subtype` and how welcome it is, in thousandths.
struct Range<'a> {
    name: &'a str,
    subtype: &'a str,
    quality: u16,
}

impl<'a> Range<'a> {
    /// `None` where it is no media range, or its quality is none.
    fn parse(member: &'a str) -> Option<Self> {
        let mut parts = split(member, b';');
        let (name, subtype) = parts.next()?.trim().split_once('/')?;
        if name.is_empty() || subtype.is_empty() || (name == "*" && subtype != "*") {
            return None;
        }
        let parameters = parts.filter_map(|part| part.split_once('='));
        let mut weights = parameters.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        let quality = weights.next().map_or(Some(1000), |(_, value)| thousandths(value.trim()))?;
        Some(Self { name, subtype, quality })
    }

    /// How exactly it names this type; `None` where it does not.
    fn specificity(&self, of: &str) -> Option<u8> {
        let (name, subtype) = of.split_once('/')?;
        if self.name == "*" {
            Some(0)
        } else if !self.name.eq_ignore_ascii_case(name) {
            None
        } else if self.subtype == "*" {
            Some(1)
        } else {
            self.subtype.eq_ignore_ascii_case(subtype).then_some(2)
        }
    }
}

/// `0`, `1`, or either with up to three digits behind the point; not above 1.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let quality: u16 = format!("{whole}{part:0<3}").parse().ok()?;
    (quality <= 1000).then_some(quality)
}

fn members(line: &str) -> impl Iterator<Item = &str> {
    split(line, b',')
}

/// Splits where the byte stands outside of quotes.
fn split(text: &str, at: u8) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c: char| {
        let was_escaped = std::mem::take(&mut escaped);
        match c {
            '"' if !was_escaped => quoted = !quoted,
            '\\' if quoted => escaped = !was_escaped,
            _ => return !quoted && c == char::from(at),
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (ACCEPT, HeaderValue::from_str(line).unwrap())).collect()
    }

    #[test]
    fn browsers_read_html_and_programs_json() {
        let chrome = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        for (lines, html) in [
            (&[][..], false),
            (&["*/*"], false),
            (&[""], false),
            (&["application/json"], false),
            (&["application/json, text/plain, */*"], false),
            (&[chrome], true),
            (&["text/html"], true),
            (&["TEXT/HTML; charset=utf-8"], true),
            (&["text/*"], true),
            (&["text/html, application/json"], false),
            (&["text/html;q=0.9, application/json"], false),
            (&["text/html, application/json;q=0.9"], true),
            (&["text/html, application/problem+json;q=0.9, application/json;q=0.1"], true),
            (&["text/html;q=0.5, application/problem+json;q=0.9"], false),
            (&["text/html;q=0"], false),
            (&["text/html;q=0.001"], true),
            (&["text/html;q=0.5, */*;q=0.5"], false),
            (&["*/*, text/html;q=0.5"], false),
            (&["text/html;q=0, text/*"], false),
            (&["text/*;q=0.1, */*;q=0.01"], true),
            (&["application/*;q=0.2, */*;q=0.3, text/html;q=0.25"], true),
            (&["application/json;q=0.5", "text/html"], true),
            (&["text/html;q=2"], false),
            (&["text/html;q=1.001"], false),
            (&["text/html;q=0.1234"], false),
            (&["text/html;q=-1"], false),
            (&["text/html;Q=0.4 , application/json ; q=0.3"], true),
            (&["a/b;c=\"text/html, \\\" ,\", application/json"], false),
            (&["a/b;c=\", application/json\", text/html"], true),
            (&["*/html"], false),
            (&["text"], false),
        ] {
            assert_eq!(prefers_html(&headers(lines)), html, "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_to_its_end(line in "[ -~\t]{0,200}") {
            prefers_html(&headers(&[&line]));
        }

        #[test]
        fn html_is_preferred_if_its_quality_is_higher(
            html in 0_u16..=1000,
            json in 0_u16..=1000,
            rest in 0_u16..=1000,
            swap: bool,
            spaced: bool,
        ) {
            let member = |name: &str, quality: u16| {
                let space = if spaced { " " } else { "" };
                format!("{space}{name}{space};{space}q={}.{:03}", quality / 1000, quality % 1000)
            };
            let mut members = [member("text/html", html), member("application/json", json)];
            if swap {
                members.reverse();
            }
            // `*/*` speaks of problem+json too, which no other member names.
            let line = format!("{},{}", members.join(","), member("*/*", rest));
            prop_assert_eq!(prefers_html(&headers(&[&line])), html > json.max(rest), "{}", line);
        }

        #[test]
        fn lines_are_one_list(members in proptest::collection::vec("(text/html|application/json|text/\\*|\\*/\\*)(;q=0\\.[0-9]{1,3})?", 1..6)) {
            let parts: Vec<&str> = members.iter().map(String::as_str).collect();
            prop_assert_eq!(prefers_html(&headers(&[&parts.join(", ")])), prefers_html(&headers(&parts)));
        }
    }
}
