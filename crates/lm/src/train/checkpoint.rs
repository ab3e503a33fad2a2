//! A training that stops anywhere and goes on as if it had not.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use super::guide::Guiding;
use super::{Adapting, Config, Trainer};
use crate::weights::{Stored, Tensor, TensorFile};
use crate::{Dtype, LmError};

/// What is trained, and the optimiser's moments.
const PARTS: [&str; 3] = ["numbers", "first_moment", "second_moment"];

/// The same of a guide's projection, where there is one.
const PROJECTION: [&str; 3] = ["projection", "projection_first_moment", "projection_second_moment"];

/// Names of the metadata.
const SETTINGS: &str = "settings";
const STEPS: &str = "steps";
const MOVES: &str = "moves";
const PROJECTION_MOVES: &str = "projection_moves";
const NOTE: &str = "note";

const HINT: &str = "remove it: training begins again and gives the same";

/// Numbers as they are in the file.
fn stored(values: &[f32]) -> Stored<'_> {
    Stored { dtype: Dtype::F32, shape: vec![values.len()], values }
}

impl Trainer {
    /// Writes to `path` all that further steps depend on, with a `note` of the caller's, such as where in its data it is.
    /// What stood there before is replaced only by what is whole and on the disk.
    ///
    /// The numbers are written as they are, so that what [`Trainer::resume`] reads goes on to the same bits.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or a card cannot give what it has.
    pub fn save(&mut self, path: &Path, note: &str) -> Result<(), LmError> {
        self.fetch()?;
        let (moves, first, second) = self.engine.state()?;
        let numbers = match &self.adapting {
            None => self.network.weights.data(),
            Some(adapting) => adapting.adapter.data(),
        };
        let mut tensors: Vec<_> = PARTS.into_iter().zip([numbers, &*first, &*second].map(stored)).collect();
        let mut metadata = HashMap::from([
            (SETTINGS.to_owned(), self.settings()),
            (STEPS.to_owned(), self.steps.to_string()),
            (MOVES.to_owned(), moves.to_string()),
            (NOTE.to_owned(), note.to_owned()),
        ]);
        if let Some(Guiding { guide, optimizer }) = &self.guiding {
            let (moves, first, second) = optimizer.state();
            tensors.extend(PROJECTION.into_iter().zip([guide.projection(), first, second].map(stored)));
            metadata.insert(PROJECTION_MOVES.to_owned(), moves.to_string());
        }
        let new = path.with_added_extension(format!("new-{}", std::process::id()));
        let written = || -> std::io::Result<()> {
            safetensors::serialize_to_file(tensors, Some(metadata), &new).map_err(std::io::Error::other)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()
        };
        written().map_err(|source| LmError::write(path, source))
    }

    /// Goes on from what [`Trainer::save`] wrote of a training that began as this one did; gives its note.
    ///
    /// # Errors
    ///
    /// The file is missing or damaged, or is of a training with other settings or of another shape. The training is to be
    /// begun again then.
    pub fn resume(&mut self, path: &Path) -> Result<String, LmError> {
        let mut file = TensorFile::open(path)?;
        let damaged = |problem: String| LmError::malformed(path, problem, HINT);
        let said = file.said();
        let word = |name: &str| said.get(name).cloned().ok_or_else(|| damaged(format!("`{name}` is missing")));
        let number = |name: &str| {
            let text = word(name)?;
            text.parse::<u64>().map_err(|_| damaged(format!("`{name}` is {text}, not a number")))
        };
        if word(SETTINGS)? != self.settings() {
            return Err(damaged("it is of a training with other settings".to_owned()));
        }
        let (steps, moves, note) = (number(STEPS)?, number(MOVES)?, word(NOTE)?);
        let moves = i32::try_from(moves).map_err(|_| damaged(format!("`{MOVES}` is {moves}")))?;
        let infos: HashMap<_, _> = file.tensors().into_iter().collect();
        let size = match &self.adapting {
            None => self.network.weights.data().len(),
            Some(adapting) => adapting.adapter.data().len(),
        };
        let projected = self.guide().map(|guide| guide.projection().len());
        let projection_moves = projected.map(|_| number(PROJECTION_MOVES)).transpose()?.map(i32::try_from);
        let projection_moves = projection_moves.transpose().map_err(|error| damaged(error.to_string()))?;
        let mut read = |name: &str, size: usize| {
            let info = infos.get(name).ok_or_else(|| damaged(format!("`{name}` is missing")))?;
            let place = Tensor { name: name.to_owned(), shape: vec![size], range: 0..size };
            let mut numbers = vec![0.0; size];
            file.read(&place, info, &mut numbers)?;
            Ok::<_, LmError>(numbers)
        };
        let [numbers, first, second] = PARTS.map(|name| read(name, size));
        let (numbers, first, second) = (numbers?, first?, second?);
        let projection = projected.map(|size| PROJECTION.map(|name| read(name, size)));
        if let (Some(guiding), Some(moves), Some([numbers, first, second])) =
            (&mut self.guiding, projection_moves, projection)
        {
            guiding.go_on(numbers?, (moves, first?, second?));
        }
        let weights = &mut Arc::make_mut(&mut self.network).weights;
        match &mut self.adapting {
            None => weights.data_mut().copy_from_slice(&numbers),
            Some(Adapting { adapter, base }) => {
                adapter.data_mut().copy_from_slice(&numbers);
                adapter.apply(base, weights);
            }
        }
        self.engine.set_state(&self.network, self.adapting.as_ref(), (moves, first, second))?;
        self.steps = steps;
        Ok(note)
    }

    /// What must be the same for a training to go on.
    fn settings(&self) -> String {
        let shape = self.adapting.as_ref().map(|adapting| adapting.adapter.shape());
        // It changes no bit, so a training that ran out of memory may go on with it.
        let config = Config { activation_checkpointing: false, ..self.config.clone() };
        // Structs of numbers and words always have a JSON form.
        match self.guide() {
            None => serde_json::to_string(&(config, shape)),
            Some(guide) => serde_json::to_string(&(config, shape, guide.how(), guide.projection().len())),
        }
        .unwrap_or_default()
    }
}
