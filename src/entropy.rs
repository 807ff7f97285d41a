//! Where randomness comes from.

use std::fmt::Debug;

/// Fills token ids and reservation ids. The default is the operating system's
/// generator; a test that must repeat itself brings its own.
pub trait Entropy: Debug + Send + Sync {
    /// Fills the whole slice with bytes that nobody can predict.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has a random generator");
    }
}

pub(crate) fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}
