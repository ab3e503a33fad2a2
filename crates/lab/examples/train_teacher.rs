//! Trains the embedded teacher and examines it: `train_teacher FOLDER [TOKENS [LEARNING_RATE]]`.

use std::path::PathBuf;
use std::time::Instant;

use anbiq_domain::Seeded;
use anbiq_lab::corpus::{Corpus, Kind};
use anbiq_lab::exam;
use anbiq_lab::teacher::{TeacherConfig, train_teacher};
use anbiq_lm::{Dtype, Local, LocalOptions};
use anbiq_model::{Model, Request, collect};

#[expect(clippy::print_stderr, reason = "an example talks to a person")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: train_teacher FOLDER [TOKENS [LEARNING_RATE]]")?);
    let mut config = TeacherConfig::default();
    if let Some(tokens) = arguments.next() {
        config.tokens = tokens.parse()?;
    }
    if let Some(rate) = arguments.next() {
        config.learning_rate = rate.parse()?;
    }
    let started = Instant::now();
    let report = train_teacher(&config, &folder, &mut |progress| {
        let step = &progress.step;
        if step.step % 25 == 0 {
            let seconds = started.elapsed().as_secs_f64();
            eprintln!(
                "step {:5} {:8} of {} tokens, loss {:.4}, gradient {:.2}, rate {:.2e}, {seconds:.0} s, {:.0} tokens/s",
                step.step,
                progress.tokens,
                progress.of,
                step.cross_entropy,
                step.grad_norm,
                step.learning_rate,
                progress.tokens as f64 / seconds
            );
        }
        if step.step % 400 == 0
            && let Err(error) = progress.network.save(&folder.join("checkpoint"), Dtype::F16)
        {
            eprintln!("no checkpoint: {error}");
        }
    })?;
    eprintln!("{report:?} after {:.0} s", started.elapsed().as_secs_f64());

    let model = Local::open(&folder, "teacher", LocalOptions::default())?;
    let corpus = Corpus::new(config.seed);
    let tasks: Vec<_> = corpus.tasks().take(500).collect();
    let accuracy = exam::sit(&model, &tasks, 32).await?;
    eprintln!("{:.3} of the tasks right: {:?}", accuracy.share(), accuracy.kinds);
    let mut random = Seeded::new(5);
    for kind in [Kind::Story, Kind::Story, Kind::Description, Kind::Letter, Kind::Chat, Kind::Reasoning] {
        let document = corpus.document(kind, &mut random);
        let (answers, usage) = collect(model.generate(Request::new(document.prompt(), 120)).await?, 1).await?;
        eprintln!("\n{}\n  {}  [{} tokens]", document.prompt, answers[0].text, usage.completion_tokens);
    }
    Ok(())
}
