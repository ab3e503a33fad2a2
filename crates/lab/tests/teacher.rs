//! The embedded teacher, and a much smaller one made anew.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use anbiq_lab::corpus::Corpus;
use anbiq_lab::exam;
use anbiq_lab::teacher::{TeacherConfig, train_teacher, write_teacher};
use anbiq_lm::{Local, LocalOptions};

#[tokio::test]
async fn a_smaller_teacher_learns() {
    let config = TeacherConfig {
        tokens: 120_000,
        vocab: 400,
        hidden: 32,
        layers: 1,
        heads: 2,
        ffn: 64,
        context: 256,
        batch_tokens: 512,
        learning_rate: 1e-2,
        ..TeacherConfig::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut losses = Vec::new();
    let report =
        train_teacher(&config, folder.path(), &mut |progress| losses.push(progress.step.cross_entropy)).unwrap();
    assert!(losses[0] > 5.5, "{}", losses[0]);
    assert!(report.held_out_loss < 0.65 * losses[0], "{report:?}");
    assert_eq!(report.steps as usize, losses.len());

    let model = Local::open(folder.path(), "teacher", LocalOptions { threads: 1, ..LocalOptions::default() }).unwrap();
    let tasks: Vec<_> = Corpus::new(config.seed).tasks().take(10).collect();
    let accuracy = exam::sit(&model, &tasks, 4).await.unwrap();
    assert_eq!(accuracy.kinds.len(), 10);
    for file in ["README.md", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn the_embedded_teacher_answers() {
    let folder = tempfile::tempdir().unwrap();
    write_teacher(folder.path()).unwrap();
    let model = Local::open(folder.path(), "teacher", LocalOptions { threads: 1, ..LocalOptions::default() }).unwrap();
    assert_eq!(model.network().parameters(), 3_392_928);
    // The example `examine` finds 0.802 of 1,000 tasks right; 200 tasks are within 0.06 of that 19 times in 20.
    let tasks: Vec<_> = Corpus::new(7).tasks().take(200).collect();
    let accuracy = exam::sit(&model, &tasks, 32).await.unwrap();
    assert!(accuracy.share() > 0.74, "{accuracy:?}");
}
