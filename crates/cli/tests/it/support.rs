//! A folder to work in, and the program in it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// A folder with a gateway in it.
pub(crate) struct Place(TempDir);

/// What the program did.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Place {
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A gateway in front of the embedded teacher, as a new user would set it up.
    pub(crate) fn gateway() -> Self {
        let place = Self::empty();
        assert_eq!(place.run("init .").code, 0);
        assert_eq!(place.run("lab unpack --out teacher").code, 0);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs `anbiq` with words that hold no spaces.
    pub(crate) fn run(&self, words: &str) -> Done {
        let output = self.command(words).output().unwrap();
        let text =
            |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&self.0.path().display().to_string(), "[DIR]");
        Done { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anbiq"));
        command.args(words.split_whitespace()).current_dir(self.0.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ANBIQ_")) {
            command.env_remove(name);
        }
        command
    }
}

impl Done {
    /// The exit code and what was said, for a snapshot.
    pub(crate) fn told(&self) -> String {
        format!("exit {}\n{}", self.code, self.err)
    }
}
