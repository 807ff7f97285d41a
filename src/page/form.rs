//! What the form sends: `application/x-www-form-urlencoded`.

use zeroize::Zeroizing;

/// What a browser sent. Its preimage is a secret.
#[derive(Default)]
pub(super) struct Submitted {
    pub(super) token: String,
    pub(super) preimage: Zeroizing<String>,
    /// Where to go then, on this origin.
    pub(super) back: String,
}

impl Submitted {
    /// `None` where a field is no text.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut submitted = Self::default();
        for field in body.split(|byte| *byte == b'&') {
            let at = field.iter().position(|byte| *byte == b'=').unwrap_or(field.len());
            let (name, value) = (&field[..at], field.get(at + 1..).unwrap_or_default());
            match name {
                b"token" => submitted.token = decode(value)?,
                b"preimage" => submitted.preimage = Zeroizing::new(decode(value)?.trim().to_owned()),
                b"back" => submitted.back = decode(value)?,
                _ => {}
            }
        }
        submitted.back = local(&submitted.back).to_owned();
        Some(submitted)
    }

    /// The path to go back to, without its query.
    pub(super) fn path(&self) -> &str {
        self.back.split(['?', '#']).next().unwrap_or("/")
    }
}

/// The text, if it is a path of this origin and nothing that a browser takes
/// for another one (`//host`, `/\host`); or else the root.
pub(super) fn local(path: &str) -> &str {
    let elsewhere = path.starts_with("//") || path.starts_with("/\\");
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic());
    if path.starts_with('/') && !elsewhere && plain { path } else { "/" }
}

fn decode(value: &[u8]) -> Option<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(value.len()));
    let mut rest = value;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match first {
            b'+' => (b' ', after),
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                (byte[0], after)
            }
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    std::str::from_utf8(&bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_decoded() {
        let form =
            Submitted::parse(b"token=a%2Bb%2F%3d&x=y&preimage=+ab%20%0d%0A&back=%2Fa%3Fb%3Dc%2520d&preimage")
                .unwrap();
        assert_eq!((&*form.token, &*form.back, form.path()), ("a+b/=", "/a?b=c%20d", "/a"));
        assert_eq!(*form.preimage, "", "the last one counts");
        for broken in ["token=%", "token=%f", "token=%zz", "token=%ff", "token=%+1"] {
            assert!(Submitted::parse(broken.as_bytes()).is_none(), "{broken}");
        }
    }

    #[test]
    fn the_way_back_stays_on_this_origin() {
        for (path, kept) in [
            ("/a/b?c=d&e", true),
            ("/", true),
            ("/a//b;c", true),
            ("", false),
            ("a", false),
            ("//host/a", false),
            ("/\\host", false),
            ("/a\\b", true),
            ("https://host/", false),
            ("javascript:alert(1)", false),
            ("/a\r\nSet-Cookie: b", false),
            ("/a b", false),
            ("/\u{fc}", false),
            ("/\t/host", false),
        ] {
            assert_eq!(local(path), if kept { path } else { "/" }, "{path:?}");
        }
    }

    proptest! {
        #[test]
        fn any_body_is_read(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(form) = Submitted::parse(&body) {
                prop_assert!(form.back.starts_with('/') && !form.back.starts_with("//"));
            }
        }
    }
}
