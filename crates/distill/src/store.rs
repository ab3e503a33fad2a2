//! Finished stages, named by the digest of everything that they depend on.

use std::fs;
use std::path::{Path, PathBuf};

use anbiq_domain::Digest;
use anbiq_lm::lora::Adapter;
use anbiq_lm::{Codec, Dtype, Network};

use crate::DistillError;
use crate::data::read_json;
use crate::train::Stage;

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
        match fs::rename(&new, &folder) {
            Ok(()) => Ok(()),
            // Another program finished the same stage first, or an unusable one was in the way.
            Err(_) if folder.exists() => {
                fs::remove_dir_all(&folder).map_err(DistillError::write(&folder))?;
                fs::rename(&new, &folder).map_err(DistillError::write(&folder))
            }
            Err(source) => Err(DistillError::write(&folder)(source)),
        }
    }
}

/// Writes a JSON file that people can read.
pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), DistillError> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| DistillError::write(path)(error.into()))?;
    text.push('\n');
    fs::write(path, text).map_err(DistillError::write(path))
}
