//! Writes the corpus: real values of the fixed gate, and each of the ways in
//! which a value can be almost right.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use l402::macaroon::{Identifier, mint};
use l402::{Gate, Offer, Preimage};
use l402_fuzz::bolt11::{assemble, letters, node_id, to_groups};
use l402_fuzz::{Credential, NOW, ROOT, Says, issuer, pass, pass_gate};

fn main() -> std::io::Result<()> {
    attenuation()?;
    bolt11()?;
    challenge()?;
    credential()?;
    macaroon()?;
    paying()
}

fn write(target: &str, name: &str, input: impl AsRef<[u8]>) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), input)
}

fn attenuation() -> std::io::Result<()> {
    let seeds = [
        (
            "narrower",
            "forecast_valid_until=1900000100\nforecast_max_uses=50\nforecast_capabilities=read\n\
             forecast_method=GET,HEAD\nservices=forecast:0\npath_prefix=/fore\nforecast_max_price=21000msat\n\
             forecast_offer=default",
        ),
        (
            "wider",
            "services=forecast:1,archive:1\nservices=forecast:255,other:1\nforecast_capabilities=read,admin\n\
             forecast_max_uses=1000000\nforecast_valid_until=18446744073709551615",
        ),
        ("other_service", "archive_valid_until=1\nother_valid_until=1"),
        (
            "preimage",
            "preimage=2222222222222222222222222222222222222222222222222222222222222222\npreimage=00",
        ),
        ("spaces", "forecast_valid_until = 1900000100\nservices"),
        ("used_up", "forecast_max_uses=3\nservices=forecast:1\nservices=forecast:1\nservices=forecast:1"),
        ("full", &"services=forecast:1\n".repeat(40)),
        ("condition_fails", "path_prefix=/now"),
        (
            "grown_again",
            "forecast_valid_until=1900000100\nforecast_valid_until=1900000200\nforecast_max_uses=40\n\
             forecast_max_uses=60",
        ),
        ("tier_grown_again", "services=forecast:0\nservices=forecast:1"),
        ("capability_grown_again", "forecast_capabilities=read\nforecast_capabilities=read,write"),
        ("rate", "archive_rate=1/60\nforecast_rate=1/60\nforecast_rate=1"),
    ];
    seeds.iter().try_for_each(|(name, input)| write("attenuation", name, input))
}

/// An invoice without signature and checksum: amount, timestamp, fields.
fn unsigned(hrp: &str, timestamp: u64, fields: &[(u8, Vec<u8>)]) -> String {
    let mut data: Vec<u8> =
        (0..7).rev().map(|i| u8::try_from(timestamp >> (5 * i) & 31).expect("5 bits")).collect();
    for (field, value) in fields {
        let len = u8::try_from(value.len() / 32).expect("a short field");
        data.extend([*field, len, u8::try_from(value.len() % 32).expect("5 bits")]);
        data.extend(value);
    }
    format!("{hrp}1{}", letters(&data))
}

fn bolt11() -> std::io::Result<()> {
    const HASH: u8 = 1;
    const FEATURES: u8 = 5;
    const EXPIRY: u8 = 6;
    const DESCRIPTION: u8 = 13;
    const SECRET: u8 = 16;
    const NODE: u8 = 19;
    const CLTV: u8 = 24;
    // payment_secret and basic_mpp, each "supported".
    let features = || (FEATURES, vec![16, 8, 0]);
    let fields = || {
        vec![
            (HASH, to_groups(&[7; 32])),
            (DESCRIPTION, to_groups(b"forecast")),
            (SECRET, to_groups(&[8; 32])),
            (EXPIRY, vec![9, 12]), // 300 seconds
            (CLTV, vec![18]),
            features(),
        ]
    };
    let with = |field: (u8, Vec<u8>)| {
        let mut fields = fields();
        fields.push(field);
        fields
    };
    let without = |kind: u8| fields().into_iter().filter(|(field, _)| *field != kind).collect::<Vec<_>>();
    let edited = |kind: u8, value: Vec<u8>| {
        let edit = |(field, old): (u8, Vec<u8>)| (field, if field == kind { value.clone() } else { old });
        fields().into_iter().map(edit).collect::<Vec<_>>()
    };

    let as_asked = unsigned("lnbcrt210n", NOW, &fields());
    let signed = assemble(as_asked.as_bytes()).expect("an invoice");
    let seeds = [
        ("as_asked", as_asked),
        ("signed", format!("={signed}")),
        ("upper_case", format!("= {} ", signed.to_ascii_uppercase())),
        ("same_amount_in_pico", unsigned("lnbcrt210000p", NOW, &fields())),
        ("amount_with_a_zero", unsigned("lnbcrt0210n", NOW, &fields())),
        ("other_amount", unsigned("lnbcrt211n", NOW, &fields())),
        ("no_amount", unsigned("lnbcrt", NOW, &fields())),
        ("mainnet", unsigned("lnbc210n", NOW, &fields())),
        ("expired", unsigned("lnbcrt210n", NOW - 300, &fields())),
        ("no_hash", unsigned("lnbcrt210n", NOW, &without(HASH))),
        ("two_hashes", unsigned("lnbcrt210n", NOW, &with((HASH, to_groups(&[9; 32]))))),
        ("no_secret", unsigned("lnbcrt210n", NOW, &without(SECRET))),
        ("no_expiry", unsigned("lnbcrt210n", NOW, &without(EXPIRY))),
        ("expiry_with_a_zero", unsigned("lnbcrt210n", NOW, &edited(EXPIRY, vec![0, 9, 12]))),
        ("longer_expiry", unsigned("lnbcrt210n", NOW, &edited(EXPIRY, vec![9, 13]))),
        ("node_id", unsigned("lnbcrt210n", NOW, &with((NODE, to_groups(&node_id().serialize()))))),
        ("unknown_field", unsigned("lnbcrt210n", NOW, &with((2, vec![1, 2, 3])))),
        ("long_hash", unsigned("lnbcrt210n", NOW, &with((HASH, vec![1; 53])))),
    ];
    seeds.iter().try_for_each(|(name, input)| write("bolt11", name, input))
}

fn challenge() -> std::io::Result<()> {
    let token = Credential::of(&pass_gate()).base64();
    let invoice = "lnbcrt210n1p5wm0zp";
    let seeds = [
        ("ours", format!(r#"L402 macaroon="{token}", invoice="{invoice}", version="0", token="{token}""#)),
        ("specification", format!(r#"L402 version="0", token="{token}", invoice="{invoice}""#)),
        ("lsat", format!(r#"LSAT macaroon="{token}",invoice="{invoice}""#)),
        ("unquoted", format!("l402 invoice={invoice} , macaroon={token}")),
        ("other_parameter", format!(r#"L402 token="{token}", realm="a b", invoice="{invoice}","#)),
        ("twice", format!(r#"L402 token="{token}", token="{token}", invoice="{invoice}""#)),
        ("version_1", format!(r#"L402 version="1", token="{token}", invoice="{invoice}""#)),
        ("open_quote", format!(r#"L402 token="{token}", invoice="{invoice}"#)),
        ("no_invoice", format!(r#"L402 token="{token}""#)),
        ("bare", "L402".to_owned()),
    ];
    seeds.iter().try_for_each(|(name, input)| write("challenge", name, input))
}

fn credential() -> std::io::Result<()> {
    let gate = pass_gate();
    let known = Credential::of(&gate);
    let hex = known.with_preimage_caveat().hex();
    let weaker = known.attenuate("forecast_valid_until=1900000100");
    let of = |key: u8, service: &str, offer: Offer| {
        Credential::of(&Gate::new(&issuer(key, 0x22, Says(None)), service, offer).expect("a gate"))
    };
    let (pair, token, preimage) = (known.pair(), known.base64(), known.preimage.to_hex());
    let mut altered = known.macaroon.as_bytes().to_vec();
    *altered.last_mut().expect("a signature") ^= 1;
    let altered = STANDARD.encode(altered);
    let url_safe = URL_SAFE_NO_PAD.encode(known.macaroon.as_bytes());
    let seeds = [
        ("l402", format!("A:L402 {pair}")),
        ("weaker", format!("A:L402 {}", weaker.pair())),
        ("with_preimage_caveat", format!("A:L402 {}", known.with_preimage_caveat().pair())),
        ("hex", format!("M:{hex}")),
        ("hex_grpc", format!("G:{}\nP:application/grpc+proto", hex.to_ascii_uppercase())),
        ("hex_token", format!("T:{hex}")),
        ("hex_without_preimage", format!("M:{}", known.hex())),
        ("lsat_and_l402", format!("A:LSAT {pair}\nA:L402 {pair}")),
        ("joined", format!("A:LSAT {pair}, L402 {pair}")),
        ("beside_bearer", format!("A:Bearer x\nA:l402   {pair}")),
        ("behind_basic", format!("A:Basic eA==, Digest a=\"b\", c=d, L402 {pair}")),
        ("url_safe_upper_hex", format!("A:L402 {url_safe}:{}", preimage.to_ascii_uppercase())),
        ("different", format!("A:L402 {pair}\nA:LSAT {}", weaker.pair())),
        ("several_tokens", format!("A:L402 {token},{token}:{preimage}")),
        ("wrong_preimage", format!("A:L402 {token}:{}", "0".repeat(64))),
        ("no_preimage", format!("A:L402 {token}")),
        ("altered", format!("A:L402 {altered}:{preimage}")),
        ("other_service", format!("A:L402 {}", of(0x11, "now", pass()).pair())),
        ("other_key", format!("A:L402 {}", of(0x12, "forecast", pass()).pair())),
        ("expired", format!("A:L402 {}", known.attenuate("forecast_valid_until=1900000000").pair())),
        ("no_capability", format!("A:L402 {}", known.attenuate("forecast_capabilities=write").pair())),
        ("unknown_caveat", format!("A:L402 {}", known.attenuate("colour=blue").pair())),
        ("foreign_macaroon", "M:0201056c736174\nT:abc".to_owned()),
    ];
    seeds.iter().try_for_each(|(name, input)| write("credential", name, input))
}

fn macaroon() -> std::io::Result<()> {
    let identifier = Identifier { version: 0, payment_hash: [7; 32].into(), token_id: [1; 32].into() };
    let made = |key: &[u8], caveats: &[&str]| {
        mint(key, &identifier, caveats).expect("within the caps").as_bytes().to_vec()
    };
    let caveats = ["services=svc:0", "svc_capabilities=", "svc_valid_until=2000000000"];
    let minted = made(ROOT, &caveats);
    let located = |location: &[u8]| {
        let mut bytes = minted.clone();
        let len = u8::try_from(location.len()).expect("a short location");
        bytes.splice(1..1, [&[1, len], location].concat());
        bytes
    };
    let mut third_party = minted.clone();
    let end = third_party.len() - 35;
    third_party.splice(end..end, [2, 1, b'x', 4, 1, b'v', 0]);
    let mut long_varint = minted.clone();
    long_varint.splice(2..3, [0x80 | 66, 0]);
    let seeds = [
        ("minted", minted.clone()),
        ("no_caveat", made(ROOT, &[])),
        ("other_key", made(b"another root key", &caveats)),
        ("located", located(b"lsat")),
        ("empty_location", located(b"")),
        ("full", made(ROOT, &["x"; 32])),
        ("longest_caveats", made(ROOT, &[&*"x".repeat(512); 7])),
        ("third_party", third_party),
        ("long_varint", long_varint),
        ("cut", minted[..minted.len() - 1].to_vec()),
    ];
    seeds.iter().try_for_each(|(name, input)| write("macaroon", name, input))
}

fn paying() -> std::io::Result<()> {
    let payment_hash = Preimage::from_bytes([1; 32]).payment_hash();
    let invoice = |hash: &[u8], hrp: &str| {
        let fields = [
            (1, to_groups(hash)),
            (13, to_groups(b"forecast")),
            (16, to_groups(&[8; 32])),
            (6, vec![9, 12]), // 300 seconds
            (5, vec![16, 8, 0]),
        ];
        assemble(unsigned(hrp, NOW, &fields).as_bytes()).expect("an invoice")
    };
    let good = invoice(payment_hash.as_bytes(), "lnbcrt210n");
    let identifier = Identifier { version: 0, payment_hash, token_id: [2; 32].into() };
    let token = |caveats: &[&str]| mint(ROOT, &identifier, caveats).expect("a token").to_base64();
    let ours = token(&["services=forecast:0", "forecast_valid_until=1900003600"]);
    let once = token(&["services=forecast:0", "forecast_max_uses=1", "preimage=00"]);
    let (of_others, dear) = (invoice(&[7; 32], "lnbcrt210n"), invoice(payment_hash.as_bytes(), "lnbcrt9m"));
    let seeds = [
        ("ours", format!(r#"L402 macaroon="{ours}", invoice="{good}", version="0", token="{ours}""#)),
        ("no_comma", format!(r#"L402 version="0" token="eyJhIjoxfQ.00ff", invoice="{good}""#)),
        ("once", format!(r#"LSAT macaroon="{once}", invoice="{good}""#)),
        ("behind_others", format!("Bearer realm=\"a, L402 b\"\nBasic x==, L402 token={ours} invoice={good}")),
        ("two", format!(r#"L402 token="{ours}", invoice="{dear}", L402 token="{once}", invoice="{good}""#)),
        ("of_another_payment", format!(r#"L402 token="{ours}", invoice="{of_others}""#)),
        ("no_preimage", format!(r#"L402 token="opaque", invoice="{of_others}""#)),
        ("dear", format!(r#"L402 token="{ours}", invoice="{dear}""#)),
        ("split", format!(r#"L402 token="a\"b:c", invoice="{good}""#)),
        ("expired", format!(r#"L402 token="{}", invoice="{good}""#, token(&["forecast_valid_until=x"]))),
    ];
    seeds.iter().try_for_each(|(name, input)| write("paying", name, input))
}
