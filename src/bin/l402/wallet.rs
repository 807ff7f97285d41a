//! The wallet that pays, by the environment or the config file.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use l402::client::{ClnWallet, LnbitsWallet, LndWallet, NwcWallet, PhoenixdWallet, Wallet};
use l402::{ClnConfig, LnbitsConfig, LndConfig, Network, NwcConfig, PhoenixdConfig};
use zeroize::Zeroizing;

use crate::config::{Config, WalletPart};
use crate::exit::{Failure, USAGE};

/// A kind of wallet: its name, the prefix of its variables, and the one that
/// has its secret.
struct Kind {
    name: &'static str,
    prefix: &'static str,
    secret: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind { name: "lnd", prefix: "LND", secret: "MACAROON" },
    Kind { name: "cln", prefix: "CLN", secret: "RUNE" },
    Kind { name: "phoenixd", prefix: "PHOENIXD", secret: "PASSWORD" },
    Kind { name: "lnbits", prefix: "LNBITS", secret: "ADMIN_KEY" },
    Kind { name: "nwc", prefix: "NWC", secret: "URI" },
];

/// The wallet of the environment, or else of the config.
pub(crate) fn find(config: &Config) -> Result<Arc<dyn Wallet>, Failure> {
    if let Some(name) = variable("L402_WALLET")? {
        let kind = kind(&name, "L402_WALLET")?;
        return build(kind, of_env(kind)?);
    }
    let Some(part) = &config.wallet else {
        let what = format!(
            "no wallet: set L402_WALLET to lnd, cln, phoenixd, lnbits or nwc, or \"wallet\" in {}; \
             --dry-run needs none",
            config.file.display()
        );
        return Err(Failure::new(USAGE, what));
    };
    let kind = kind(&part.kind, &format!("\"kind\" of \"wallet\" in {}", config.file.display()))?;
    build(kind, of_file(kind, part, &config.file)?)
}

fn kind(name: &str, of: &str) -> Result<&'static Kind, Failure> {
    KINDS.iter().find(|kind| kind.name == name.trim()).ok_or_else(|| {
        Failure::new(USAGE, format!("{of} {}: it may be lnd, cln, phoenixd, lnbits or nwc", is(name)))
    })
}

/// What a setting is that takes one of a few words. Anything else in its place
/// may be a secret.
fn is(name: &str) -> String {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() <= 16 && name.bytes().all(is_word) {
        return format!("is `{name}`");
    }
    "is not one that there is".to_owned()
}

struct Settings {
    /// Empty for nwc, whose secret has it.
    url: String,
    network: Network,
    secret: Secret,
    certificate: Option<PathBuf>,
}

enum Secret {
    Text(Zeroizing<String>),
    /// LND's is binary, and read by its wallet.
    File(PathBuf),
}

fn of_env(kind: &Kind) -> Result<Settings, Failure> {
    let name = |end: &str| format!("{}_{end}", kind.prefix);
    let missing = |what: &str| Failure::new(USAGE, format!("set {what}: L402_WALLET is {}", kind.name));
    let url = match variable(&name("URL"))? {
        Some(url) => url.to_string(),
        None if kind.name == "nwc" => String::new(),
        None => return Err(missing(&name("URL"))),
    };
    let (text, file) = (name(kind.secret), format!("{}_FILE", name(kind.secret)));
    let secret = match (variable(&text)?.filter(|_| kind.name != "lnd"), variable(&file)?) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(USAGE, format!("set {text} or {file}, not both")));
        }
        (Some(secret), None) => Secret::Text(secret),
        (None, Some(path)) => secret_of(kind, Path::new(&*path))?,
        (None, None) if kind.name == "lnd" => return Err(missing(&file)),
        (None, None) => return Err(missing(&format!("{text} or {file}"))),
    };
    let network = network(variable(&name("NETWORK"))?.as_ref().map(|name| name.as_str()), &name("NETWORK"))?;
    let certificate = variable(&name("CERTIFICATE_FILE"))?.map(|path| PathBuf::from(&*path));
    Ok(Settings { url, network, secret, certificate })
}

fn of_file(kind: &Kind, part: &WalletPart, file: &Path) -> Result<Settings, Failure> {
    let missing = |what| {
        Failure::new(
            USAGE,
            format!("config {}: \"wallet\" of kind {} lacks \"{what}\"", file.display(), kind.name),
        )
    };
    let beside = |path: &PathBuf| file.parent().unwrap_or(Path::new("")).join(path);
    let url = match &part.url {
        Some(url) => url.clone(),
        None if kind.name == "nwc" => String::new(),
        None => return Err(missing("url")),
    };
    let secret_file = part.secret_file.as_ref().ok_or_else(|| missing("secret_file"))?;
    Ok(Settings {
        url,
        network: network(part.network.as_deref(), "\"network\" of \"wallet\"")?,
        secret: secret_of(kind, &beside(secret_file))?,
        certificate: part.certificate_file.as_ref().map(beside),
    })
}

fn secret_of(kind: &Kind, path: &Path) -> Result<Secret, Failure> {
    if kind.name == "lnd" {
        return Ok(Secret::File(path.to_owned()));
    }
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = read.map_err(|error| {
        Failure::new(USAGE, format!("the secret of the wallet, {}: {error}", path.display()))
    })?;
    Ok(Secret::Text(Zeroizing::new(text.trim().to_owned())))
}

fn network(name: Option<&str>, of: &str) -> Result<Network, Failure> {
    let Some(name) = name else { return Ok(Network::Bitcoin) };
    let network = name.trim().parse();
    network.map_err(|_| {
        Failure::new(USAGE, format!("{of} {}: it may be bitcoin, testnet, signet or regtest", is(name)))
    })
}

fn build(kind: &Kind, settings: Settings) -> Result<Arc<dyn Wallet>, Failure> {
    let Settings { url, network, secret, certificate } = settings;
    let wallet: Result<Arc<dyn Wallet>, l402::Error> = match (kind.name, secret) {
        (_, Secret::File(macaroon)) => {
            let mut lnd = LndConfig::new(url, network, macaroon);
            if let Some(file) = certificate {
                lnd = lnd.with_certificate(file);
            }
            LndWallet::new(lnd).map(|wallet| Arc::new(wallet) as _)
        }
        ("cln", Secret::Text(rune)) => {
            let mut cln = ClnConfig::new(url, network, rune.as_str());
            if let Some(file) = certificate {
                cln = cln.with_certificate(file);
            }
            ClnWallet::new(cln).map(|wallet| Arc::new(wallet) as _)
        }
        ("lnbits", Secret::Text(key)) => {
            let mut lnbits = LnbitsConfig::new(url, network, key.as_str());
            if let Some(file) = certificate {
                lnbits = lnbits.with_certificate(file);
            }
            LnbitsWallet::new(lnbits).map(|wallet| Arc::new(wallet) as _)
        }
        ("nwc", Secret::Text(uri)) => {
            let mut nwc = NwcConfig::new(uri.as_str(), network);
            if let Some(file) = certificate {
                nwc = nwc.with_certificate(file);
            }
            NwcWallet::new(nwc).map(|wallet| Arc::new(wallet) as _)
        }
        (_, Secret::Text(password)) => {
            let mut phoenixd = PhoenixdConfig::new(url, network, password.as_str());
            if let Some(file) = certificate {
                phoenixd = phoenixd.with_certificate(file);
            }
            PhoenixdWallet::new(phoenixd).map(|wallet| Arc::new(wallet) as _)
        }
    };
    wallet.map_err(|error| Failure::of(USAGE, &error))
}

/// A variable of the environment; `None` where it is not set, or empty.
fn variable(name: &str) -> Result<Option<Zeroizing<String>>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(Zeroizing::new(value)).filter(|value| !value.trim().is_empty())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::new(USAGE, format!("{name} is not UTF-8"))),
    }
}
