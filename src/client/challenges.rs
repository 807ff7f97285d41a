//! What a server asks for: every L402 challenge of an answer, in the order and
//! the form in which it wrote them.
//!
//! ```text
//! WWW-Authenticate: Bearer realm="x", L402 version="0", token="..", invoice=".."
//! WWW-Authenticate: LSAT macaroon=".." invoice=".."
//! ```

use http::header::WWW_AUTHENTICATE;
use http::{StatusCode, response};

use crate::answer;
use crate::challenge::{Item, Items, Parameters, is_l402};

use super::token::Token;

/// Most bytes of challenges that are read of one answer. What is beyond is not
/// looked at.
const MAX_BYTES: usize = 32 * 1024;
/// Most challenges that are read of one answer.
const MAX_CHALLENGES: usize = 8;

/// A token, and the invoice that pays for it.
#[derive(Debug)]
pub(super) struct Challenge {
    pub(super) token: Token,
    pub(super) invoice: String,
}

/// Whether an answer asks for a payment: over gRPC, one that is all trailers.
pub(super) fn asks(head: &response::Parts) -> bool {
    let is_grpc = || {
        head.status == StatusCode::OK
            && head.headers.get("grpc-status").is_some_and(|code| code == "13")
            && answer::is_grpc(&head.headers)
            && lines(head).flat_map(Items).any(|item| matches!(item, Item::Word(word) if is_l402(word)))
    };
    head.status == StatusCode::PAYMENT_REQUIRED || is_grpc()
}

/// The challenges that can be read.
pub(super) fn read(head: &response::Parts) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    for line in lines(head) {
        let mut open: Option<Parameters<'_>> = None;
        for item in Items(line) {
            match item {
                Item::Word(word) => {
                    close(open.take(), &mut challenges);
                    open = is_l402(word).then(Parameters::default);
                }
                Item::Parameter(name, value) => {
                    if open.as_mut().is_some_and(|parameters| parameters.add(name, value).is_err()) {
                        open = None;
                    }
                }
                Item::Broken => open = None,
            }
            if challenges.len() >= MAX_CHALLENGES {
                return challenges;
            }
        }
        close(open, &mut challenges);
    }
    challenges.truncate(MAX_CHALLENGES);
    challenges
}

/// Of a challenge that is said twice, as `LSAT` and as `L402`, one is enough.
fn close(parameters: Option<Parameters<'_>>, to: &mut Vec<Challenge>) {
    let Some(Ok((token, invoice))) = parameters.map(|open| open.token_and_invoice()) else { return };
    let is_said = |said: &Challenge| *said.token.text == token && said.invoice == invoice;
    if to.iter().any(is_said) {
        return;
    }
    to.extend(Token::read(token).map(|token| Challenge { token, invoice: invoice.to_owned() }));
}

fn lines(head: &response::Parts) -> impl Iterator<Item = &str> {
    let mut room = MAX_BYTES;
    let lines = head.headers.get_all(WWW_AUTHENTICATE).iter();
    lines.map_while(move |line| {
        room = room.checked_sub(line.len())?;
        Some(line.to_str().unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::*;
    use crate::macaroon::{Identifier, mint};

    fn head(status: u16, lines: &[String]) -> response::Parts {
        let mut builder = Response::builder().status(status);
        for line in lines {
            builder = builder.header(WWW_AUTHENTICATE, line);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn token(n: u8, caveats: &[&str]) -> String {
        let identifier = Identifier { version: 0, payment_hash: [n; 32].into(), token_id: [n; 32].into() };
        mint(b"root", &identifier, caveats).unwrap().to_base64()
    }

    fn found(lines: &[String]) -> Vec<(String, String)> {
        let challenges = read(&head(402, lines));
        challenges.into_iter().map(|one| (one.token.text.to_string(), one.invoice)).collect()
    }

    #[test]
    fn every_form_of_a_challenge_is_read() {
        let t = token(7, &["services=a:0"]);
        for line in [
            format!(r#"L402 macaroon="{t}", invoice="lnbc1", version="0", token="{t}""#),
            format!(r#"L402 version="0" macaroon="{t}", invoice="lnbc1""#),
            format!(r#"LSAT macaroon="{t}",invoice="lnbc1""#),
            format!("l402 invoice=lnbc1 , token={t}"),
            format!(r#"lsat invoice="lnbc1" Macaroon="{t}""#),
            format!(r#"Bearer realm="a, L402 b", L402 token="{t}", invoice="lnbc1", Basic realm="x""#),
            format!("Negotiate a/b+c==,L402 token={t} invoice=lnbc1"),
        ] {
            assert_eq!(found(std::slice::from_ref(&line)), [(t.clone(), "lnbc1".to_owned())], "{line}");
        }
    }

    #[test]
    fn several_challenges_stand_in_one_line_or_in_many() {
        let (a, b) = (token(1, &[]), token(2, &[]));
        let first = format!(r#"L402 token="{a}", invoice="lnbc1""#);
        let second = format!(r#"LSAT macaroon="{b}", invoice="lnbc2""#);
        let both = [(a, "lnbc1".to_owned()), (b, "lnbc2".to_owned())];
        assert_eq!(found(&[first.clone(), "Basic realm=x".into(), second.clone()]), both);
        assert_eq!(found(&[format!("{first}, {second}")]), both);
        assert_eq!(
            found(&[first.clone(), first.replace("L402", "LSAT"), second]),
            both,
            "one that is said twice"
        );
    }

    #[test]
    fn an_opaque_token_is_taken_as_it_is() {
        let line = r#"L402 version="0" macaroon="eyJhIjoxfQ.00ff", invoice="lnbc1""#.to_owned();
        let [challenge] = &*read(&head(402, &[line])) else { panic!("one challenge") };
        assert_eq!(&**challenge.token.text, "eyJhIjoxfQ.00ff");
        assert!(challenge.token.payment_hash.is_none());
        assert_eq!(challenge.token.scope_at("path=/a"), "path=/a");
    }

    #[test]
    fn what_a_macaroon_says_is_read() {
        let text = token(
            7,
            &[
                "services=a:0,b:1",
                "a_capabilities=read",
                "a_valid_until=2000",
                "a_valid_until=1000",
                "b_valid_until=1500",
                "a_max_uses=1",
                "invoice_handle=x",
            ],
        );
        let token = Token::read(&text).unwrap();
        assert_eq!(token.payment_hash, Some([7; 32].into()));
        assert_eq!(token.services, ["a", "b"]);
        assert_eq!(token.scope.as_deref(), Some("services=a:0,b:1\na_capabilities=read\na_max_uses=1"));
        assert_eq!(token.valid_until, Some(1500));
        assert!(token.is_single_use);
    }

    #[test]
    fn what_is_no_challenge_is_passed_over() {
        let t = token(7, &[]);
        for line in [
            String::new(),
            "Bearer".into(),
            "L402".into(),
            format!(r#"L402 token="{t}""#),
            r#"L402 invoice="lnbc1""#.into(),
            format!(r#"L402 token="{t}", invoice="ln bc""#),
            format!(r#"L402 token="{t}", token="{t}", invoice="lnbc1""#),
            format!(r#"L402 token="{t}", macaroon="AA==", invoice="lnbc1""#),
            format!(r#"L402 version="1", token="{t}", invoice="lnbc1""#),
            r#"L402 token="a:b", invoice="lnbc1""#.into(),
            r#"L402 token="a,b", invoice="lnbc1""#.into(),
            r#"L402 token="a b", invoice="lnbc1""#.into(),
            format!(r#"L402 token="{}", invoice="lnbc1""#, "a".repeat(8193)),
            format!(r#"L402 token="{t}", invoice="lnbc1"#),
            format!(r#"Foo token="{t}", invoice="lnbc1""#),
            format!(r#"token="{t}", invoice="lnbc1""#),
        ] {
            assert_eq!(found(std::slice::from_ref(&line)), [], "{line}");
        }
        // One that is broken does not hide the next.
        let lines = [format!(r#"L402 token="{t}", L402 token="{t}", invoice="lnbc1""#)];
        assert_eq!(found(&lines).len(), 1);
    }

    #[test]
    fn a_bomb_of_challenges_is_read_up_to_the_caps() {
        let line = |n: u32| format!(r#"L402 token="{n}", invoice="lnbc1""#);
        let many: Vec<_> = (0..5000).map(line).collect();
        assert_eq!(found(&many).len(), MAX_CHALLENGES);
        assert_eq!(found(&[many[..500].join(", ")]).len(), MAX_CHALLENGES);
        assert_eq!(found(&["x".repeat(MAX_BYTES), line(1)]), []);
    }

    #[test]
    fn a_grpc_answer_asks_by_its_code_and_challenge() {
        let line = format!(r#"L402 token="{}", invoice="lnbc1""#, token(1, &[]));
        let with = |status: u16, content_type: &'static str, code: &'static str, line: &str| {
            let mut head = head(status, &[line.to_owned()]);
            head.headers.insert("content-type", content_type.parse().unwrap());
            head.headers.insert("grpc-status", code.parse().unwrap());
            asks(&head)
        };
        assert!(with(200, "application/grpc", "13", &line));
        assert!(with(200, "application/grpc+proto", "13", &line));
        assert!(!with(200, "application/grpc", "16", &line));
        assert!(!with(200, "application/json", "13", &line));
        assert!(!with(200, "application/grpc", "13", "Bearer"));
        assert!(!with(401, "application/grpc", "13", &line));
        assert!(asks(&head(402, &[])));
    }
}
