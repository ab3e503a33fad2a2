//! Examines a model folder on the generated corpus: `examine FOLDER`. Prints the loss on held-out answers and the share of
//! right answers by kind, and the time that sampled stories take.

use std::path::PathBuf;
use std::time::Instant;

use anbiq_domain::{Answer, Finish, Seeded};
use anbiq_lab::corpus::{Corpus, Document, Kind};
use anbiq_lab::exam;
use anbiq_lm::{Local, LocalOptions};
use anbiq_model::{Model, Request, ScoreRequest, collect};
use futures::future::join_all;

#[expect(clippy::print_stdout, reason = "an example talks to a person")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: examine FOLDER")?);
    let model = Local::open(&folder, "examined", LocalOptions::default())?;
    let corpus = Corpus::new(77);
    let tasks: Vec<Document> = corpus.tasks().take(1_000).collect();
    let accuracy = exam::sit(&model, &tasks, 32).await?;
    println!("{:.3} of {} tasks right", accuracy.share(), tasks.len());
    let mut random = Seeded::new(9);
    for kind in Kind::ALL {
        let requests: Vec<ScoreRequest> = (0..100)
            .map(|_| {
                let document = corpus.document(kind, &mut random);
                let answer = Answer::new(document.answer.clone(), Finish::Stop);
                ScoreRequest { prompt: document.prompt(), answer }
            })
            .collect();
        let scores = model.score(&requests).await?;
        let tokens: usize = scores.iter().map(|score| score.logprobs.len()).sum();
        let loss = -scores.iter().map(anbiq_model::Scored::total).sum::<f64>();
        let right = accuracy.kinds.get(&kind).map_or(String::new(), |(right, of)| format!("{right} of {of} right"));
        println!("{kind:13} {:.3} nats a token, {:.1} tokens, {right}", loss / tokens as f64, tokens as f64 / 100.0);
    }
    let started = Instant::now();
    let mut tokens = 0;
    for _ in 0..4 {
        let prompts = (0..32).map(|_| corpus.document(Kind::Story, &mut random).prompt());
        let answers = prompts.map(|prompt| async {
            let request = Request { n: 2, ..Request::new(prompt, 112) };
            collect(model.generate(request).await?, 2).await
        });
        for answer in join_all(answers).await {
            tokens += answer?.1.completion_tokens;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{tokens} tokens of 256 stories in {seconds:.1} s: {:.0} tokens/s", tokens as f64 / seconds);
    Ok(())
}
