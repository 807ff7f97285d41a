//! `<service>_method=GET,HEAD`: the methods a holder leaves open.

use http::Method;

use crate::refusal::Refusal;

pub(super) fn apply(value: &str, method: &Method) -> Result<(), Refusal> {
    if value.split(',').any(|allowed| allowed == method.as_str()) {
        Ok(())
    } else {
        Err(Refusal::WrongMethod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_matched_whole_and_in_their_case() {
        assert_eq!(apply("GET,HEAD", &Method::HEAD), Ok(()));
        for value in ["", "get", "GETS", "POST", " GET", "GET ,POST"] {
            assert_eq!(apply(value, &Method::GET), Err(Refusal::WrongMethod), "{value:?}");
        }
    }
}
