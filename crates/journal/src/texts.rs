//! Sealed texts: prompts and answers under a key of their account, which can be destroyed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use anbiq_domain::{AccountId, Exchange, ExchangeId, Keyed, KeyedHasher, SealedTexts, Texts};
use anbiq_secret::Secret;

use crate::key::fill;

/// The keys of the accounts' sealed texts: one file of 32 random bytes an account, in a folder of secrets.
///
/// The texts of an exchange are encrypted with XChaCha20-Poly1305. The key is derived from the account's key and the
/// exchange's id (HMAC-SHA-256), so that one exchange can be opened to somebody without opening the others. The nonce is
/// derived from the account's key, the id and the text, so that no two texts meet under one nonce and the same input gives
/// the same bytes. Id and account are authenticated with the text: a box that is moved to another entry does not open.
/// The commitments of the exchange are made to the texts themselves and do not depend on any of this.
///
/// What this is for: an account that is to be forgotten, while the journal keeps every byte that is signed. Once
/// [`TextKeys::forget`] has destroyed the key, its texts are noise to everybody, in every copy of the journal.
///
/// What it protects against: whoever gets hold of the journal, its sealed files or a backup of them, without the folder of
/// secrets. What it does not: whoever can read that folder while the key is in it, has a copy of the key or of the texts
/// from before, or guesses a text of which a dossier discloses the salt. The length of a text shows. The key is written over
/// before it is deleted, which file systems that copy on write and flash storage may do elsewhere: keep the folder of
/// secrets on an encrypted volume, and its backups no longer than an erasure may take.
///
/// Nothing is kept in memory: a gateway that runs finds a destroyed key destroyed, and gives the account a new one.
#[derive(Debug, Clone)]
pub struct TextKeys {
    folder: PathBuf,
}

/// Why texts are not sealed or not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TextsError {
    /// The key was destroyed, or is somewhere else.
    #[error("the key of the account's texts is not there: it was destroyed, or it is in another folder of secrets")]
    Absent,
    /// The key is there and the texts are not as they were sealed.
    #[error("the sealed texts do not open: they are damaged or of another exchange")]
    Damaged,
    /// The key's file cannot be read, written or destroyed.
    #[error("cannot use the key `{}`: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Arc<io::Error>,
    },
}

impl TextsError {
    /// A stable name of what happened.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Absent => "texts_key_absent",
            Self::Damaged => "texts_damaged",
            Self::Key { .. } => "texts_key_unusable",
        }
    }

    /// Is it only that the key is not there?
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// The key of one account.
struct AccountKey(Secret<[u8; 32]>);

impl TextKeys {
    /// The keys in `folder`, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Seals the `texts` of an exchange of `account`, whose key is made where it has none.
    ///
    /// # Errors
    /// The key cannot be read or made.
    pub fn seal(&self, account: &AccountId, exchange: ExchangeId, texts: &Texts) -> Result<SealedTexts, TextsError> {
        let key = match self.read(account)? {
            Some(key) => key,
            None => self.make(account)?,
        };
        // Strings and enums of strings always have a JSON form.
        let text = Secret::new(serde_json::to_vec(texts).unwrap_or_default());
        let nonce = key.nonce(exchange, text.expose());
        let aad = aad(account, exchange);
        let sealed = key.cipher(exchange).encrypt(&XNonce::from(nonce), Payload { msg: text.expose(), aad: &aad });
        // It fails only beyond 256 GiB.
        let sealed = sealed.map_err(|_| TextsError::Damaged)?;
        Ok(SealedTexts { key: key.name(), bytes: [&nonce[..], &sealed].concat() })
    }

    /// Puts the texts of `exchange` in place of the sealed ones, where it has any.
    ///
    /// # Errors
    /// The key is not there, or the texts are not as they were sealed; the exchange is as it was.
    pub fn open(&self, exchange: &mut Exchange) -> Result<(), TextsError> {
        let Some(sealed) = &exchange.sealed else { return Ok(()) };
        let key = self.read(&exchange.account)?.filter(|key| key.name() == sealed.key).ok_or(TextsError::Absent)?;
        let (nonce, bytes) = sealed.bytes.split_first_chunk::<24>().ok_or(TextsError::Damaged)?;
        let aad = aad(&exchange.account, exchange.id);
        let text = key.cipher(exchange.id).decrypt(&XNonce::from(*nonce), Payload { msg: bytes, aad: &aad });
        let text = Secret::new(text.map_err(|_| TextsError::Damaged)?);
        exchange.texts = Some(serde_json::from_slice(text.expose()).map_err(|_| TextsError::Damaged)?);
        exchange.sealed = None;
        Ok(())
    }

    /// Destroys the key of `account` and says which it was; `None` where it has none.
    ///
    /// # Errors
    /// The file cannot be written over or deleted; it may be tried again.
    pub fn forget(&self, account: &AccountId) -> Result<Option<Keyed>, TextsError> {
        let Some(key) = self.read(account)? else { return Ok(None) };
        let path = self.path(account);
        let erase = || {
            let mut file = OpenOptions::new().write(true).open(&path)?;
            file.write_all(&[0; KEY_TEXT])?;
            file.sync_all()?;
            fs::remove_file(&path)?;
            File::open(&self.folder)?.sync_all()
        };
        erase().map_err(|error| unusable(&path, error))?;
        Ok(Some(key.name()))
    }

    fn read(&self, account: &AccountId) -> Result<Option<AccountKey>, TextsError> {
        let path = self.path(account);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, error)),
        };
        if text.expose().bytes().all(|byte| byte == 0) {
            // It was being destroyed when the program or the machine stopped.
            fs::remove_file(&path).map_err(|error| unusable(&path, error))?;
            return Ok(None);
        }
        let mut bytes = [0; 32];
        let decoded = hex::decode_to_slice(text.expose().trim_end(), &mut bytes);
        decoded.map_err(|_| unusable(&path, io::Error::other("expected 64 hexadecimal digits")))?;
        Ok(Some(AccountKey(Secret::new(bytes))))
    }

    /// Makes a key; of several makers at once all get the same.
    fn make(&self, account: &AccountId) -> Result<AccountKey, TextsError> {
        let path = self.path(account);
        let mut key = Secret::new([0; 32]);
        fill(&mut key).map_err(|error| unusable(&path, io::Error::other(error.to_string())))?;
        let text = Secret::new(format!("{}\n", hex::encode(key.expose())));
        let made = || {
            fs::create_dir_all(&self.folder)?;
            let mut number = [0; 8];
            getrandom::fill(&mut number).map_err(|error| io::Error::other(error.to_string()))?;
            let draft = self.folder.join(format!("{}.new", hex::encode(number)));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&draft)?;
            file.write_all(text.expose().as_bytes())?;
            file.sync_all()?;
            // A link fails where somebody was faster, and never shows half a key.
            let linked = fs::hard_link(&draft, &path);
            fs::remove_file(&draft)?;
            File::open(&self.folder)?.sync_all()?;
            linked
        };
        match made() {
            Ok(()) => Ok(AccountKey(key)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.read(account)?.ok_or(TextsError::Absent),
            Err(error) => Err(unusable(&path, error)),
        }
    }

    fn path(&self, account: &AccountId) -> PathBuf {
        self.folder.join(format!("{account}.key"))
    }
}

/// Bytes of a key's file: 64 digits and the end of the line.
const KEY_TEXT: usize = 65;

impl AccountKey {
    /// What the key is called by; it says nothing of the key.
    fn name(&self) -> Keyed {
        KeyedHasher::new(self.0.expose()).hash("anbiq texts name v1", b"")
    }

    fn cipher(&self, exchange: ExchangeId) -> XChaCha20Poly1305 {
        let key = Secret::new(KeyedHasher::new(self.0.expose()).bytes("anbiq texts key v1", exchange.as_bytes()));
        XChaCha20Poly1305::new(key.expose().into())
    }

    fn nonce(&self, exchange: ExchangeId, text: &[u8]) -> [u8; 24] {
        let bound = [exchange.as_bytes(), text].concat();
        let bytes = KeyedHasher::new(self.0.expose()).bytes("anbiq texts nonce v1", &bound);
        let mut nonce = [0; 24];
        nonce.copy_from_slice(&bytes[..24]);
        nonce
    }
}

fn aad(account: &AccountId, exchange: ExchangeId) -> Vec<u8> {
    // The id has a fixed length, so the two cannot run into each other.
    [b"anbiq texts v1\0", &exchange.as_bytes()[..], account.as_str().as_bytes()].concat()
}

fn unusable(path: &Path, error: io::Error) -> TextsError {
    TextsError::Key { path: path.to_owned(), source: Arc::new(error) }
}
