//! Randomness from the operating system: nonces, seeds, names for traces.

/// `N` unpredictable bytes.
///
/// # Panics
/// Where the operating system has none to give: no key or nonce made then would be worth anything.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A name for one request, the same in the logs of every machine it touches.
pub fn trace_id() -> String {
    hex::encode(random_bytes::<8>())
}
