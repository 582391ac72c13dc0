//! Secret keys of minisign, and signing with them.
//!
//! The forms are minisign's own: its program reads these keys and signatures, and its keys are read here. Ed25519 is ring's,
//! BLAKE2b and scrypt are RustCrypto's; what stands here is the layout of bytes. `minisign-verify`, which has its own code
//! for all of it, checks in the tests what is made here.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use blake2::digest::consts::U32;
use blake2::{Blake2b, Blake2b512, Digest};
use ring::error::Unspecified;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// Ed25519, of the message itself; and of its BLAKE2b digest, as every minisign since 2019 signs.
const ALGORITHM: &[u8; 2] = b"Ed";
const PREHASHED: &[u8; 2] = b"ED";
/// How a secret key is encrypted.
const SCRYPT: &[u8; 2] = b"Sc";
/// What its checksum is made with.
const CHECKSUM: &[u8; 2] = b"B2";
const SEED: usize = 32;
/// Algorithm, encryption, checksum's algorithm, salt and two limits: all that stands before what is encrypted.
const HEAD: usize = 2 + 2 + 2 + 32 + 8 + 8;
/// The id, seed and public key, and the checksum.
const BODY: usize = 8 + 64 + 32;
/// What minisign itself uses at most: 1 GiB of memory, some seconds.
const MOST_LOG2_N: u8 = 20;

/// A secret key that can sign.
pub struct SecretKey {
    id: [u8; 8],
    pair: Ed25519KeyPair,
}

/// A secret key that cannot be used, or a signature that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not the form of a key's file.
    #[error("it is no secret key of minisign ({0}); make one with `handover artifact key` or `minisign -G`")]
    Form(&'static str),
    /// It is encrypted.
    #[error("it is encrypted; give its password with --password-file")]
    Encrypted,
    /// Wrong password, or a damaged file.
    #[error("its checksum does not fit: the password is wrong, or the file is damaged")]
    Checksum,
    /// The system has no random numbers to give.
    #[error("the system gives no random numbers")]
    Random,
}

impl From<Unspecified> for SecretError {
    fn from(_: Unspecified) -> Self {
        Self::Random
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SecretKey {
    /// A new key, and what its file is to hold: it is not encrypted.
    ///
    /// # Errors
    /// [`SecretError::Random`].
    pub fn make() -> Result<(Self, String), SecretError> {
        let (mut id, mut seed) = ([0; 8], [0; SEED]);
        let random = SystemRandom::new();
        random.fill(&mut id)?;
        random.fill(&mut seed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| SecretError::Form("its key"))?;
        let both = [&seed[..], pair.public_key().as_ref()].concat();
        let mut bytes = [&ALGORITHM[..], &[0; 2], CHECKSUM, &[0; 32 + 8 + 8]].concat();
        bytes.extend([&id[..], &both, &checksum(&id, &both)].concat());
        let text = format!("untrusted comment: handover secret key\n{}\n", BASE64_STANDARD.encode(bytes));
        Ok((Self { id, pair }, text))
    }

    /// Reads a key's file.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(text: &str, password: Option<&str>) -> Result<Self, SecretError> {
        let line = text.lines().nth(1).ok_or(SecretError::Form("it has no second line"))?;
        let bytes = BASE64_STANDARD.decode(line.trim()).map_err(|_| SecretError::Form("it is not base64"))?;
        if bytes.len() != HEAD + BODY {
            return Err(SecretError::Form("its length"));
        }
        let (head, body) = bytes.split_at(HEAD);
        if !head.starts_with(ALGORITHM) || head[4..6] != CHECKSUM[..] {
            return Err(SecretError::Form("its algorithm"));
        }
        let mut body = body.to_vec();
        let plain = head[2..4] == [0, 0];
        match (&head[2..4], password) {
            ([0, 0], _) => {}
            (kind, Some(password)) if kind == SCRYPT => {
                let stream = stream(&head[6..], password)?;
                body.iter_mut().zip(stream).for_each(|(byte, key)| *byte ^= key);
            }
            (kind, None) if kind == SCRYPT => return Err(SecretError::Encrypted),
            _ => return Err(SecretError::Form("its encryption")),
        }
        let (id, rest) = body.split_at(8);
        let (both, sum) = rest.split_at(64);
        // `minisign -G -W` leaves the place empty; that the two halves of the key belong together is checked below.
        let empty = plain && sum.iter().all(|byte| *byte == 0);
        if !empty && checksum(id, both) != sum {
            return Err(SecretError::Checksum);
        }
        let (seed, public) = both.split_at(SEED);
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| SecretError::Checksum)?;
        Ok(Self { id: id.try_into().map_err(|_| SecretError::Form("its id"))?, pair })
    }

    /// What the public key's file is to hold.
    pub fn public_text(&self) -> String {
        let bytes = [&ALGORITHM[..], &self.id, self.pair.public_key().as_ref()].concat();
        let id = u64::from_le_bytes(self.id);
        format!("untrusted comment: minisign public key {id:016X}\n{}\n", BASE64_STANDARD.encode(bytes))
    }

    /// What the signature's file is to hold. The comment, one line, is signed as well.
    pub fn sign(&self, message: &[u8], comment: &str) -> String {
        let comment = comment.replace(char::is_control, " ");
        let signature = self.pair.sign(&Blake2b512::digest(message));
        let whole = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let line = BASE64_STANDARD.encode([&PREHASHED[..], &self.id, signature.as_ref()].concat());
        let whole = BASE64_STANDARD.encode(whole);
        format!("untrusted comment: signature by handover\n{line}\ntrusted comment: {comment}\n{whole}\n")
    }
}

fn checksum(id: &[u8], both: &[u8]) -> Vec<u8> {
    Blake2b::<U32>::digest([&ALGORITHM[..], id, both].concat()).to_vec()
}

/// What the key's body is combined with, from the password, the salt and the two limits.
fn stream(kdf: &[u8], password: &str) -> Result<[u8; BODY], SecretError> {
    let number = |at: usize| {
        let bytes = kdf.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_le_bytes).ok_or(SecretError::Form("its limits"))
    };
    let (log2_n, p) = cost(number(32)?, number(40)?)?;
    let params = scrypt::Params::new(log2_n, 8, p).map_err(|_| SecretError::Form("its limits"))?;
    let mut stream = [0; BODY];
    scrypt::scrypt(password.as_bytes(), &kdf[..32], &params, &mut stream)
        .map_err(|_| SecretError::Form("its limits"))?;
    Ok(stream)
}

/// libsodium's choice of scrypt's cost from its two limits, with r = 8 (`pickparams` there).
fn cost(operations: u64, memory: u64) -> Result<(u8, u32), SecretError> {
    let operations = operations.max(32_768);
    let small = operations < memory / 32;
    let most = if small { operations / 32 } else { memory / 1024 };
    let log2_n = (1..63).find(|log2_n| (1_u64 << log2_n) > most / 2).unwrap_or(63);
    if log2_n > MOST_LOG2_N {
        return Err(SecretError::Form("it asks for more memory than minisign ever does"));
    }
    let p = if small { 1 } else { ((operations / 4) >> log2_n).min(0x3fff_ffff) / 8 };
    Ok((log2_n, u32::try_from(p).map_err(|_| SecretError::Form("its limits"))?))
}
