//! What `l402 get` is asked for.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue, Method, Request, Uri};
use lexopt::prelude::*;

use crate::exit::{Failure, LOCAL, USAGE};

#[derive(Default)]
pub(crate) struct Asked {
    url: Option<String>,
    method: Option<Method>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<Vec<u8>>,
    pub(crate) max_sat: Option<u64>,
    pub(crate) output: Option<PathBuf>,
    pub(crate) config: Option<PathBuf>,
    pub(crate) is_dry_run: bool,
    pub(crate) is_json: bool,
    pub(crate) is_confirmed: bool,
}

impl Asked {
    pub(crate) fn read(parser: &mut lexopt::Parser) -> Result<Self, Failure> {
        let mut asked = Self::default();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("max-sat") => asked.max_sat = Some(parser.value()?.parse()?),
                Short('X') | Long("request") => {
                    let method = parser.value()?.string()?;
                    asked.method = Some(method.parse().map_err(|_| usage("-X takes a method"))?);
                }
                Short('H') | Long("header") => asked.headers.push(header(&parser.value()?.string()?)?),
                Short('d') | Long("data") => asked.body = Some(body(parser.value()?.string()?)?),
                Short('o') | Long("output") => asked.output = Some(parser.value()?.into()),
                Long("config") => asked.config = Some(parser.value()?.into()),
                Long("dry-run") => asked.is_dry_run = true,
                Long("json") => asked.is_json = true,
                Long("yes") | Short('y') => asked.is_confirmed = true,
                Value(url) if asked.url.is_none() => asked.url = Some(url.string()?),
                other => return Err(other.unexpected().into()),
            }
        }
        if asked.url.is_none() {
            return Err(usage("`l402 get` takes a URL"));
        }
        Ok(asked)
    }

    pub(crate) fn request(&self) -> Result<Request<Vec<u8>>, Failure> {
        let url = self.url.as_deref().unwrap_or_default().trim();
        // What is behind a `#` is for the reader of the answer.
        let uri = url.split('#').next().unwrap_or_default().parse::<Uri>();
        // Not shown: it may hold a secret.
        let uri =
            uri.map_err(|_| usage("the URL cannot be read: write it as in https://api.example/forecast"))?;
        let body = self.body.clone().unwrap_or_default();
        let usual = if self.body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone().unwrap_or(usual);
        *request.uri_mut() = uri;
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        Ok(request)
    }
}

fn usage(what: &str) -> Failure {
    Failure::new(USAGE, what)
}

/// Its value may be a secret, and is shown nowhere.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let parts = text.split_once(':').and_then(|(name, value)| {
        let mut value = HeaderValue::from_str(value.trim()).ok()?;
        value.set_sensitive(true);
        Some((name.trim().parse().ok()?, value))
    });
    parts.ok_or_else(|| usage("-H takes a header, as in 'accept: text/plain'"))
}

fn body(text: String) -> Result<Vec<u8>, Failure> {
    let Some(file) = text.strip_prefix('@') else { return Ok(text.into_bytes()) };
    std::fs::read(file).map_err(|error| Failure::new(LOCAL, format!("{file}: {error}")))
}
