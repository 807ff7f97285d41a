//! How the page looks.

use std::borrow::Cow;
use std::fmt;

const BUILT_IN: &str = include_str!("page.css");

/// The style sheet.
#[derive(Clone, Debug)]
pub(super) struct Style {
    sheet: Cow<'static, str>,
}

impl Style {
    pub(super) fn built_in() -> Self {
        Self { sheet: BUILT_IN.into() }
    }

    pub(super) fn replace(&mut self, css: &str) {
        self.sheet = inert(css).into();
    }

    pub(super) fn add(&mut self, css: &str) {
        let sheet = self.sheet.to_mut();
        sheet.push('\n');
        sheet.push_str(&inert(css));
    }
}

/// As it stands in a `style` element, which `</` would end. In CSS the
/// backslash before a slash changes nothing.
fn inert(css: &str) -> String {
    css.replace("</", r"<\/").replace('\0', "\u{fffd}")
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sheet)
    }
}
