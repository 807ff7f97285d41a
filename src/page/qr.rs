//! The invoice as a QR code.

use std::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};

/// The modules of light around the code, which readers need (ISO/IEC 18004).
const QUIET: i32 = 4;

/// `LIGHTNING:` and the invoice, in upper case for the denser alphabet of QR
/// codes, as an SVG of one path whose unit is a module. Empty where the invoice
/// is longer than any code.
pub(super) fn svg(invoice: &str) -> String {
    let text = format!("lightning:{invoice}").to_ascii_uppercase();
    let Ok(code) = QrCode::encode_text(&text, QrCodeEcc::Low) else { return String::new() };
    let size = code.size() + 2 * QUIET;
    let mut svg = format!(
        r#"<svg viewBox="0 0 {size} {size}" shape-rendering="crispEdges" aria-hidden="true"><path d=""#
    );
    for y in 0..code.size() {
        let mut x = 0;
        while x < code.size() {
            let dark = (x..code.size()).take_while(|&x| code.get_module(x, y)).count();
            let run = i32::try_from(dark).expect("a code has at most 177 modules a line");
            if run > 0 {
                write!(svg, "M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET).expect("a string takes any text");
            }
            x += run + 1;
        }
    }
    svg.push_str(r#""/></svg>"#);
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invoice_that_no_code_holds_has_none() {
        assert!(svg(&"lnbc1".repeat(60)).starts_with("<svg viewBox=\"0 0 "));
        assert_eq!(svg(&"x".repeat(5000)), "");
    }
}
