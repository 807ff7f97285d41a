//! A buyer for the examples: requests over a socket, and the words of a 402.

#![allow(dead_code, unreachable_pub)] // each example uses a part

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What a server answered.
pub struct Answer {
    /// As `200 OK`.
    pub status: String,
    head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.body)?)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// Status, what is left, and the body or its problem code.
    pub fn print(&self, what: &str) {
        let left = self.header("ratelimit").unwrap_or_default();
        let code = self.json().ok().and_then(|body| body["code"].as_str().map(str::to_owned));
        println!("   {what:<28} {:<22} {left} {}", self.status, code.as_deref().unwrap_or(&self.body));
    }
}

/// Sends one request to `http://host:port/path`.
pub async fn send(method: &str, url: &str, authorization: Option<&str>, body: &str) -> Result<Answer> {
    let (host, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).ok_or("no URL")?;
    let authorization = authorization.map(|value| format!("Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n{authorization}\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(host).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    let status = head.lines().next().and_then(|line| line.split_once(' ')).ok_or("no status")?.1;
    Ok(Answer { status: status.to_owned(), head: head.to_owned(), body: body.to_owned() })
}

/// Asks for a resource that has to be paid for, and gives what can be bought.
pub async fn refused(url: &str) -> Result<Value> {
    let answer = send("GET", url, None, "").await?;
    answer.print("unpaid");
    answer.json()
}

/// Prints what a 402 offers.
pub fn print_offers(refused: &Value) {
    for offer in refused["offers"].as_array().into_iter().flatten() {
        let text = |name: &str| offer[name].as_str().unwrap_or_default().to_owned();
        println!(
            "   {:<8} {:<14} {:<13} {:>4} {} by {}",
            text("id"),
            text("title"),
            text("type"),
            offer["amount"],
            text("currency"),
            offer["payment_methods"],
        );
    }
}

/// Chooses an offer of a 402 and a way to pay, and asks where.
pub async fn choose(refused: &Value, offer: &str, method: &str) -> Result<Value> {
    let url = refused["payment_request_url"].as_str().ok_or("no offers")?;
    let choice = json!({
        "offer_id": offer,
        "payment_method": method,
        "payment_context_token": refused["payment_context_token"],
    });
    let answer = send("POST", url, None, &choice.to_string()).await?;
    if !answer.status.starts_with("200") {
        return Err(format!("payment request: {} {}", answer.status, answer.body).into());
    }
    answer.json()
}

pub fn text(value: &Value) -> Result<&str> {
    value.as_str().ok_or_else(|| format!("no text: {value}").into())
}
