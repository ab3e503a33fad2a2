//! Measures what a model can do: it answers tasks, and the answers are checked.

use anbiq_model::{Model, ModelError, Request, Sampling, collect};
use futures::{StreamExt, TryStreamExt, stream};

use crate::corpus::{Accuracy, Document};

/// Longest answer to a task, in tokens.
const LONGEST: u32 = 96;

/// Asks `model` every one of `tasks`, `side_by_side` at a time, always taking the likeliest token, and counts right
/// answers.
///
/// # Errors
/// The first error of the model.
pub async fn sit(model: &dyn Model, tasks: &[Document], side_by_side: usize) -> Result<Accuracy, ModelError> {
    let answers: Vec<String> =
        stream::iter(tasks).map(|task| answer(model, task)).buffered(side_by_side.max(1)).try_collect().await?;
    let mut accuracy = Accuracy::default();
    for (task, answer) in tasks.iter().zip(&answers) {
        accuracy.count(task, answer);
    }
    Ok(accuracy)
}

async fn answer(model: &dyn Model, task: &Document) -> Result<String, ModelError> {
    let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
    let request = Request { sampling, ..Request::new(task.prompt(), LONGEST) };
    let (mut answers, _) = collect(model.generate(request).await?, 1).await?;
    Ok(answers.pop().map(|answer| answer.text).unwrap_or_default())
}
