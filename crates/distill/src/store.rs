//! Finished stages, named by the digest of everything that they depend on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anbiq_domain::Digest;
use anbiq_lm::lora::Adapter;
use anbiq_lm::{Codec, Dtype, Network};

use crate::DistillError;
use crate::course::Stage;
use crate::data::read_json;

/// The folder of the adapter within that of a stage or a student.
pub(crate) const ADAPTER: &str = "adapter";

/// A folder of stages. Each is a whole Hugging Face folder with `stage.json`, and appears in one step: what is there is
/// complete. Recipes that begin alike share their first stages.
#[derive(Debug, Clone)]
pub(crate) struct Store(PathBuf);

impl Store {
    pub(crate) fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(crate) fn folder(&self, name: &str, key: &Digest) -> PathBuf {
        let mut short = key.to_string();
        short.truncate(20);
        self.0.join(format!("{name}-{short}"))
    }

    pub(crate) fn find(&self, name: &str, key: &Digest) -> Result<Option<(Network, Stage)>, DistillError> {
        let folder = self.folder(name, key);
        if !folder.exists() {
            return Ok(None);
        }
        let stage: Stage = read_json(&folder.join("stage.json"))?;
        if stage.key != *key {
            return Ok(None);
        }
        Ok(Some((Network::load(&folder)?, stage)))
    }

    pub(crate) fn keep(
        &self,
        network: &Network,
        adapter: Option<&Adapter>,
        codec: &Codec,
        stage: &Stage,
    ) -> Result<(), DistillError> {
        let folder = self.folder(&stage.name, &stage.key);
        let mut hidden = folder.file_name().unwrap_or_default().to_owned();
        hidden.push(format!(".new-{}", std::process::id()));
        let new = self.0.join(hidden);
        network.save(&new, Dtype::F32)?;
        codec.save(&new)?;
        if let Some(adapter) = adapter {
            adapter.save(&new.join(ADAPTER), "")?;
        }
        write_json(&new.join("stage.json"), stage)?;
        // What a power cut leaves under the final name is whole.
        sync(&new).map_err(DistillError::write(&new))?;
        match fs::rename(&new, &folder) {
            Ok(()) => {}
            // Another program finished the same stage first, or an unusable one was in the way.
            Err(_) if folder.exists() => {
                fs::remove_dir_all(&folder).map_err(DistillError::write(&folder))?;
                fs::rename(&new, &folder).map_err(DistillError::write(&folder))?;
            }
            Err(source) => return Err(DistillError::write(&folder)(source)),
        }
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(DistillError::write(&self.0))
    }

    /// The file in which a stage under way says where it is.
    pub(crate) fn under_way(&self, name: &str, key: &Digest) -> PathBuf {
        self.folder(name, key).with_added_extension("under-way")
    }

    /// Makes the folder of the store.
    pub(crate) fn prepare(&self) -> Result<(), DistillError> {
        fs::create_dir_all(&self.0).map_err(DistillError::write(&self.0))
    }

    /// Removes what a stage that is finished left of [`Store::under_way`], half-written files of killed runs too.
    pub(crate) fn forget(&self, path: &Path) -> Result<(), DistillError> {
        let own = path.file_name().unwrap_or_default().as_encoded_bytes();
        for entry in fs::read_dir(&self.0).map_err(DistillError::read(&self.0))? {
            let entry = entry.map_err(DistillError::read(&self.0))?;
            if entry.file_name().as_encoded_bytes().starts_with(own) {
                let path = entry.path();
                fs::remove_file(&path).map_err(DistillError::write(&path))?;
            }
        }
        Ok(())
    }
}

/// Waits until a folder and all that is in it is on the disk.
fn sync(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { sync(&entry.path())? } else { File::open(entry.path())?.sync_all()? }
    }
    File::open(folder)?.sync_all()
}

/// Writes a JSON file that people can read.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), DistillError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| DistillError::write(path)(error.into()))?;
    text.push('\n');
    fs::write(path, text).map_err(DistillError::write(path))
}
