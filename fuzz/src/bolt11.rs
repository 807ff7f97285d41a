//! BOLT 11 text by hand: written, so that inputs get past checksum and
//! signature, and read, so that the crate's reading is not its own judge.

use bitcoin::hashes::{Hash as _, sha256};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey};

const CHARSET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

fn node() -> SecretKey {
    SecretKey::from_slice(&[0x33; 32]).expect("a key")
}

/// The public key that signs what is [`assemble`]d.
pub fn node_id() -> PublicKey {
    node().public_key(&Secp256k1::signing_only())
}

/// Letters as the groups of 5 bits they stand for; other bytes by their low bits.
fn groups(text: &[u8]) -> Vec<u8> {
    let group =
        |byte: &u8| CHARSET.iter().position(|letter| letter == byte).unwrap_or(usize::from(byte & 31));
    text.iter().map(|byte| u8::try_from(group(byte)).expect("5 bits")).collect()
}

/// Groups of 5 bits as letters.
pub fn letters(groups: &[u8]) -> String {
    groups.iter().map(|group| char::from(CHARSET[usize::from(*group)])).collect()
}

/// Bytes as groups of 5 bits, filled up with zeros.
pub fn to_groups(bytes: &[u8]) -> Vec<u8> {
    regroup(bytes, 8, 5)
}

fn regroup(from: &[u8], bits: u32, into: u32) -> Vec<u8> {
    let (mut held, mut count, mut out) = (0u32, 0, Vec::new());
    for part in from {
        held = held << bits | u32::from(*part);
        count += bits;
        while count >= into {
            count -= into;
            out.push(u8::try_from(held >> count & ((1 << into) - 1)).expect("masked"));
        }
        held &= (1 << count) - 1;
    }
    if count > 0 {
        out.push(u8::try_from(held << (into - count) & ((1 << into) - 1)).expect("masked"));
    }
    out
}

fn checksum(hrp: &[u8], data: &[u8]) -> Vec<u8> {
    let high = hrp.iter().map(|byte| byte >> 5);
    let low = hrp.iter().map(|byte| byte & 31);
    let values = high.chain([0]).chain(low).chain(data.iter().copied()).chain([0; 6]);
    let mut polymod = 1u32;
    for value in values {
        let top = polymod >> 25;
        polymod = (polymod & 0x01ff_ffff) << 5 ^ u32::from(value);
        for (i, generator) in
            [0x3b6a_57b2u32, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3].iter().enumerate()
        {
            if top >> i & 1 == 1 {
                polymod ^= generator;
            }
        }
    }
    polymod ^= 1;
    (0..6).map(|i| u8::try_from(polymod >> (5 * (5 - i)) & 31).expect("5 bits")).collect()
}

/// Makes an invoice of `<human-readable part>1<timestamp and fields>`: signed by
/// one key, with a valid checksum, whatever stands in it.
pub fn assemble(unsigned: &[u8]) -> Option<String> {
    let one = unsigned.iter().rposition(|byte| *byte == b'1')?;
    let hrp = std::str::from_utf8(&unsigned[..one]).ok()?;
    let mut data = groups(&unsigned[one + 1..]);

    let message = [hrp.as_bytes(), &regroup(&data, 5, 8)].concat();
    let digest = Message::from_digest(sha256::Hash::hash(&message).to_byte_array());
    let signature = Secp256k1::signing_only().sign_ecdsa_recoverable(&digest, &node());
    let (recovery, compact) = signature.serialize_compact();
    let recovery = u8::try_from(recovery.to_i32()).expect("0 to 3");
    data.extend(to_groups(&[&compact[..], &[recovery]].concat()));

    let sum = checksum(hrp.as_bytes(), &data);
    Some(format!("{hrp}1{}{}", letters(&data), letters(&sum)))
}

/// What an invoice says, read without the library that the crate reads it with.
#[derive(Debug)]
pub struct Said {
    pub amount_msat: u64,
    pub payment_hash: [u8; 32],
    pub timestamp: u64,
    /// Seconds.
    pub expiry: u64,
}

/// Reads a regtest invoice with an amount; `None` for any other text.
pub fn read(text: &str) -> Option<Said> {
    let (hrp, data) = text.rsplit_once('1')?;
    let amount = hrp.strip_prefix("lnbcrt")?;
    let (digits, pico) = match amount.as_bytes().last()? {
        b'm' => (&amount[..amount.len() - 1], 1_000_000_000),
        b'u' => (&amount[..amount.len() - 1], 1_000_000),
        b'n' => (&amount[..amount.len() - 1], 1_000),
        b'p' => (&amount[..amount.len() - 1], 1),
        _ => (amount, 1_000_000_000_000),
    };
    // One bitcoin is 10^11 msat.
    let pico = digits.parse::<u128>().ok()?.checked_mul(pico)?;
    let amount_msat = (pico % 10 == 0).then_some(pico / 10)?.try_into().ok()?;

    let data = groups(data.as_bytes());
    let data = data.get(..data.len().checked_sub(104 + 6)?)?;
    let number = |groups: &[u8]| {
        groups.iter().try_fold(0u64, |n, group| n.checked_mul(32)?.checked_add(u64::from(*group)))
    };
    let (timestamp, mut rest) = data.split_at_checked(7)?;
    let (mut payment_hash, mut expiry) = (None, None);
    while let [field, high, low, tail @ ..] = rest {
        let (value, tail) = tail.split_at_checked(usize::from(*high) * 32 + usize::from(*low))?;
        match field {
            1 if value.len() == 52 => {
                let hash: [u8; 32] = regroup(value, 5, 8)[..32].try_into().ok()?;
                payment_hash = payment_hash.or(Some(hash));
            }
            6 => expiry = expiry.or(Some(number(value)?)),
            _ => {}
        }
        rest = tail;
    }
    Some(Said {
        amount_msat,
        payment_hash: payment_hash?,
        timestamp: number(timestamp)?,
        expiry: expiry.unwrap_or(3600),
    })
}
